"""PPO's equations as pure functions of padded token tensors, each with its source. The loop is in baselines/ppo.py.

Tensors are (n, width): n responses, padded on the right; `mask` is 1.0 on response tokens, EOS included. Values and
log-probabilities at t belong to the state before token t. Sources: S17 = Schulman et al. 2017 (arXiv 1707.06347), G16 =
Schulman et al. 2016 (GAE, arXiv 1506.02438), Z19 = Ziegler et al. 2019 (arXiv 1909.08593), O22 = Ouyang et al. 2022
(InstructGPT, arXiv 2203.02155), H24 = Huang et al. 2024 (implementation details of RLHF with PPO, arXiv 2403.17031).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metaapo.models.logps import IntList, SequenceBatch, collate, hidden_states


@dataclass(frozen=True)
class Rollout:
    """Sampled responses with log-probabilities and values from the time of sampling, without gradients.

    Attributes:
        sequences: n prompts and responses as token ids.
        mask: float32 (n, width).
        logps: float32 (n, width), of the policy that sampled.
        reference_logps: float32 (n, width), of the frozen reference.
        values: float32 (n, width).
    """

    sequences: Sequence[tuple[IntList, IntList]]
    mask: Tensor
    logps: Tensor
    reference_logps: Tensor
    values: Tensor

    @property
    def kl(self) -> float:
        """Estimate of KL(policy || reference), nats per response: mean log-ratio of the policy's own samples."""
        return float((self.logps - self.reference_logps).sum(-1).mean())


@torch.no_grad()
def measure(
    policy: nn.Module, reference: nn.Module, value_model: nn.Module, sequences: Sequence, pad_id: int
) -> Rollout:
    """Log-probabilities and values of fresh samples, by the same forward pass as in the update (H24)."""
    batch = batch_of(sequences, pad_id)
    logps, reference_logps = (logps_and_entropies(model, batch)[0] for model in (policy, reference))
    values = token_values(value_model, batch)
    return Rollout(sequences, batch.response_mask.to(values.device), logps, reference_logps, values)


def batch_of(sequences: Sequence[tuple[IntList, IntList]], pad_id: int) -> SequenceBatch:
    """Prompts and responses as one batch."""
    prompts, responses = zip(*sequences)
    return collate(prompts, responses, pad_id)


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over response tokens, ()."""
    return (x * mask).sum() / mask.sum()


def logps_and_entropies(model: nn.Module, batch: SequenceBatch) -> tuple[Tensor, Tensor]:
    """Log-probability of each response token, and the entropy of the distribution it was drawn from (no gradient).

    Returns:
        two float32 (n, width), natural log and nats; padding is 0.
    """
    states = hidden_states(model, batch)
    logits = model.get_output_embeddings()(states[batch.sources.to(states.device)]).float()
    log_distribution = logits.log_softmax(-1)
    logps = log_distribution.gather(-1, batch.targets.to(logits.device).unsqueeze(-1)).squeeze(-1)
    with torch.no_grad():
        entropies = -(log_distribution.exp() * log_distribution).sum(-1)
    return batch.padded(logps), batch.padded(entropies)


def token_values(model: nn.Module, batch: SequenceBatch) -> Tensor:
    """Value of the state before each response token, float32 (n, width); padding is 0.

    The value model is a reward model read at every position (O22, appendix C.4: it starts from the reward model).
    """
    states = hidden_states(model, batch)
    return batch.padded(model.score(states[batch.sources.to(states.device)]).squeeze(-1).float())


def shaped_rewards(
    scores: Tensor, logps: Tensor, reference_logps: Tensor, mask: Tensor, kl_coefficient: float
) -> Tensor:
    """Rewards per token: -kl_coefficient * (log pi - log ref), plus the score at the response's last token (Z19, eq 2).

    Args:
        scores: float (n,), from the reward model.
        logps: (n, width), of the policy that sampled.
        reference_logps: (n, width), of the frozen reference.
        mask: (n, width).
        kl_coefficient: in units of score per nat.
    """
    rewards = -kl_coefficient * (logps - reference_logps) * mask
    last = mask.sum(-1).long() - 1
    rewards[torch.arange(len(rewards)), last] += scores
    return rewards


def advantages_and_returns(
    rewards: Tensor, values: Tensor, mask: Tensor, discount: float = 1.0, trace: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (G16, eq. 16): A_t = delta_t + discount * trace * A_{t+1}, 0 after the end.

    With delta_t = r_t + discount * V_{t+1} - V_t. The value after the last token is 0: a response is an episode.

    Returns:
        advantages and returns (A + V), (n, width), 0 on padding.
    """
    values = values * mask
    following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=-1)
    deltas = rewards + discount * following - values
    advantages = torch.zeros_like(rewards)
    running = torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        running = (deltas[:, t] + discount * trace * running) * mask[:, t]
        advantages[:, t] = running
    return advantages, advantages + values


