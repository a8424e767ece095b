"""What a run holds while it trains, and what every loop does with it: load, sample, probe, record.

The shared loop (metaapo/trainer.py) stands on it, and so does PPO (baselines/ppo.py), which brings its own update.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from metaapo.annotate import reward_responses
from metaapo.data import DataError, Message, read_jsonl, require_keys, write_jsonl
from metaapo.generate import Response, generate
from metaapo.logps import IntList, all_sequence_logps
from metaapo.models import encode_prompt, encode_response, load_policy, load_reward_model
from metaapo.run import RunContext

PROBE_PROMPTS = 64  # enough for a curve of KL and length; the benchmarks, not the probes, measure quality


@dataclass(frozen=True)
class Pair:
    """A preference pair as token ids, with the reference's log-probabilities (natural log, summed).

    Attributes:
        chosen: y_w.
        rejected: y_l.
        reference_chosen: log ref(y_w given x).
        reference_rejected: log ref(y_l given x).
        greedy: y_0, the prompt's greedy response, where the method asks for it.
        reference_greedy: log ref(y_0 given x).
    """

    chosen: IntList
    rejected: IntList
    reference_chosen: float = 0.0
    reference_rejected: float = 0.0
    greedy: IntList | None = None
    reference_greedy: float = 0.0


@dataclass
class Prompt:
    """One prompt of an iteration's part with its pairs and its line of the annotation ledger."""

    id: str
    messages: list[Message]
    ids: IntList
    texts: tuple[str, str]
    offline: Pair
    online: Pair | None = None
    reward_gap: float = 0.0
    ledger: dict[str, Any] = field(default_factory=dict)


def read_part(path: Path, iteration: int) -> list[dict[str, Any]]:
    """The offline pairs of one iteration.

    Raises:
        DataError: a record lacks a key, holds an empty response, or the iteration has no pairs.
    """
    rows = read_jsonl(path)
    for number, row in enumerate(rows, start=1):
        require_keys(row, ("id", "messages", "chosen", "rejected", "iteration"), f"{path}:{number}")
        for side in ("chosen", "rejected"):
            if not row[side].strip():
                raise DataError(f"{path}:{number}: empty {side} response; drop the pair or fill it in")
    part = [row for row in rows if row["iteration"] == iteration]
    if not part:
        raise DataError(f"{path}: no pairs of iteration {iteration}; lower `iterations` or build a larger world")
    return part


