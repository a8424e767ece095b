"""Arena-Hard's style control: win rates at equal length and markdown, fitted over the whole pool.

Source: github.com/lmarena/arena-hard-auto, commits 0489bf3 (2024) and 196f6b8 (2025).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from eval.arenahard.answers import STYLE, answer_text, style_metadata, token_counter
from eval.arenahard.official import sklearn_ratings
from eval.arenahard.pool import Pool
from eval.records import shown
from eval.stats import interval_over_prompts
from metaapo.data import DataError

Record = Mapping[str, Any]
Floats = NDArray[np.float64]


def metadata_of(answer: Record) -> Mapping[str, Any] | None:
    """The style counts of an answer record; None if it has none."""
    return answer.get("metadata") or answer.get("conv_metadata")


def style_features(
    pool: Pool,
    records: Mapping[tuple[str, str], Record],
    version: str,
    features: Sequence[str],
    count_tokens: Callable[[str], int] | None,
) -> Floats:
    """(M, Q, features): how the model's style differs from its baseline's; zero if no battle counts."""
    unknown = set(features) - set(STYLE)
    if unknown or not features:
        raise DataError(f"style features {sorted(unknown) or 'are missing'}; choose among {', '.join(STYLE)}")
    cache: dict[tuple[str, str], list[float]] = {}

    def counts(model: str, question: str) -> list[float]:
        """Tokens, headers, list items and bold runs of an answer."""
        key = (model, question)
        if key not in cache:
            if key not in records:
                raise DataError(
                    f"answers: {shown(model)} has no answer to {shown(question)}; style control needs it (--answers)"
                )
            found = metadata_of(records[key])
            text = None if found else answer_text(records[key])
            if found is None and text is None:
                raise DataError(f"answers: {shown(model)}, question {shown(question)}: neither text nor style metadata")
            found = found or style_metadata(text, count_tokens or token_counter(version))
            cache[key] = [float(v if isinstance(v := found[name], int | float) else sum(v.values())) for name in STYLE]
        return cache[key]

    result = np.zeros((*pool.battles.shape, len(STYLE)))
    for m, q in zip(*np.nonzero(pool.battles)):
        of_model, of_baseline = counts(pool.models[m], pool.questions[q]), counts(pool.baselines[m], pool.questions[q])
        result[m, q] = _style_difference(np.array(of_model), np.array(of_baseline), version)
    return result[..., [STYLE.index(name) for name in features]]


def _style_difference(model: Floats, baseline: Floats, version: str) -> Floats:
    """Relative difference of two answers' counts, (4,) each, in [-1, 1]."""
    if version == "v0.1-2024":
        return (model - baseline) / (model + baseline + 1)
    tokens = (model[0] - baseline[0]) / max(model[0] + baseline[0], 1.0)  # 0 if both are empty; upstream stops there
    model, baseline = model[1:] / (model[0] + 1), baseline[1:] / (baseline[0] + 1)
    return np.concatenate([[tokens], (model - baseline) / (model + baseline + 1)])


def standardise(
    raw: Floats, battles: Floats, version: str, features: Sequence[str]
) -> tuple[Floats, list[str], list[str]]:
    """Z-scores over all battles of the pool: (M, Q, kept features), the names kept, the names dropped for lack of
    variation."""
    weight = battles[..., None]
    total = max(battles.sum(), 1.0)
    centred = raw - (weight * raw).sum(axis=(0, 1)) / total
    ddof = 0 if version == "v0.1-2024" else 1
    spread = np.sqrt((weight * centred**2).sum(axis=(0, 1)) / max(total - ddof, 1))
    varies = spread > 1e-12
    kept = [name for name, keep in zip(features, varies) if keep]
    return centred[..., varies] / spread[varies], kept, [name for name in features if name not in kept]


def style_controlled(
    pool: Pool, standardised: Floats, version: str, notes: list[str]
) -> tuple[list[dict[str, Any]], list[float], Floats]:
    """Every model's style-controlled score with its interval over questions, and the style coefficients.

    Returns:
        The scores; the coefficients, (k,); and (M, Q) values of each model, NaN if it has no score, which average over
        the pool's questions to the score and vary like their influence on it (`influence`), as shares.
    """
    n_models = len(pool.models)
    penalty = _penalty(pool.baselines, standardised.shape[-1], version)
    estimate, converged = fit(standardised, pool.wins, pool.battles, penalty)
    if not converged:
        notes.append("the style-controlled fit did not converge; its scores are unreliable")
    optimum = 100 * expit(estimate[:n_models])
    points = sklearn_ratings(pool, standardised, pool.outcomes) if version == "v0.1-2024" else optimum
    values = np.asarray(points)[:, None] + influence(pool, standardised, version, estimate, penalty)
    values[~pool.battles.any(axis=1)] = np.nan
    scores = []
    for m in range(n_models):
        played = pool.battles[m].any()
        low, high, stderr = interval_over_prompts(values[m], (0.0, 100.0)) if played else (None, None, None)
        scores.append(
            {
                "style_controlled_score": float(points[m]) if played else None,
                "style_controlled_converged": float(optimum[m]) if played else None,
                "style_controlled_ci_low": low,
                "style_controlled_ci_high": high,
                "style_controlled_stderr": stderr,
            }
        )
        if played and pool.wins[m].sum() in (0, pool.battles[m].sum()):
            notes.append(f"{pool.models[m]} won or lost every battle: its style-controlled score is at the bound")
    return scores, estimate[n_models:].tolist(), values / 100


