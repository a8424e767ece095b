"""PPO against exact answers, on rollouts whose frequencies are the policy's probabilities: means are expectations.

Let J = E[r] - beta KL(pi || ref). With gamma = lambda = 1, the first step on such a rollout has the gradient
-(n / (T s)) grad J, whatever the values, where the rollout has n responses per prompt and T tokens, and s is the
standard deviation by which advantages are divided.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from conformance.answers import BETA
from conformance.checks import Check, minimise, worst
from conformance.exact import (
    EDGES,
    LENGTHS,
    PROMPTS,
    RESPONSES,
    ROOT,
    Array,
    World,
    gradient,
    kl_optimum,
    logits_of,
    logps,
    objective,
    token_logps,
    total_variation,
)
from conformance.tabular import (
    TEXTS,
    Bench,
    LanguageModel,
    Row,
    TabularPolicy,
    ValueTable,
    float64,
    make_bench,
    make_context,
    make_prompt,
    params_of,
)

COUNTS = np.array([[1, 2, 3, 2], [2, 1, 1, 4]])  # of each response in a rollout; no optimum's probabilities
CUT = 3  # the response that counts as cut off by the length limit
PENALTY = 0.6  # of responses that were cut off
PolicyLoss = Callable[..., tuple[torch.Tensor, ...]]

CLIP, VALUE_CLIP = 0.15, 0.3


@dataclass
class Recorder:
    """An optimizer and its schedule, which note the gradients and change nothing."""

    parameter: torch.nn.Parameter
    gradients: list[Array] = field(default_factory=list)

    def step(self) -> None:
        """Note the gradient."""
        if self.parameter.grad is not None:
            self.gradients.append(self.parameter.grad.numpy().copy())

    def zero_grad(self) -> None:
        """Forget the gradient."""
        self.parameter.grad = None

    def get_last_lr(self) -> list[float]:
        """A learning rate for the log."""
        return [0.0]


@dataclass(frozen=True)
class Rollout:
    """Which responses a rollout has, in order: arrays of numbers, (n,)."""

    prompts: Array
    responses: Array


def rollout_of(counts: Array) -> Rollout:
    """Every response as often as the counts, (prompts, responses), say."""
    prompts, responses = (np.repeat(axis.ravel(), counts.ravel()) for axis in np.indices(counts.shape))
    return Rollout(prompts, responses)


@contextmanager
def started(name: str, world: World, folder: Path, settings: dict[str, Any]) -> Iterator[tuple[Any, list[Recorder]]]:
    """A PPO run in the world, and what notes the gradients of its policy and its value model."""
    from metaapo.loop.workbench import Workbench
    from metaapo.method import method_module

    entry = {"train": {"beta": BETA, "max_grad_norm": 1e9}, "sampling": {"cut_penalty": PENALTY}} | settings
    context = make_context("method", name, entry, 1.0, folder)
    with float64():
        bench = _with_language_models(make_bench(world, context))
        with mock.patch.object(Workbench, "of", return_value=bench):
            run = method_module(name).PPO(params_of(context), context)
        run.kl_coefficient, run.value_model = bench.train.beta, ValueTable(seed=2)
        yield run, [Recorder(bench.policies.policy.policy.logits), Recorder(run.value_model.values)]


def _with_language_models(bench: Bench) -> Bench:
    policies = bench.policies
    models = {"policy": LanguageModel(policies.policy), "reference": LanguageModel(policies.reference)}
    return replace(bench, policies=replace(policies, **models))


def update(run: Any, recorders: Sequence[Recorder], rollout: Rollout, world: World) -> None:
    """Have PPO train on a rollout."""
    from metaapo.models.generate import Response

    prompts = [make_prompt(i, Row(x, 0, 1)) for i, x in enumerate(rollout.prompts)]
    sampled = [
        (Response(TEXTS[y], list(RESPONSES[y]), [], y != CUT), float(world.rewards[x, y]))
        for x, y in zip(rollout.prompts, rollout.responses)
    ]
    run._update(prompts, sampled, [(recorder, recorder) for recorder in recorders], np.random.default_rng(0))


# --- exact answers ----------------------------------------------------------------------------------------------------


def penalised(world: World) -> World:
    """The world with the penalty for cut responses in its rewards."""
    return replace(world, rewards=world.rewards - PENALTY * (np.arange(len(RESPONSES)) == CUT))


@dataclass(frozen=True)
class Tokens:
    """A rollout's tokens, one after another, (tokens,).

    Attributes:
        owner: the response in the rollout.
        prompt: number of the prompt.
        edge: number of the edge of the token tree.
        before: token id of the token before.
        is_last: whether it ends the response.
    """

    owner: Array
    prompt: Array
    edge: Array
    before: Array
    is_last: Array

    def logps(self, logits: Array) -> Array:
        """Log-probabilities of the tokens, (..., tokens), for logits (..., prompts, edges)."""
        return token_logps(logits)[..., self.prompt, self.edge]


def tokens_of(rollout: Rollout) -> Tokens:
    """The tokens of a rollout, response by response."""
    rows = []
    for owner, (x, y) in enumerate(zip(rollout.prompts, rollout.responses)):
        for before, token in zip((ROOT, *RESPONSES[y][:-1]), RESPONSES[y]):
            source = PROMPTS[x][-1] if before == ROOT else before
            rows.append((owner, x, EDGES.index((before, token)), source, token == RESPONSES[y][-1]))
    return Tokens(*(np.array(column) for column in zip(*rows)))


def advantages_of(
    rollout: Rollout, world: World, values: Array, discount: float, trace: float
) -> tuple[Array, Array, float]:
    """Whitened advantages and returns of a rollout's tokens, and the standard deviation before whitening.

    A_t is the sum of (discount * trace)^k delta_(t+k), written out.
    """
    tokens = tokens_of(rollout)
    ratios = tokens.logps(world.policy) - tokens.logps(world.reference)
    rewards = (
        -BETA * ratios + tokens.is_last * penalised(world).rewards[rollout.prompts, rollout.responses][tokens.owner]
    )
    value = values[tokens.prompt, tokens.before]
    following = np.where(tokens.is_last, 0.0, np.roll(value, -1))
    deltas = rewards + discount * following - value
    plain = np.array(
        [
            sum((discount * trace) ** (u - t) * deltas[u] for u in range(t, len(deltas)) if tokens.owner[u] == owner)
            for t, owner in enumerate(tokens.owner)
        ]
    )
    spread = math.sqrt(plain.var() + 1e-8)
    return (plain - plain.mean()) / spread, plain + value, spread


def clipped_loss(tokens: Tokens, logits: Array, old_logps: Array, advantages: Array) -> Array:
    """-mean min(r A, clip(r) A), (...), for logits (..., prompts, edges); where it is clipped, it is a constant."""
    ratio = np.exp(tokens.logps(logits) - old_logps)
    kept = np.clip(ratio.real, 1 - CLIP, 1 + CLIP)
    takes_clipped = kept * advantages < ratio.real * advantages
    return -(np.where(takes_clipped, kept, ratio) * advantages).mean(-1)


def value_gradient(tokens: Tokens, values: Array, old_values: Array, returns: Array) -> Array:
    """Gradient of mean max((V - G)^2, (clip(V) - G)^2) / 2 with respect to the table of values."""
    at = (tokens.prompt, tokens.before)
    new, old = values[at], old_values[at]
    near = old + np.clip(new - old, -VALUE_CLIP, VALUE_CLIP)
    plain = (new - returns) ** 2 >= (near - returns) ** 2  # where both are equal, V is within the range
    slopes = np.zeros_like(values)
    np.add.at(slopes, at, np.where(plain, new - returns, 0.0) / len(new))
    return slopes


# --- checks -----------------------------------------------------------------------------------------------------------


def check_first_gradient(name: str, world: World, folder: Path) -> float:
    """The first step's gradient against that of J, derived by complex steps from the enumerated responses."""
    world = replace(world, policy=logits_of(COUNTS / COUNTS.sum(-1, keepdims=True)))
    rollout = rollout_of(COUNTS)
    settings = {"rollout": 64, "minibatch": len(rollout.prompts), "epochs": 1, "discount": 1.0, "trace": 1.0}
    with started(name, world, folder, settings) as (run, recorders):
        values = run.value_model.values.detach().numpy().copy()
        update(run, recorders, rollout, world)
    spread = advantages_of(rollout, world, values, 1.0, 1.0)[2]
    scale = COUNTS[0].sum() / ((COUNTS * LENGTHS).sum() * spread)
    exact = gradient(lambda logits: objective(logits, penalised(world), BETA).sum(-1), world.policy)
    return worst(recorders[0].gradients[0], -scale * exact)


