"""Command line of MT-Bench's scorer: `python -m eval.mtbench score --help`."""

import sys

from eval.mtbench import score
from metaapo.doors import command_line

sys.exit(command_line("eval.mtbench", score.__doc__, score.add_arguments, score.run, word="score"))
