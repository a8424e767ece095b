"""Where the published annotations lie that scoring is checked against: beside the checkout, never inside it."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EVALDATA = ROOT.parent / "shared" / "evaldata"


def shared(name):
    """The path of a shared evaluation file; without it the test is skipped, but fails in CI, which must have it."""
    path = EVALDATA / name
    if not path.exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"the shared evaluation data lack {name}; in CI they must be there")
        pytest.skip(f"the shared evaluation data ({name}) are not beside this checkout")
    return path
