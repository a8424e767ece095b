"""Annotation: a reward model scores responses, and the best and the worst form the online pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metaapo.data import DataError
from metaapo.loop.ledger import Outcome
from metaapo.loop.policies import Policies
from metaapo.loop.processes import Processes, together
from metaapo.loop.prompts import Prompt
from metaapo.models.generate import Response
from metaapo.models.rewards import reward_responses, with_errors


@dataclass(frozen=True)
class OnlinePair:
    """The pair formed from a prompt's candidates.

    Attributes:
        chosen: index of the best candidate.
        rejected: index of the worst candidate.
        outcome: "pair", or, if it carries no information, "tie" (all scores equal) or "identical" (all texts equal).
    """

    chosen: int
    rejected: int
    outcome: Outcome


def scores_of(rewards: Sequence[float], responses: Sequence[Response], cut_penalty: float) -> list[float]:
    """Scores by which a prompt's candidates are ranked: their rewards, less the penalty for each that was cut off.

    The reward model reads every text as if it ended there, so without a penalty a response cut off by the length limit
    would pass for a finished one. All methods score by this function.

    Args:
        rewards: of the sampled responses, then of the candidates that were not sampled, which are complete.
        responses: the sampled ones.
        cut_penalty: >= 0, in units of reward.
    """
    complete = [response.finished for response in responses] + [True] * (len(rewards) - len(responses))
    return [reward - (0.0 if whole else cut_penalty) for reward, whole in zip(rewards, complete, strict=True)]


def best_worst(texts: Sequence[str], scores: Sequence[float]) -> OnlinePair:
    """Pair the candidates with the highest and the lowest score; the earlier one wins ties.

    Args:
        texts: the candidates of one prompt, at least two.
        scores: their scores, in the same order.

    Raises:
        DataError: fewer than two candidates, or a score that is not finite.
    """
    if len(texts) < 2 or len(texts) != len(scores):
        raise DataError(f"annotation needs at least 2 responses with a reward each; found {len(texts)}, {len(scores)}")
    if not np.all(np.isfinite(scores)):
        raise DataError("annotation: a reward is not finite; check the reward model's weights and precision")
    best, worst = int(np.argmax(scores)), int(np.argmin(scores))
    if scores[best] == scores[worst]:
        outcome = "tie" if len(set(texts)) > 1 else "identical"
    else:
        outcome = "pair" if texts[best] != texts[worst] else "identical"
    return OnlinePair(best, worst, outcome)


class Annotator:
    """Scores responses with the reward model, dividing the work between a job's processes."""

    def __init__(
        self, policies: Policies, processes: Processes, noise: float, batch_size: int, batch_tokens: int = 0
    ) -> None:
        self.policies, self.processes, self.noise = policies, processes, noise
        self.batch_size, self.batch_tokens = batch_size, batch_tokens

    def rewards(self, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        """Rewards of responses to each prompt, same shape as `texts`."""

        def work(items: Sequence[tuple[Prompt, Sequence[str]]]) -> list[list[float]]:
            messages, responses = [prompt.messages for prompt, _ in items], [texts for _, texts in items]
            model, tokenizer = self.policies.reward_model, self.policies.reward_tokenizer
            with self.processes.arithmetic():
                sizes = (self.batch_size, self.batch_tokens)
                rewards = reward_responses(model, tokenizer, messages, responses, *sizes)[0]
            return with_errors(rewards, messages, responses, self.noise)

        characters = [len(prompt.ids) + sum(map(len, own)) for prompt, own in zip(prompts, texts, strict=True)]
        items = list(zip(prompts, texts, strict=True))
        return self.processes.share(items, work, parts=lambda n: together(range(len(items)), characters, n))
