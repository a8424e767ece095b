"""The judges that an experiment may name, opened by name."""

from __future__ import annotations

from pathlib import Path

from eval.judges import Judge
from eval.judges.config import find_judge
from metaapo.experiment import Experiment


def judge_settings(experiment: Experiment, name: str) -> dict[str, object]:
    """What a judge's judgments depend on, as plain data: its entry without what only steers the asking."""
    steering = {"concurrency", "timeout", "attempts", "backoff", "max_dollars", "price", "api_key_env", "url"}
    return find_judge(experiment.evaluation.judges_file, name).model_dump(mode="json", exclude=steering)


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
