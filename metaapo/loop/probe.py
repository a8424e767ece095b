"""Probes that measure how far the policy has moved from the SFT policy and how long its responses are."""

from __future__ import annotations

from typing import Any

import numpy as np

from metaapo.loop.prompts import Prompt
from metaapo.loop.workbench import Workbench
from metaapo.models.generate import Response

PROBE_PROMPTS = 64  # enough for a curve of KL and length; the benchmarks, not the probes, measure quality


def probe(bench: Workbench, iteration: int, step: int, prompts: list[Prompt]) -> list[dict[str, Any]]:
    """Sample and measure one response to each of a few prompts; each becomes one line of probes.jsonl."""
    return measure(bench, iteration, step, prompts, draw(bench, iteration, step, prompts))


def draw(bench: Workbench, iteration: int, step: int, prompts: list[Prompt]) -> list[Response]:
    """Sample one response to each of a few prompts."""
    seed = bench.context.torch_seed(iteration, f"probe{step}")
    return [response for (response,) in bench.sampler.sample(prompts[:PROBE_PROMPTS], 1, 1.0, 1.0, seed)]


def measure(
    bench: Workbench, iteration: int, step: int, prompts: list[Prompt], responses: list[Response]
) -> list[dict[str, Any]]:
    """Measure the responses of `draw`.

    The reward is only recorded; it is not used in training and does not count towards the annotation budget.
    """
    probed = prompts[:PROBE_PROMPTS]
    rewards = bench.annotator.rewards(probed, [[response.text] for response in responses])
    ids = [response.token_ids for response in responses]
    sft = bench.scorer.logps(bench.policies.sft, [prompt.ids for prompt in probed], ids).tolist()
    return [
        {
            "iteration": iteration,
            "step": step,
            "id": prompt.id,
            "response": response.text,
            "policy_logp": sum(response.logps),
            "sft_logp": sft_logp,
            "reward": reward,
            "tokens": len(response.token_ids),
            "finished": response.finished,
        }
        for prompt, response, sft_logp, (reward,) in zip(probed, responses, sft, rewards)
    ]


def start_probe(
    bench: Workbench, iteration: int, prompts: list[Prompt], drawn: list[Response] | None = None
) -> list[dict[str, Any]]:
    """The probe before the first training step; none in later iterations, which start where the one before ended.

    `drawn` are its responses if an engine has drawn them along with others.
    """
    if iteration > 1:
        return []
    return measure(bench, iteration, 0, prompts, draw(bench, iteration, 0, prompts) if drawn is None else drawn)


def last_probe(probes: list[dict[str, Any]]) -> dict[str, float]:
    """Means over the iteration's last probe: KL to the SFT policy (nats per response), tokens, rewards."""
    last = [row for row in probes if row["step"] == probes[-1]["step"]]
    return {
        "kl": float(np.mean([row["policy_logp"] - row["sft_logp"] for row in last])),
        "mean_length": float(np.mean([row["tokens"] for row in last])),
        "finished": float(np.mean([row["finished"] for row in last])),
        "proxy_reward": float(np.mean([row["reward"] for row in last])),
    }
