"""MetaAPO (arXiv 2509.23371) and the training loop it shares with its baselines."""

from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent  # the folder that contains the Snakefile