def check_optimum_is_still(name: str, world: World, folder: Path) -> float:
    """The gradient where the policy is the optimum of J for these rewards, which must be 0."""
    best = COUNTS / COUNTS.sum(-1, keepdims=True)
    rewards = BETA * (np.log(best) - logps(world.reference)) + PENALTY * (np.arange(len(RESPONSES)) == CUT)
    world = replace(world, policy=logits_of(best), rewards=rewards)
    assert total_variation(best, kl_optimum(penalised(world), BETA)) < 1e-12
    settings = {"rollout": 64, "minibatch": int(COUNTS.sum()), "epochs": 1, "discount": 1.0, "trace": 1.0}
    with started(name, world, folder, settings) as (run, recorders):
        update(run, recorders, rollout_of(COUNTS), world)
    return float(abs(recorders[0].gradients[0]).max())


def check_later_steps(name: str, world: World, folder: Path) -> dict[str, float]:
    """A minibatch's step after the policy and the values have moved: surrogate and value loss, both partly clipped."""
    from metaapo import policy_gradient

    rollout, discount, trace = rollout_of(COUNTS), 0.95, 0.9
    moved = world.policy + np.random.default_rng(3).normal(scale=0.8, size=world.policy.shape)
    minibatch = np.array([14, 0, 3, 7, 9, 12])  # without the longest response of the rollout's first prompt
    with started(name, world, folder, {"clip": CLIP, "value_clip": VALUE_CLIP}) as (run, recorders):
        policies, values = run.bench.policies, run.value_model.values
        sequences = [(PROMPTS[x], RESPONSES[y]) for x, y in zip(rollout.prompts, rollout.responses)]
        kept = policy_gradient.measure(policies.policy, policies.reference, run.value_model, sequences, 0)
        scores = torch.tensor(penalised(world).rewards[rollout.prompts, rollout.responses])
        advantages, returns = policy_gradient.estimate(kept, scores, run.kl_coefficient, discount, trace)
        before = values.detach().numpy().copy()
        with torch.no_grad():
            policies.policy.policy.logits.copy_(torch.from_numpy(moved))
            values += torch.randn(values.shape, generator=torch.Generator().manual_seed(4)) * 0.5
        run._step(kept, advantages, returns, minibatch, [(recorder, recorder) for recorder in recorders])
        after = values.detach().numpy()
    whole, part = tokens_of(rollout), tokens_of(Rollout(rollout.prompts[minibatch], rollout.responses[minibatch]))
    exact, exact_returns, _ = advantages_of(rollout, world, before, discount, trace)
    own = np.concatenate([np.flatnonzero(whole.owner == i) for i in minibatch])
    old = part.logps(world.policy)
    surrogate = gradient(lambda logits: clipped_loss(part, logits, old, exact[own]), moved)
    return {
        "advantages": max(worst(advantages[kept.mask.bool()], exact), worst(returns[kept.mask.bool()], exact_returns)),
        "clipped surrogate": worst(recorders[0].gradients[0], surrogate),
        "value gradient": worst(recorders[1].gradients[0], value_gradient(part, after, before, exact_returns[own])),
    }


