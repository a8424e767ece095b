"""Look for what would stop an experiment, before anything is spent: everything from packages to judges.

    python -m eval.doctor --config config/llama3.1-8b.yaml          or: metaapo doctor --config ...

Prints one sentence per finding, each with the way out. The exit status is 1 if the experiment would fail, else 0;
warnings do not change it. Nothing is computed, fetched, written or asked, and only servers on this machine are called
up, to see whether they answer. `metaapo.doctor` checks the training side; this module adds questions and judges.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

from eval.families import family_warnings
from eval.judges.config import JudgeConfig, find_judge, read_judges
from eval.questions import SFT_BASELINE, baseline_answers, baseline_of, load_questions, source_of
from metaapo import doctor
from metaapo.config import ConfigError
from metaapo.data import DataError
from metaapo.doctor import Finding, error, warning
from metaapo.doors import command_line
from metaapo.experiment import Experiment, load

SOON = datetime.timedelta(days=60)
STALE = datetime.timedelta(days=180)  # after which a stated price or date should be looked up again
LOCAL = ("localhost", "127.0.0.1", "::1")
ANSWERS_WITHIN = 2.0  # seconds


def examine(experiment: Experiment, today: datetime.date | None = None) -> Iterator[Finding]:
    """What is wrong with an experiment.

    Args:
        experiment: its configuration is valid already, or it could not have been loaded.
        today: for end-of-life dates; None: the day it is.
    """
    yield from doctor.examine(experiment)
    yield from questions(experiment)
    for name in experiment.judges:
        yield from judge(experiment, name, today or datetime.date.today())


def questions(experiment: Experiment) -> Iterator[Finding]:
    """Questions and baseline answers that are not made with the world."""
    for benchmark in experiment.benchmarks:
        if source_of(experiment, benchmark) == "world":
            continue
        key = f"evaluation.questions.{benchmark}"
        try:
            asked = load_questions(experiment, benchmark, experiment.world.seeds[0]).questions
            key = f"evaluation.baselines.{benchmark}"
            if baseline_of(experiment, benchmark) not in ("", SFT_BASELINE, "world"):
                baseline_answers(experiment, benchmark, experiment.world.seeds[0], asked)
        except (ConfigError, DataError) as missing:
            yield error(key, str(missing))


def judge(experiment: Experiment, name: str, today: datetime.date) -> Iterator[Finding]:
    """What is wrong with a judge, and with a panel's members."""
    key = f"evaluation.judges: {name}"
    try:
        config = find_judge(experiment.evaluation.judges_file, name, today)
    except ConfigError as unusable:
        yield error(key, str(unusable))
        return
    for member in config.members:
        yield from judge(experiment, member, today)
    if config.end_of_life is not None and config.kind != "replay" and config.end_of_life - today < SOON:
        later = [
            other
            for other, entry in read_judges(experiment.evaluation.judges_file).items()
            if entry.kind == "openai" and entry.is_live(today + SOON)
        ]
        yield warning(
            key,
            f"{config.model} reaches its end of life on {config.end_of_life}; judge before then, or choose one that "
            f"lasts: {', '.join(later)}",
        )
    if config.kind == "replay" and not list(Path().glob(config.path.replace("{benchmark}", "*"))):
        yield error(key, f"nothing is stored at {config.path}; correct the path in {experiment.evaluation.judges_file}")
    if config.kind == "reward-model" and config.checkpoint and not (Path(config.checkpoint) / "config.json").is_file():
        yield error(key, f"{config.checkpoint} is no checkpoint; correct the path, or leave it out for the world's own")
    if config.kind == "openai":
        yield from _endpoint(key, config, today)
    models = {
        "the policies": experiment.sft.checkpoint.path,
        "the reward model": experiment.reward_model.checkpoint.path,
    }
    for sentence in family_warnings(f"judge {name}", config.model, models):
        yield warning(key, sentence)


def _endpoint(key: str, config: JudgeConfig, today: datetime.date) -> Iterator[Finding]:
    """What is wrong with a judge behind an endpoint."""
    host = urlsplit(config.url).hostname or ""
    if host in LOCAL:
        if not _answers(config.url):
            yield error(key, f"nobody answers at {config.url}; start the server, such as `vllm serve {config.model}`")
        return
    if not os.environ.get(config.api_key_env, "").strip():
        yield error(key, f"{config.api_key_env} is not set; export the endpoint's key under that name")
    if config.max_dollars == 0:
        yield error(key, "max_dollars is 0, so nothing may be asked; check its price, then raise the cap")
    if config.max_dollars is None:
        yield warning(key, "no cap on what it may cost; set max_dollars in its entry")
    if config.max_dollars != 0 and not config.price.output:
        yield warning(key, "its price is unknown, so no cap can hold; fill in price from the provider's list")
    if config.checked is None or today - config.checked > STALE:
        yield warning(
            key,
            f"its price and dates were last checked {f'on {config.checked}' if config.checked else 'never'}; look them "
            "up at their sources and set checked",
        )


def _answers(url: str) -> bool:
    """Whether something listens at an address."""
    parts = urlsplit(url)
    port = parts.port or {"https": 443}.get(parts.scheme, 80)
    try:
        socket.create_connection((parts.hostname, port), ANSWERS_WITHIN).close()
    except OSError:
        return False
    return True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to a command-line parser."""
    parser.add_argument("--config", required=True, help="the experiment's configuration file")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the findings. Returns the exit status: 0, 1 if the experiment would fail, 2 if it is not valid."""
    try:
        experiment = load(arguments.config)
    except ConfigError as invalid:
        print(f"error: {invalid}", file=sys.stderr)
        return 2
    findings = list(examine(experiment))
    failures = [finding for finding in findings if finding.level == "error"]
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
        return bool(failures)
    print(doctor.outlook(experiment))
    for finding in sorted(findings, key=lambda finding: finding.level):
        print(f"{finding.level}: {finding.where}: {finding.sentence}")
    print(f"{len(failures)} errors, {len(findings) - len(failures)} warnings")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(command_line(__spec__.name, __doc__, add_arguments, run))
