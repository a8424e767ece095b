"""Upstream's Arena-Hard numbers, from the optimisers behind published results.

Source: github.com/lmarena/arena-hard-auto, commits 0489bf3 (2024) and 196f6b8 (2025).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from eval.arenahard.pool import OUTCOMES, Pool

Floats = NDArray[np.float64]

N_BOOTSTRAP_OFFICIAL = 100


def official_scores(pool: Pool, standardised: Floats | None, version: str, seed: int) -> list[dict[str, Any]]:
    """Upstream's own numbers for every model: 100 resamples of *battles*, and in 2025 fits that stop early.

    2024: score of the data, 2.5 and 97.5 percentiles. 2025: mean (style: median) of the resamples, 5 and 95
    percentiles. Upstream sets no seed, so its numbers scatter around these.
    """
    rng = np.random.default_rng(seed)
    is_2024 = version == "v0.1-2024"
    levels = [0.025, 0.975] if is_2024 else [0.05, 0.95]
    total = max(pool.outcomes.sum(), 1)
    drawn = rng.multinomial(pool.outcomes.sum(), pool.outcomes.ravel() / total, size=N_BOOTSTRAP_OFFICIAL)
    drawn = drawn.reshape(-1, *pool.outcomes.shape)  # (resamples, M, Q, 3)
    result = []
    for m in range(len(pool.models)):
        battles = pool.outcomes[m].sum(axis=0)
        if not battles.any():
            result.append(dict.fromkeys(("score", "ci_low", "ci_high")))
            continue
        # 2025 resamples within each model, 2024 the whole pool
        counts = (
            drawn[:, m].sum(axis=1) if is_2024 else rng.multinomial(battles.sum(), battles / battles.sum(), len(drawn))
        )
        counts = counts[counts.any(axis=1)]
        means = 100 * (counts @ OUTCOMES) / counts.sum(axis=1)
        low, high = np.quantile(means, levels)
        score = 100 * (battles @ OUTCOMES) / battles.sum() if is_2024 else means.mean()
        result.append({"score": float(score), "ci_low": float(low), "ci_high": float(high)})
    if standardised is not None:
        fit = sklearn_ratings if is_2024 else _unconverged_ratings
        single = fit(pool, standardised, pool.outcomes)
        replicates = np.array([fit(pool, standardised, counts) for counts in drawn])
        low, high = np.quantile(replicates, levels, axis=0)
        scores = single if is_2024 else np.median(replicates, axis=0)
        styled = {"score": scores, "ci_low": low, "ci_high": high, "single_fit": single}
        for m, model in enumerate(result):
            played = model["score"] is not None
            model |= {f"style_controlled_{key}": float(values[m]) if played else None for key, values in styled.items()}
    return result


def sklearn_ratings(pool: Pool, standardised: Floats, outcomes: NDArray[np.int64]) -> Floats:
    """(M,) style-controlled scores in percent as upstream's 2024 optimiser leaves them, for these battles, (M, Q, 3).

    Upstream calls scikit-learn 1.4's LogisticRegression(fit_intercept=False) on every battle twice, in units of ln
    10: L-BFGS on the mean loss until no gradient exceeds 1e-4. Ratings of models and baselines start at zero and are
        all penalised.
    """
    from scipy.optimize import minimize

    n_models, scale = len(pool.models), np.log(10)
    names = sorted(set(pool.baselines))
    opponent = n_models + np.array([names.index(name) for name in pool.baselines])
    first_style = n_models + len(names)
    wins, battles = 2 * (outcomes @ OUTCOMES), 2 * outcomes.sum(axis=-1)
    total = max(battles.sum(), 1.0)

    def loss_and_gradient(theta: Floats) -> tuple[float, Floats]:
        logits = scale * (theta[:n_models] - theta[opponent])[:, None] + standardised @ theta[first_style:]
        residual = battles * expit(logits) - wins
        gradient = theta.copy()
        gradient[:n_models] += scale * residual.sum(axis=1)
        np.subtract.at(gradient, opponent, scale * residual.sum(axis=1))
        gradient[first_style:] += np.tensordot(residual, standardised, axes=2)
        loss = (battles * np.logaddexp(0, logits) - wins * logits).sum() + theta @ theta / 2
        return float(loss / total), gradient / total

    options = {"maxiter": 100, "maxls": 50, "gtol": 1e-4, "ftol": 64 * np.finfo(float).eps}
    start = np.zeros(first_style + standardised.shape[-1])
    theta = minimize(loss_and_gradient, start, method="L-BFGS-B", jac=True, options=options).x
    return 100 * expit(scale * (theta[:n_models] - theta[opponent]))


def _unconverged_ratings(pool: Pool, standardised: Floats, outcomes: NDArray[np.int64]) -> Floats:
    """(M,) style-controlled scores in percent as upstream's 2025 optimiser leaves them, for these battles, (M, Q, 3).

    Upstream runs torch's L-BFGS without line search: models, baseline and style start at 0.5; 50 steps of a tenth of
    the proposed length. It does so in single precision, where the order of the battles moves a score by 0.03.
    """
    n_models = len(pool.models)
    wins, battles = outcomes @ OUTCOMES, outcomes.sum(axis=-1)

    def loss_and_gradient(theta: Floats) -> tuple[float, Floats]:
        logits = (theta[:n_models] - theta[n_models])[:, None] + standardised @ theta[n_models + 1 :]
        residual = battles * expit(logits) - wins
        ratings = residual.sum(axis=1)
        style = np.tensordot(residual, standardised, axes=2)
        loss = (battles * np.logaddexp(0, logits) - wins * logits).sum()
        return float(loss), np.concatenate([ratings, [-ratings.sum()], style])

    theta = _lbfgs(loss_and_gradient, np.full(n_models + 1 + standardised.shape[-1], 0.5))
    return 100 * expit(theta[:n_models] - theta[n_models])


def _lbfgs(
    loss_and_gradient: Callable[[Floats], tuple[float, Floats]],
    theta: Floats,
    rate: float = 0.1,
    steps: int = 50,
    tolerance: float = 1e-9,
) -> Floats:
    """The iterates of `torch.optim.LBFGS` without line search, so that torch need not be imported.

    Source: Nocedal & Wright, Numerical Optimization (2006), algorithm 7.4, with torch's stopping rules.
    """
    loss, gradient = loss_and_gradient(theta)
    direction, length = -gradient, rate / max(1.0, np.abs(gradient).sum())
    pairs, scale = [], 1.0
    for number in range(1, steps + 1):
        if gradient @ direction > -tolerance:
            break
        moved = length * direction
        theta = theta + moved
        if number == steps:
            break
        previous_loss, previous_gradient = loss, gradient
        loss, gradient = loss_and_gradient(theta)
        if np.abs(gradient).max() <= tolerance or np.abs(moved).max() <= tolerance:
            break
        if abs(loss - previous_loss) < tolerance:
            break
        change = gradient - previous_gradient
        if change @ moved > 1e-10:
            pairs.append((change, moved))
            scale = (change @ moved) / (change @ change)
        direction, length = _two_loops(gradient, pairs, scale), rate
    return theta


def _two_loops(gradient: Floats, pairs: Sequence[tuple[Floats, Floats]], scale: float) -> Floats:
    """Minus the inverse Hessian's approximation times the gradient, from (gradient change, step) pairs."""
    direction, factors = -gradient, []
    for change, moved in reversed(pairs):
        factors.append((moved @ direction) / (change @ moved))
        direction = direction - factors[-1] * change
    direction = direction * scale
    for (change, moved), factor in zip(pairs, reversed(factors)):
        direction = direction + moved * (factor - (change @ direction) / (change @ moved))
    return direction
