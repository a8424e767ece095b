"""Response sampling: K responses per prompt behind one function.

The transformers backend decodes with a KV cache: each prompt is read once for its K responses, and finished
responses leave the batch. The vLLM backend reads a checkpoint from disk, in a separate process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from torch import Tensor
from tqdm import tqdm
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from metaapo.config import SamplingConfig, VLLMConfig
from metaapo.data import DataError, Message
from metaapo.models import vllm_backend
from metaapo.models.load import decode_response, encode_prompts
from metaapo.models.logps import IntList

COMPACT_BELOW = 0.75  # finished responses leave the batch when they are a quarter of it: selecting copies the cache


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
    model: PreTrainedModel | Path,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[list[Message]],
    n: int,
    temperature: float,
    top_p: float,
    max_new_tokens: int,
    batch_size: int,
    seed: int,
    engine: VLLMConfig | None = None,
) -> list[list[Response]]:
    """Sample responses to conversations.

    Args:
        model: the policy; or its checkpoint's folder, from which vLLM samples.
        tokenizer: its tokenizer, whose chat template is applied once.
        conversations: prompts, each a list of messages that ends with a user turn.
        n: responses per prompt.
        temperature: >= 0; 0 takes the most probable token.
        top_p: in (0, 1]; smallest set of tokens with this probability.
        max_new_tokens: a response is cut after so many tokens.
        batch_size: sequences decoded side by side.
        seed: of the random stream; the same call gives the same responses.
        engine: how vLLM runs, where the model is a folder.

    Returns:
        n responses for each conversation, in the order given.

    Raises:
        DataError: a prompt and its response do not fit into the model's context.
    """
    prompts = encode_prompts(tokenizer, conversations)
    if isinstance(model, Path):
        _check_context(vllm_backend.context_of(model), prompts, max_new_tokens)
        request = vllm_backend.Request(prompts, n, temperature, top_p, max_new_tokens, tokenizer.eos_token_id, seed)
        rows = vllm_backend.sample(model, request, engine or VLLMConfig()) if prompts else []
        return [[_response(tokenizer, r["ids"], r["logps"]) for r in row] for row in rows]
    _check_context(getattr(model.config, "max_position_embeddings", None), prompts, max_new_tokens)
    generator = torch.Generator(device=model.device).manual_seed(seed)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    step = max(1, batch_size // n)
    responses: list[list[Response]] = [[] for _ in prompts]
    for start in tqdm(range(0, len(order), step), desc="sampling", unit="batch", leave=False, mininterval=5):
        rows = order[start : start + step]
        ids, logps = _decode(
            model, [prompts[i] for i in rows], n, temperature, top_p, max_new_tokens, tokenizer, generator
        )
        for position, i in enumerate(rows):
            samples = range(position * n, (position + 1) * n)
            responses[i] = [_response(tokenizer, ids[j], logps[j]) for j in samples]
    return responses


def sampler_version(sampling: SamplingConfig) -> str:
    """What samples, for provenance."""
    if sampling.backend == "vllm":
        return f"vllm {vllm_backend.version(sampling.vllm.python)}"
    return f"transformers {transformers.__version__}"


def _check_context(context: int | None, prompts: Sequence[IntList], max_new_tokens: int) -> None:
    longest = max(range(len(prompts)), key=lambda i: len(prompts[i]), default=None)
    if context and longest is not None and len(prompts[longest]) + max_new_tokens > context:
        raise DataError(
            f"prompt {longest}: {len(prompts[longest])} tokens and max_new_tokens {max_new_tokens} exceed the model's "
            f"context of {context}; shorten the prompt or lower max_new_tokens"
        )


def _response(tokenizer: PreTrainedTokenizerBase, ids: list[int], logps: list[float]) -> Response:
    finished = bool(ids) and ids[-1] == tokenizer.eos_token_id
    return Response(decode_response(tokenizer, ids), ids, logps, finished)


@torch.no_grad()
def _decode(
    model: PreTrainedModel,
    prompts: list[IntList],
    n: int,
    temperature: float,
    top_p: float,
    max_new_tokens: int,
    tokenizer: PreTrainedTokenizerBase,
    generator: torch.Generator,
) -> tuple[list[list[int]], list[list[float]]]:
    """Decode n responses for each prompt of one batch; responses to one prompt are adjacent."""
    width = max(map(len, prompts))
    ids = torch.tensor([[tokenizer.pad_token_id] * (width - len(p)) + list(p) for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    logits = model(
        input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, logits_to_keep=1
    ).logits[:, -1]
    cache.batch_repeat_interleave(n)
    logits, mask = logits.repeat_interleave(n, 0), mask.repeat_interleave(n, 0)
    position = positions[:, -1:].repeat_interleave(n, 0)
    rows = torch.arange(len(prompts) * n)  # which response each row of the batch decodes
    out_ids: list[list[int]] = [[] for _ in rows]
    out_logps: list[list[float]] = [[] for _ in rows]
    alive = torch.ones(len(rows), dtype=torch.bool)
    for step in range(max_new_tokens):
        tokens = _sample(logits, temperature, top_p, generator)
        logps = (logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)).float()
        for row, token, logp, going in zip(rows.tolist(), tokens.tolist(), logps.tolist(), alive.tolist()):
            if going:
                out_ids[row].append(token)
                out_logps[row].append(logp)
        alive &= (tokens != tokenizer.eos_token_id).cpu()
        if step == max_new_tokens - 1 or not alive.any():
            break
        if alive.float().mean() < COMPACT_BELOW:
            keep = alive.nonzero().squeeze(-1)
            rows, alive = rows[keep], alive[keep]
            keep = keep.to(model.device)
            cache.batch_select_indices(keep)
            tokens, mask, position = tokens[keep], mask[keep], position[keep]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=-1)
        position = position + 1
        logits = model(
            input_ids=tokens.unsqueeze(-1), attention_mask=mask, position_ids=position, past_key_values=cache
        ).logits[:, -1]
    return out_ids, out_logps


def _sample(logits: Tensor, temperature: float, top_p: float, generator: torch.Generator) -> Tensor:
    """Draw one token per row, int64 (batch,)."""
    if temperature == 0:
        return logits.argmax(-1)
    probabilities = torch.softmax(logits.float() / temperature, -1)
    if top_p < 1:
        ordered, index = probabilities.sort(dim=-1, descending=True)
        ordered[ordered.cumsum(-1) - ordered >= top_p] = 0
        probabilities = torch.zeros_like(probabilities).scatter(-1, index, ordered)
    # Inverse of the cumulative distribution: one uniform number per row; three times as fast as torch.multinomial.
    cumulative = probabilities.cumsum(-1)
    u = torch.rand(len(logits), 1, generator=generator, device=logits.device) * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, u, right=True)
    return tokens.clamp(max=logits.shape[-1] - 1).squeeze(-1)
