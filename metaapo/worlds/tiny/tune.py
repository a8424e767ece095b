"""Tune every method with the same number of trials, scored on prompts used in neither training nor evaluation.

    snakemake tune --cores all --configfile config/tuning.yaml

The experiment's methods are the trials, equally many per module (config/tuning.yaml). Every trial's final policy
answers the same held-out prompts from the training pool (simple ones, composed ones and second turns), sampled and
greedy. A method's best trial has the highest win rate over the SFT policy, sampled at the temperature of the pooled
benchmark, among those that neither loop nor drift nor end where the reward model is no guide any more; of trials
within one standard error of it, the one with the lowest KL is taken. A best trial on the edge of the grid is reported,
unless an inner one is as good: the grid should then be extended, for all methods.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from metaapo.command import load_and_pin
from metaapo.config import ConfigError
from metaapo.data import DataError, Message, read_json, read_jsonl, write_json, write_text
from metaapo.experiment import SFT, Experiment, Run
from metaapo.worlds.on_policy import rewards_at_the_end
from metaapo.worlds.tiny.data import demonstrations, training_prompts
from metaapo.worlds.tiny.gold import gold, prefer
from metaapo.worlds.tiny.health import AGREEMENT, agreement
from metaapo.worlds.tiny.writers import outdated_beliefs

if TYPE_CHECKING:
    from metaapo.models.generate import Response

PROMPTS = 1024  # gives a standard error of about half a point of win rate
TEMPERATURE = 0.7  # of the sampled answers, as in the pooled benchmark
KL_RANGE = (1.0, 5.0)  # nats per response to the SFT policy after the last iteration
CUT_LIMIT = 0.03  # share of answers that reach the token limit, sampled or greedy
# For methods that start from another method's policy. Above it, online training outran the reward model in the six
# worlds of the default experiment, whose health check then failed (docs/tuning.md).
HIGHEST_LR = 2.0e-4


@dataclass(frozen=True)
class Trial:
    """One setting of one method, over the tuning seeds.

    Attributes:
        module: the method's module.
        name: the experiment's entry.
        lr: peak learning rate.
        beta: DPO temperature, or PPO's KL coefficient.
        win_rate: of the last policy's sampled answers over the SFT policy's, 0 to 100, by the gold judge.
        stderr: its standard error over prompts (seeds averaged first).
        kl: KL to the SFT policy, nats per response.
        cut: share of answers cut at the token limit, the larger one of sampled and greedy answers.
        agreement: share of pairs of the last policy's samples that the reward model orders as gold does.
        too_fast: whether the learning rate is above HIGHEST_LR in a method that starts from another's policy.
    """

    module: str
    name: str
    lr: float
    beta: float
    win_rate: float
    stderr: float
    kl: float
    cut: float
    agreement: float
    too_fast: bool = False

    @property
    def is_healthy(self) -> bool:
        """Whether the policy neither drifted nor loops nor outran the reward model."""
        near = KL_RANGE[0] <= self.kl <= KL_RANGE[1]
        return near and self.cut <= CUT_LIMIT and self.agreement >= AGREEMENT[0] and not self.too_fast


def validation_prompts(experiment: Experiment, world: int, count: int = PROMPTS) -> list[list[Message]]:
    """Draw prompts from the training pool (so none used in evaluation) that are in no training record of the world."""
    trained_on = [
        *read_jsonl(experiment.world_path(world) / "data" / "pairs.jsonl"),
        *demonstrations(experiment.sft.demonstrations, world),
    ]
    seen = {str(row["messages"]) for row in trained_on}
    pool = (
        messages for _, messages in training_prompts(random.Random(f"tiny/{world}/tuning"), outdated_beliefs(world))
    )
    return list(itertools.islice((messages for messages in pool if str(messages) not in seen), count))


def answers(
    experiment: Experiment, checkpoint: Path, prompts: Sequence[list[Message]], temperature: float, seed: int = 0
) -> list[Response]:
    """Generate a policy's answers, one per prompt, as in evaluation."""
    from metaapo.models.generate import generate
    from metaapo.models.load import load_policy

    policy, tokenizer = load_policy(checkpoint)
    settings = experiment.evaluation
    responses = generate(
        policy,
        tokenizer,
        prompts,
        n=1,
        temperature=temperature,
        top_p=1.0,
        max_new_tokens=settings.max_new_tokens,
        batch_size=settings.batch_size,
        seed=seed,
    )
    return [response for (response,) in responses]


def gold_rewards(prompts: Sequence[list[Message]], responses: Sequence[Response]) -> list[float]:
    """Gold reward of each answer."""
    return [gold(messages, response.text).reward for messages, response in zip(prompts, responses)]


@dataclass(frozen=True)
class Validation:
    """A world's held-out prompts, and the gold rewards of its SFT policy's sampled answers to them."""

    prompts: list[list[Message]]
    sft_rewards: list[float]


def validation_of(experiment: Experiment, world: int) -> Validation:
    """Draw a world's held-out prompts and let its SFT policy answer them."""
    prompts = validation_prompts(experiment, world)
    sft = answers(experiment, experiment.world_path(world) / "sft", prompts, TEMPERATURE, seed=1)
    return Validation(prompts, gold_rewards(prompts, sft))


