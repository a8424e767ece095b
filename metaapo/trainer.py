"""The iterated loop that all preference methods share: score -> select -> sample -> annotate -> train.

A `Method` answers the loop's questions (metaapo/method.py); nothing here knows which method it is.
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
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from metaapo.annotate import best_worst, reward_responses
from metaapo.data import DataError, Message, read_jsonl, require_keys, write_jsonl
from metaapo.generate import Response, generate
from metaapo.logps import IntList, all_sequence_logps, collate, sequence_logps
from metaapo.losses import OBJECTIVES, PairLogps
from metaapo.method import Method, SelectionRequest
from metaapo.models import encode_prompt, encode_response, load_policy, load_reward_model
from metaapo.run import RunContext, run_iterations
from metaapo.selection import Selection

PROBE_PROMPTS = 64  # enough for a curve of KL and length; the benchmarks, not the probes, measure quality


@dataclass(frozen=True)
class Pair:
    """A preference pair as token ids, with the reference's log-probabilities (natural log, summed)."""

    chosen: IntList
    rejected: IntList
    reference_chosen: float
    reference_rejected: float


@dataclass
class Prompt:
    """One prompt of an iteration's part with its pairs and its line of the annotation ledger."""

    id: str
    messages: list[Message]
    ids: IntList
    offline: Pair
    texts: tuple[str, str]
    online: Pair | None = None
    ledger: dict[str, Any] = field(default_factory=dict)


@dataclass
class StepSums:
    """Sums over the prompts of one optimizer step, for the log and for the meta-learner's buffer."""

    scores: list[Tensor] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)
    offline: list[Tensor] = field(default_factory=list)
    online: list[Tensor] = field(default_factory=list)
    has_online: list[Tensor] = field(default_factory=list)
    loss: float = 0.0


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


