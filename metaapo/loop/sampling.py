"""Sampling from the current policy, with transformers or vLLM, divided between a job's processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

from accelerate.utils import DistributedType

from metaapo.config import SamplingConfig
from metaapo.data import DataError
from metaapo.loop.policies import Policies
from metaapo.loop.processes import Processes
from metaapo.loop.prompts import Prompt
from metaapo.models.generate import Response, generate
from metaapo.models.vllm_backend import Engine


class Sampler:
    """Samples responses from the current policy."""

    def __init__(self, policies: Policies, processes: Processes, settings: SamplingConfig) -> None:
        self.policies, self.processes, self.settings = policies, processes, settings
        self._engine: Engine | None = None

    @contextmanager
    def one_engine(self) -> Iterator[None]:
        """Let one engine draw all samples inside, which all come from the same checkpoint; it starts with the first."""
        if self.works_while_training or self.policies.checkpoint is None:
            yield
            return
        with Engine(self.policies.checkpoint, self.settings.vllm) as self._engine:
            try:
                yield
            finally:
                self.policies.loads["engine"] += self._engine.starts
                self._engine = None

    @property
    def works_while_training(self) -> bool:
        """Whether the policy can be sampled while it is trained; vLLM waits for the saved checkpoint."""
        return self.settings.backend == "transformers"

    def sample(
        self, prompts: Sequence[Prompt], n: int, temperature: float, top_p: float, seed: int
    ) -> list[list[Response]]:
        """Sample n responses of the current policy to each prompt.

        Every process samples for its share of the prompts; where several GPUs serve one engine, the first of their
        processes does. The transformers backend uses a different random stream in each process; vLLM seeds every prompt
        separately, unless `sampling.vllm.seed_per_prompt` is false.

        Raises:
            DataError: the backend cannot sample from the policy in its current state.
        """
        draw = partial(
            generate,
            tokenizer=self.policies.tokenizer,
            n=n,
            temperature=temperature,
            top_p=top_p,
            max_new_tokens=self.settings.max_new_tokens,
            batch_size=self.settings.batch_size,
        )
        work = self._from_memory if self.works_while_training else self._from_checkpoint
        self._check()
        every = 1 if self.works_while_training else min(self.settings.vllm.tensor_parallel, self.processes.n)
        return self.processes.share(prompts, partial(work, draw, seed), every=every)

    def _from_memory(self, draw: Any, seed: int, share: Sequence[Prompt]) -> list[list[Response]]:
        policy = self.processes.accelerator.unwrap_model(self.policies.policy)
        messages = [prompt.messages for prompt in share]
        with self.processes.arithmetic():
            return draw(policy, conversations=messages, seed=(seed + self.processes.rank) % 2**63)

    def _from_checkpoint(self, draw: Any, seed: int, share: Sequence[Prompt]) -> list[list[Response]]:
        messages = [prompt.messages for prompt in share]
        with nullcontext() if self._engine else self.one_engine():
            return draw(self._engine, conversations=messages, seed=seed)

    def _check(self) -> None:
        """Check that the policy can be sampled, and free memory for vLLM's engine."""
        context = self.policies.context
        if not self.works_while_training:
            if self.policies.checkpoint is None:
                raise DataError(
                    f"{context.run.id}: vLLM samples from checkpoints on disk; use the transformers backend"
                )
            self.policies.release()
        elif self.processes.accelerator.distributed_type == DistributedType.FSDP:
            raise DataError(
                f"{context.experiment.hardware.launcher}: the policy's weights are sharded and cannot "
                "be used by transformers; set sampling.backend to vllm"
            )
