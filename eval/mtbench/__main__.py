"""Command line of MT-Bench's scorer: `python -m eval.mtbench score --help`."""

import sys

from eval.mtbench.score import main

sys.exit(main())