class IteratedTrainer:
    """Trains one run: holds its models and walks through its iterations."""

    def __init__(self, context: RunContext, method: Method) -> None:
        self.context, self.method = context, method
        self.config = context.experiment.train_of(context.run.method)
        self.sampling = context.experiment.sampling_of(context.run.method)
        self.accelerator = Accelerator()
        self.sft, self.tokenizer = load_policy(context.world / "sft")
        self.reward_model, self.reward_tokenizer = load_reward_model(context.world / "reward_model")
        for model in (self.sft, self.reward_model):
            model.to(self.accelerator.device)

    def train(self) -> None:
        """Run every iteration that is not finished yet."""
        run_iterations(self.context, self.iterate)

    def iterate(self, iteration: int, folder: Path) -> dict[str, Any]:
        """One iteration: score, select, sample, annotate, train; writes `folder` and returns the summary."""
        clock = Clock()
        self._load_models(iteration)
        with clock("score"):
            prompts = self._score(iteration)
            scores = torch.tensor([p.ledger["offline_score"] for p in prompts])
        selection = self.method.select(
            SelectionRequest(scores.numpy(), iteration, self.context.run.budget, self.context.rng(iteration, "select"))
        )
        self._annotate_selected(iteration, prompts, selection, clock)
        with clock("train"):
            log, probes = self._train_epoch(iteration, prompts)
        self._save(folder, prompts, log, probes)
        return self._summary(prompts, probes, clock)

    def _load_models(self, iteration: int) -> None:
        policy, _ = load_policy(self.context.start_path(iteration))
        self.policy = policy.to(self.accelerator.device)
        reference = self.context.reference_path(iteration)
        if reference == self.context.world / "sft":
            self.reference = self.sft
        else:
            self.reference = load_policy(reference)[0].to(self.accelerator.device)
        if self.method.learner is not None:
            if iteration > 1:
                self.method.learner.load(self.context.iteration_path(iteration - 1))
            self.method.learner.start_iteration()

    # --- score ---------------------------------------------------------------------------------------------------

    def _score(self, iteration: int) -> list[Prompt]:
        """Read the part and score each offline pair under the current policy."""
        path = self.context.world / "data" / "pairs.jsonl"
        rows = read_part(path, iteration)
        ids = [encode_prompt(self.tokenizer, row["messages"]) for row in rows]
        chosen, rejected = (
            [encode_response(self.tokenizer, row[side]) for row in rows] for side in ("chosen", "rejected")
        )
        for row, prompt, *responses in zip(rows, ids, chosen, rejected):
            longest = len(prompt) + max(map(len, responses))
            if longest > self.config.max_length:
                raise DataError(
                    f"{path}: pair {row['id']} has {longest} tokens, train.max_length is {self.config.max_length}; "
                    "raise it or drop the pair"
                )
        reference = [self._logps(self.reference, ids, side).tolist() for side in (chosen, rejected)]
        pairs = [Pair(*columns) for columns in zip(chosen, rejected, *reference)]
        if self.context.reference_path(iteration) == self.context.start_path(iteration):
            policy = [torch.tensor(side) for side in reference]
        else:
            policy = [self._logps(self.policy, ids, side) for side in (chosen, rejected)]
        logps = _pair_logps(pairs, *policy)
        scores = self._scores(logps, OBJECTIVES[self.method.objective](logps, self.config.beta))
        return [
            Prompt(
                id=row["id"],
                messages=row["messages"],
                ids=prompt,
                offline=pair,
                texts=(row["chosen"], row["rejected"]),
                ledger={"id": row["id"], "task": row.get("task", ""), "offline_score": score},
            )
            for row, prompt, pair, score in zip(rows, ids, pairs, scores.tolist())
        ]

    def _logps(self, model: torch.nn.Module, prompts: Sequence[IntList], responses: Sequence[IntList]) -> Tensor:
        return all_sequence_logps(model, prompts, responses, self.tokenizer.pad_token_id)

    def _scores(self, logps: PairLogps, losses: Tensor) -> Tensor:
        """Preference scores of offline pairs: the method's own, or minus the loss."""
        return -losses if self.method.score is None else self.method.score(logps, self.config.beta)

    # --- select, sample, annotate ----------------------------------------------------------------------------------

    def _annotate_selected(self, iteration: int, prompts: list[Prompt], selection: Selection, clock: Clock) -> None:
        """Sample and rank responses for the selected prompts; fills in `online` and the ledger."""
        for prompt, sampled, probability in zip(prompts, selection.sampled, selection.probability):
            prompt.ledger |= {"sample_probability": float(probability), "sampled": bool(sampled)}
            prompt.ledger |= {"responses": 0, "calls": 0, "tokens": 0, "outcome": "not_sampled"}
        selected = [prompt for prompt, sampled in zip(prompts, selection.sampled) if sampled]
        if not selected:
            return
        with clock("sample"):
            responses = self._sample(iteration, selected)
        texts = [[response.text for response in own] for own in responses]
        if self.method.candidates.with_offline:
            texts = [[*own, *prompt.texts] for own, prompt in zip(texts, selected)]
        with clock("annotate"):
            messages = [prompt.messages for prompt in selected]
            rewards, _ = reward_responses(self.reward_model, self.reward_tokenizer, messages, texts)
            for prompt, own, scored, values in zip(selected, responses, texts, rewards):
                self._make_pair(prompt, own, scored, values)
            self._add_reference_logps([prompt for prompt in selected if prompt.online is not None])

    def _sample(self, iteration: int, selected: list[Prompt]) -> list[list[Response]]:
        candidates = self.method.candidates
        return generate(
            self.policy,
            self.tokenizer,
            [prompt.messages for prompt in selected],
            n=candidates.k or self.sampling.k,
            temperature=0.0 if candidates.greedy else self.sampling.temperature,
            top_p=self.sampling.top_p,
            max_new_tokens=self.sampling.max_new_tokens,
            batch_size=self.sampling.batch_size,
            seed=self.context.torch_seed(iteration, "sample"),
        )

    def _make_pair(self, prompt: Prompt, responses: list[Response], texts: list[str], rewards: list[float]) -> None:
        """Best and worst candidate make the online pair, unless it carries no information."""
        pair = best_worst(texts, rewards)
        prompt.ledger |= {
            "responses": len(texts),
            "calls": len(set(texts)),
            "tokens": sum(len(response.token_ids) for response in responses),
            "reward_chosen": rewards[pair.chosen],
            "reward_rejected": rewards[pair.rejected],
            "outcome": pair.outcome,
        }
        if pair.outcome == "pair" or self.method.keep_ties:
            chosen, rejected = (
                responses[i].token_ids if i < len(responses) else encode_response(self.tokenizer, texts[i])
                for i in (pair.chosen, pair.rejected)
            )
            prompt.online = Pair(chosen, rejected, 0.0, 0.0)

    def _add_reference_logps(self, prompts: list[Prompt]) -> None:
        """The frozen reference's log-probabilities, once an iteration instead of once a step."""
        ids = [prompt.ids for prompt in prompts]
        pairs = [prompt.online for prompt in prompts]
        chosen = self._logps(self.reference, ids, [pair.chosen for pair in pairs]).tolist()
        rejected = self._logps(self.reference, ids, [pair.rejected for pair in pairs]).tolist()
        for prompt, pair, c, r in zip(prompts, pairs, chosen, rejected):
            prompt.online = Pair(pair.chosen, pair.rejected, c, r)

    # --- train -----------------------------------------------------------------------------------------------------

    def _train_epoch(self, iteration: int, prompts: list[Prompt]) -> tuple[list[dict], list[dict]]:
        """One epoch over the part; returns the log, a row an optimizer step, and the probes' samples."""
        kept = [p for p in prompts if p.online is not None or self.method.keep_unsampled]
        if not kept:
            raise DataError(f"{self.context.run.id}: iteration {iteration} has nothing to train on; raise the budget")
        order = self.context.rng(iteration, "shuffle").permutation(len(kept))
        batches = [
            [kept[i] for i in order[start : start + self.config.batch_size]]
            for start in range(0, len(kept), self.config.batch_size)
        ]
        optimizer, schedule = self._optimizer(len(batches))
        model, optimizer = self.accelerator.prepare(self.policy, optimizer)
        log, probes = [], self._probe(iteration, 0, prompts)
        bar = tqdm(
            batches, desc=f"{self.context.run.id} iteration {iteration}", unit="step", leave=False, mininterval=5
        )
        for step, batch in enumerate(bar, start=1):
            model.train()
            sums = self._accumulate_gradients(model, batch, iteration)
            grad_norm = self.accelerator.clip_grad_norm_(model.parameters(), self.config.max_grad_norm)
            lr = schedule.get_last_lr()[0]
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            row = {"iteration": iteration, "step": step, "lr": lr, "grad_norm": float(grad_norm)}
            log.append(row | self._observe(sums))
            if step % max(1, len(batches) // 2) == 0 or step == len(batches):
                model.eval()
                probes += self._probe(iteration, step, prompts)
        self.policy = self.accelerator.unwrap_model(model).eval()
        return log, probes

    def _optimizer(self, steps: int) -> tuple[torch.optim.Optimizer, LambdaLR]:
        """AdamW with linear warm-up and a cosine down to lr * lr_end_ratio."""
        config = self.config
        optimizer = torch.optim.AdamW(
            self.policy.parameters(), lr=config.lr, betas=config.adam_betas, weight_decay=config.weight_decay
        )
        warmup = max(1, round(config.warmup_ratio * steps))

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            progress = (step - warmup) / max(1, steps - warmup)
            return config.lr_end_ratio + (1 - config.lr_end_ratio) * 0.5 * (1 + np.cos(np.pi * progress))

        return optimizer, LambdaLR(optimizer, factor)

    def _accumulate_gradients(self, model: torch.nn.Module, batch: list[Prompt], iteration: int) -> StepSums:
        """Backward over the micro-batches of this process; the gradient is that of the mean over the whole batch."""
        processes = self.accelerator.num_processes
        own = batch[self.accelerator.process_index :: processes]
        sums = StepSums()
        for start in range(0, len(own), self.config.micro_batch_size):
            micro = own[start : start + self.config.micro_batch_size]
            loss = self._losses(model, micro, iteration, sums).sum() * processes / len(batch)
            self.accelerator.backward(loss)
            sums.loss += loss.item()
        return sums

    def _losses(self, model: torch.nn.Module, micro: list[Prompt], iteration: int, sums: StepSums) -> Tensor:
        """w * L_off + (1 - w) * L_on of each prompt, (batch,), from one forward pass over all its sequences."""
        objective, beta = OBJECTIVES[self.method.objective], self.config.beta
        offline_prompts = micro if self.method.uses_offline else []
        online_prompts = [prompt for prompt in micro if prompt.online is not None]
        offline, online = self._forward(model, offline_prompts, online_prompts)
        device = self.accelerator.device
        has_online = torch.tensor([prompt.online is not None for prompt in micro], device=device)
        offline_losses = objective(offline, beta) if offline else torch.zeros(len(micro), device=device)
        scores = self._scores(offline, offline_losses).detach() if offline else torch.zeros(len(micro), device=device)
        online_losses = torch.zeros(len(micro), device=device)
        if online:
            own = objective(online, beta)
            if self.method.bonus is not None:
                own = own + self.method.bonus(online, iteration)
            online_losses = online_losses.masked_scatter(has_online, own)
        weights = self.method.weigh(scores)
        sums.scores.append(scores)
        sums.weights.append(weights)
        sums.offline.append(offline_losses.detach())
        sums.online.append(online_losses.detach())
        sums.has_online.append(has_online)
        return weights * offline_losses + (1 - weights) * online_losses

    def _forward(
        self, model: torch.nn.Module, offline: list[Prompt], online: list[Prompt]
    ) -> tuple[PairLogps | None, PairLogps | None]:
        """Policy log-probabilities of all pairs, [offline, online], in one batch of sequences."""
        prompts = [*offline, *online]
        pairs = [*(prompt.offline for prompt in offline), *(prompt.online for prompt in online)]
        ids = [prompt.ids for prompt in prompts]
        responses = [*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)]
        logps = sequence_logps(model, collate([*ids, *ids], responses, self.tokenizer.pad_token_id))
        chosen, rejected = logps.chunk(2)
        n = len(offline)
        return (
            _pair_logps(pairs[:n], chosen[:n], rejected[:n]) if offline else None,
            _pair_logps(pairs[n:], chosen[n:], rejected[n:]) if online else None,
        )

    def _observe(self, sums: StepSums) -> dict[str, float | None]:
        """Feed the meta-learner and sum the step up for the log."""
        gather = self.accelerator.gather_for_metrics if self.accelerator.num_processes > 1 else lambda x: x
        columns = (sums.scores, sums.weights, sums.offline, sums.online, sums.has_online)
        scores, weights, offline, online, has_online = (gather(torch.cat(column)) for column in columns)
        meta_loss = None
        if self.method.learner is not None:
            meta_loss = self.method.learner.observe(scores[has_online], offline[has_online], online[has_online])
        used = self.method.uses_offline
        return {
            "loss": round(sums.loss, 6),
            "offline_loss": offline.mean().item() if used else None,
            "online_loss": online[has_online].mean().item() if has_online.any() else None,
            "offline_score": scores.mean().item() if used else None,
            "online_share": has_online.float().mean().item(),
            "meta_weight": weights.mean().item(),
            "meta_loss": meta_loss,
        }

    # --- record ----------------------------------------------------------------------------------------------------

    def _probe(self, iteration: int, step: int, prompts: list[Prompt]) -> list[dict[str, Any]]:
        """Sample one response to a few prompts: how far has the policy moved, how long are its answers?

        The reward here is for the record only; it trains nothing and is no part of the annotation budget.
        """
        probed = prompts[:PROBE_PROMPTS]
        messages = [prompt.messages for prompt in probed]
        policy = self.accelerator.unwrap_model(self.policy)
        responses = generate(
            policy,
            self.tokenizer,
            messages,
            1,
            1.0,
            1.0,
            self.sampling.max_new_tokens,
            self.sampling.batch_size,
            seed=self.context.torch_seed(iteration, f"probe{step}"),
        )
        own = [response for (response,) in responses]
        rewards, _ = reward_responses(self.reward_model, self.reward_tokenizer, messages, [[r.text] for r in own])
        ids, sampled = [prompt.ids for prompt in probed], [response.token_ids for response in own]
        sft = self._logps(self.sft, ids, sampled).tolist()
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

    def _save(self, folder: Path, prompts: list[Prompt], log: list[dict], probes: list[dict]) -> None:
        self.accelerator.wait_for_everyone()
        if not self.accelerator.is_main_process:
            return
        self.policy.save_pretrained(folder / "model", safe_serialization=True)
        self.tokenizer.save_pretrained(folder / "model")
        write_jsonl(folder / "train.jsonl", log)
        write_jsonl(folder / "annotations.jsonl", [prompt.ledger for prompt in prompts])
        write_jsonl(folder / "probes.jsonl", probes)
        if self.method.learner is not None:
            self.method.learner.save(folder)

    def _summary(self, prompts: list[Prompt], probes: list[dict], clock: Clock) -> dict[str, Any]:
        """The iteration in numbers; annotation_ratio is responses scored, relative to K for every prompt."""
        ledger = [prompt.ledger for prompt in prompts]
        outcomes = [row["outcome"] for row in ledger]
        scored = sum(row["responses"] for row in ledger)
        offline = sum(row["sampled"] for row in ledger) * 2 if self.method.candidates.with_offline else 0
        last = [row for row in probes if row["step"] == probes[-1]["step"]]
        return {
            "prompts": len(prompts),
            "sampled": sum(row["sampled"] for row in ledger),
            "responses_generated": scored - offline,
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


def _pair_logps(pairs: list[Pair], chosen: Tensor, rejected: Tensor) -> PairLogps:
    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=chosen.device)

    return PairLogps(
        chosen=chosen,
        rejected=rejected,
        reference_chosen=column([pair.reference_chosen for pair in pairs]),
        reference_rejected=column([pair.reference_rejected for pair in pairs]),
        chosen_length=column([len(pair.chosen) for pair in pairs]),
        rejected_length=column([len(pair.rejected) for pair in pairs]),
    )


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