def estimate(
    rollout: Rollout, scores: Tensor, kl_coefficient: float, discount: float = 1.0, trace: float = 0.95
) -> tuple[Tensor, Tensor]:
    """What a rollout's update needs: whitened advantages and returns, (n, width), 0 on padding.

    Args:
        rollout: the responses.
        scores: float (n,), of the responses.
        kl_coefficient: in units of score per nat.
        discount: gamma.
        trace: lambda.
    """
    rewards = shaped_rewards(scores, rollout.logps, rollout.reference_logps, rollout.mask, kl_coefficient)
    advantages, returns = advantages_and_returns(rewards, rollout.values, rollout.mask, discount, trace)
    return whiten(advantages, rollout.mask), returns


def whiten(x: Tensor, mask: Tensor) -> Tensor:
    """Mean 0 and variance 1 over response tokens (H24, detail "advantage whitening"); 0 on padding."""
    mean = masked_mean(x, mask)
    variance = masked_mean((x - mean) ** 2, mask)
    return (x - mean) * torch.rsqrt(variance + 1e-8) * mask


def policy_loss(
    logps: Tensor, old_logps: Tensor, advantages: Tensor, mask: Tensor, clip: float
) -> tuple[Tensor, Tensor]:
    """Clipped surrogate (S17, eq. 7): -mean min(r A, clamp(r, 1 - clip, 1 + clip) A), r = pi / pi_old.

    Returns:
        the loss () and, detached, the fraction of tokens where the clipped branch is taken ().
    """
    ratio = (logps - old_logps).exp()
    plain, clipped = -advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)
    return masked_mean(torch.maximum(plain, clipped), mask), masked_mean((clipped > plain).float(), mask).detach()


def approximate_kl(logps: Tensor, old_logps: Tensor, mask: Tensor) -> float:
    """KL(pi_old || pi) per token, low-variance estimate mean[(r - 1) - log r] (Schulman 2020, "Approximating KL")."""
    log_ratio = (logps - old_logps).detach()
    return float(masked_mean(log_ratio.exp() - 1 - log_ratio, mask))


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """Half the larger of the squared errors of V and of V kept within `clip` of its old value (H24, "value clipping").

    Returns:
        the loss () and, detached, the fraction of tokens where the clipped branch is taken ().
    """
    near = old_values + (values - old_values).clamp(-clip, clip)
    plain, clipped = (values - returns) ** 2, (near - returns) ** 2
    loss = 0.5 * masked_mean(torch.maximum(plain, clipped), mask)
    return loss, masked_mean((clipped > plain).float(), mask).detach()


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns) over response tokens; 1 is perfect, 0 no better than a constant."""
    kept = mask.bool()
    spread = returns[kept].var(correction=0)
    return float(1 - (returns - values)[kept].var(correction=0) / spread) if spread > 0 else float("nan")


def adapt(coefficient: float, kl: float, target: float, responses: int, horizon: float) -> float:
    """Move the KL coefficient towards a target KL (Z19, section 2.2): at most 20 % of responses / horizon."""
    error = min(max(kl / target - 1, -0.2), 0.2)
    return coefficient * (1 + error * responses / horizon)


def step(model: nn.Module, loss: Tensor, optimizer: torch.optim.Optimizer, max_norm: float) -> float:
    """One optimizer step with the gradient's norm clipped; returns the norm before."""
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()
    optimizer.zero_grad()
    return float(norm)
