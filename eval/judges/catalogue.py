"""The judges that an experiment may name, opened by name."""

from __future__ import annotations

import importlib

from eval.judges import Judge
from eval.judges.config import find_judge, gold_module
from eval.judges.wire import endpoint_of
from metaapo.experiment import Experiment
from metaapo.provenance import code_hash


def judge_settings(experiment: Experiment, name: str) -> dict[str, object]:
    """What a judge's judgments depend on, as plain data: its entry without what only steers the asking."""
    steering = {"concurrency", "timeout", "attempts", "backoff", "max_dollars", "price", "api_key_env", "url", "batch"}
    steering |= {"batch_poll", "requests_per_minute", "tokens_per_minute", "checked", "sources", "max_unreadable"}
    config = find_judge(experiment.evaluation.judges_file, name)
    asked = {"endpoint": endpoint_of(config)} if config.kind == "openai" else {}
    return config.model_dump(mode="json", exclude=steering) | asked


def judging_code(experiment: Experiment, benchmark: str, name: str) -> str:
    """Hash of the code that a judge's judgments on a benchmark depend on; no other kind of judge is part of it."""
    kind = find_judge(experiment.evaluation.judges_file, name).kind
    gold = [gold_module(experiment.world.name)] if kind == "gold" else []
    return code_hash("eval.judge", f"eval.{benchmark}.judging", _module_of(kind), *gold)


def _module_of(kind: str) -> str:
    """The module behind a kind of judge: the kind's name, as a name of Python."""
    return f"eval.judges.{kind.replace('-', '_')}"


def open_judge(experiment: Experiment, name: str, world: int = 0, quote: bool = False) -> Judge:
    """The judge of that name, ready to be asked.

    Args:
        experiment: names the catalogue, and the world that a gold judge or reward model belongs to.
        name: an entry of the catalogue.
        world: seed of the world of the models that are judged.
        quote: a judge that is paid for then sends nothing and only notes what it would ask.

    Raises:
        ConfigError: no such judge, or it is past its end of life.
    """
    config = find_judge(experiment.evaluation.judges_file, name)
    return importlib.import_module(_module_of(config.kind)).open_judge(name, config, experiment, world, quote)
