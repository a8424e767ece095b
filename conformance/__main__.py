"""Compare every method with exact answers: `python -m conformance`."""

import sys

from conformance.command import main

sys.exit(main())
