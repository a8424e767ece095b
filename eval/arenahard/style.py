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
from eval.stats import percentile_interval
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
    pool: Pool, standardised: Floats, version: str, counts: NDArray[np.int64], notes: list[str]
) -> tuple[list[dict[str, Any]], list[float]]:
    """Every model's style-controlled score with its interval over questions, and the style coefficients."""
    n_models = len(pool.models)
    penalty = _penalty(pool.baselines, standardised.shape[-1], version)
    estimate, converged = _fit(standardised, pool.wins[:, None], pool.battles[:, None], penalty)
    resampled = []
    for part in np.array_split(counts, max(1, len(counts) * pool.battles.size // 2_000_000)):  # about 16 MB per array
        fits, ok = _fit(standardised, pool.wins[:, None] * part, pool.battles[:, None] * part, penalty, estimate)
        resampled.append(fits)
        converged &= ok
    if not converged:
        notes.append("a style-controlled fit did not converge; its scores are unreliable")
    converged_scores = 100 * expit(estimate[0, :n_models])
    points = sklearn_ratings(pool, standardised, pool.outcomes) if version == "v0.1-2024" else converged_scores
    replicates = 100 * expit(np.concatenate(resampled)[:, :n_models])
    scores = []
    for m in range(n_models):
        played = pool.battles[m].any()
        low, high = percentile_interval(replicates[:, m]) if played else (None, None)
        scores.append(
            {
                "style_controlled_score": float(points[m]) if played else None,
                "style_controlled_converged": float(converged_scores[m]) if played else None,
                "style_controlled_ci_low": low,
                "style_controlled_ci_high": high,
                "style_controlled_stderr": float(replicates[:, m].std(ddof=1)) if played else None,
            }
        )
        if played and pool.wins[m].sum() in (0, pool.battles[m].sum()):
            notes.append(f"{pool.models[m]} won or lost every battle: its style-controlled score is at the bound")
    return scores, estimate[0, n_models:].tolist()


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


def _fit(
    features: Floats, wins: Floats, battles: Floats, penalty: Floats, start: Floats | None = None
) -> tuple[Floats, bool]:
    """Penalised logistic fits of all resamples at once, by Newton's method to convergence.

    Args:
        features: (M, Q, k) standardised style differences.
        wins: (M, resamples, Q) battles won.
        battles: (M, resamples, Q) battles fought.
        penalty: (M + k, M + k), see `_penalty`.
        start: (1, M + k) where to start; zeros if None.

    Returns:
        (resamples, M + k) log-odds of the models against their baselines at equal style, then style coefficients; and
        whether all fits converged.
    """
    n_models, _, k = features.shape
    theta = np.zeros((wins.shape[1], n_models + k)) + (0.0 if start is None else start)
    by_question = features.transpose(0, 2, 1)
    products = (features[..., :, None] * features[..., None, :]).reshape(*features.shape[:2], k * k)
    diagonal = np.arange(n_models)
    for _ in range(100):
        won = expit(theta[:, :n_models].T[..., None] + theta[:, n_models:] @ by_question)
        residual, information = wins - battles * won, battles * won * (1 - won)
        gradient = np.concatenate([residual.sum(axis=2).T, (residual @ features).sum(axis=0)], axis=1) - theta @ penalty
        hessian = np.repeat(penalty[None], len(theta), axis=0)
        hessian[:, diagonal, diagonal] += information.sum(axis=2).T
        cross = (information @ features).transpose(1, 0, 2)
        hessian[:, :n_models, n_models:] += cross
        hessian[:, n_models:, :n_models] += cross.transpose(0, 2, 1)
        hessian[:, n_models:, n_models:] += (information @ products).sum(axis=0).reshape(len(theta), k, k)
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        theta += np.clip(step, -4, 4)  # a full step from far away can overshoot
        if np.abs(step).max() < 1e-8:
            return theta, True
    return theta, False
