"""What the commands of this project share: an error of the user's is one sentence, not a traceback."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from metaapo.data import DataError, write_json


def experiment_arguments(description: str) -> argparse.ArgumentParser:
    """A command line with --config."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config", required=True, help="the experiment's configuration file")
    return parser


def world_arguments(description: str) -> argparse.ArgumentParser:
    """A command line with --config and --world."""
    parser = experiment_arguments(description)
    parser.add_argument("--world", type=int, required=True, help="the world's seed")
    return parser


def seed_argument(text: str) -> int:
    """An argument that is a seed: a whole number of 0 or more, below 2^32."""
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is no seed; expected a whole number from 0 to 2^32 - 1")
    return value


def share_argument(text: str) -> float:
    """An argument that is a share, from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share; expected a number from 0 to 1")
    return value


@contextmanager
def errors_in_one_sentence() -> Iterator[None]:
    """End the command with "error: ..." and exit status 1 where files or configuration are not what was expected."""
    try:
        yield
    except DataError as error:
        sys.exit(f"error: {error}")


def print_score(compute: Callable[[], dict[str, Any]], out: str | None) -> int:
    """Print a scorer's JSON object on stdout, and write it to `out` where that is given.

    Returns:
        the exit status: 2, and one sentence on stderr, where the files are not what was expected.
    """
    try:
        result = compute()
        if out:
            write_json(out, result)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False))
    return 0
