"""The iterated loop that all preference methods share: score -> select -> sample -> annotate -> train.

A `Method` answers the loop's questions (metaapo/method.py); nothing here knows which method it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from metaapo.data import DataError
from metaapo.loop.annotate import best_worst
from metaapo.loop.run import RunContext, run_iterations
from metaapo.loop.workbench import Clock, Pair, Prompt, Workbench
from metaapo.losses import Objective, PairLogps
from metaapo.method import Method, OfflinePairs, SelectionRequest
from metaapo.models.generate import Response
from metaapo.models.load import encode_response
from metaapo.models.logps import IntList, collate, sequence_logps
from metaapo.selection import Selection


@dataclass
class StepSums:
    """The prompts of one optimizer step, for the log and for the meta-learner's buffer."""

    scores: list[Tensor] = field(default_factory=list)
    features: list[Tensor] = field(default_factory=list)
    weights: list[Tensor] = field(default_factory=list)
    offline: list[Tensor] = field(default_factory=list)
    online: list[Tensor] = field(default_factory=list)
    has_online: list[Tensor] = field(default_factory=list)
    loss: float = 0.0


class IteratedTrainer:
    """Trains one run: walks through its iterations, asking the method for its decisions."""

    def __init__(self, context: RunContext, method: Method) -> None:
        self.context, self.all_decisions = context, method
        self.bench = Workbench(context)
        self.config, self.sampling = self.bench.config, self.bench.sampling
        self.accelerator, self.device = self.bench.accelerator, self.bench.device
        self._decide(1)

    def train(self) -> None:
        """Run every iteration that is not finished yet."""
        run_iterations(self.context, self.iterate, self.bench.processes)

    def iterate(self, iteration: int, folder: Path) -> dict[str, Any]:
        """One iteration: score, select, sample, annotate, train; writes `folder` and returns the summary."""
        clock = Clock()
        self._decide(iteration)
        self.bench.load(iteration)
        self._load_learner(iteration)
        with clock("score"):
            prompts, pairs = self._score(iteration)
        selection = self.method.select(
            SelectionRequest(pairs, iteration, self.context.run.budget, self.context.rng(iteration, "select"))
        )
        self._annotate_selected(iteration, prompts, selection, clock)
        with clock("train"):
            log, probes, model = self._train_epoch(iteration, prompts, pairs)
        self.bench.save_policy(folder, model)
        self.bench.release_training(folder / "model")
        del model
        if not self.bench.can_probe_midway:
            with clock("sample"):
                probes += self.bench.probe(iteration, len(log), prompts)
        self.bench.record(folder, prompts, log, probes)
        if self.method.learner is not None and self.bench.processes.is_main:
            self.method.learner.save(folder)
        return self.bench.summary(prompts, probes, clock)

    def _decide(self, iteration: int) -> None:
        self.method = self.all_decisions.at(iteration)
        self.objective = self.method.objective or Objective()

    def _load_learner(self, iteration: int) -> None:
        if self.method.learner is not None:
            if iteration > 1:
                self.method.learner.load(self.context.iteration_path(iteration - 1))
            self.method.learner.start_iteration()

    # --- score ---------------------------------------------------------------------------------------------------

    def _score(self, iteration: int) -> tuple[list[Prompt], OfflinePairs]:
        """Read the part and score each offline pair under the current policy, if the method looks at them at all."""
        bench = self.bench
        prompts = bench.read_prompts(iteration)
        if not self.method.uses_offline:
            for prompt in prompts:
                prompt.ledger["offline_score"] = None
            return prompts, OfflinePairs(*(torch.full((len(prompts),), torch.nan) for _ in range(3)))
        reference = self._offline_logps(bench.reference, prompts)
        if self.context.reference_path(iteration) == self.context.start_path(iteration):
            policy = reference
        else:
            policy = self._offline_logps(bench.policy, prompts)
        for prompt, chosen, rejected in zip(prompts, *(side.tolist() for side in reference)):
            prompt.offline = replace(prompt.offline, reference_chosen=chosen, reference_rejected=rejected)
        if self.method.rates_offline:
            for prompt, (chosen, rejected) in zip(prompts, bench.rewards(prompts, [p.texts for p in prompts])):
                prompt.reward_gap = chosen - rejected
        offline = [prompt.offline for prompt in prompts]
        logps = _pair_logps(offline, *policy)
        if self.objective.uses_kl:
            logps = replace(logps, kl=self._kl(bench.policy, prompts, offline))
        pairs = self._offline_pairs(prompts, logps, self.objective.loss(logps, self.config.beta))
        for prompt, score in zip(prompts, pairs.scores.tolist()):
            prompt.ledger["offline_score"] = score
        return prompts, pairs

    def _offline_logps(self, model: nn.Module, prompts: list[Prompt]) -> tuple[Tensor, ...]:
        """Log-probabilities of the chosen and of the rejected offline responses, (n,) each; prompts are read once."""
        pairs = [prompt.offline for prompt in prompts]
        responses = [*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)]
        return self.bench.logps(model, [prompt.ids for prompt in prompts] * 2, responses).split(len(prompts))

    def _offline_pairs(self, prompts: list[Prompt], logps: PairLogps, losses: Tensor) -> OfflinePairs:
        """What the method may look at; scores are the method's own, or minus the loss."""
        scores = -losses if self.method.score is None else self.method.score(logps, self.config.beta)
        lengths = logps.chosen_length + logps.rejected_length
        gaps = torch.tensor([prompt.reward_gap for prompt in prompts], device=losses.device)
        return OfflinePairs(scores.detach(), (logps.chosen_length - logps.rejected_length) / lengths, gaps)

    def _kl(self, model: nn.Module, prompts: Sequence[Prompt], pairs: Sequence[Pair], shared: bool = True) -> Tensor:
        """Estimate KL(policy || reference), (), nats, from each prompt with the *previous* prompt's two responses.

        As KTO does (Ethayarajh et al. 2024, section 4.2): mismatched responses, mean log-ratio, at least 0. A single
        pair has no other prompt: 0.
        """
        if len(pairs) < 2:
            return torch.zeros((), device=self.device)
        ids = [prompt.ids for prompt in prompts] * 2
        previous = [*pairs[-1:], *pairs[:-1]]
        responses = [*(pair.chosen for pair in previous), *(pair.rejected for pair in previous)]
        policy, reference = (self.bench.logps(m, ids, responses, shared) for m in (model, self.bench.reference))
        ratios = policy - reference
        return ratios.mean().clamp(min=0).to(self.device)

    # --- select, sample, annotate ----------------------------------------------------------------------------------

    def _annotate_selected(self, iteration: int, prompts: list[Prompt], selection: Selection, clock: Clock) -> None:
        rated = 2 if self.method.rates_offline else 0
        for prompt, sampled, probability in zip(prompts, selection.sampled, selection.probability):
            prompt.ledger |= {"sample_probability": float(probability), "sampled": bool(sampled), "generated": 0}
            prompt.ledger |= {"responses": rated, "calls": rated, "tokens": 0, "outcome": "not_sampled"}
        selected = [prompt for prompt, sampled in zip(prompts, selection.sampled) if sampled]
        if not selected:
            return
        with clock("sample"):
            responses = self._sample(iteration, selected)
        texts = [[response.text for response in own] for own in responses]
        if self.method.candidates.with_offline:
            texts = [[*own, *prompt.texts] for own, prompt in zip(texts, selected)]
        with clock("annotate"):
            rewards = self.bench.rewards(selected, texts)
            for prompt, own, scored, values in zip(selected, responses, texts, rewards):
                self._make_pair(prompt, own, scored, values)
            self._add_reference_logps([prompt for prompt in selected if prompt.online is not None])

    def _sample(self, iteration: int, selected: list[Prompt]) -> list[list[Response]]:
        """The candidates that the policy makes for each prompt, the greedy one first."""
        candidates, seed = self.method.candidates, self.context.torch_seed(iteration, "sample")
        responses: list[list[Response]] = [[] for _ in selected]
        if candidates.greedy:
            responses = self.bench.sample(selected, 1, 0.0, 1.0, seed)
        k = self.sampling.k if candidates.k is None else candidates.k
        if k:
            sampled = self.bench.sample(selected, k, self.sampling.temperature, self.sampling.top_p, seed)
            responses = [[*first, *others] for first, others in zip(responses, sampled)]
        return responses

    def _make_pair(self, prompt: Prompt, responses: list[Response], texts: list[str], rewards: list[float]) -> None:
        """Best and worst candidate make the online pair, unless it carries no information."""
        pair = best_worst(texts, rewards)
        prompt.ledger |= {
            "generated": len(responses),
            "responses": prompt.ledger["responses"] + len(texts),
            "calls": prompt.ledger["calls"] + len(set(texts)),
            "tokens": sum(len(response.token_ids) for response in responses),
            "reward_chosen": rewards[pair.chosen],
            "reward_rejected": rewards[pair.rejected],
            "outcome": pair.outcome,
        }
        if pair.outcome == "pair" or self.method.keep_ties:
            chosen, rejected = (
                responses[i].token_ids if i < len(responses) else encode_response(self.bench.tokenizer, texts[i])
                for i in (pair.chosen, pair.rejected)
            )
            prompt.online = Pair(chosen, rejected, greedy=responses[0].token_ids)

    def _add_reference_logps(self, prompts: list[Prompt]) -> None:
        """The frozen reference's log-probabilities, once an iteration instead of once a step."""
        names = ("chosen", "rejected", "greedy") if self.method.bonus is not None else ("chosen", "rejected")
        responses = [getattr(prompt.online, name) for name in names for prompt in prompts]
        logps = self.bench.logps(self.bench.reference, [prompt.ids for prompt in prompts] * len(names), responses)
        for name, side in zip(names, logps.view(len(names), len(prompts)).tolist()):
            for prompt, logp in zip(prompts, side):
                prompt.online = replace(prompt.online, **{f"reference_{name}": logp})

    # --- train -----------------------------------------------------------------------------------------------------

    def _train_epoch(
        self, iteration: int, prompts: list[Prompt], pairs: OfflinePairs
    ) -> tuple[list[dict], list[dict], nn.Module]:
        """One epoch over the part; returns the log, a row an optimizer step, the probes' samples, and the model."""
        batches = self._batches(iteration, prompts, pairs)
        log, probes = [], self.bench.probe(iteration, 0, prompts)
        optimizer, schedule = self.bench.optimizer(self.bench.policy, len(batches), self.config.lr)
        model, optimizer = self.bench.prepare(optimizer)
        bar = tqdm(
            batches, desc=f"{self.context.run.id} iteration {iteration}", unit="step", leave=False, mininterval=5
        )
        for step, batch in enumerate(bar, start=1):
            model.train()
            sums = self._accumulate_gradients(model, batch)
            grad_norm = self.accelerator.clip_grad_norm_(model.parameters(), self.config.max_grad_norm)
            lr = schedule.get_last_lr()[0]
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            row = {"iteration": iteration, "step": step, "lr": lr, "grad_norm": float(grad_norm)}
            log.append(row | self._observe(sums, len(batch)))
            is_probed = step % max(1, len(batches) // 2) == 0 or step == len(batches)
            if is_probed and self.bench.can_probe_midway:
                model.eval()
                probes += self.bench.probe(iteration, step, prompts)
        model.eval()
        return log, probes, model

    def _batches(self, iteration: int, prompts: list[Prompt], pairs: OfflinePairs) -> list[list[Prompt]]:
        """The prompts that are trained on, in batches: shuffled, or in the method's own order."""
        if self.method.order is None:
            order = self.context.rng(iteration, "shuffle").permutation(len(prompts))
        else:
            order = self.method.order(pairs)
        kept = [prompts[i] for i in order if prompts[i].online is not None or self.method.keep_unsampled]
        if not kept:
            raise DataError(f"{self.context.run.id}: iteration {iteration} has nothing to train on; raise the budget")
        size = self.config.batch_size
        return [kept[start : start + size] for start in range(0, len(kept), size)]

    def _accumulate_gradients(self, model: nn.Module, batch: list[Prompt]) -> StepSums:
        """Backward over the micro-batches of this process; the gradient is that of the mean over the whole batch.

        All processes go through as many rounds, since a round's backward pass may wait for the others: one that has no
        prompt left repeats one of the batch with weight 0.
        """
        team, size = self.bench.processes, self.config.micro_batch_size
        own = batch[team.rank :: team.n]
        rounds = ceil(ceil(len(batch) / team.n) / size)
        sums = StepSums()
        for number in range(rounds):
            micro = own[number * size : (number + 1) * size]
            with team.accumulate(model, last=number == rounds - 1):
                if micro:
                    loss = self._losses(model, micro, sums).sum() * team.n / len(batch)
                else:
                    loss = self._losses(model, batch[:1], StepSums()).sum() * 0
                self.accelerator.backward(loss)
            sums.loss += loss.item()
        return sums

    def _losses(self, model: nn.Module, micro: list[Prompt], sums: StepSums) -> Tensor:
        """w * L_off + (1 - w) * L_on of each prompt, (batch,), from one forward pass over all its sequences."""
        beta, device = self.config.beta, self.device
        offline_prompts = micro if self.method.uses_offline else []
        online_prompts = [prompt for prompt in micro if prompt.online is not None]
        offline, online = self._forward(model, offline_prompts, online_prompts)
        has_online = torch.tensor([prompt.online is not None for prompt in micro], device=device)
        offline_losses = online_losses = torch.zeros(len(micro), device=device)
        pairs = OfflinePairs(*(torch.zeros(len(micro), device=device) for _ in range(3)))
        if offline:
            offline_losses = self.objective.loss(offline, beta)
            pairs = self._offline_pairs(micro, offline, offline_losses)
        if online:
            own = self.objective.loss(online, beta)
            if self.method.bonus is not None:
                own = own + self.method.bonus(online, beta)
            online_losses = online_losses.masked_scatter(has_online, own)
        weights = torch.zeros_like(pairs.scores) + self.method.weigh(pairs)
        sums.scores.append(pairs.scores)
        sums.weights.append(weights)
        sums.offline.append(offline_losses.detach())
        sums.online.append(online_losses.detach())
        sums.has_online.append(has_online)
        if self.method.learner is not None:
            sums.features.append(self.method.learner.features(pairs))
        return weights * offline_losses + (1 - weights) * online_losses

    def _forward(
        self, model: nn.Module, offline: list[Prompt], online: list[Prompt]
    ) -> tuple[PairLogps | None, PairLogps | None]:
        """Policy log-probabilities of all pairs, [offline, online], in one batch of sequences."""
        prompts = [*offline, *online]
        pairs = [*(prompt.offline for prompt in offline), *(prompt.online for prompt in online)]
        explored = online if self.method.bonus is not None else []
        ids = [prompt.ids for prompt in [*prompts, *prompts, *explored]]
        responses = [*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)]
        responses += [prompt.online.greedy for prompt in explored]
        with self.bench.arithmetic():
            logps = sequence_logps(model, collate(ids, responses, self.bench.tokenizer.pad_token_id))
        n, m = len(offline), len(pairs)
        chosen, rejected, greedy = logps[:m], logps[m : 2 * m], logps[2 * m :]
        parts = [
            _pair_logps(pairs[rows], chosen[rows], rejected[rows]) if pairs[rows] else None
            for rows in (slice(n), slice(n, m))
        ]
        if explored:
            parts[1] = replace(parts[1], greedy=greedy, reference_greedy=_reference(pairs[n:], "greedy", self.device))
        if self.objective.uses_kl:
            for i, rows in enumerate((slice(n), slice(n, m))):
                parts[i] = parts[i] and replace(parts[i], kl=self._kl(model, prompts[rows], pairs[rows], shared=False))
        return parts[0], parts[1]

    def _observe(self, sums: StepSums, size: int) -> dict[str, float | None]:
        """Feed the meta-learner and sum the step up for the log."""
        columns = (sums.scores, sums.weights, sums.offline, sums.online, sums.has_online)
        scores, weights, offline, online, has_online = (self._gather(column) for column in columns)
        if len(scores) != size:
            raise RuntimeError(f"a step took {len(scores)} prompts, its batch has {size}: this is a bug")
        meta_loss = None
        if self.method.learner is not None:
            features = self._gather(sums.features)
            meta_loss = self.method.learner.observe(features[has_online], offline[has_online], online[has_online])
        used = self.method.uses_offline
        return {
            "loss": round(self.bench.processes.mean(sums.loss), 6),
            "offline_loss": offline.mean().item() if used else None,
            "online_loss": online[has_online].mean().item() if has_online.any() else None,
            "offline_score": scores.mean().item() if used else None,
            "online_share": has_online.float().mean().item(),
            "meta_weight": weights.mean().item(),
            "meta_loss": meta_loss,
        }

    def _gather(self, column: list[Tensor]) -> Tensor:
        """A column of the whole batch, in its order, from the rows of all processes."""
        own = torch.cat(column) if column else torch.zeros(0, device=self.device)
        return self.bench.processes.interleave(own)


def _reference(pairs: list[Pair], name: str, device: torch.device) -> Tensor:
    return torch.tensor([getattr(pair, f"reference_{name}") for pair in pairs], dtype=torch.float32, device=device)


def _pair_logps(pairs: list[Pair], chosen: Tensor, rejected: Tensor) -> PairLogps:
    def lengths(responses: list[IntList]) -> Tensor:
        return torch.tensor([float(len(response)) for response in responses], device=chosen.device)

    return PairLogps(
        chosen=chosen,
        rejected=rejected,
        reference_chosen=_reference(pairs, "chosen", chosen.device),
        reference_rejected=_reference(pairs, "rejected", chosen.device),
        chosen_length=lengths([pair.chosen for pair in pairs]),
        rejected_length=lengths([pair.rejected for pair in pairs]),
    )
