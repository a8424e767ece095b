"""Somebody else's loss against exact answers, by import path: `package.module:function`.

Two kinds. A *pairwise* loss is

    loss(policy_chosen_logps, policy_rejected_logps, reference_chosen_logps, reference_rejected_logps, beta)

with float64 tensors (pairs,) of summed log-probabilities, and returns one loss per pair, (pairs,). If it has parameters
named `chosen_lengths` or `rejected_lengths`, it also gets the numbers of tokens, EOS included, under these names.

A *policy-gradient* loss is

    loss(logps, old_logps, advantages, mask)

with float64 tensors (responses, width), 0 on padding, and returns the mean over the response tokens, ().

If a function returns a tuple, its first element is the loss.
"""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from conformance.answers import Outcomes, Pairs, dpo_loss, ipo_loss, pairs_of, simpo_loss
from conformance.checks import Check, label_probability, minimise, offline_rows, optimum_of, worst
from conformance.exact import LENGTHS, Array, World, logps, total_variation
from conformance.ppo import check_ascent
from conformance.tabular import TabularPolicy, float64
from metaapo.data import DataError

KINDS = ("pairwise", "policy-gradient")
OPTIMA = ("kl", "ipo", "simpo", "none")
FORMULAS: dict[str, Callable[[Pairs, float], Array]] = {"dpo": dpo_loss, "ipo": ipo_loss, "simpo": simpo_loss}
STEP = 1e-5  # of central differences; their error is about its square

Loss = Callable[..., Any]


def load(path: str) -> Loss:
    """Import a function by `package.module:function`.

    Raises:
        DataError: not of this form, no such module, or no such function.
    """
    module_name, colon, name = path.partition(":")
    if not (colon and module_name and name):
        raise DataError(f"{path}: expected package.module:function, such as my_package.my_loss:dpo_like")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # anything may go wrong in a module that is not ours
        raise DataError(
            f"{path}: importing {module_name} failed with {type(error).__name__}: {error}; "
            "start Python where it can be imported, or set PYTHONPATH"
        ) from error
    loss = getattr(module, name, None)
    if not callable(loss):
        found = "is not a function" if hasattr(module, name) else "does not exist"
        raise DataError(f"{path}: {name} {found} in {module.__file__ or module_name}")
    return loss


def check_loss(path: str, kind: str, world: World, beta: float, optimum: str, formula: str | None) -> list[Check]:
    """Run all checks of a loss.

    Args:
        path: its import path.
        kind: one of `KINDS`.
        world: the enumerable world.
        beta: passed to a pairwise loss, and the KL coefficient of a policy gradient.
        optimum: where training with exact preferences or rewards must end, one of `OPTIMA`.
        formula: a name from `FORMULAS` that every single loss must equal; None: none.

    Raises:
        DataError: the loss cannot be imported, or the kind has no such optimum or formula.
    """
    loss = load(path)
    if kind == "policy-gradient":
        if optimum not in ("kl", "none") or formula:
            raise DataError(f"--kind {kind} has --optimum kl or none, and no --equals")
        checks = {"kl optimum": lambda: check_ascent(world, lambda *columns: (_first(loss(*columns)),), beta)}
    else:
        pairwise = Pairwise(loss, world, beta)
        checks = {
            "a loss per pair": pairwise.check_shape,
            "each pair alone": pairwise.check_independence,
            "gradient": pairwise.check_gradient,
        }
        if formula:
            checks[f"equals {formula}"] = lambda: pairwise.check_formula(FORMULAS[formula])
        checks[f"{optimum} optimum"] = lambda: pairwise.check_optimum(optimum)
    return [_attempt(path, name, compute) for name, compute in checks.items() if name != "none optimum"]


def _attempt(path: str, name: str, compute: Callable[[], float]) -> Check:
    try:
        with float64():
            return Check(path, name, compute())
    except Exception as error:  # whatever the loss raises is its failure, not the kit's
        return Check(path, name, math.inf, note=f"{type(error).__name__}: {error}")


