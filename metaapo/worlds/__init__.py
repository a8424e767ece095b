"""Worlds: where prompts, offline preference pairs, evaluation questions and gold rewards come from."""
