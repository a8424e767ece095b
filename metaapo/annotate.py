"""Annotation: a reward model scores sampled responses, best and worst make the online pair, the ledger counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from metaapo.data import DataError, Message
from metaapo.logps import IntList
from metaapo.models import encode_prompt, encode_response


@dataclass(frozen=True)
class OnlinePair:
    """The pair that annotation made of a prompt's candidates.

    Attributes:
        chosen: index of the best candidate.
        rejected: index of the worst candidate.
        outcome: "pair"; or, carrying no information, "tie" (all rewards equal) or "identical" (all texts equal).
    """

    chosen: int
    rejected: int
    outcome: str


def best_worst(texts: Sequence[str], rewards: Sequence[float]) -> OnlinePair:
    """Make the pair of the highest- and the lowest-rewarded candidate; the earlier one wins a draw.

    Args:
        texts: the candidates of one prompt, at least two.
        rewards: their rewards, same order.

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


@torch.no_grad()
def _rewards(model: PreTrainedModel, sequences: list[IntList], pad_id: int, batch_size: int) -> list[float]:
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    rewards = [0.0] * len(sequences)
    starts = range(0, len(order), batch_size)
    for start in tqdm(starts, desc="annotating", unit="batch", leave=False, disable=None):
        rows = order[start : start + batch_size]
        width = len(sequences[rows[-1]])
        ids = torch.tensor([[*sequences[i], *[pad_id] * (width - len(sequences[i]))] for i in rows])
        mask = torch.tensor([[1] * len(sequences[i]) + [0] * (width - len(sequences[i])) for i in rows])
        logits = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False).logits
        for i, reward in zip(rows, logits.squeeze(-1).float().tolist()):
            rewards[i] = reward
    return rewards


def reward_responses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[list[Message]],
    responses: Sequence[Sequence[str]],
    batch_size: int = 256,
) -> tuple[list[list[float]], int]:
    """Score responses with the reward model; equal texts for one prompt are scored once.

    Args:
        model: a sequence-classification model with one output.
        tokenizer: its tokenizer.
        conversations: the prompts.
        responses: the candidates of each prompt.
        batch_size: sequences a forward pass.

    Returns:
        the rewards, same shape as `responses`, and the number of reward-model calls that were needed.
    """
    place: dict[tuple[int, str], int] = {}
    sequences: list[IntList] = []
    for i, (messages, texts) in enumerate(zip(conversations, responses, strict=True)):
        prompt = encode_prompt(tokenizer, messages)
        for text in texts:
            if (i, text) not in place:
                place[i, text] = len(sequences)
                sequences.append([*prompt, *encode_response(tokenizer, text)])
    rewards = _rewards(model, sequences, tokenizer.pad_token_id, batch_size)
    return [[rewards[place[i, text]] for text in texts] for i, texts in enumerate(responses)], len(sequences)
