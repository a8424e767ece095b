"""Run the checks of methods, found as the configuration finds them."""

from __future__ import annotations

import math
from pathlib import Path

from conformance import checks
from conformance.answers import CASES
from conformance.checks import Check
from conformance.exact import World, make_world
from metaapo.data import DataError
from metaapo.method import declaration_of, known_methods, method_module


def cases_of(method: str) -> list[str]:
    """Names of the cases of a method's module."""
    return [name for name, case in CASES.items() if case.module == method]


def check_method(method: str, folder: Path, world: World | None = None) -> list[Check]:
    """Run all checks of a method; an error in its code is a failed check.

    Args:
        method: a name from `known_methods`.
        folder: for temporary files.
        world: None: the default one.

    Raises:
        DataError: no such method.
    """
    if method not in known_methods():
        raise DataError(f"{method}: no such method; expected one of {', '.join(known_methods())}")
    if not declaration_of(method).trains:
        return [Check(method, "-", None, note="trains nothing")]
    world = world or make_world()
    if hasattr(method_module(method), "train"):
        return [Check(method, "-", None, note="trains in a loop of its own, and has no exact answer")]
    if not cases_of(method):
        return [Check(method, "-", None, note="has no exact answer; add a case to conformance/answers.py")]
    return [check for name in cases_of(method) for check in _check_case(name, world, folder / name)]


def _check_case(name: str, world: World, folder: Path) -> list[Check]:
    try:
        return checks.check_case(name, CASES[name], world, folder)
    except Exception as error:  # whatever a method's code raises is its failure, not the kit's
        return [Check(name, "runs", math.inf, note=f"{type(error).__name__}: {error}")]
