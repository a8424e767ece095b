"""Run vLLM in its own process and, if needed, its own environment; requires only vllm and the standard library.

    python metaapo/models/vllm_worker.py engine.json

The engine reads one checkpoint, answers the requests that `metaapo.models.vllm_backend` writes, one after the other,
and ends with its standard input, which frees its memory. A line of the input is the path of a request and the path of
the response; the response appears there when it is complete.
"""

import json
import os
import sys


def main(engine_path: str) -> None:
    """Start the engine and answer requests.

    Args:
        engine_path: JSON, arguments of vllm.LLM.
    """
    from vllm import LLM, SamplingParams

    with open(engine_path, encoding="utf-8") as file:
        engine = LLM(**json.load(file))
    for line in sys.stdin:
        request_path, response_path = line.rstrip("\n").split("\t")
        with open(request_path, encoding="utf-8") as file:
            request = json.load(file)
        rows = zip(request["temperatures"], request["seeds"], request["max_tokens"])
        outputs = engine.generate(
            [{"prompt_token_ids": ids} for ids in request["prompts"]],
            [
                SamplingParams(**request["sampling"], temperature=temperature, seed=seed, max_tokens=limit)
                for temperature, seed, limit in rows
            ],
        )
        with open(response_path + ".partial", "w", encoding="utf-8") as file:
            for output in outputs:
                file.write(json.dumps([record(sample) for sample in output.outputs]) + "\n")
        os.replace(response_path + ".partial", response_path)


def record(sample) -> dict:  # noqa: ANN001 - vllm.CompletionOutput, which is not importable everywhere
    """One response: token ids, log-probability of each at temperature 1, and whether it ended with EOS."""
    ids = list(sample.token_ids)
    logps = [step[token].logprob for step, token in zip(sample.logprobs, ids)]
    return {"ids": ids, "logps": logps, "finished": sample.finish_reason == "stop"}


if __name__ == "__main__":
    main(sys.argv[1])
