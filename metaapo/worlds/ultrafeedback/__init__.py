"""A world of real preference pairs in UltraFeedback's layout, with released checkpoints."""
