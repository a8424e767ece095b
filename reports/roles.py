"""Which entry of a configuration has which role in the comparison, as declared by the methods' modules.

An entry with the same name as a module represents that method, even if it is a released checkpoint. Any other entry has
the role of the module it uses, unless the configuration sets another one (`role`).
"""

from __future__ import annotations

from collections.abc import Callable

from metaapo.experiment import Experiment
from metaapo.method import Declaration, known_declarations

FAMILIES = ("offline", "online", "hybrid")
Test = Callable[[Declaration], bool]


def full_budget(declaration: Declaration) -> bool:
    """Whether all K responses to every prompt are annotated, which is the unit of annotation ratios."""
    return declaration.full_budget


def matched_random(declaration: Declaration) -> bool:
    """Whether the method samples as many prompts as the method under test, at random."""
    return declaration.matched_random


def required(declaration: Declaration) -> bool:
    """Whether claim C1 cannot be supported without the method."""
    return declaration.required


def shows_signal(declaration: Declaration) -> bool:
    """Whether the method must beat the SFT policy if there is anything to learn."""
    return declaration.shows_signal


def modules_that(test: Test) -> list[str]:
    """Names of the method modules whose declaration passes a test, sorted by family, then by name."""
    found = [
        (FAMILIES.index(declared.family), name) for name, declared in known_declarations().items() if test(declared)
    ]
    return [name for _, name in sorted(found)]


def declaration(experiment: Experiment, method: str) -> Declaration:
    """The declaration of the method that an entry of the configuration represents."""
    known = known_declarations()
    return known[method if method in known else experiment.methods[method].module]


def baselines(experiment: Experiment) -> list[str]:
    """The baselines of claim C1, sorted by family, then in the order of the configuration."""
    found = [
        name
        for name, entry in experiment.methods.items()
        if (entry.role or declaration(experiment, name).role) == "baseline"
    ]
    return sorted(found, key=lambda name: FAMILIES.index(declaration(experiment, name).family))


def first_of_module(experiment: Experiment, module: str) -> str | None:
    """The first entry trained by a method's module; None if there is none."""
    return next((name for name, entry in experiment.methods.items() if (entry.module or name) == module), None)


def first_that(experiment: Experiment, test: Test) -> str | None:
    """The first entry whose declaration passes a test, preferring one with the same name as its module.

    None if there is no such entry.
    """
    found = [name for name in experiment.methods if test(declaration(experiment, name))]
    return min(found, key=lambda name: name not in known_declarations(), default=None)
