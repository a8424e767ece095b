"""What a preference method decides: its answers to four questions. Everything else is the shared loop.

1. Which prompts are sampled online?           `select`
2. What makes the online pair?                 `candidates`
3. How do offline and online losses mix?       `weigh`, `objective`
4. What else is in the loss, what is learned?  `bonus`, `learner`

A method's page has a `Params` class (its keys in the configuration) and a function `build(params, context) -> Method`.
Pages import torch inside functions only, so that reading a configuration stays fast.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from metaapo.selection import Floats, Selection

if TYPE_CHECKING:
    from torch import Tensor

    from metaapo.losses import PairLogps
    from metaapo.meta_learner import MetaLearner


@dataclass(frozen=True)
class SelectionRequest:
    """What a method may look at when it selects prompts.

    Attributes:
        scores: float (n,), the score of each offline pair of the part under the current policy, <= 0.
        iteration: 1, 2, ...
        budget: cap on the expected fraction of sampled prompts, in (0, 1].
        rng: the random stream of this run, iteration and purpose.
    """

    scores: Floats
    iteration: int
    budget: float
    rng: np.random.Generator


@dataclass(frozen=True)
class Candidates:
    """What the annotator ranks for a selected prompt.

    Attributes:
        k: sampled responses; None takes the configuration's `sampling.k`.
        greedy: take the most probable token instead of sampling.
        with_offline: the offline pair's responses compete too (SELM).
    """

    k: int | None = None
    greedy: bool = False
    with_offline: bool = False


@dataclass(frozen=True)
class Method:
    """A method's decisions.

    Attributes:
        select: which prompts of a part get online samples.
        weigh: offline weight w, float (batch,) in [0, 1], from the score of each offline pair under the current policy
            (batch,), detached; the loss of a prompt is w * L_off + (1 - w) * L_on, a missing pair's loss being 0.
        objective: a name in `metaapo.losses.OBJECTIVES`.
        score: score of offline pairs, (batch,), from their log-probabilities and beta; None: minus the loss.
        candidates: what the annotator ranks.
        bonus: a term added to the loss of each online pair, (batch,), from its log-probabilities and the iteration.
        learner: a meta-learner that is trained beside the policy.
        uses_offline: False where w is always 0, which spares the offline pairs' forward pass.
        keep_unsampled: prompts without an online pair stay in training.
        keep_ties: pairs with equal rewards or identical texts stay in training.
    """

    select: Callable[[SelectionRequest], Selection]
    weigh: Callable[[Tensor], Tensor]
    objective: str = "dpo"
    score: Callable[[PairLogps, float], Tensor] | None = None
    candidates: Candidates = Candidates()
    bonus: Callable[[PairLogps, int], Tensor] | None = None
    learner: MetaLearner | None = None
    uses_offline: bool = True
    keep_unsampled: bool = True
    keep_ties: bool = False
