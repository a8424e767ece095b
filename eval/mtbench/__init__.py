"""MT-Bench: grades of two-turn conversations."""
