"""The training loop that all preference methods share: score, select, sample, annotate, train."""
