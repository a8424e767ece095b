"""Testing at several looks without a higher error rate: nominal levels of a group-sequential design for t statistics.

An experiment that tests after 6, 9, 12 and 18 worlds and stops at the first p-value below 2.5 % is wrong in more than
2.5 % of cases. A registered design tests each look at a lower *nominal* level instead, so that all looks together reach
the *overall* one. How much of it is spent by which look is a function of the share of the replicates (Lan & DeMets,
Biometrika 70, 1983): like O'Brien and Fleming's, late, or like Pocock's, about equally.

**Small samples.** With a known variance the levels follow from the multivariate normal distribution. Here the variance
is estimated anew at each look from 6, 9, ... replicates, so the joint distribution of the t statistics' p-values is
simulated. The nominal level a_k solves

    a_k = (spent up to look k) - (spent up to look k - 1) + P(p_k <= a_k and crossed before),

in which only the last term, the overlap, is simulated; without it a_k is Bonferroni's share, which is always valid. The
overlap is reduced by two standard errors of the simulation, so its error can only make a test stricter.

**One number per test.** `Boundary.overall` turns the p-value of a look into the smallest overall level at which the
design would reject at this look. The smallest over the looks so far is a p-value of the whole design (Liu & Anderson,
JASA 103, 2008), so that Holm's and Hochberg's corrections apply to it as to any other (Maurer & Bretz, Statistics in
Biopharmaceutical Research 5, 2013). Since it cannot grow, what is rejected at a look remains so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtr

Floats = NDArray[np.float64]
Spending = Literal["obrien_fleming", "pocock"]

SIMULATED = 300_000
# Overall levels between which nominal ones are interpolated. Overall p-values stop at the lowest, which is still 0.025
# after Bonferroni's correction over 250 tests.
LEVELS = np.append(np.geomspace(1e-4, 0.5, 80), 1.0)


@dataclass(frozen=True)
class Boundary:
    """The nominal levels of one look.

    Attributes:
        nominal: (levels,), one-sided, for each overall level of LEVELS; not decreasing.
    """

    nominal: Floats = field(repr=False)

    def overall(self, p_value: float) -> float:
        """The smallest overall level at which a one-sided p-value of this look is rejected; at least LEVELS[0]."""
        if p_value <= self.nominal[0]:
            return float(LEVELS[0])
        return float(np.exp(np.interp(math.log(p_value), np.log(self.nominal), np.log(LEVELS))))

    def level(self, overall: float) -> float:
        """The nominal level of this look at an overall level."""
        return float(np.exp(np.interp(math.log(overall), np.log(LEVELS), np.log(self.nominal))))


@dataclass(frozen=True)
class Look:
    """One of the registered looks.

    Attributes:
        number: counted from 1.
        n: replicates (worlds or seeds) that it tests.
        looks: replicates of all looks.
        boundary: None if there is only one look, so that nominal and overall levels are the same.
    """

    number: int
    n: int
    looks: tuple[int, ...]
    boundary: Boundary | None

    def overall(self, p_value: float) -> float:
        """See `Boundary.overall`."""
        return self.boundary.overall(p_value) if self.boundary else p_value

    def level(self, overall: float) -> float:
        """See `Boundary.level`."""
        return self.boundary.level(overall) if self.boundary else overall


FIXED = Look(1, 0, (), None)  # the only test of an experiment without registered looks


def looks_of(looks: Sequence[int], spending: Spending) -> list[Look]:
    """The looks of a design; only FIXED if none are registered.

    Args:
        looks: replicates of each look, ascending, at least 2.
        spending: how the looks share the error rate.
    """
    if not looks:
        return [FIXED]
    numbers = tuple(looks)
    bounds = boundaries(numbers, spending) if len(numbers) > 1 else [None]
    return [Look(k, n, numbers, bound) for k, (n, bound) in enumerate(zip(numbers, bounds), start=1)]


def spent(level: Floats, share: float, spending: Spending) -> Floats:
    """The part of an overall one-sided level that is spent by the time a share (0 to 1) of the replicates is there."""
    if spending == "pocock":
        return level * math.log1p((math.e - 1) * share)
    return 2 * ndtr(ndtri(level / 2) / math.sqrt(share))


@lru_cache(maxsize=8)
def boundaries(looks: tuple[int, ...], spending: Spending) -> list[Boundary]:
    """The nominal levels of each look, from a simulation with a fixed seed (less than a second)."""
    p_values = _null_p_values(looks)
    shares = [n / looks[-1] for n in looks]
    nominal = np.empty((len(looks), len(LEVELS)))
    for j, level in enumerate(LEVELS):
        totals = [float(spent(level, share, spending)) for share in shares]
        crossed = np.zeros(SIMULATED, bool)
        for k, (total, before) in enumerate(zip(totals, [0.0, *totals])):
            nominal[k, j] = _level(total - before, np.sort(p_values[k][crossed]))
            crossed |= p_values[k] <= nominal[k, j]
    nominal[:, -1] = 1.0
    return [Boundary(np.maximum.accumulate(row)) for row in nominal]


def _level(increment: float, crossed: Floats) -> float:
    """Solve a = increment + overlap(a), whose right side grows with a; `crossed`: sorted p-values of crossed paths."""
    level, previous = increment, -1.0
    while level > previous:
        previous, count = level, int(np.searchsorted(crossed, level, side="right"))
        level = max(level, increment + max(0.0, count - 2 * math.sqrt(count)) / SIMULATED)
    return min(level, 1.0)


def _null_p_values(looks: tuple[int, ...]) -> list[Floats]:
    """One-sided p-values of Student's test at each look, (SIMULATED,) each, for growing samples of the null."""
    rng = np.random.default_rng(0)
    n, total, squares, found = 0, np.zeros(SIMULATED), np.zeros(SIMULATED), []
    for look in looks:
        more = look - n
        added = math.sqrt(more) * rng.standard_normal(SIMULATED)
        squares += rng.chisquare(more - 1, SIMULATED) if more > 1 else 0.0
        if n:  # the squared distance between the old and the new replicates' means
            squares += (added / more - total / n) ** 2 * n * more / look
        n, total = look, total + added
        found.append(stdtr(n - 1, -total / np.sqrt(n * squares / (n - 1))))
    return found