def influence(pool: Pool, standardised: Floats, version: str, estimate: Floats, penalty: Floats) -> Floats:
    """(M, Q) influence of each question on each model's style-controlled score, in percent; a model's sum to 0.

    The derivative of the scores where the questions' weights move from 1 each towards Q on one question, all models'
    games on it together. It follows the whole estimator: z-scores over the pool, penalty and fit. Leaving a question
    out changes a score by -influence / (Q - 1), up to terms of the order 1 / Q^2; the variance of a score over
    questions is their variance over Q.

    Args:
        pool: all games.
        standardised: (M, Q, k), see `standardise`.
        version: of the protocol.
        estimate: (M + k,) at the optimum, see `fit`.
        penalty: (M + k, M + k), see `_penalty`.

    Source: Jaeckel, "The infinitesimal jackknife", Bell Laboratories Memorandum 72-1215-11 (1972); Efron, The
    Jackknife, the Bootstrap and Other Resampling Plans (1982), chapter 6.
    """
    n_models, n, k = standardised.shape
    residual, information = _at(estimate, standardised, pool.wins, pool.battles)
    weighted = information[..., None] * standardised
    by_feature, products = weighted.sum(axis=(0, 1)), np.tensordot(weighted, standardised, axes=([0, 1], [0, 1]))
    gradients = np.concatenate([residual, np.einsum("mq,mqk->kq", residual, standardised)])  # (M + k, Q)
    # Relative changes of each z-score's mean and standard deviation, (k, Q), and what they do to the gradient.
    total = pool.battles.sum()
    ddof = 0 if version == "v0.1-2024" else 1
    on_total = n * pool.battles.sum(axis=0) - total
    on_mean = n * np.einsum("mq,mqk->kq", pool.battles, standardised) / max(total, 1)
    on_square = n * np.einsum("mq,mqk->kq", pool.battles, standardised**2) - (total - ddof)
    on_spread = (on_square - on_total) / (2 * max(total - ddof, 1))
    beta = estimate[n_models:]
    through_mean = np.concatenate(
        [information.sum(axis=1)[:, None] * beta, by_feature[:, None] * beta - np.eye(k) * residual.sum()]
    )
    through_spread = np.concatenate(
        [weighted.sum(axis=1) * beta, products * beta - np.diag(gradients[n_models:].sum(axis=1))]
    )
    moved = n * gradients - gradients.sum(axis=1, keepdims=True)
    moved += through_mean @ on_mean + through_spread @ on_spread
    on_estimate = np.linalg.solve(_hessian(information, standardised, penalty), moved)
    won = expit(estimate[:n_models])
    return (100 * won * (1 - won))[:, None] * on_estimate[:n_models]


def _penalty(baselines: Sequence[str], n_features: int, version: str) -> Floats:
    """Matrix P of the penalty theta' P theta / 2, where theta holds the models' log-odds against their baselines,
    then style.

    2025 is not regularised; 1e-6 only keeps a model that won every battle finite. 2024 fits twice the battles with an
    L2 penalty of 1/2 on every rating, the baseline's too, in units of ln 10; with the baseline's best rating put in,
    the ratings' differences are penalised by identity minus 1 / (models + 1) within the models of a baseline.
    """
    n_models = len(baselines)
    if version == "v2.0-2025":
        return 1e-6 * np.eye(n_models + n_features)
    same = np.array([[a == b for b in baselines] for a in baselines], dtype=float)
    result = np.eye(n_models + n_features)
    result[:n_models, :n_models] -= same / (same.sum(axis=1, keepdims=True) + 1)
    result[:n_models, :n_models] /= np.log(10) ** 2
    return result / 2


def fit(features: Floats, wins: Floats, battles: Floats, penalty: Floats) -> tuple[Floats, bool]:
    """Penalised logistic fit of the pool, by Newton's method to convergence.

    Args:
        features: (M, Q, k) standardised style differences.
        wins: (M, Q) battles won.
        battles: (M, Q) battles fought.
        penalty: (M + k, M + k), see `_penalty`.

    Returns:
        (M + k,) log-odds of the models against their baselines at equal style, then style coefficients; and whether
        the fit converged.
    """
    theta = np.zeros(len(penalty))
    for _ in range(100):
        residual, information = _at(theta, features, wins, battles)
        gradient = np.concatenate([residual.sum(axis=1), np.einsum("mq,mqk->k", residual, features)]) - penalty @ theta
        step = np.linalg.solve(_hessian(information, features, penalty), gradient)
        theta += np.clip(step, -4, 4)  # a full step from far away can overshoot
        if np.abs(step).max() < 1e-8:
            return theta, True
    return theta, False


def _at(theta: Floats, features: Floats, wins: Floats, battles: Floats) -> tuple[Floats, Floats]:
    """Residuals (battles won beyond expectation) and information of all cells, (M, Q) each."""
    n_models = len(wins)
    won = expit(theta[:n_models, None] + features @ theta[n_models:])
    return wins - battles * won, battles * won * (1 - won)


def _hessian(information: Floats, features: Floats, penalty: Floats) -> Floats:
    """(M + k, M + k) of the penalised log-likelihood, negated."""
    weighted = information[..., None] * features
    cross = weighted.sum(axis=1)
    products = np.tensordot(weighted, features, axes=([0, 1], [0, 1]))
    return penalty + np.block([[np.diag(information.sum(axis=1)), cross], [cross.T, products]])
