"""A world whose distributions can be enumerated, and its exact answers, in numpy alone.

Two prompts have the same four responses of two to four tokens, which form a token tree. A policy is one logit per
prompt and edge of the tree, so that it can be any distribution over the responses. Derivatives are complex steps
(Squire and Trapp 1998): f'(x) = Im f(x + ih) / h, exact to rounding, without any automatic differentiation. Real parts
of complex numbers are therefore what a method holds constant ("detached").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

Array = NDArray[np.inexact]

PAD, BOS, EOS, ROOT = 0, 1, 2, -1
PROMPTS = ((BOS, 9), (BOS, BOS, 10))  # token ids; the last token tells which prompt it is
RESPONSES = ((3, EOS), (4, EOS), (4, 6, EOS), (5, 7, 8, EOS))
VOCABULARY = 11
LENGTHS = np.array([len(response) for response in RESPONSES], float)
STEP = 1e-30  # of the complex step; its square vanishes beside 1 in float64

_PATHS = [list(zip((ROOT, *response[:-1]), response)) for response in RESPONSES]
EDGES = sorted({edge for path in _PATHS for edge in path})  # (token before, token), ROOT standing for the prompt
_ON_PATH = np.array([[edge in path for edge in EDGES] for path in _PATHS], float)
_SIBLINGS = np.array([[a[0] == b[0] for b in EDGES] for a in EDGES], float)


@dataclass(frozen=True)
class World:
    """The policy, the reference and the rewards.

    Attributes:
        policy: float64 (prompts, edges), logits.
        reference: float64 (prompts, edges), logits.
        rewards: float64 (prompts, responses), in log-odds: P(y preferred to y') = sigmoid(r(y) - r(y')).
    """

    policy: Array
    reference: Array
    rewards: Array

    @property
    def preferences(self) -> Array:
        """P(y preferred to y'), (prompts, responses, responses)."""
        return sigmoid(self.rewards[:, :, None] - self.rewards[:, None, :])


def make_world(seed: int = 1) -> World:
    """Draw a world; by default one in which KTO's z is above 0 and thresholds split the pairs."""
    rng = np.random.default_rng(seed)
    policy, reference = rng.normal(size=(2, len(PROMPTS), len(EDGES)))
    return World(policy, reference, rng.normal(size=(len(PROMPTS), len(RESPONSES))))


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), also for complex numbers."""
    return 1 / (1 + np.exp(-x))


def softplus(x: Array) -> Array:
    """log(1 + exp(x)) = -log sigmoid(-x), also for complex numbers."""
    return np.log1p(np.exp(x))


def token_logps(logits: Array) -> Array:
    """Log-probability of each edge given the token before it, (..., edges)."""
    return logits - np.log(np.exp(logits) @ _SIBLINGS)


def logps(logits: Array) -> Array:
    """Log-probability of each response, (..., responses), for logits (..., edges)."""
    return token_logps(logits) @ _ON_PATH.T


def logits_of(probabilities: Array) -> Array:
    """Logits of a policy with these probabilities of responses, (prompts, responses)."""
    return np.log(probabilities @ _ON_PATH)


def objective(logits: Array, world: World, beta: float) -> Array:
    """E[r] - beta KL(pi || ref), (..., prompts), which `kl_optimum` maximises."""
    policy = logps(logits)
    return (np.exp(policy) * (world.rewards - beta * (policy - logps(world.reference)))).sum(-1)


def gradient(function: Callable[[Array], Array], at: Array) -> Array:
    """Derivative of a function of logits by complex steps.

    Args:
        function: maps logits (n, prompts, edges) to values (n,), each row on its own.
        at: logits (prompts, edges).

    Returns:
        float64, the shape of `at`.
    """
    steps = np.eye(at.size).reshape(at.size, *at.shape) * 1j * STEP
    return function(at + steps).imag.reshape(at.shape) / STEP


# --- optima -----------------------------------------------------------------------------------------------------------


def kl_optimum(world: World, beta: float) -> Array:
    """Maximiser of E[r] - beta KL(pi || ref): ref exp(r / beta), normalised, (prompts, responses)."""
    weights = np.exp(logps(world.reference) + world.rewards / beta)
    return weights / weights.sum(-1, keepdims=True)


def ipo_optimum(world: World, beta: float) -> Array:
    """Minimiser of IPO's expected loss over all pairs, (prompts, responses).

    Let u = log(pi / ref) per token. The expected loss of a pair is least at u(y) - u(y') = (2 P(y > y') - 1) /
    (2 beta), which all pairs together can only approach: least squares on a complete graph is the mean over opponents.
    """
    per_token = (2 * world.preferences - 1).mean(-1) / (2 * beta)
    return _normalised(logps(world.reference), per_token)


def simpo_optimum(world: World, beta: float, gamma: float) -> Array:
    """Minimiser of SimPO's expected loss over all pairs, (prompts, responses), by Newton's method."""
    per_token = np.array([_simpo_scores(preferences, beta, gamma) for preferences in world.preferences])
    return _normalised(np.zeros_like(per_token), per_token)


def _simpo_scores(preferences: Array, beta: float, gamma: float) -> Array:
    """The u that minimise sum P(a > b) log(1 + exp(gamma - beta (u_a - u_b))), up to a constant."""
    u = np.zeros(len(preferences))
    for _ in range(50):
        losing = sigmoid(gamma - beta * (u[:, None] - u[None, :]))
        slopes = -beta * preferences * losing
        curvatures = beta**2 * preferences * losing * (1 - losing)
        np.fill_diagonal(slopes, 0), np.fill_diagonal(curvatures, 0)
        both = curvatures + curvatures.T
        u -= np.linalg.pinv(np.diag(both.sum(-1)) - both) @ (slopes.sum(1) - slopes.sum(0))
    return u


def _normalised(base: Array, per_token: Array) -> Array:
    """base + length * (per_token + c) in probabilities, with the c of each prompt that makes them sum to 1."""

    def probabilities(b: Array, u: Array, c: float) -> Array:
        return np.exp(b + LENGTHS * (u + c))

    def normalised(b: Array, u: Array) -> Array:
        return probabilities(b, u, brentq(lambda c: probabilities(b, u, c).sum() - 1, -50, 50, xtol=1e-14))

    return np.array([normalised(b, u) for b, u in zip(base, per_token)])


def total_variation(p: Array, q: Array) -> float:
    """Largest total variation distance over prompts, in [0, 1]."""
    return float(abs(p - q).sum(-1).max() / 2)
