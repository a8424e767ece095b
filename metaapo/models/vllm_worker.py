"""Run vLLM in its own process and, if needed, its own environment; requires only vllm and the standard library.

    python metaapo/models/vllm_worker.py request.json response.jsonl

The engine reads one checkpoint, answers one request and ends, which frees its memory for training; the next iteration's
engine reads the next checkpoint. `metaapo.models.vllm_backend` writes the request and reads the response.
"""

import json
import sys


def main(request_path: str, response_path: str) -> None:
    """Sample responses to token-id prompts.

    Args:
        request_path: JSON {engine: arguments of vllm.LLM, sampling: arguments of SamplingParams, prompts, temperatures,
            seeds}.
        response_path: file to write, with one line per prompt: a list of {ids, logps, finished}.
    """
    from vllm import LLM, SamplingParams

    with open(request_path, encoding="utf-8") as file:
        request = json.load(file)
    engine = LLM(**request["engine"])
    outputs = engine.generate(
        [{"prompt_token_ids": ids} for ids in request["prompts"]],
        [
            SamplingParams(**request["sampling"], temperature=temperature, seed=seed)
            for temperature, seed in zip(request["temperatures"], request["seeds"])
        ],
    )
    with open(response_path, "w", encoding="utf-8") as file:
        for output in outputs:
            file.write(json.dumps([record(sample) for sample in output.outputs]) + "\n")


def record(sample) -> dict:  # noqa: ANN001 - vllm.CompletionOutput, which is not importable everywhere
    """One response: token ids, log-probability of each at temperature 1, and whether it ended with EOS."""
    ids = list(sample.token_ids)
    logps = [step[token].logprob for step, token in zip(sample.logprobs, ids)]
    return {"ids": ids, "logps": logps, "finished": sample.finish_reason == "stop"}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
