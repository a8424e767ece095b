"""Command line of Arena-Hard's scorer: `python -m eval.arenahard score --help`."""

import sys

from eval.arenahard.score import main

sys.exit(main())