def _first(returned: Any) -> Tensor:
    return returned[0] if isinstance(returned, tuple) else returned


class Pairwise:
    """A pairwise loss in the enumerable world: all ordered pairs of different responses to all prompts."""

    def __init__(self, loss: Loss, world: World, beta: float) -> None:
        self.loss, self.world, self.beta = loss, world, beta
        rows = offline_rows()
        self.probability = torch.tensor([label_probability(world, row) for row in rows], dtype=torch.float64)
        prompt, chosen, rejected = (
            np.array([getattr(row, name) for row in rows]) for name in ("prompt", "chosen", "rejected")
        )
        self.rows = Outcomes(prompt, chosen, rejected, chosen, rejected, chosen)
        lengths = {"chosen_lengths": LENGTHS[chosen], "rejected_lengths": LENGTHS[rejected]}
        asked = inspect.signature(loss).parameters
        self.lengths = {name: torch.tensor(column) for name, column in lengths.items() if name in asked}
        self.reference = self._sides(torch.from_numpy(logps(world.reference)))

    def _sides(self, table: Tensor) -> tuple[Tensor, Tensor]:
        """Chosen and rejected columns, (pairs,) each, of a table (prompts, responses)."""
        return table[self.rows.prompt, self.rows.chosen], table[self.rows.prompt, self.rows.rejected]

    def losses(self, chosen: Tensor, rejected: Tensor, rows: slice = slice(None)) -> Tensor:
        """The losses of some of the pairs, given the policy's log-probabilities of all of them."""
        columns = (chosen, rejected, *self.reference)
        lengths = {name: column[rows] for name, column in self.lengths.items()}
        return _first(self.loss(*(column[rows] for column in columns), self.beta, **lengths))

    def _policy_sides(self) -> tuple[Tensor, Tensor]:
        return self._sides(torch.from_numpy(logps(self.world.policy)))

    def check_shape(self) -> float:
        """One finite loss per pair."""
        losses = self.losses(*self._policy_sides())
        return 0.0 if losses.shape == self.probability.shape and bool(losses.isfinite().all()) else math.inf

    def check_independence(self) -> float:
        """A pair's loss must not depend on the other pairs of its batch."""
        sides = self._policy_sides()
        alone = torch.cat([self.losses(*sides, slice(i, i + 1)).reshape(1) for i in range(len(self.probability))])
        return worst(self.losses(*sides), alone)

    def check_gradient(self) -> float:
        """Automatic derivatives against central differences: nothing that depends on the policy is held constant."""
        sides = [side.clone().requires_grad_() for side in self._policy_sides()]
        slopes = torch.autograd.grad(self.losses(*sides).sum(), sides, allow_unused=True)
        ours = [torch.zeros_like(side) if slope is None else slope for side, slope in zip(sides, slopes)]
        with torch.no_grad():
            chosen, rejected = self._policy_sides()
            both = (
                self.losses(chosen + STEP, rejected) - self.losses(chosen - STEP, rejected),
                self.losses(chosen, rejected + STEP) - self.losses(chosen, rejected - STEP),
            )
        return max(worst(own, difference / (2 * STEP)) for own, difference in zip(ours, both))

    def check_formula(self, formula: Callable[[Pairs, float], Array]) -> float:
        """Each loss against the paper's formula."""
        pairs = pairs_of(self.world, self.rows, self.world.policy, self.rows.chosen, self.rows.rejected)
        return worst(self.losses(*self._policy_sides()), formula(pairs, self.beta))

    def check_optimum(self, optimum: str) -> float:
        """Total variation between the optimum and the policy trained on all pairs with their exact preferences."""
        policy = TabularPolicy(self.world.policy)

        def expected_loss() -> Tensor:
            return (self.losses(*self._sides(policy.response_logps())) * self.probability).sum()

        minimise(expected_loss, policy)
        return total_variation(policy.probabilities(), optimum_of(self.world, optimum, self.beta))
