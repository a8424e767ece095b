"""AlpacaEval 2: win rates against a baseline, length-controlled."""
