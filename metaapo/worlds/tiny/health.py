"""Check that a world can show differences: it needs room to improve and a reward model that is right often enough.

    python -m metaapo.worlds.tiny.health --config config/default.yaml --world 0

Writes world{w}/health.json, a list of {name, value, low, high, ok, unit, note}, and fails if a value is out of
range, before any method is trained. Checks that need trained policies are made at the end (reports/health.py).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from metaapo.command import errors_in_one_sentence, load_and_pin, world_arguments
from metaapo.data import DataError, Message, check_row, read_jsonl, write_json
from metaapo.experiment import Experiment
from metaapo.models.generate import Response
from metaapo.models.load import load_reward_model, use_threads_of_environment
from metaapo.models.rewards import reward_responses
from metaapo.worlds.tiny.data import training_prompts
from metaapo.worlds.tiny.gold import HIGH, LOW, gold
from metaapo.worlds.tiny.reward_model import sft_samples

PROMPTS, SAMPLES = 256, 6  # about 3,800 pairs: the agreement's standard error is below 0.01
AGREEMENT = (0.80, 0.95)  # below: methods learn the reward model's errors; above: nothing to overfit
ROOM = 0.15  # minimum distance from the SFT policy's mean to the best answer, as a share of the gold scale


def agreement(gold: np.ndarray, proxy: np.ndarray) -> float:
    """Share of a prompt's pairs of responses, with different gold rewards, that the proxy ranks like gold.

    Args:
        gold: float (prompts, samples).
        proxy: float, same shape; equal rewards count as half correct.

    Raises:
        DataError: no pair differs in gold reward.
    """
    left, right = zip(*itertools.combinations(range(gold.shape[1]), 2))
    gold_gap = (gold[:, left] - gold[:, right]).ravel()
    proxy_gap = (proxy[:, left] - proxy[:, right]).ravel()
    differs = gold_gap != 0
    if not differs.any():
        raise DataError("health: all sampled responses have the same gold reward; check the world and the SFT policy")
    right = np.sign(gold_gap) == np.sign(proxy_gap)
    return float(np.mean((right + 0.5 * (proxy_gap == 0))[differs]))


def _samples(experiment: Experiment, world: int) -> tuple[list[list[Message]], list[list[Response]]]:
    """Sample the SFT policy on fresh prompts from the training pool, none of which are used in evaluation."""
    pool = itertools.islice(training_prompts(random.Random(f"tiny/{world}/health")), PROMPTS)
    prompts = [messages for _, messages in pool]
    return prompts, sft_samples(experiment, world, prompts, SAMPLES)


def _offline_agreement(experiment: Experiment, world: int, reward_model: Any, tokenizer: Any) -> float:
    """Share of offline pairs on which the reward model agrees with the (noisy) label."""
    rows = read_jsonl(experiment.world_path(world) / "data" / "pairs.jsonl")[:PROMPTS]
    texts = [[row["chosen"], row["rejected"]] for row in rows]
    rewards, _ = reward_responses(reward_model, tokenizer, [row["messages"] for row in rows], texts)
    return float(np.mean([chosen > rejected for chosen, rejected in rewards]))


def checks(experiment: Experiment, world: int) -> list[dict[str, Any]]:
    """Measure a world and return its health table."""
    prompts, responses = _samples(experiment, world)
    reward_model, tokenizer = load_reward_model(experiment.world_path(world) / "reward_model")
    texts = [[response.text for response in sampled] for sampled in responses]
    proxy = np.array(reward_responses(reward_model, tokenizer, prompts, texts)[0])
    golds = np.array([[gold(messages, text).reward for text in sampled] for messages, sampled in zip(prompts, texts)])
    chosen_by_proxy = golds[np.arange(len(golds)), proxy.argmax(1)].mean()
    flat: Sequence[Any] = [response for sampled in responses for response in sampled]
    scale = HIGH - LOW
    return [
        check_row(
            "room",
            (HIGH - golds.mean()) / scale,
            ROOM,
            0.95,
            "share of the gold scale",
            "from the SFT policy's mean gold reward to the best answer",
        ),
        check_row(
            "reward model agrees with gold, on-policy",
            agreement(golds, proxy),
            *AGREEMENT,
            "share of pairs",
            f"pairs of the SFT policy's samples with different gold reward, {PROMPTS} prompts x {SAMPLES}",
        ),
        check_row(
            "reward model agrees with offline labels",
            _offline_agreement(experiment, world, reward_model, tokenizer),
            0.5,
            None,
            "share of pairs",
            "the labels are noisy by design",
        ),
        check_row("SFT policy: gold reward", golds.mean(), None, None, "gold reward", f"in [{LOW}, {HIGH}]"),
        check_row(
            f"best of {SAMPLES} by reward model: gold gained",
            chosen_by_proxy - golds.mean(),
            0.0,
            None,
            "gold reward",
            "what following the annotator can give at once",
        ),
        check_row(
            f"best of {SAMPLES} by gold: gold gained",
            golds.max(1).mean() - golds.mean(),
            0.0,
            None,
            "gold reward",
            "what a perfect annotator could give at once",
        ),
        check_row(
            "SFT policy: response length", np.mean([len(r.token_ids) for r in flat]), 3, None, "tokens", "with EOS"
        ),
        check_row(
            "SFT policy: finished responses", np.mean([r.finished for r in flat]), 0.9, None, "share", "with EOS"
        ),
    ]


def conclude(experiment: Experiment, world: int, table: list[dict[str, Any]]) -> None:
    """Print a world's table and write it to health.json.

    Raises:
        DataError: a row is out of range and `health.enforce` is set; the table is in health.failed.json instead.
    """
    for row in table:
        print(
            f"{'ok ' if row['ok'] else 'BAD'} {row['name']}: {row['value']} {row['unit']} [{row['low']}, {row['high']}]"
        )
    folder = experiment.world_path(world)
    bad = [row for row in table if not row["ok"]]
    if bad and experiment.health.enforce:
        write_json(folder / "health.failed.json", table)
        row = bad[0]
        raise DataError(
            f"world {world}: {row['name']} is {row['value']}, outside [{row['low']}, {row['high']}]; training in this "
            f"world would show nothing (docs/world.md); see {folder}/health.failed.json, or set "
            "`health: {enforce: false}` to continue anyway"
        )
    write_json(folder / "health.json", table)


def main() -> None:
    """Command line: measure one world, write its table, and fail if a value is out of range."""
    arguments = world_arguments("Check that a world can show differences between methods.").parse_args()
    use_threads_of_environment()
    with errors_in_one_sentence():
        experiment = load_and_pin(arguments.config)
        conclude(experiment, arguments.world, checks(experiment, arguments.world))


if __name__ == "__main__":
    main()
