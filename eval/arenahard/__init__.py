"""Arena-Hard: five-level verdicts in two games, style-controlled."""
