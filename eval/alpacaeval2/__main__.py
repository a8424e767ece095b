"""Command line of AlpacaEval 2's scorer: `python -m eval.alpacaeval2 score --help`."""

import sys

from eval.alpacaeval2 import score
from metaapo.doors import command_line

sys.exit(command_line("eval.alpacaeval2", score.__doc__, score.add_arguments, score.run, word="score"))
