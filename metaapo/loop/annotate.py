"""Annotation: a reward model scores responses, and the best and the worst form the online pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metaapo.data import DataError
from metaapo.loop.ledger import Outcome
from metaapo.loop.policies import Policies
from metaapo.loop.processes import Processes
from metaapo.loop.prompts import Prompt
from metaapo.models.rewards import reward_responses


@dataclass(frozen=True)
class OnlinePair:
    """The pair formed from a prompt's candidates.

    Attributes:
        chosen: index of the best candidate.
        rejected: index of the worst candidate.
        outcome: "pair", or, if it carries no information, "tie" (all rewards equal) or "identical" (all texts equal).
    """

    chosen: int
    rejected: int
    outcome: Outcome


def best_worst(texts: Sequence[str], rewards: Sequence[float]) -> OnlinePair:
    """Pair the candidates with the highest and the lowest reward; the earlier one wins ties.

    Args:
        texts: the candidates of one prompt, at least two.
        rewards: their rewards, in the same order.

    Raises:
        DataError: fewer than two candidates, or a reward that is not finite.
    """
    if len(texts) < 2 or len(texts) != len(rewards):
        raise DataError(f"annotation needs at least 2 responses with a reward each; found {len(texts)}, {len(rewards)}")
    if not np.all(np.isfinite(rewards)):
        raise DataError("annotation: a reward is not finite; check the reward model's weights and precision")
    best, worst = int(np.argmax(rewards)), int(np.argmin(rewards))
    if rewards[best] == rewards[worst]:
        outcome = "tie" if len(set(texts)) > 1 else "identical"
    else:
        outcome = "pair" if texts[best] != texts[worst] else "identical"
    return OnlinePair(best, worst, outcome)


class Annotator:
    """Scores responses with the reward model, dividing the work between a job's processes."""

    def __init__(self, policies: Policies, processes: Processes, batch_size: int) -> None:
        self.policies, self.processes, self.batch_size = policies, processes, batch_size

    def rewards(self, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        """Rewards of responses to each prompt, same shape as `texts`."""

        def work(items: Sequence[tuple[Prompt, Sequence[str]]]) -> list[list[float]]:
            messages, responses = [prompt.messages for prompt, _ in items], [texts for _, texts in items]
            model, tokenizer = self.policies.reward_model, self.policies.reward_tokenizer
            with self.processes.arithmetic():
                return reward_responses(model, tokenizer, messages, responses, self.batch_size)[0]

        return self.processes.share(list(zip(prompts, texts, strict=True)), work)
