"""AlpacaEval's preferences: which answer is shown first, and how the judge's token is read."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

from scipy.special import expit

ROUNDING = 0.01  # above 0; half-precision servers report certain tokens a little above it


def is_switched(instruction: str, seed: int = 0) -> bool:
    """Whether upstream shows the judge output_2 first, decided by the instruction alone.

    The judge's preference must then be reversed: 3 - preference.
    """
    return random.Random(f"is_switched_outputs{instruction}{seed}").choices([False, True])[0]


def preference_from_logprobs(
    top_logprobs: Mapping[str, float] | Sequence[Mapping[str, Any]], switched: bool = False
) -> float:
    """The weighted preference in the judge's one token: 1 prefers output_1, 2 prefers output_2.

    Args:
        top_logprobs: natural log-probabilities of the likeliest tokens, as {token: logprob} or as OpenAI's list of
            {token, logprob}. The answer in the first slot is called "m", the one in the second "M".
        switched: whether output_2 was shown in the first slot (`is_switched`).

    Returns:
        2 - P(m) / (P(m) + P(M)), reversed if switched; a missing token has probability 0; NaN if both are missing, or
        if one of the two is no log-probability.

    >>> preference_from_logprobs({"m": math.log(0.2), "M": math.log(0.6)})
    1.75
    """
    if not isinstance(top_logprobs, Mapping):
        top_logprobs = {entry["token"]: entry["logprob"] for entry in top_logprobs}
    first, second = (top_logprobs.get(token, -math.inf) for token in ("m", "M"))
    if max(first, second) == -math.inf or not (_is_logprob(first) and _is_logprob(second)):
        return math.nan
    preference = 2 - float(expit(first - second))  # P(m) / (P(m) + P(M)) without under- or overflow
    return 3 - preference if switched else preference


def _is_logprob(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value <= ROUNDING
