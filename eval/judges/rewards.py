"""Turn rewards into judgments: preferences, verdicts and grades from one number per answer.

P(first is better) = sigmoid((r_first - r_second) / tau), the Bradley-Terry model. Such a judge has no position bias:
swapping the answers swaps its judgment.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# Preference probabilities required for the verdicts "better" and "much better". At the gold judge's tau of 0.5 they
# correspond to reward gaps of 0.2 and 1.1, in a range of 4.
BETTER, MUCH_BETTER = 0.6, 0.9
LOWEST_GRADE, HIGHEST_GRADE = 1, 10


@dataclass(frozen=True)
class Scale:
    """The unit of a reward.

    Attributes:
        tau: the gap at which the better answer is preferred with probability 0.73.
        low: the reward that gets the lowest grade.
        high: the reward that gets the highest grade.
    """

    tau: float
    low: float
    high: float


def probability_first(first: float, second: float, scale: Scale) -> float:
    """Probability in [0, 1] that the first answer is preferred, given both rewards."""
    gap = (first - second) / scale.tau
    return 1 / (1 + math.exp(-gap)) if gap >= 0 else 1 - 1 / (1 + math.exp(gap))


def preference(first: float, second: float, scale: Scale) -> float:
    """AlpacaEval's preference in [1, 2]: 1 + the probability that the second answer is preferred."""
    return 2 - probability_first(first, second, scale)


def verdict(first: float, second: float, scale: Scale) -> str:
    """Arena-Hard's verdict, with the first answer as A."""
    p = probability_first(first, second, scale)
    better = max(p, 1 - p)
    if better < BETTER:
        return "A=B"
    sign = ">>" if better >= MUCH_BETTER else ">"
    return f"A{sign}B" if p > 0.5 else f"B{sign}A"


def grade(reward: float, scale: Scale) -> float:
    """MT-Bench's grade from 1 to 10, linear in the reward, to one decimal."""
    share = min(1.0, max(0.0, (reward - scale.low) / (scale.high - scale.low)))
    return round(LOWEST_GRADE + share * (HIGHEST_GRADE - LOWEST_GRADE), 1)
