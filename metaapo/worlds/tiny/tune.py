"""Tune every method with the same number of trials, scored on prompts used in neither training nor evaluation.

    snakemake tune --cores all --configfile config/tuning.yaml

The experiment's methods are the trials, equally many per module (config/tuning.yaml). Every trial's final policy
answers the same held-out prompts from the training pool. A method's best trial is the one with the highest mean gold
reward among those that stayed near the SFT policy.
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
from metaapo.experiment import Experiment
from metaapo.worlds.tiny.data import training_prompts
from metaapo.worlds.tiny.gold import gold

if TYPE_CHECKING:
    from metaapo.models.generate import Response

PROMPTS = 1024  # gives a standard error of about a hundredth of the gold scale
KL_LIMIT = 7.5  # nats per response, half of reports.health's limit: near a collapse, KL varies twofold between seeds


@dataclass(frozen=True)
class Trial:
    """One setting of one method, over the tuning seeds.

    Attributes:
        module: the method's module.
        name: the experiment's entry.
        lr: peak learning rate.
        beta: DPO temperature, or PPO's KL coefficient.
        reward: mean gold reward of the last policy's answers, over seeds and prompts.
        stderr: its standard error over prompts (seeds averaged first).
        kl: KL to the SFT policy, nats per response.
        length: mean tokens per answer.
    """

    module: str
    name: str
    lr: float
    beta: float
    reward: float
    stderr: float
    kl: float
    length: float


def validation_prompts(experiment: Experiment, world: int, count: int = PROMPTS) -> list[list[Message]]:
    """Draw prompts from the training pool (so none used in evaluation) that are in no training record of the world."""
    data = experiment.world_path(world) / "data"
    seen = {str(row["messages"]) for name in ("pairs.jsonl", "sft.jsonl") for row in read_jsonl(data / name)}
    pool = (messages for _, messages in training_prompts(random.Random(f"tiny/{world}/tuning")))
    return list(itertools.islice((messages for messages in pool if str(messages) not in seen), count))


def answers(experiment: Experiment, checkpoint: Path, prompts: Sequence[list[Message]]) -> list[Response]:
    """Generate a policy's answers, one per prompt, sampled as in evaluation."""
    from metaapo.models.generate import generate
    from metaapo.models.load import load_policy

    policy, tokenizer = load_policy(checkpoint)
    settings = experiment.evaluation
    responses = generate(
        policy,
        tokenizer,
        prompts,
        n=1,
        temperature=settings.temperature,
        top_p=1.0,
        max_new_tokens=settings.max_new_tokens,
        batch_size=settings.batch_size,
        seed=0,
    )
    return [response for (response,) in responses]


def gold_rewards(prompts: Sequence[list[Message]], responses: Sequence[Response]) -> list[float]:
    """Gold reward of each answer."""
    return [gold(messages, response.text).reward for messages, response in zip(prompts, responses)]


def run_trial(experiment: Experiment, name: str, prompts: dict[int, list[list[Message]]]) -> Trial:
    """Score one entry of the experiment over all its seeds."""
    rewards, lengths, kls = [], [], []
    for run in (run for run in experiment.runs() if run.method == name):
        conversations, path = prompts[experiment.world_of(run.seed)], experiment.run_path(run)
        answered = answers(experiment, path / f"iter{experiment.iterations}" / "model", conversations)
        rewards.append(gold_rewards(conversations, answered))
        lengths.append(np.mean([len(response.token_ids) for response in answered]))
        kls.append(read_json(path / "run.json")["iterations"][-1]["kl"])
    train = experiment.train_of(name)
    per_prompt = np.mean(rewards, axis=0)
    return Trial(
        module=experiment.methods[name].module or name,
        name=name,
        lr=train.lr,
        beta=train.beta,
        reward=float(per_prompt.mean()),
        stderr=float(per_prompt.std(ddof=1) / np.sqrt(len(per_prompt))),
        kl=float(np.mean(kls)),
        length=float(np.mean(lengths)),
    )


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


def best(trials: Sequence[Trial]) -> Trial:
    """The trial with the highest mean gold reward among those within KL_LIMIT, or among all if none is."""
    near = [trial for trial in trials if trial.kl <= KL_LIMIT]
    return max(near or trials, key=lambda trial: trial.reward)


def table(trials: Sequence[Trial], sft_reward: float, experiment: Experiment) -> str:
    """Format all trials as Markdown, with the best of each method in bold."""
    name, seeds = experiment.experiment, " and ".join(map(str, experiment.seeds))
    lines = [
        "# Tuning",
        "",
        f"Made by `snakemake tune --cores all --configfile config/{name}.yaml`. Every method has the same number of",
        f"trials. Each is trained for {experiment.iterations} iterations with seed {seeds}, which no other",
        f"experiment uses; its last policy answers {PROMPTS} prompts of the training pool that are in no training",
        f"record and no test. Of the trials within {KL_LIMIT:g} nats of the SFT policy the one with the highest mean",
        "gold reward is taken (in bold).",
        f"The SFT policy has {sft_reward:.3f} there.",
        "",
        "| method | lr | beta | gold reward | standard error | KL to SFT, nats | tokens |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for module in dict.fromkeys(trial.module for trial in trials):
        of_module = [trial for trial in trials if trial.module == module]
        for t in sorted(of_module, key=lambda trial: (trial.lr, trial.beta)):
            mark = "**" if t is best(of_module) else ""
            lines.append(
                f"| {module} | {t.lr:.1e} | {t.beta:g} | {mark}{t.reward:.3f}{mark} | {t.stderr:.3f} | {t.kl:.2f} "
                f"| {t.length:.1f} |"
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
        prompts = {world: validation_prompts(experiment, world) for world in sorted(worlds)}
        trials = [run_trial(experiment, name, prompts) for name in experiment.methods]
        before = np.mean(
            [
                gold_rewards(asked, answers(experiment, experiment.world_path(w) / "sft", asked))
                for w, asked in prompts.items()
            ]
        )
        write_text(arguments.out, table(trials, float(before), experiment))
        write_json(arguments.out.with_suffix(".json"), [vars(trial) for trial in trials])
    except (ConfigError, DataError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
