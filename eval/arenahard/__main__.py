"""Command line of Arena-Hard's scorer: `python -m eval.arenahard score --help`."""

import sys

from eval.arenahard import score
from metaapo.doors import command_line

sys.exit(command_line("eval.arenahard", score.__doc__, score.add_arguments, score.run, word="score"))
