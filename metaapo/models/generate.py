"""Response sampling: K responses per prompt behind one function.

The transformers backend decodes the K responses to a prompt as one tree: they share one row of the batch and the
prompt's keys and values, and a mask lets each see only its own tokens, as in `metaapo.models.logps`. Finished
responses leave their row, and finished rows leave the batch. The vLLM backend reads a checkpoint from disk, in a
separate process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from metaapo.config import SamplingConfig, VLLMConfig
from metaapo.data import DataError, Message
from metaapo.models import vllm_backend
from metaapo.models.kv_cache import GrowingCache
from metaapo.models.load import decode_responses, encode_prompts
from metaapo.models.logps import PROMPT, IntList
from metaapo.models.vllm_backend import Engine

COMPACT_BELOW = 0.75  # finished rows leave the batch when they are a quarter of it: selecting rows copies the cache
NOBODY = -2  # owner of padding, which no response sees


@dataclass(frozen=True)
class Response:
    """One sampled response.

    Attributes:
        text: decoded, without special tokens.
        token_ids: sampled ids; ends with EOS where the response finished.
        logps: log-probability of each sampled id under the policy at temperature 1, <= 0.
        finished: False where the length limit cut the response.
    """

    text: str
    token_ids: list[int]
    logps: list[float]
    finished: bool


def generate(
    model: PreTrainedModel | Path | Engine,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[list[Message]],
    n: int,
    temperature: float | Sequence[float],
    top_p: float,
    max_new_tokens: int | Sequence[int],
    batch_size: int,
    seed: int | Sequence[int],
    engine: VLLMConfig | None = None,
) -> list[list[Response]]:
    """Sample responses to conversations.

    Args:
        model: the policy; or its checkpoint's folder, from which vLLM samples; or an engine kept for several calls.
        tokenizer: its tokenizer, whose chat template is applied once.
        conversations: prompts, each a list of messages that ends with a user turn.
        n: responses per prompt.
        temperature: >= 0, of all conversations or of each; 0 takes the most probable token.
        top_p: in (0, 1]; smallest set of tokens with this probability.
        max_new_tokens: a response is cut after so many tokens, in all conversations or in each.
        batch_size: sequences decoded side by side; to rounding, the responses do not depend on it.
        seed: of the random streams, one per conversation; or the seed of each conversation's own stream, so that its
            responses do not depend on what else is asked. The same call gives the same responses.
        engine: how vLLM runs, where the model is a folder.

    Returns:
        n responses for each conversation, in the order given.

    Raises:
        DataError: a prompt and its response do not fit into the model's context.
    """
    prompts = encode_prompts(tokenizer, conversations)
    limits = _of_each(max_new_tokens, len(prompts))
    if isinstance(model, Path):
        with Engine(model, engine or VLLMConfig()) as own:
            return _from_engine(own, tokenizer, prompts, n, temperature, top_p, limits, seed)
    if isinstance(model, Engine):
        return _from_engine(model, tokenizer, prompts, n, temperature, top_p, limits, seed)
    _check_context(getattr(model.config, "max_position_embeddings", None), prompts, limits)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    step = max(1, batch_size // n)
    temperatures = _of_each(temperature, len(prompts))
    streams = [(seed, i) for i in range(len(prompts))] if isinstance(seed, int) else [(own, 0) for own in seed]
    responses: list[list[Response]] = [[] for _ in prompts]
    for start in tqdm(range(0, len(order), step), desc="sampling", unit="batch", leave=False, mininterval=5):
        rows = order[start : start + step]
        warmth = torch.tensor([temperatures[i] for i in rows], device=model.device)
        ends = [limits[i] for i in rows]
        draws = _draws([streams[i] for i in rows], n, ends).to(model.device) if warmth.any() else None
        decoded = _decode(model, tokenizer, [prompts[i] for i in rows], n, ends, warmth, top_p, draws)
        for i, (ids, logps) in zip(rows, decoded):
            responses[i] = _responses(tokenizer, ids, logps)
    return responses


def _from_engine(
    engine: Engine,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    n: int,
    temperature: float | Sequence[float],
    top_p: float,
    limits: Sequence[int],
    seed: int | Sequence[int],
) -> list[list[Response]]:
    _check_context(vllm_backend.context_of(engine.checkpoint), prompts, limits)
    temperatures, seeds = _of_each(temperature, len(prompts)), _of_each(seed, len(prompts))
    request = vllm_backend.Request(prompts, n, temperatures, top_p, limits, tokenizer.eos_token_id, seeds)
    rows = engine.sample(request)
    return [_responses(tokenizer, [r["ids"] for r in row], [r["logps"] for r in row]) for row in rows]


def _of_each(value: Any, n: int) -> Sequence[Any]:
    """The value of each of n conversations."""
    return [value] * n if isinstance(value, int | float) else value


def _draws(streams: Sequence[tuple[int, int]], n: int, limits: Sequence[int]) -> Tensor:
    """Uniform numbers, float32 (prompts, n, most tokens); every prompt has its own counter-based, cheap stream."""
    draws = np.zeros((len(streams), n, max(limits)), np.float32)
    for row, (seed, number), limit in zip(draws, streams, limits, strict=True):
        row[:, :limit] = np.random.Generator(np.random.Philox(key=[seed % 2**64, number])).random(
            (n, limit), np.float32
        )
    return torch.from_numpy(draws)


def sampler_version(sampling: SamplingConfig) -> str:
    """What samples, for provenance."""
    if sampling.backend == "vllm":
        return f"vllm {vllm_backend.version(sampling.vllm.python)}"
    return f"transformers {transformers.__version__}"


def _check_context(context: int | None, prompts: Sequence[IntList], limits: Sequence[int]) -> None:
    longest = max(range(len(prompts)), key=lambda i: len(prompts[i]) + limits[i], default=None)
    if context and longest is not None and len(prompts[longest]) + limits[longest] > context:
        raise DataError(
            f"prompt {longest}: {len(prompts[longest])} tokens and max_new_tokens {limits[longest]} exceed the model's "
            f"context of {context}; shorten the prompt or lower max_new_tokens"
        )


def _responses(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[list[int]], logps: Sequence[list[float]]
) -> list[Response]:
    texts = decode_responses(tokenizer, ids)
    finished = [bool(own) and own[-1] == tokenizer.eos_token_id for own in ids]
    return [Response(*columns) for columns in zip(texts, ids, logps, finished, strict=True)]


@torch.no_grad()
def _decode(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[IntList],
    n: int,
    limits: Sequence[int],
    temperature: Tensor,
    top_p: float,
    draws: Tensor | None,
) -> list[tuple[list[list[int]], list[list[float]]]]:
    """Decode n responses to each prompt of one batch.

    A row of the batch is a prompt; its columns, (rows, at most n), are the responses that are not finished yet.

    `limits` are the most tokens of a response to each prompt; `temperature` is float (prompts,); `draws` are uniform
    numbers, (prompts, n, most tokens), or None where all temperatures are 0. Returns, for each prompt, the token ids of
    its responses and their log-probabilities.
    """
    device, shape = model.device, (len(prompts), n, max(limits))
    max_new_tokens, cuts = max(limits), torch.tensor(limits, device=device)
    out_ids = torch.zeros(shape, dtype=torch.long, device=device)
    out_logps, lengths = torch.zeros(shape, device=device), torch.zeros(shape[:2], dtype=torch.long, device=device)
    width = max(map(len, prompts))
    ids = torch.tensor([[tokenizer.pad_token_id] * (width - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = GrowingCache(model.config.num_hidden_layers)
    logits = model(
        input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, logits_to_keep=1
    ).logits.expand(-1, n, -1)
    rows = torch.arange(len(prompts), device=device)  # the prompt of each row
    columns = torch.arange(n, device=device).expand(len(prompts), n)  # the response in each column
    position = positions[:, -1:]
    owners = torch.where(mask == 1, PROMPT, NOBODY)  # of each cached token: the prompt, or a response
    for step in range(max_new_tokens):
        alive = columns != NOBODY
        uniform = None if draws is None else draws[rows[:, None], columns.clamp(min=0), step]
        tokens = _sample(logits, temperature[rows, None], top_p, uniform)
        logps = (logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)).float()
        which = (rows[:, None].expand_as(columns)[alive], columns[alive])
        out_ids[(*which, step)], out_logps[(*which, step)], lengths[which] = tokens[alive], logps[alive], step + 1
        alive &= (tokens != tokenizer.eos_token_id) & (step + 1 < cuts[rows, None])
        left = alive.sum(-1)
        if step == max_new_tokens - 1 or not (most := int(left.max())):
            break
        order = alive.int().argsort(dim=-1, descending=True, stable=True)[:, :most]  # unfinished responses to the left
        columns, tokens = columns.where(alive, NOBODY).gather(-1, order), tokens.gather(-1, order)
        if (left > 0).float().mean() < COMPACT_BELOW:
            keep = left.nonzero().squeeze(-1)
            cache.batch_select_indices(keep)
            rows, columns, tokens, position, owners = (x[keep] for x in (rows, columns, tokens, position, owners))
        owners = torch.cat([owners, columns], dim=-1)
        position = position + 1
        visible = (owners[:, None] == columns[:, :, None]) | (owners == PROMPT)[:, None]
        logits = model(
            input_ids=tokens,
            attention_mask=visible.unsqueeze(1),
            position_ids=position.expand_as(tokens),
            past_key_values=cache,
        ).logits
    ends = lengths.tolist()
    return [
        tuple([own[:end] for own, end in zip(values, end_of)] for values in both)
        for *both, end_of in zip(out_ids.tolist(), out_logps.tolist(), ends)
    ]


def _sample(logits: Tensor, temperature: Tensor, top_p: float, uniform: Tensor | None) -> Tensor:
    """Draw one token from each distribution.

    Args:
        logits: (rows, n, vocabulary).
        temperature: float (rows, 1); 0 takes the most probable token.
        top_p: in (0, 1].
        uniform: numbers in [0, 1), (rows, n); None if all temperatures are 0.

    Returns:
        int64 (rows, n).
    """
    if uniform is None:
        return logits.argmax(-1)
    greedy = temperature == 0
    probabilities = torch.softmax(logits.float() / temperature.where(~greedy, 1.0).unsqueeze(-1), -1)
    if top_p < 1:
        ordered, index = probabilities.sort(dim=-1, descending=True)
        ordered[ordered.cumsum(-1) - ordered >= top_p] = 0
        probabilities = torch.zeros_like(probabilities).scatter(-1, index, ordered)
    # Inverse of the cumulative distribution: three times as fast as torch.multinomial.
    cumulative = probabilities.cumsum(-1)
    tokens = torch.searchsorted(cumulative, uniform.unsqueeze(-1) * cumulative[..., -1:], right=True)
    drawn = tokens.clamp(max=logits.shape[-1] - 1).squeeze(-1)
    return logits.argmax(-1).where(greedy, drawn) if greedy.any() else drawn
