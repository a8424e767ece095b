"""Open the judges of an experiment by name."""

from __future__ import annotations

import importlib
from typing import Any

from eval.judges import Judge
from eval.judges.config import JudgeConfig, find_judge, gold_module
from eval.judges.wire import endpoint_of
from metaapo.experiment import Experiment
from metaapo.provenance import code_hash

PANEL = "eval.judges.panel"


def judge_settings(experiment: Experiment, name: str) -> dict[str, object]:
    """The settings that judgments depend on, as plain data: the judge's entry without settings of the transport."""
    steering = {"concurrency", "timeout", "attempts", "backoff", "max_dollars", "price", "api_key_env", "url", "batch"}
    steering |= {"batch_poll", "requests_per_minute", "tokens_per_minute", "checked", "sources", "max_unreadable"}
    steering |= {"url_file", "url_wait"}
    config = find_judge(experiment.evaluation.judges_file, name)
    asked = {"endpoint": endpoint_of(config)} if config.kind == "openai" else {}
    members = {"members": {member: judge_settings(experiment, member) for member in config.members}}
    return config.model_dump(mode="json", exclude=steering) | asked | members


def judging_code(experiment: Experiment, benchmark: str, name: str) -> str:
    """Hash of the code that a judge's judgments on a benchmark depend on; it excludes other kinds of judges."""
    return code_hash("eval.judge", f"eval.{benchmark}.judging", *_modules(experiment, name))


def _modules(experiment: Experiment, name: str) -> list[str]:
    """The modules of a judge that are imported by name."""
    config = find_judge(experiment.evaluation.judges_file, name)
    modules = [_module_of(config.kind)] + ([gold_module(experiment.world.name)] if config.kind == "gold" else [])
    modules += [PANEL] if _is_asked_more(config) else []
    return modules + [module for member in config.members for module in _modules(experiment, member)]


def kinds_of(experiment: Experiment, name: str) -> set[str]:
    """A judge's kind, and those of a panel's members."""
    config = find_judge(experiment.evaluation.judges_file, name)
    return {config.kind}.union(*(kinds_of(experiment, member) for member in config.members))


def _module_of(kind: str) -> str:
    """The module of a kind of judge: the kind's name as a Python identifier."""
    return f"eval.judges.{kind.replace('-', '_')}"


def _is_asked_more(config: JudgeConfig) -> bool:
    """Whether a judge is asked more than once about the same comparison or conversation."""
    return config.repeats > 1 or config.orders == "both"


def open_judge(experiment: Experiment, name: str, world: int = 0, quote: bool = False, sample: int = 0) -> Judge:
    """Open the judge of that name.

    Args:
        experiment: names the catalogue, and the world that a gold judge or reward model belongs to.
        name: an entry of the catalogue.
        world: seed of the world of the models that are judged.
        quote: if true, a paid judge sends nothing and only counts its requests.
        sample: added to the entry's `sample`; a new number asks the judge afresh.

    Raises:
        ConfigError: unknown judge, or the judge is past its end of life.
    """
    config = find_judge(experiment.evaluation.judges_file, name)
    config = config.model_copy(update={"sample": config.sample + sample})

    def open_one(config: JudgeConfig) -> Judge:
        return importlib.import_module(_module_of(config.kind)).open_judge(name, config, experiment, world, quote)

    if _is_asked_more(config):
        return importlib.import_module(PANEL).ask_more(name, config, open_one)
    return open_one(config)


def clients_of(judge: Judge) -> list[Any]:
    """The clients of a paid judge, or of a panel's members; empty if nothing is sent."""
    own = getattr(judge, "client", None)
    inner = [client for member in getattr(judge, "members", []) for client in clients_of(member)]
    return ([own] if own is not None else []) + inner
