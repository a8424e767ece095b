"""Selection: which prompts get online samples. Pure functions of scores, a budget and a random stream."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Selection:
    """Which prompts of an iteration get online samples.

    Attributes:
        sampled: bool (n,).
        probability: float (n,), in [0, 1]: each prompt's probability of being sampled, for the ledger.
    """

    sampled: NDArray[np.bool_]
    probability: Floats


def none(n: int) -> Selection:
    """Select no prompt, as offline methods do."""
    return Selection(np.zeros(n, bool), np.zeros(n))


def random_fraction(n: int, fraction: float, rng: np.random.Generator) -> Selection:
    """Select a random subset of exactly round(fraction * n) prompts; fraction 1 selects all.

    Args:
        n: number of prompts in the iteration.
        fraction: in [0, 1].
        rng: the run's random stream.
    """
    sampled = np.zeros(n, bool)
    sampled[rng.permutation(n)[: round(fraction * n)]] = True
    return Selection(sampled, np.full(n, fraction, float))


def by_probability(probability: Floats, budget: float, rng: np.random.Generator) -> Selection:
    """Select each prompt independently with its own probability: u < p; for MetaAPO, u > w with p = 1 - w.

    If the expected fraction exceeds the budget, all probabilities are scaled down by the same factor, which preserves
    their order.

    Args:
        probability: float (n,), in [0, 1].
        budget: in (0, 1]; 1 changes nothing.
        rng: the run's random stream.
    """
    mean = float(np.mean(probability))
    scaled = probability * min(1.0, budget / mean) if mean > 0 else probability
    return Selection(rng.random(len(scaled)) < scaled, scaled)


def by_priority(priority: Floats, threshold: float, budget: float, rng: np.random.Generator) -> Selection:
    """Select prompts whose priority reaches a threshold, highest priorities first, within the budget.

    Args:
        priority: float (n,).
        threshold: lowest priority to sample.
        budget: in (0, 1]; at most round(budget * n) prompts are sampled.
        rng: the run's random stream, used to break ties.
    """
    n = len(priority)
    order = np.lexsort((rng.permutation(n), -priority))
    sampled = np.zeros(n, bool)
    sampled[order[: round(budget * n)]] = True
    sampled &= priority >= threshold
    return Selection(sampled, sampled.astype(float))
