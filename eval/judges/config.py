"""What a judge is: the entries of config/judges.yaml, checked."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from metaapo.config import ConfigError, Section


class Price(Section):
    """Dollars per million tokens."""

    input: float = Field(0.0, ge=0)
    output: float = Field(0.0, ge=0)


class JudgeConfig(Section):
    """One judge; which keys matter depends on its kind."""

    kind: Literal["gold", "reward-model", "openai", "replay", "panel"]
    model: str = Field("", description="openai: the model's name at the endpoint; otherwise for the record")
    date: datetime.date | None = Field(None, description="release of the model, or of the judgments that are replayed")
    end_of_life: datetime.date | None = Field(None, description="from this day on nobody can ask it")
    price: Price = Price()
    context: int = Field(0, ge=0, description="longest request plus answer, in tokens; 0: unknown")
    url: str = Field("http://localhost:8000/v1", description="openai: the endpoint, up to and including /v1")
    api_key_env: str = Field("OPENAI_API_KEY", description="openai: environment variable with the key; may be unset")
    concurrency: int = Field(16, ge=1, description="openai: requests side by side")
    timeout: float = Field(300.0, gt=0, description="openai: seconds for one request")
    attempts: int = Field(8, ge=1, description="openai: tries of one request before it counts as lost")
    backoff: float = Field(1.0, gt=0, description="openai: seconds, mean of the first wait between tries; then doubled")
    max_dollars: float | None = Field(None, ge=0, description="openai: never spend more, over all experiments together")
    parameters: dict[str, object] = Field({}, description="openai: more fields of each request")
    prompts: dict[str, str] = Field({}, description="openai: benchmark -> file with its prompts, not the package's")
    checkpoint: str = Field("", description="reward-model: a folder; empty: the reward model of the model's own world")
    tau: float = Field(1.0, gt=0, description="reward-model: Bradley-Terry temperature, in units of reward")
    lowest: float = Field(-4.0, description="reward-model: the reward that gets the lowest grade")
    highest: float = Field(4.0, description="reward-model: the reward that gets the highest grade")
    path: str = Field("", description="replay: stored judgments, a file or folder; {benchmark} stands for its name")
    members: list[str] = Field([], description="panel: names of other judges here, whose judgments are pooled")
    repeats: int = Field(1, ge=1, le=100, description="how often each question is asked; the mean or median counts")
    orders: Literal["one", "both"] = Field(
        "one", description="both: AlpacaEval's answers are shown in both orders and the mean counts, at twice the price"
    )
    sample: int = Field(0, ge=0, description="openai: with another number the same questions are asked afresh")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "openai" and not self.model:
            raise ValueError("a judge of kind openai needs the model's name")
        if self.kind == "replay" and not self.path:
            raise ValueError("a judge of kind replay needs the path of stored judgments")
        if (self.kind == "panel") != (len(self.members) > 1) or len(set(self.members)) < len(self.members):
            raise ValueError("a judge of kind panel, and no other, names two or more members, each once")
        if self.lowest >= self.highest:
            raise ValueError("lowest must be below highest")
        return self

    def is_live(self, today: datetime.date) -> bool:
        """Whether the judge can still be asked."""
        return self.kind == "replay" or self.end_of_life is None or today < self.end_of_life


def gold_module(world: str) -> str:
    """The module of a world that knows the true reward of an answer."""
    return f"metaapo.worlds.{world}.gold"


def read_judges(path: str | Path) -> dict[str, JudgeConfig]:
    """Read a catalogue of judges.

    Raises:
        ConfigError: the file is missing or an entry is wrong; the message names the entry and the key.
    """
    try:
        document = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(
            f"{path}: cannot be read ({str(error).splitlines()[0]}); expected a list of judges"
        ) from error
    if not isinstance(document, dict) or not document:
        raise ConfigError(f"{path}: expected a mapping of judges' names to their settings")
    judges = {}
    for name, entry in document.items():
        try:
            judges[str(name)] = JudgeConfig.model_validate(entry)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join([str(name), *map(str, first["loc"])])
            known = f"; known keys: {', '.join(JudgeConfig.model_fields)}" if first["type"] == "extra_forbidden" else ""
            raise ConfigError(f"{path}: {key}: {first['msg'].removeprefix('Value error, ')}{known}") from error
    _check_panels(path, judges)
    return judges


def _check_panels(path: str | Path, judges: dict[str, JudgeConfig]) -> None:
    alone = [name for name, judge in judges.items() if judge.kind != "panel"]
    for name, judge in judges.items():
        for member in judge.members:
            if member not in alone:
                known = ", ".join(alone)
                raise ConfigError(f"{path}: {name}.members: {member!r} is no single judge of this file; known: {known}")


def find_judge(path: str | Path, name: str, today: datetime.date | None = None) -> JudgeConfig:
    """The entry of a judge that can still be asked.

    Raises:
        ConfigError: no such judge, or it is past its end of life; the message lists those that are live.
    """
    judges = read_judges(path)
    today = today or datetime.date.today()
    live = ", ".join(other for other, judge in judges.items() if judge.is_live(today))
    if name not in judges:
        raise ConfigError(f"judge {name!r}: not in {path}; live judges there: {live}")
    if not judges[name].is_live(today):
        raise ConfigError(
            f"judge {name!r}: its model {judges[name].model} reached its end of life on {judges[name].end_of_life} and "
            f"cannot be asked any more; replay stored judgments (kind: replay), or take a live judge of {path}: {live}"
        )
    return judges[name]
