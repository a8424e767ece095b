"""What a judge is: the entries of config/judges.yaml, checked."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator

from metaapo import PROJECT
from metaapo.config import NAME, ConfigError, Section
from metaapo.data import DataError, read_yaml


class Price(Section):
    """Dollars per million tokens."""

    input: float = Field(0.0, ge=0, allow_inf_nan=False)
    output: float = Field(0.0, ge=0, allow_inf_nan=False)


PARAMETERS_OF_OURS = ("model", "messages", "stream", "n")  # which decide what is asked, or how the answer is read


class JudgeConfig(Section):
    """One judge; which keys matter depends on its kind."""

    kind: Literal["gold", "reward-model", "openai", "replay", "panel"]
    model: str = Field("", description="openai: the model's name at the endpoint; otherwise for the record")
    answers_as: list[str] = Field(
        [], description="openai: other names under which the endpoint may say that this model answered"
    )
    date: datetime.date | None = Field(None, description="release of the model, or of the judgments that are replayed")
    end_of_life: datetime.date | None = Field(None, description="from this day on nobody can ask it")
    price: Price = Price()
    checked: datetime.date | None = Field(None, description="the day on which date, end_of_life and price were checked")
    sources: dict[Literal["date", "end_of_life", "price"], str] = Field(
        {}, description="where each of these stands: an address, or a sentence on how to fill it in"
    )
    context: int = Field(0, ge=0, description="longest request plus answer, in tokens; 0: unknown")
    api: Literal["openai", "azure", "anthropic"] = Field(
        "openai", description="openai: how the endpoint is addressed and how a request and its key look"
    )
    api_version: str = Field(
        "", pattern=r"^[A-Za-z0-9._-]*$", description="openai: of Azure's or Anthropic's API; empty: the one we know"
    )
    url: str = Field(
        "http://localhost:8000/v1",
        pattern=r"^https?://[^\s\x00-\x1f]+$",
        description="openai: the endpoint, up to and including /v1 (azure: up to the deployment's name)",
    )
    url_file: str = Field(
        "",
        description="openai: a file that holds the url instead, written by the job that serves the judge when it is "
        "ready (docs/scaling.md); empty: url",
    )
    url_wait: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="openai: seconds to wait for url_file if it is not there yet"
    )
    endpoint: str = Field(
        "", description="openai: tells this endpoint from others in the store, if its url may change; empty: the url"
    )
    api_key_env: str = Field(
        "OPENAI_API_KEY",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="openai: environment variable with the key; may be unset",
    )
    token_limit: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="openai: the field that limits an answer; reasoning models want the second"
    )
    thinking_tokens: int = Field(
        0, ge=0, description="openai: tokens for thinking, beyond the benchmark's limit of an answer; 0: does not think"
    )
    logprobs: bool = Field(
        True,
        description="openai: whether the endpoint gives log-probabilities; without them AlpacaEval's preference is 1 "
        "or 2, by the judge's one letter",
    )
    batch: bool = Field(False, description="openai: ask through the batch endpoint, at half the price, within a day")
    batch_poll: float = Field(30.0, gt=0, description="openai: seconds between two looks at a batch")
    concurrency: int = Field(16, ge=1, le=4096, description="openai: requests side by side")
    requests_per_minute: float = Field(0, ge=0, description="openai: what the endpoint allows; 0: no limit")
    tokens_per_minute: float = Field(
        0, ge=0, description="openai: likewise, of requests and answers together; 0: no limit"
    )
    timeout: float = Field(300.0, gt=0, allow_inf_nan=False, description="openai: seconds for one request")
    attempts: int = Field(8, ge=1, description="openai: tries of one request before it counts as lost")
    backoff: float = Field(
        1.0,
        gt=0,
        allow_inf_nan=False,
        description="openai: seconds, mean of the first wait between tries; then doubled",
    )
    max_unreadable: float = Field(
        0.05, ge=0, le=1, description="openai: share of judgments refused or unreadable beyond which a run stops"
    )
    max_dollars: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="openai: never spend more, over all experiments together"
    )
    parameters: dict[str, object] = Field(
        {}, description="openai: more fields of each request; null removes one that the benchmark sets"
    )
    prompts: dict[str, str] = Field({}, description="openai: benchmark -> file with its prompts, not the package's")
    checkpoint: str = Field("", description="reward-model: a folder; empty: the reward model of the model's own world")
    tau: float = Field(
        1.0, gt=0, allow_inf_nan=False, description="reward-model: Bradley-Terry temperature, in units of reward"
    )
    lowest: float = Field(-4.0, allow_inf_nan=False, description="reward-model: the reward that gets the lowest grade")
    highest: float = Field(4.0, allow_inf_nan=False, description="reward-model: the reward that gets the highest grade")
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
        if self.api == "anthropic" and self.logprobs:
            raise ValueError("Anthropic's API gives no log-probabilities; set logprobs: false")
        if self.thinking_tokens and self.logprobs:
            raise ValueError("a thinking judge gives no log-probabilities of its answer; set logprobs: false")
        return self

    @field_validator("url")
    @classmethod
    def _has_host_and_port(cls, url: str) -> str:
        parts = urlsplit(url)
        if not parts.hostname or parts.port == 0:  # `port` raises ValueError beyond 65535
            raise ValueError(f"{url!r} names no host, or port 0")
        return url

    @field_validator("parameters")
    @classmethod
    def _leaves_ours(cls, parameters: dict[str, object]) -> dict[str, object]:
        for name in PARAMETERS_OF_OURS:
            if name in parameters:
                raise ValueError(f"{name!r} cannot be a parameter: the judge's entry and the benchmark decide it")
        for name in ("max_tokens", "max_completion_tokens"):
            value = parameters.get(name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} is {value!r}; expected a whole number above 0, or null to leave it out")
        return parameters

    def unsourced(self) -> list[str]:
        """Facts of this entry that say neither where they come from nor when that was checked."""
        facts = [name for name in ("date", "end_of_life") if getattr(self, name) is not None]
        if self.price.input or self.price.output:
            facts.append("price")
        return [name for name in facts if self.checked is None or not self.sources.get(name, "").strip()]

    def is_live(self, today: datetime.date) -> bool:
        """Whether the judge can still be asked."""
        return self.kind == "replay" or self.end_of_life is None or today < self.end_of_life


def gold_module(world: str) -> str:
    """The module of a world that knows the true reward of an answer."""
    return f"metaapo.worlds.{world}.gold"


def read_judges(path: str | Path) -> dict[str, JudgeConfig]:
    """Read a catalogue of judges.

    Args:
        path: relative to the working directory or, for a workflow that uses this one as a module, to the project.

    Raises:
        ConfigError: the file is missing or an entry is wrong; the message names the entry and the key.
    """
    try:
        expected = "a list of judges; work in a clone of the project, or set evaluation.judges_file"
        document = read_yaml(path if Path(path).is_file() else PROJECT / path, expected)
    except DataError as error:
        raise ConfigError(str(error)) from error
    if not isinstance(document, dict) or not document:
        raise ConfigError(f"{path}: expected a mapping of judges' names to their settings")
    judges = {}
    for name, entry in document.items():
        if not re.fullmatch(NAME, str(name)):
            raise ConfigError(f"{path}: {name!r} cannot be a judge's name; use letters, digits, '.', '_' and '-'")
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
    live = ", ".join(other for other, judge in judges.items() if judge.is_live(today)) or "none"
    if name not in judges:
        raise ConfigError(f"judge {name!r}: not in {path}; live judges there: {live}")
    if not judges[name].is_live(today):
        raise ConfigError(
            f"judge {name!r}: its model {judges[name].model} reached its end of life on {judges[name].end_of_life} and "
            f"cannot be asked any more; replay stored judgments (kind: replay), or take a live judge of {path}: {live}"
        )
    return judges[name]
