"""Check that a world can show differences: it needs room to improve and a reward model that is right often enough.

    python -m metaapo.worlds.tiny.health --config config/default.yaml --world 0

Writes world{w}/health.json, a list of {name, value, low, high, ok, unit, note}, and fails if a value is out of
range, before any method is trained. Checks that need trained policies are made at the end (reports/health.py).
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from metaapo.command import errors_in_one_sentence, load_and_pin, world_arguments
from metaapo.data import DataError, Message, check_row, read_jsonl, write_json
from metaapo.experiment import Experiment
from metaapo.models.generate import Response, generate
from metaapo.models.load import load_policy, load_reward_model, use_threads_of_environment
from metaapo.models.rewards import reward_responses
from metaapo.worlds.tiny.data import evaluation_sets, training_prompts
from metaapo.worlds.tiny.gold import HIGH, LOW, gold
from metaapo.worlds.tiny.reward_model import sft_samples
from metaapo.worlds.tiny.tasks import CONTENT, GREETINGS, HEDGES, NOUNS, VAGUE, ask, parse, words_of
from metaapo.worlds.tiny.writers import model_answer, outdated_beliefs, spoil

PROMPTS, SAMPLES = 256, 6  # about 3,800 pairs: the agreement's standard error is below 0.01
AGREEMENT = (0.75, 0.95)  # below: methods learn the reward model's errors; above: nothing to overfit
RECOGNISED = 0.6  # least share of prompts where the reward model prefers the wanted greeting to the three others
SPOILT = 0.9  # least share of degenerate answers rated below the answers they were made of
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
    pool = itertools.islice(training_prompts(random.Random(f"tiny/{world}/health"), outdated_beliefs(world)), PROMPTS)
    prompts = [messages for _, messages in pool]
    return prompts, sft_samples(experiment, world, prompts, SAMPLES)


def _offline_agreement(experiment: Experiment, world: int, reward_model: Any, tokenizer: Any) -> float:
    """Share of offline pairs on which the reward model agrees with the (noisy) label."""
    rows = read_jsonl(experiment.world_path(world) / "data" / "pairs.jsonl")[:PROMPTS]
    texts = [[row["chosen"], row["rejected"]] for row in rows]
    rewards, _ = reward_responses(reward_model, tokenizer, [row["messages"] for row in rows], texts)
    return float(np.mean([chosen > rejected for chosen, rejected in rewards]))


def _per_quality(prompts: Sequence[list[Message]], world: int, reward: Callable[..., np.ndarray]) -> dict[str, float]:
    """Shares of prompts where the reward model ranks answers that differ in one quality as gold does.

    Args:
        prompts: conversations.
        world: the world's seed.
        reward: (prompts, groups of texts) to rewards, float (prompts, texts).
    """
    rng, best = random.Random(f"tiny/{world}/health/quality"), [model_answer(parse(messages)) for messages in prompts]
    greeted = [
        [text, *(f"{other}:{text.partition(':')[2]}" for other in GREETINGS if not text.startswith(f"{other}:"))]
        for text in best
    ]
    hedged = [[text, text.replace(": ", f": {rng.choice(HEDGES)}, ", 1)] for text in best]
    vague, wrong = ([[text, _replace_word(text, pool, rng)] for text in best] for pool in (VAGUE, NOUNS))
    spoilt = [[text, spoil(text, rng)] for text in best]
    return {
        name: float(np.mean(reward(prompts, group).argmax(1) == 0))
        for name, group in {
            "the wanted greeting": greeted,
            "an answer without a hedge": hedged,
            "an answer without a vague word": vague,
            "an answer without a wrong word": wrong,
            "a whole answer above its degenerate version": spoilt,
        }.items()
    }


def _replace_word(text: str, pool: Sequence[str], rng: random.Random) -> str:
    """The text with one of its content words replaced by a word from the pool that it does not hold."""
    words = words_of(text)
    old = rng.choice([word for word in words if word in CONTENT])
    new = rng.choice([word for word in pool if word not in words])
    return re.sub(rf"\b{old}\b", new, text, count=1)


def _greedy_finished(experiment: Experiment, world: int) -> dict[str, float]:
    """Share of the SFT policy's greedy answers that end on their own, by kind of question (first turns)."""
    policy, tokenizer = load_policy(experiment.world_path(world) / "sft")
    shares = {}
    for kind, rows in evaluation_sets(experiment.world).items():
        responses = generate(
            policy,
            tokenizer,
            [ask(row["turns"][0]) for row in rows],
            n=1,
            temperature=0.0,
            top_p=1.0,
            max_new_tokens=experiment.evaluation.max_new_tokens,
            batch_size=experiment.evaluation.batch_size,
            seed=0,
        )
        shares[kind] = float(np.mean([response.finished for (response,) in responses]))
    return shares


def checks(experiment: Experiment, world: int) -> list[dict[str, Any]]:
    """Measure a world and return its health table."""
    prompts, responses = _samples(experiment, world)
    reward_model, tokenizer = load_reward_model(experiment.world_path(world) / "reward_model")

    def reward(conversations: Sequence[list[Message]], texts: Sequence[Sequence[str]]) -> np.ndarray:
        return np.array(reward_responses(reward_model, tokenizer, conversations, texts)[0])

    texts = [[response.text for response in sampled] for sampled in responses]
    proxy = reward(prompts, texts)
    golds = np.array([[gold(messages, text).reward for text in sampled] for messages, sampled in zip(prompts, texts)])
    chosen_by_proxy = golds[np.arange(len(golds)), proxy.argmax(1)].mean()
    flat: Sequence[Any] = [response for sampled in responses for response in sampled]
    quality = _per_quality(prompts, world, reward)
    bounds = {"the wanted greeting": RECOGNISED, "a whole answer above its degenerate version": SPOILT}
    rows = [
        (
            "room",
            (HIGH - golds.mean()) / (HIGH - LOW),
            ROOM,
            0.95,
            "share of the gold scale",
            "from the SFT policy's mean gold reward to the best answer",
        ),
        (
            "reward model agrees with gold, on-policy",
            agreement(golds, proxy),
            *AGREEMENT,
            "share of pairs",
            f"pairs of the SFT policy's samples with different gold reward, {PROMPTS} prompts x {SAMPLES}",
        ),
        (
            "reward model agrees with offline labels",
            _offline_agreement(experiment, world, reward_model, tokenizer),
            0.5,
            None,
            "share of pairs",
            "the labels are noisy by design",
        ),
        *(
            (f"reward model prefers {name}", share, bounds.get(name), None, "share of prompts", "one quality differs")
            for name, share in quality.items()
        ),
        ("SFT policy: gold reward", golds.mean(), None, None, "gold reward", f"in [{LOW}, {HIGH}]"),
        (
            f"best of {SAMPLES} by reward model: gold gained",
            chosen_by_proxy - golds.mean(),
            0.0,
            None,
            "gold reward",
            "what following the annotator can give at once",
        ),
        (
            f"best of {SAMPLES} by gold: gold gained",
            golds.max(1).mean() - golds.mean(),
            0.0,
            None,
            "gold reward",
            "what a perfect annotator could give at once",
        ),
        ("SFT policy: response length", np.mean([len(r.token_ids) for r in flat]), 3, None, "tokens", "with EOS"),
        ("SFT policy: finished responses", np.mean([r.finished for r in flat]), 0.97, None, "share", "with EOS"),
        *(
            (f"SFT policy: finished greedy answers, {kind}", share, None, None, "share", "with EOS")
            for kind, share in _greedy_finished(experiment, world).items()
        ),
    ]
    return [check_row(*row) for row in rows]


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
