"""MetaAPO (arXiv 2509.23371) and the training loop that it shares with its baselines."""
