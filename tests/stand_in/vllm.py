"""Stands in for vLLM in tests: reads the checkpoint's weights as vLLM does, and answers from each request's own seed.

It imports nothing that takes long to import. Every start leaves a line in the file that STARTS names.
"""

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

LOWEST = 6  # the ids below are special tokens (tests/conftest.py)


def check_whole(path):
    """Read a safetensors file: 8 bytes with the length of a JSON header, the header, and the tensors' bytes."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    ends = [
        own["data_offsets"][1] for name, own in json.loads(content[8 : 8 + length]).items() if name != "__metadata__"
    ]
    if len(content) != 8 + length + max(ends):
        raise ValueError(f"{path} is not complete")


class SamplingParams:
    def __init__(self, **settings):
        self.__dict__.update({"seed": None, "temperature": 1.0} | settings)


class LLM:
    def __init__(self, model, seed=0, **engine):
        check_whole(Path(model) / "model.safetensors")  # as in vLLM, an error if it is not written yet
        self.vocabulary = json.loads((Path(model) / "config.json").read_text())["vocab_size"]
        self.stream = np.random.default_rng(seed or 0)
        if os.environ.get("STARTS"):
            with open(os.environ["STARTS"], "a") as file:
                gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "")
                file.write(json.dumps({"model": str(model), "gpus": gpus, "at": time.time(), **engine}) + "\n")

    def generate(self, prompts, params, **options):
        return [self._answer(prompt["prompt_token_ids"], own) for prompt, own in zip(prompts, params, strict=True)]

    def _answer(self, prompt, own):
        stream = self.stream if own.seed is None else np.random.default_rng([own.seed, *prompt])
        if own.temperature == 0:
            stream = np.random.default_rng(prompt)
        return SimpleNamespace(outputs=[self._sample(stream, own) for _ in range(own.n)])

    def _sample(self, stream, own):
        length = int(stream.integers(1, own.max_tokens + 2))
        ids = stream.integers(LOWEST, self.vocabulary, min(length, own.max_tokens)).tolist()
        finished = length < own.max_tokens
        ids += own.stop_token_ids[:1] if finished else []
        step = SimpleNamespace(logprob=-2.0)
        return SimpleNamespace(
            token_ids=ids, logprobs=[{token: step} for token in ids], finish_reason="stop" if finished else "length"
        )
