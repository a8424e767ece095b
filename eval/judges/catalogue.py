"""The judges that an experiment may name: config/judges.yaml, checked, and opened by name."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from eval.judges import Judge
from metaapo.config import ConfigError, Experiment, Section


class Price(Section):
    """Dollars per million tokens."""

    input: float = Field(0.0, ge=0)
    output: float = Field(0.0, ge=0)


class JudgeConfig(Section):
    """One judge; which keys matter depends on its kind."""

    kind: Literal["gold", "reward-model", "openai", "replay"]
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

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == "openai" and not self.model:
            raise ValueError("a judge of kind openai needs the model's name")
        if self.kind == "replay" and not self.path:
            raise ValueError("a judge of kind replay needs the path of stored judgments")
        if self.lowest >= self.highest:
            raise ValueError("lowest must be below highest")
        return self

    def is_live(self, today: datetime.date) -> bool:
        """Whether the judge can still be asked."""
        return self.kind == "replay" or self.end_of_life is None or today < self.end_of_life


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
    return judges


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


def judge_settings(experiment: Experiment, name: str) -> dict[str, object]:
    """What a judge's opinions depend on, as plain data: its entry without what only steers the asking."""
    steering = {"concurrency", "timeout", "attempts", "backoff", "max_dollars", "price", "api_key_env", "url"}
    return find_judge(experiment.evaluation.judges_file, name).model_dump(mode="json", exclude=steering)


def judge_code(experiment: Experiment, name: str) -> list[str]:
    """Source files whose change makes a judge's opinions out of date."""
    kind = find_judge(experiment.evaluation.judges_file, name).kind
    return {
        "gold": ["eval/judges/gold.py", "eval/judges/rewards.py", f"metaapo/worlds/{experiment.world.name}.py"],
        "reward-model": ["eval/judges/reward_model.py", "eval/judges/rewards.py", "metaapo/annotate.py"],
        "openai": ["eval/judges/openai.py", "eval/judges/prompts.py"],
        "replay": ["eval/judges/replay.py"],
    }[kind]


def store_path(experiment: Experiment, name: str) -> Path:
    """A judge's raw answers, shared by all experiments: nothing is asked, or paid, twice."""
    return Path(experiment.results_dir) / "judge_store" / f"{name}.sqlite"


def open_judge(experiment: Experiment, name: str, world: int = 0, quote: bool = False) -> Judge:
    """The judge of that name, ready to be asked.

    Args:
        experiment: names the catalogue, and the world that a gold judge or reward model belongs to.
        name: an entry of the catalogue.
        world: seed of the world of the models that are judged.
        quote: an `openai` judge then sends nothing and only notes what it would ask.

    Raises:
        ConfigError: no such judge, or it is past its end of life.
    """
    config = find_judge(experiment.evaluation.judges_file, name)
    if config.kind == "gold":
        from eval.judges.gold import GoldJudge

        return GoldJudge(name, experiment.world.name)
    if config.kind == "reward-model":
        from eval.judges.reward_model import RewardModelJudge

        checkpoint = config.checkpoint or experiment.world_path(world) / "reward_model"
        return RewardModelJudge(name, config, checkpoint, experiment.hardware.score_batch_size)
    if config.kind == "replay":
        from eval.judges.replay import ReplayJudge

        return ReplayJudge(name, config.path)
    from eval.judges.client import Client
    from eval.judges.openai import OpenAIJudge
    from eval.judges.store import Store

    client = Client(config, Store(store_path(experiment, name)), quote=quote)
    return OpenAIJudge(name, config, client, experiment.evaluation.arenahard_version)
