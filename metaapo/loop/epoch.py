"""The last stage of an iteration: one epoch of optimizer steps over the iteration's pairs."""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from metaapo.data import DataError
from metaapo.loop.forward import forward_pairs, mismatched_logps
from metaapo.loop.optim import adamw
from metaapo.loop.prompts import PreferencePair, Prompt
from metaapo.loop.step import StepColumns, estimate_kl, join, objective_of, prompt_losses
from metaapo.loop.workbench import Workbench
from metaapo.losses import PairLogps
from metaapo.method import Method
from metaapo.offline_pairs import OfflinePairs

Rows = list[dict[str, Any]]


def train_epoch(
    bench: Workbench, method: Method, iteration: int, prompts: list[Prompt], pairs: OfflinePairs
) -> tuple[Rows, nn.Module]:
    """Train on the iteration's pairs once.

    Returns:
        the log, one row per optimizer step, and the policy prepared by accelerate.

    Raises:
        DataError: no prompt is left to train on.
    """
    batches = _batches(bench, method, iteration, prompts, pairs)
    log: Rows = []
    optimizer, schedule = adamw(bench.policies.policy, bench.train, len(batches), bench.train.lr)
    model, optimizer = bench.policies.start_training(optimizer)
    title = f"{bench.context.run.id} iteration {iteration}"
    for step, batch in enumerate(tqdm(batches, desc=title, unit="step", leave=False, mininterval=5), start=1):
        model.train()
        columns, loss = accumulate_gradients(bench, method, model, batch)
        grad_norm = bench.processes.accelerator.clip_grad_norm_(model.parameters(), bench.train.max_grad_norm)
        lr = schedule.get_last_lr()[0]
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        row = {"iteration": iteration, "step": step, "lr": lr, "grad_norm": float(grad_norm)}
        log.append(row | {"loss": round(bench.processes.mean(loss), 6)} | _observe(method, columns))
    model.eval()
    return log, model


def _batches(
    bench: Workbench, method: Method, iteration: int, prompts: list[Prompt], pairs: OfflinePairs
) -> list[list[Prompt]]:
    """Batches of the prompts to train on, shuffled or in the order set by the method."""
    if method.order is None:
        order = bench.context.rng(iteration, "shuffle").permutation(len(prompts))
    else:
        order = method.order(pairs)
    kept = [prompts[i] for i in order if prompts[i].online is not None or method.unsampled != "dropped"]
    if not kept:
        raise DataError(f"{bench.context.run.id}: iteration {iteration} has nothing to train on; increase the budget")
    size = bench.train.batch_size
    return [kept[start : start + size] for start in range(0, len(kept), size)]


def accumulate_gradients(
    bench: Workbench, method: Method, model: nn.Module, batch: list[Prompt]
) -> tuple[StepColumns, float]:
    """Run backward on this process's micro-batches; the gradient is that of the mean over the whole batch.

    All processes run the same number of rounds, since a backward pass may wait for the others; a process with no prompt
    left repeats one from the batch with weight 0.

    Returns:
        the columns of the whole batch from all processes, in order, and this process's share of the loss.
    """
    processes, size = bench.processes, bench.train.micro_batch_size
    mine = batch[processes.rank :: processes.n]
    rounds = ceil(ceil(len(batch) / processes.n) / size)
    total, parts = 0.0, []
    for number in range(rounds):
        micro = mine[number * size : (number + 1) * size]
        with processes.accumulate(model, last=number == rounds - 1):
            losses, columns = micro_batch_losses(bench, method, model, micro or batch[:1])
            loss = losses.sum() * processes.n / len(batch) if micro else losses.sum() * 0
            processes.accelerator.backward(loss)
        total += loss.item()
        kept = len(micro)
        parts.append(columns.each(lambda column: column[:kept]))  # noqa: B023 - called at once
    columns = join(parts).each(processes.interleave)
    if len(columns.scores) != len(batch):
        raise RuntimeError(f"a step used {len(columns.scores)} prompts, but its batch has {len(batch)}; report a bug")
    return columns, total


def micro_batch_losses(
    bench: Workbench, method: Method, model: nn.Module, micro: list[Prompt]
) -> tuple[Tensor, StepColumns]:
    """The loss of each prompt, (n,), from one forward pass over all their sequences."""
    with_offline = micro if method.uses_offline else []
    with_online = [prompt for prompt in micro if prompt.online is not None]
    offline, online = forward_pairs(
        model,
        with_offline,
        with_online,
        bench.policies.tokenizer.pad_token_id,
        with_greedy=method.bonus is not None,
        arithmetic=bench.processes.arithmetic,
    )
    if objective_of(method).uses_kl:
        offline = _with_kl(bench, model, offline, with_offline, [prompt.offline for prompt in with_offline])
        online = _with_kl(bench, model, online, with_online, [prompt.online for prompt in with_online])
    device = bench.processes.device
    has_online = torch.tensor([prompt.online is not None for prompt in micro], device=device)
    gaps = torch.tensor([prompt.reward_gap for prompt in micro], device=device)
    fixed = torch.tensor([prompt.fixed_weight for prompt in micro], device=device)
    return prompt_losses(method, bench.train.beta, offline, online, has_online, gaps, fixed)


def _with_kl(
    bench: Workbench, model: nn.Module, logps: PairLogps | None, prompts: list[Prompt], pairs: list[PreferencePair]
) -> PairLogps | None:
    if logps is None:
        return None
    models = (model, bench.policies.reference)
    ratios = mismatched_logps(bench.scorer.logps_here, *models, [prompt.ids for prompt in prompts], pairs)
    return replace(logps, kl=estimate_kl(*ratios).to(bench.processes.device))


def _observe(method: Method, columns: StepColumns) -> dict[str, float | None]:
    """Pass the step to the meta-learner and summarise it for the log."""
    offline, online, has_online = columns.offline, columns.online, columns.has_online
    meta_loss = None
    if method.learner is not None:
        features = columns.features[has_online]
        meta_loss = method.learner.observe(features, offline[has_online], online[has_online])
    used = method.uses_offline
    # over prompts with both pairs, since the meta-objective is linear in w with this slope
    gap = (offline - online)[has_online].mean().item() if used and has_online.any() else None
    return {
        "offline_loss": offline.mean().item() if used else None,
        "online_loss": online[has_online].mean().item() if has_online.any() else None,
        "offline_score": columns.scores.mean().item() if used else None,
        "online_share": has_online.float().mean().item(),
        "meta_weight": columns.weights.mean().item(),
        "meta_loss": meta_loss,
        "loss_gap": gap,
    }
