"""Command line of AlpacaEval 2's scorer: `python -m eval.alpacaeval2 score --help`."""

import sys

from eval.alpacaeval2.score import main

sys.exit(main())