def check_ascent(world: World, policy_loss: PolicyLoss | None = None, beta: float = BETA) -> float:
    """Total variation between the optimum of J and the end of an ascent along PPO's expected gradient.

    The expected gradient is the sum over all responses of probability times gradient; the surrogate is a mean over
    tokens, so that a response of T tokens counts T times.

    Args:
        world: the models and the rewards.
        policy_loss: maps log-probabilities, old ones, advantages and the mask, (1, width), to a tuple that begins with
            the loss; None: PPO's.
        beta: KL coefficient.
    """
    from metaapo import policy_gradient
    from metaapo.models.logps import token_logps as loop_logps

    policy_loss = policy_loss or partial(policy_gradient.policy_loss, clip=CLIP)
    prompts, responses = (axis.ravel() for axis in np.indices(COUNTS.shape))
    scores = torch.tensor(world.rewards[prompts, responses])
    policy, reference = TabularPolicy(world.policy), TabularPolicy(world.reference)
    with float64():
        batch = policy_gradient.batch_of([(PROMPTS[x], RESPONSES[y]) for x, y in zip(prompts, responses)], 0)
        mask, reference_logps = batch.response_mask, loop_logps(reference, batch).detach()

        def surrogate() -> torch.Tensor:
            new = loop_logps(policy, batch)
            old = new.detach()
            rewards = policy_gradient.shaped_rewards(scores, old, reference_logps, mask, beta)
            advantages, _ = policy_gradient.advantages_and_returns(rewards, torch.zeros_like(old), mask, 1.0, 1.0)
            weights = old.sum(-1).exp() * mask.sum(-1)
            losses = [policy_loss(*(x[i : i + 1] for x in (new, old, advantages, mask)))[0] for i in range(len(new))]
            slope = (weights * torch.stack(losses)).sum()
            value = torch.tensor(-objective(policy.logits.detach().numpy(), world, beta).sum())
            return slope - slope.detach() + value  # J's value, which the line search needs, with PPO's gradient

        minimise(surrogate, policy)
    return total_variation(policy.probabilities(), kl_optimum(world, beta))


def check_ppo(name: str, world: World, folder: Path) -> list[Check]:
    """All checks of PPO, in the module of this name."""
    errors = {
        "gradient": check_first_gradient(name, world, folder / "first"),
        "still optimum": check_optimum_is_still(name, world, folder / "still"),
        **check_later_steps(name, world, folder / "later"),
        "kl optimum": check_ascent(world),
    }
    return [Check(name, check, error) for check, error in errors.items()]
