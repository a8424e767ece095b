"""The equations of an optimizer step, as pure functions of tensors.

    L = w * L_off + (1 - w) * (L_on + bonus)

where w = `Method.weigh` of the offline pair's score under the current policy, detached, or what `Method.revise` fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metaapo.losses import Objective, PairLogps
from metaapo.method import Method
from metaapo.offline_pairs import OfflinePairs


@dataclass(frozen=True)
class StepColumns:
    """Detached values of an optimizer step's n prompts, for the log and the meta-learner.

    Attributes:
        scores: float32 (n,), preference scores of the offline pairs; 0 if the method does not use them.
        weights: float32 (n,), w.
        offline: float32 (n,), L_off; 0 if the method does not use offline pairs.
        online: float32 (n,), L_on; 0 if there is no online pair.
        has_online: bool (n,).
        features: float32 (n, inputs), the meta-learner's inputs; None if the method has no meta-learner.
    """

    scores: Tensor
    weights: Tensor
    offline: Tensor
    online: Tensor
    has_online: Tensor
    features: Tensor | None = None

    def each(self, change: Callable[[Tensor], Tensor]) -> StepColumns:
        """Apply a function to every column."""
        columns = (self.scores, self.weights, self.offline, self.online, self.has_online)
        return StepColumns(*map(change, columns), None if self.features is None else change(self.features))


def join(parts: Sequence[StepColumns]) -> StepColumns:
    """Concatenate the columns of several micro-batches, in order."""
    names = ("scores", "weights", "offline", "online", "has_online")
    columns = [torch.cat([getattr(part, name) for part in parts]) for name in names]
    has_features = parts[0].features is not None
    return StepColumns(*columns, torch.cat([part.features for part in parts]) if has_features else None)


def objective_of(method: Method) -> Objective:
    """The loss that a method uses for a pair; DPO's by default."""
    return method.objective or Objective()


def mixed_loss(weights: Tensor, offline: Tensor, online: Tensor) -> Tensor:
    """w * L_off + (1 - w) * L_on of each prompt, (n,); a missing pair's loss is 0."""
    return weights * offline + (1 - weights) * online


def offline_pairs(method: Method, logps: PairLogps, losses: Tensor, reward_gaps: Tensor, beta: float) -> OfflinePairs:
    """What the method sees of offline pairs; scores come from `method.score`, or are minus the loss."""
    scores = -losses if method.score is None else method.score(logps, beta)
    lengths = logps.chosen_length + logps.rejected_length
    return OfflinePairs(scores.detach(), (logps.chosen_length - logps.rejected_length) / lengths, reward_gaps)


def prompt_losses(
    method: Method,
    beta: float,
    offline: PairLogps | None,
    online: PairLogps | None,
    has_online: Tensor,
    reward_gaps: Tensor,
    fixed_weights: Tensor | None = None,
) -> tuple[Tensor, StepColumns]:
    """Compute the loss of each of n prompts.

    Args:
        method: its decisions.
        beta: the objective's beta.
        offline: the prompts' offline pairs, (n,); None if the method does not use them.
        online: the online pairs of the prompts that have one, (has_online.sum(),); None if there are none.
        has_online: bool (n,), which prompts have an online pair.
        reward_gaps: float32 (n,), reward gaps of the offline pairs.
        fixed_weights: float32 (n,), weights that replace the method's where they are not nan; None: none.

    Returns:
        the losses, (n,), with gradients, and the detached columns.
    """
    objective = objective_of(method)
    zeros = torch.zeros(len(has_online), device=has_online.device)
    offline_losses = online_losses = zeros
    pairs = OfflinePairs(zeros, zeros, zeros)
    if offline is not None:
        offline_losses = objective.loss(offline, beta)
        pairs = offline_pairs(method, offline, offline_losses, reward_gaps, beta)
    if online is not None:
        losses = objective.loss(online, beta)
        if method.bonus is not None:
            losses = losses + method.bonus(online, beta)
        online_losses = zeros.masked_scatter(has_online, losses)
    weights = zeros + method.weigh(pairs)
    if fixed_weights is not None:
        weights = torch.where(fixed_weights.isnan(), weights, fixed_weights)
    features = None if method.learner is None else method.learner.features(pairs)
    columns = StepColumns(pairs.scores, weights, offline_losses, online_losses, has_online, features)
    return mixed_loss(weights, offline_losses, online_losses), columns.each(Tensor.detach)


def estimate_kl(policy: Tensor, reference: Tensor) -> Tensor:
    """Estimate KL(policy || reference), (), nats: the mean log-ratio, at least 0 (Ethayarajh et al. 2024, section 4.2).

    Args:
        policy: float32 (m,), log-probabilities of responses that belong to other prompts, under the policy.
        reference: the same under the reference.

    Returns:
        the estimate; 0 if there are no responses.
    """
    return (policy - reference).mean().clamp(min=0) if len(policy) else torch.zeros(())
