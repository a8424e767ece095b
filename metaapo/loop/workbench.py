"""Everything a run uses during training: its directory, processes, models, sampler, scorer and annotator.

Used by both the shared loop (metaapo/loop/trainer.py) and PPO (baselines/ppo.py), which has its own update.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from metaapo.config import SamplingConfig, TrainConfig
from metaapo.loop.annotate import Annotator
from metaapo.loop.forward import Scorer
from metaapo.loop.kept import Kept
from metaapo.loop.policies import Policies
from metaapo.loop.processes import Processes, start_processes
from metaapo.loop.prompts import Prompt, read_prompts
from metaapo.loop.run import RunContext
from metaapo.loop.sampling import Sampler


@dataclass(frozen=True)
class Workbench:
    """The components of the loop for one run."""

    context: RunContext
    processes: Processes
    policies: Policies
    sampler: Sampler
    scorer: Scorer
    annotator: Annotator
    kept: Kept

    @classmethod
    def of(cls, context: RunContext) -> Self:
        """Build everything a run needs; models are loaded when they are first used.

        Raises:
            DataError: the number of processes started differs from the configuration.
        """
        experiment, method = context.experiment, context.run.method
        processes = start_processes(experiment.train_of(method), experiment.hardware)
        policies = Policies(context, processes)
        sampling = experiment.sampling_of(method)
        sizes = experiment.hardware.score_batch_size, experiment.hardware.score_batch_tokens
        return cls(
            context,
            processes,
            policies,
            Sampler(policies, processes, sampling),
            Scorer(processes, policies.tokenizer.pad_token_id, *sizes),
            Annotator(policies, processes, sampling.annotator_noise, *sizes),
            Kept(context, processes),
        )

    @property
    def train(self) -> TrainConfig:
        """The section `train` of the run's method."""
        return self.policies.config

    @property
    def sampling(self) -> SamplingConfig:
        """The section `sampling` of the run's method."""
        return self.sampler.settings

    def read_prompts(self, iteration: int) -> list[Prompt]:
        """Read the prompts of an iteration with their offline pairs."""
        return read_prompts(self.context.pairs, iteration, self.policies.tokenizer, self.train.max_length)
