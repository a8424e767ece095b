"""Can this world show anything? Room to improve, and a reward model that is right often enough on the policy's samples.

    python -m metaapo.health --config config/default.yaml --world 0

Writes world{w}/health.json, a list of {name, value, low, high, ok, unit, note}, and fails where a value is out of its
range, before any method is trained. What only trained policies can tell is checked at the end (reports/health.py).
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from metaapo.annotate import reward_responses
from metaapo.config import ConfigError, Experiment, load
from metaapo.data import DataError, Message, read_jsonl, write_json
from metaapo.generate import generate
from metaapo.models import load_policy, load_reward_model, use_threads_of_environment
from metaapo.worlds import tiny

PROMPTS, SAMPLES = 256, 6  # some 3,800 pairs: the agreement's standard error is below 0.01
AGREEMENT = (0.80, 0.95)  # below, online methods follow the reward model's errors; above, there is nothing to overfit
ROOM = 0.15  # share of the gold scale that must lie between the SFT policy's mean and the best answer


def _check(name: str, value: float, low: float | None, high: float | None, unit: str, note: str) -> dict[str, Any]:
    ok = bool((low is None or value >= low) and (high is None or value <= high))
    return {
        "name": name,
        "value": round(float(value), 4),
        "low": low,
        "high": high,
        "ok": ok,
        "unit": unit,
        "note": note,
    }


def agreement(gold: np.ndarray, proxy: np.ndarray) -> float:
    """Share of a prompt's pairs of responses, with different gold rewards, that the proxy ranks as gold does.

    Args:
        gold: float (prompts, samples).
        proxy: float, same shape; equal rewards count as half right.

    Raises:
        DataError: no pair differs in gold reward.
    """
    left, right = zip(*itertools.combinations(range(gold.shape[1]), 2))
    gold_gap = (gold[:, left] - gold[:, right]).ravel()
    proxy_gap = (proxy[:, left] - proxy[:, right]).ravel()
    differs = gold_gap != 0
    if not differs.any():
        raise DataError(
            "health: all sampled responses have the same gold reward; the world or the SFT policy is broken"
        )
    right = np.sign(gold_gap) == np.sign(proxy_gap)
    return float(np.mean((right + 0.5 * (proxy_gap == 0))[differs]))


def _samples(experiment: Experiment, world: int) -> tuple[list[list[Message]], list[list[Any]]]:
    """Fresh training-pool prompts, none of the evaluation's, and the SFT policy's responses to them."""
    policy, tokenizer = load_policy(experiment.world_path(world) / "sft")
    pool = itertools.islice(tiny.training_prompts(random.Random(f"tiny/{world}/health")), PROMPTS)
    prompts = [messages for _, messages in pool]
    sampling = experiment.sampling
    responses = generate(
        policy,
        tokenizer,
        prompts,
        n=SAMPLES,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_new_tokens=sampling.max_new_tokens,
        batch_size=sampling.batch_size,
        seed=world,
    )
    return prompts, responses


def _offline_agreement(experiment: Experiment, world: int, reward_model: Any, tokenizer: Any) -> float:
    """Share of offline pairs whose labelled side the reward model prefers (the labels themselves are noisy)."""
    rows = read_jsonl(experiment.world_path(world) / "data" / "pairs.jsonl")[:PROMPTS]
    texts = [[row["chosen"], row["rejected"]] for row in rows]
    rewards, _ = reward_responses(reward_model, tokenizer, [row["messages"] for row in rows], texts)
    return float(np.mean([chosen > rejected for chosen, rejected in rewards]))


def checks(experiment: Experiment, world: int) -> list[dict[str, Any]]:
    """Measure a world: its health table."""
    prompts, responses = _samples(experiment, world)
    reward_model, tokenizer = load_reward_model(experiment.world_path(world) / "reward_model")
    texts = [[response.text for response in own] for own in responses]
    proxy = np.array(reward_responses(reward_model, tokenizer, prompts, texts)[0])
    gold = np.array([[tiny.gold(messages, text).reward for text in own] for messages, own in zip(prompts, texts)])
    chosen_by_proxy = gold[np.arange(len(gold)), proxy.argmax(1)].mean()
    flat: Sequence[Any] = [response for own in responses for response in own]
    scale = tiny.HIGH - tiny.LOW
    return [
        _check(
            "room", (tiny.HIGH - gold.mean()) / scale, ROOM, 0.95, "share of the gold scale",
            "from the SFT policy's mean gold reward to the best answer",
        ),
        _check(
            "reward model agrees with gold, on-policy", agreement(gold, proxy), *AGREEMENT, "share of pairs",
            f"pairs of the SFT policy's samples with different gold reward, {PROMPTS} prompts x {SAMPLES}",
        ),
        _check(
            "reward model agrees with offline labels", _offline_agreement(experiment, world, reward_model, tokenizer),
            0.5, None, "share of pairs", "the labels are noisy by design",
        ),
        _check("SFT policy: gold reward", gold.mean(), None, None, "gold reward", f"in [{tiny.LOW}, {tiny.HIGH}]"),
        _check(
            f"best of {SAMPLES} by reward model: gold gained", chosen_by_proxy - gold.mean(), 0.0, None, "gold reward",
            "what following the annotator can give at once",
        ),
        _check(f"best of {SAMPLES} by gold: gold gained", gold.max(1).mean() - gold.mean(), 0.0, None,
               "gold reward", "what a perfect annotator could give at once"),
        _check("SFT policy: response length", np.mean([len(r.token_ids) for r in flat]), 3, None, "tokens", "with EOS"),
        _check("SFT policy: finished responses", np.mean([r.finished for r in flat]), 0.9, None, "share", "with EOS"),
    ]  # fmt: skip


def main() -> None:
    """Command line: measure one world, write its table, fail where it is out of range."""
    parser = argparse.ArgumentParser(description="Check whether a world can show anything.")
    parser.add_argument("--config", required=True, help="the experiment's configuration file")
    parser.add_argument("--world", type=int, required=True, help="the world's seed")
    arguments = parser.parse_args()
    use_threads_of_environment()
    try:
        experiment = load(arguments.config)
        table = checks(experiment, arguments.world)
    except (ConfigError, DataError) as error:
        sys.exit(f"error: {error}")
    for row in table:
        print(
            f"{'ok ' if row['ok'] else 'BAD'} {row['name']}: {row['value']} {row['unit']} [{row['low']}, {row['high']}]"
        )
    bad = [row for row in table if not row["ok"]]
    folder = experiment.world_path(arguments.world)
    if bad and experiment.health.enforce:
        write_json(folder / "health.failed.json", table)
        row = bad[0]
        sys.exit(
            f"error: world {arguments.world}: {row['name']} is {row['value']}, outside [{row['low']}, {row['high']}]; "
            f"nothing would be learned from this world (docs/world.md); the table is in {folder}/health.failed.json, "
            "`health: {enforce: false}` goes on all the same"
        )
    write_json(folder / "health.json", table)


if __name__ == "__main__":
    main()
