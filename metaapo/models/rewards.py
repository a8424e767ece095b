"""Score responses with a reward model; batching does not change the scores, and equal texts are scored once."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

import torch
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from metaapo.data import Message
from metaapo.models.load import encode_prompts, encode_responses
from metaapo.models.logps import IntList, collate, hidden_states, length_batches


@torch.no_grad()
def _rewards(
    model: PreTrainedModel,
    prompts: list[IntList],
    responses: list[IntList],
    pad_id: int,
    batch_size: int,
    batch_tokens: int = 0,
) -> list[float]:
    rewards = torch.zeros(len(prompts))
    batches = length_batches(prompts, responses, batch_size, batch_tokens)
    for rows in tqdm(batches, desc="annotating", unit="batch", leave=False, mininterval=5):
        batch = collate([prompts[i] for i in rows], [responses[i] for i in rows], pad_id)
        states = hidden_states(model, batch)
        rewards[rows] = model.score(states[batch.ends.to(states.device)]).squeeze(-1).float().cpu()
    return rewards.tolist()


def reward_responses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[list[Message]],
    responses: Sequence[Sequence[str]],
    batch_size: int = 256,
    batch_tokens: int = 0,
) -> tuple[list[list[float]], int]:
    """Score responses with the reward model; equal texts for one prompt are scored once.

    Args:
        model: a sequence-classification model with one output.
        tokenizer: its tokenizer.
        conversations: the prompts.
        responses: the candidates of each prompt.
        batch_size: sequences per forward pass.
        batch_tokens: tokens per forward pass, unless a single sequence has more; 0: any number.

    Returns:
        the rewards, same shape as `responses`, and the number of texts the reward model scored.
    """
    index: dict[tuple[int, str], int] = {}
    prompts: list[IntList] = []
    endings: list[str] = []
    for i, (prompt, texts) in enumerate(zip(encode_prompts(tokenizer, conversations), responses, strict=True)):
        for text in dict.fromkeys(texts):
            index[i, text] = len(prompts)
            prompts.append(prompt)
            endings.append(text)
    sizes = (tokenizer.pad_token_id, batch_size, batch_tokens)
    rewards = _rewards(model, prompts, encode_responses(tokenizer, endings), *sizes)
    return [[rewards[index[i, text]] for text in texts] for i, texts in enumerate(responses)], len(prompts)


def with_errors(
    rewards: Sequence[Sequence[float]],
    conversations: Sequence[Sequence[Message]],
    texts: Sequence[Sequence[str]],
    noise: float,
) -> list[list[float]]:
    """Rewards of an annotator that errs more: each has a normal error that its conversation and text determine.

    Args:
        rewards: per conversation, one for each text.
        conversations: each ends with a user turn.
        texts: the responses, same shape as `rewards`.
        noise: standard deviation of the errors, >= 0.
    """
    if not noise:
        return [list(row) for row in rewards]
    return [
        [
            reward + noise * random.Random(json.dumps([messages, text], sort_keys=True)).gauss(0.0, 1.0)
            for reward, text in zip(row, own, strict=True)
        ]
        for row, messages, own in zip(rewards, conversations, texts, strict=True)
    ]
