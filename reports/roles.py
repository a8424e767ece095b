"""Who plays which part in the comparison: the entries of a configuration by what their modules declare.

An entry that is named like a module stands for that method, whoever trained it: it may be a released checkpoint. Any
other entry takes the role of the module that it names, unless the configuration gives it another one (`role`).
"""

from __future__ import annotations

from collections.abc import Callable

from metaapo.experiment import Experiment
from metaapo.method import Declaration, known_declarations

FAMILIES = ("offline", "online", "hybrid")
Test = Callable[[Declaration], bool]


def full_budget(declaration: Declaration) -> bool:
    """Whether all K responses of every prompt are annotated: the unit of annotation ratios."""
    return declaration.full_budget


def matched_random(declaration: Declaration) -> bool:
    """Whether it samples as many prompts as the method under test, at random."""
    return declaration.matched_random


def required(declaration: Declaration) -> bool:
    """Whether claim C1 cannot be supported without it."""
    return declaration.required


def shows_signal(declaration: Declaration) -> bool:
    """Whether it has to beat the SFT policy if there is anything to learn."""
    return declaration.shows_signal


def modules_that(test: Test) -> list[str]:
    """The names of the method modules whose declaration passes a test, by family, then by name."""
    found = [(FAMILIES.index(own.family), name) for name, own in known_declarations().items() if test(own)]
    return [name for _, name in sorted(found)]


def declaration(experiment: Experiment, method: str) -> Declaration:
    """What an entry of the configuration stands for."""
    known = known_declarations()
    return known[method if method in known else experiment.methods[method].module]


def baselines(experiment: Experiment) -> list[str]:
    """The entries that claim C1 compares with, by family, then in the order of the configuration."""
    found = [
        name
        for name, entry in experiment.methods.items()
        if (entry.role or declaration(experiment, name).role) == "baseline"
    ]
    return sorted(found, key=lambda name: FAMILIES.index(declaration(experiment, name).family))


def first_of_module(experiment: Experiment, module: str) -> str | None:
    """The first entry that a method's module trains; None where the experiment has none."""
    return next((name for name, entry in experiment.methods.items() if (entry.module or name) == module), None)


def first_that(experiment: Experiment, test: Test) -> str | None:
    """The entry that plays a part of which a comparison needs one, preferably one that is named like its module.

    None where there is no such entry.
    """
    found = [name for name in experiment.methods if test(declaration(experiment, name))]
    return min(found, key=lambda name: name not in known_declarations(), default=None)
