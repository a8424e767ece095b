"""The first stage of an iteration: each offline pair scored under the current policy."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from metaapo.loop.forward import mismatched_logps, pair_logps
from metaapo.loop.prompts import Prompt
from metaapo.loop.reference_logps import kept_with_world
from metaapo.loop.step import estimate_kl, objective_of, offline_pairs
from metaapo.loop.workbench import Workbench
from metaapo.method import Method
from metaapo.offline_pairs import OfflinePairs


def score_offline(bench: Workbench, method: Method, iteration: int) -> tuple[list[Prompt], OfflinePairs]:
    """Read the iteration's prompts and score their offline pairs, if the method uses them.

    Returns:
        the prompts, with the reference's log-probabilities and the scores filled in, and what the method sees of the
        offline pairs (nan if it does not use them).
    """
    prompts = bench.read_prompts(iteration)
    if not method.uses_offline:
        return prompts, _unread(prompts)
    reference = kept_with_world(bench, iteration, lambda: _logps(bench, "reference", iteration, prompts))
    for prompt, chosen, rejected in zip(prompts, *(side.tolist() for side in reference)):
        prompt.offline = replace(prompt.offline, reference_chosen=chosen, reference_rejected=rejected)
    if method.rates_offline:
        texts = [prompt.texts for prompt in prompts]
        rewards = bench.kept.numbers(iteration, "offline_rewards", lambda: bench.annotator.rewards(prompts, texts))
        for prompt, (chosen, rejected) in zip(prompts, rewards):
            prompt.reward_gap = chosen - rejected
    if not method.reads_scores:
        return prompts, _unread(prompts)
    if bench.context.reference_path(iteration) == bench.context.start_path(iteration):
        policy = reference
    else:
        policy = _logps(bench, "policy", iteration, prompts)
    pairs = _pairs(bench, method, prompts, policy)
    for prompt, score in zip(prompts, pairs.scores.tolist()):
        prompt.ledger.offline_score = score
    return prompts, pairs


def _unread(prompts: list[Prompt]) -> OfflinePairs:
    return OfflinePairs(*(torch.full((len(prompts),), torch.nan) for _ in range(3)))


def _logps(
    bench: Workbench, model: Literal["policy", "reference"], iteration: int, prompts: list[Prompt]
) -> tuple[Tensor, ...]:
    """Log-probabilities of the chosen and of the rejected responses, (n,) each; prompts are read once."""
    pairs = [prompt.offline for prompt in prompts]
    responses = [*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)]
    ids = [prompt.ids for prompt in prompts] * 2

    def compute() -> list[float]:
        loaded: nn.Module = getattr(bench.policies, model)
        return bench.scorer.logps(loaded, ids, responses).tolist()

    return torch.tensor(bench.kept.numbers(iteration, f"offline_{model}_logps", compute)).split(len(prompts))


def _pairs(bench: Workbench, method: Method, prompts: list[Prompt], policy: tuple[Tensor, ...]) -> OfflinePairs:
    pairs, objective, beta = [prompt.offline for prompt in prompts], objective_of(method), bench.train.beta
    logps = pair_logps(pairs, *policy)
    if objective.uses_kl:
        models = (bench.policies.policy, bench.policies.reference)
        ids = [prompt.ids for prompt in prompts]
        logps = replace(logps, kl=estimate_kl(*mismatched_logps(bench.scorer.logps, *models, ids, pairs)))
    gaps = torch.tensor([prompt.reward_gap for prompt in prompts])
    return offline_pairs(method, logps, objective.loss(logps, beta), gaps, beta)