class Workbench:
    """The models and settings of one run.

    Attributes:
        policy: the policy being trained; `load` puts the start of an iteration here.
        reference: the frozen reference of the iteration.
        sft: the SFT policy, from which the KL divergence is measured.
    """

    def __init__(self, context: RunContext) -> None:
        self.context = context
        self.config = context.experiment.train_of(context.run.method)
        self.sampling = context.experiment.sampling_of(context.run.method)
        self.accelerator = Accelerator()
        self.device = self.accelerator.device
        self.sft, self.tokenizer = load_policy(context.world / "sft")
        self.reward_model, self.reward_tokenizer = load_reward_model(context.world / "reward_model")
        for model in (self.sft, self.reward_model):
            model.to(self.device)

    def load(self, iteration: int) -> None:
        """Take the policy and the reference of an iteration's start from disk."""
        policy, _ = load_policy(self.context.start_path(iteration))
        self.policy = policy.to(self.device)
        reference = self.context.reference_path(iteration)
        if reference == self.context.world / "sft":
            self.reference = self.sft
        else:
            self.reference = load_policy(reference)[0].to(self.device)

    def read_prompts(self, iteration: int) -> list[Prompt]:
        """The prompts of an iteration's part, with their offline pairs as token ids.

        Raises:
            DataError: a bad record, or a pair longer than `train.max_length`.
        """
        path = self.context.world / "data" / "pairs.jsonl"
        prompts = []
        for row in read_part(path, iteration):
            ids = encode_prompt(self.tokenizer, row["messages"])
            pair = Pair(*(encode_response(self.tokenizer, row[side]) for side in ("chosen", "rejected")))
            longest = len(ids) + max(len(pair.chosen), len(pair.rejected))
            if longest > self.config.max_length:
                raise DataError(
                    f"{path}: pair {row['id']} has {longest} tokens, train.max_length is {self.config.max_length}; "
                    "raise it or drop the pair"
                )
            ledger = {"id": row["id"], "task": row.get("task", "")}
            texts = (row["chosen"], row["rejected"])
            prompts.append(Prompt(row["id"], row["messages"], ids, texts, pair, ledger=ledger))
        return prompts

    def logps(self, model: nn.Module, prompts: Sequence[IntList], responses: Sequence[IntList]) -> Tensor:
        """Log-probabilities of responses, float32 (n,), without gradients, on the CPU."""
        return all_sequence_logps(model, prompts, responses, self.tokenizer.pad_token_id)

    def sample(
        self, prompts: Sequence[Prompt], n: int, temperature: float, top_p: float, seed: int
    ) -> list[list[Response]]:
        """n responses of the current policy to each prompt."""
        return generate(
            self.accelerator.unwrap_model(self.policy),
            self.tokenizer,
            [prompt.messages for prompt in prompts],
            n=n,
            temperature=temperature,
            top_p=top_p,
            max_new_tokens=self.sampling.max_new_tokens,
            batch_size=self.sampling.batch_size,
            seed=seed,
        )

    def rewards(self, prompts: Sequence[Prompt], texts: Sequence[Sequence[str]]) -> list[list[float]]:
        """Rewards of candidate responses, same shape as `texts`."""
        messages = [prompt.messages for prompt in prompts]
        return reward_responses(self.reward_model, self.reward_tokenizer, messages, texts)[0]

    def optimizer(self, model: nn.Module, steps: int, lr: float) -> tuple[torch.optim.Optimizer, LambdaLR]:
        """AdamW with linear warm-up and a cosine down to lr * lr_end_ratio."""
        config = self.config
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=lr, betas=config.adam_betas, weight_decay=config.weight_decay
        )
        warmup = max(1, round(config.warmup_ratio * steps))

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            progress = (step - warmup) / max(1, steps - warmup)
            return config.lr_end_ratio + (1 - config.lr_end_ratio) * 0.5 * (1 + np.cos(np.pi * progress))

        return optimizer, LambdaLR(optimizer, factor)

    def probe(self, iteration: int, step: int, prompts: list[Prompt]) -> list[dict[str, Any]]:
        """Sample one response to a few prompts: how far has the policy moved, how long are its answers?

        The reward here is for the record only; it trains nothing and is no part of the annotation budget.
        """
        probed = prompts[:PROBE_PROMPTS]
        seed = self.context.torch_seed(iteration, f"probe{step}")
        own = [response for (response,) in self.sample(probed, 1, 1.0, 1.0, seed)]
        rewards = self.rewards(probed, [[response.text] for response in own])
        sft = self.logps(self.sft, [p.ids for p in probed], [response.token_ids for response in own]).tolist()
        return [
            {
                "iteration": iteration,
                "step": step,
                "id": prompt.id,
                "response": response.text,
                "policy_logp": sum(response.logps),
                "sft_logp": sft_logp,
                "reward": reward[0],
                "tokens": len(response.token_ids),
                "finished": response.finished,
            }
            for prompt, response, sft_logp, reward in zip(probed, own, sft, rewards)
        ]

    def save(self, folder: Path, prompts: list[Prompt], log: list[dict], probes: list[dict]) -> None:
        """Write the trained policy, the log, the annotation ledger and the probes of an iteration."""
        self.policy.save_pretrained(folder / "model", safe_serialization=True)
        self.tokenizer.save_pretrained(folder / "model")
        write_jsonl(folder / "train.jsonl", log)
        write_jsonl(folder / "annotations.jsonl", [prompt.ledger for prompt in prompts])
        write_jsonl(folder / "probes.jsonl", probes)

    def summary(self, prompts: list[Prompt], probes: list[dict], clock: Clock) -> dict[str, Any]:
        """The iteration in numbers; annotation_ratio is responses scored, relative to K for every prompt."""
        ledger = [prompt.ledger for prompt in prompts]
        outcomes = [row["outcome"] for row in ledger]
        scored = sum(row["responses"] for row in ledger)
        last = [row for row in probes if row["step"] == probes[-1]["step"]]
        return {
            "prompts": len(prompts),
            "sampled": sum(row["sampled"] for row in ledger),
            "responses_generated": sum(row["generated"] for row in ledger),
            "responses_scored": scored,
            "reward_model_calls": sum(row["calls"] for row in ledger),
            "tokens_generated": sum(row["tokens"] for row in ledger),
            "pairs": outcomes.count("pair"),
            "ties": outcomes.count("tie"),
            "identical": outcomes.count("identical"),
            "annotation_ratio": scored / (self.context.experiment.sampling.k * len(prompts)),
            "kl": float(np.mean([row["policy_logp"] - row["sft_logp"] for row in last])),
            "mean_length": float(np.mean([row["tokens"] for row in last])),
            "finished": float(np.mean([row["finished"] for row in last])),
            "proxy_reward": float(np.mean([row["reward"] for row in last])),
            "seconds": clock.seconds,
        }


class Clock:
    """Seconds spent by stage: `with clock("sample"): ...`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {"score": 0.0, "sample": 0.0, "annotate": 0.0, "train": 0.0}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the time of a block to a stage."""
        start = time.perf_counter()
        yield
        self.seconds[stage] = round(self.seconds[stage] + time.perf_counter() - start, 3)