def run_trial(experiment: Experiment, name: str, worlds: dict[int, Validation]) -> Trial:
    """Score one entry of the experiment over all its seeds."""
    runs = [run for run in experiment.runs() if run.method == name]
    scored = [_score(experiment, run, worlds[experiment.world_of(run.seed)]) for run in runs]
    wins, kls, cuts, agreements = zip(*scored)
    train = experiment.train_of(name)
    per_prompt = 100 * np.mean(wins, axis=0)
    return Trial(
        module=experiment.methods[name].module or name,
        name=name,
        lr=train.lr,
        beta=train.beta,
        win_rate=float(per_prompt.mean()),
        stderr=float(per_prompt.std(ddof=1) / np.sqrt(len(per_prompt))),
        kl=float(np.mean(kls)),
        cut=float(np.mean(cuts)),
        agreement=float(np.mean(agreements)),
        too_fast=train.start != SFT and train.lr > HIGHEST_LR,
    )


def _score(experiment: Experiment, run: Run, world: Validation) -> tuple[list[float], float, float, float]:
    """A run's win probability on each prompt, its KL, the larger share of cut answers, and the agreement."""
    folder = experiment.run_path(run)
    model = folder / f"iter{experiment.iterations}" / "model"
    sampled, greedy = (answers(experiment, model, world.prompts, temperature) for temperature in (TEMPERATURE, 0.0))
    wins = [prefer(own, sft) for own, sft in zip(gold_rewards(world.prompts, sampled), world.sft_rewards)]
    cut = max(float(np.mean([not response.finished for response in texts])) for texts in (sampled, greedy))
    kl = read_json(folder / "run.json")["iterations"][-1]["kl"]
    return wins, kl, cut, agreement(*rewards_at_the_end(experiment, run))


def check_equal_trials(experiment: Experiment) -> dict[str, list[str]]:
    """Group the entries by module and check that every module has the same number.

    Raises:
        ConfigError: the modules have different numbers of trials.
    """
    by_module: dict[str, list[str]] = {}
    for name, entry in experiment.methods.items():
        by_module.setdefault(entry.module or name, []).append(name)
    counts = {module: len(names) for module, names in by_module.items()}
    if len(set(counts.values())) > 1:
        raise ConfigError(f"methods: every module needs the same number of trials; found {counts}")
    return by_module


def leaders(trials: Sequence[Trial]) -> list[Trial]:
    """The trials within one standard error of the highest win rate among the healthy ones, or among all if none is."""
    eligible = [trial for trial in trials if trial.is_healthy] or trials
    top = max(eligible, key=lambda trial: trial.win_rate)
    return [trial for trial in eligible if trial.win_rate >= top.win_rate - top.stderr]


def best(trials: Sequence[Trial]) -> Trial:
    """Of the leading trials the one that stays closest to the SFT policy."""
    return min(leaders(trials), key=lambda trial: trial.kl)


def is_on_edge(trials: Sequence[Trial]) -> bool:
    """Whether a better setting may lie outside the grid: every leading trial has an extreme learning rate or beta."""
    inner = {
        key: values - {min(values), max(values)}
        for key in ("lr", "beta")
        if len(values := {getattr(trial, key) for trial in trials}) > 2
    }
    return not any(all(getattr(trial, key) in values for key, values in inner.items()) for trial in leaders(trials))


def table(trials: Sequence[Trial], experiment: Experiment) -> str:
    """Format all trials as Markdown, with the best of each method in bold."""
    name, seeds = experiment.experiment, " and ".join(map(str, experiment.seeds))
    low, high = KL_RANGE
    lines = [
        "# Tuning",
        "",
        f"Made by `snakemake tune --cores all --configfile config/{name}.yaml`. Every method has the same number of",
        f"trials. Each is trained for {experiment.iterations} iterations with seeds {seeds}; its last policy answers",
        f"{PROMPTS} prompts of the training pool that are in no training record and no test. Of the trials with a KL",
        f"of {low:g} to {high:g} nats to the SFT policy, at most {100 * CUT_LIMIT:g} % of the answers cut,",
        f"sampled or greedy, and a reward model that orders {100 * AGREEMENT[0]:g} % or more of pairs of the last",
        "policy's samples as gold does, the one with the highest win rate over the SFT policy is taken (in bold);",
        "where others are within one standard error of it, the one of them with the lowest KL. Methods that start",
        f"from the DPO policy are limited to learning rates of at most {HIGHEST_LR:g}.",
        "",
        "| method | lr | beta | win rate | standard error | KL to SFT, nats | cut, % | agreement | |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for module in dict.fromkeys(trial.module for trial in trials):
        of_module = [trial for trial in trials if trial.module == module]
        chosen = best(of_module)
        for t in sorted(of_module, key=lambda trial: (trial.lr, trial.beta)):
            mark = "**" if t is chosen else ""
            notes = [] if t.is_healthy else ["excluded"]
            notes += ["on the edge of the grid"] if t is chosen and is_on_edge(of_module) else []
            lines.append(
                f"| {module} | {t.lr:.1e} | {t.beta:g} | {mark}{t.win_rate:.1f}{mark} | {t.stderr:.1f} | {t.kl:.2f} "
                f"| {100 * t.cut:.1f} | {t.agreement:.2f} | {', '.join(notes)} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Score all trials of a finished tuning experiment; write the table and the trials."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="a tuning experiment whose runs are finished")
    parser.add_argument("--out", required=True, type=Path, help="Markdown table; trials go to a .json next to it")
    arguments = parser.parse_args()
    try:
        experiment = load_and_pin(arguments.config)
        check_equal_trials(experiment)
        worlds = {experiment.world_of(run.seed) for run in experiment.runs()}
        validation = {world: validation_of(experiment, world) for world in sorted(worlds)}
        trials = [run_trial(experiment, name, validation) for name in experiment.methods]
        write_text(arguments.out, table(trials, experiment))
        write_json(arguments.out.with_suffix(".json"), [vars(trial) for trial in trials])
    except (ConfigError, DataError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
