"""Run the checks of methods, found as the configuration finds them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from conformance.answers import CASES
from conformance.checks import Check, check_case
from conformance.exact import World, make_world
from conformance.ppo import check_ppo
from metaapo.data import DataError
from metaapo.method import declaration_of, known_methods

OWN_LOOPS = {"ppo": check_ppo}  # methods that train in a loop of their own


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
    if method in OWN_LOOPS:
        return _attempt(method, lambda: OWN_LOOPS[method](method, world, folder / method))
    names = cases_of(method)
    if not names:
        return [Check(method, "-", None, note="has no exact answer; add a case to conformance/answers.py")]
    return [
        check
        for name in names
        for check in _attempt(name, lambda name=name: check_case(name, CASES[name], world, folder / name))
    ]


def _attempt(subject: str, check: Callable[[], list[Check]]) -> list[Check]:
    try:
        return check()
    except Exception as error:  # whatever a method's code raises is its failure, not the kit's
        return [Check(subject, "runs", math.inf, note=f"{type(error).__name__}: {error}")]
