"""Helpers shared by the command-line programs; user errors are reported in one sentence, without a traceback."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from metaapo.arithmetic import pin_arithmetic
from metaapo.data import DataError, write_json
from metaapo.experiment import Experiment, load


def experiment_arguments(description: str) -> argparse.ArgumentParser:
    """Build a command-line parser with --config."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config", required=True, help="the experiment's configuration file")
    return parser


def world_arguments(description: str) -> argparse.ArgumentParser:
    """Build a command-line parser with --config and --world."""
    parser = experiment_arguments(description)
    parser.add_argument("--world", type=int, required=True, help="the world's seed")
    return parser


def seed_argument(text: str) -> int:
    """Parse a seed: an integer from 0 to 2^32 - 1."""
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a valid seed; expected an integer from 0 to 2^32 - 1")
    return value


def share_argument(text: str) -> float:
    """Parse a share, from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a valid share; expected a number from 0 to 1")
    return value


def load_and_pin(path: str) -> Experiment:
    """Read an experiment's configuration, for a command that computes: arithmetic is pinned where it says so.

    Raises:
        ConfigError: the file is no valid experiment.
    """
    experiment = load(path)
    pin_arithmetic(experiment.hardware)
    return experiment


@contextmanager
def errors_in_one_sentence() -> Iterator[None]:
    """Exit with "error: ..." and status 1 if a file or the configuration is not as expected."""
    try:
        yield
    except DataError as error:
        sys.exit(f"error: {error}")


def print_score(compute: Callable[[], dict[str, Any]], out: str | None) -> int:
    """Print a scorer's JSON object on stdout, and also write it to `out` if given.

    Returns:
        the exit status: 0, or 2 with one sentence on stderr if the files are not as expected.
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
