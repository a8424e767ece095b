"""The judges that an experiment may name: config/judges.yaml, checked, and opened by name."""

from __future__ import annotations

from eval.judges import Judge
from eval.judges.gold import GoldJudge
from metaapo.config import Experiment


def open_judge(experiment: Experiment, name: str) -> Judge:
    """The judge of that name, ready to be asked."""
    return GoldJudge(name, experiment.world.name)
