"""Put a new judge's scores on an old judge's scale: which score would the old judge have given?

Both judges must have judged the same answers of some models (a single-group design). From these, the new judge's scores
are mapped to the old scale by matching mean and standard deviation over the models. The equated score of a model that
the old judge never saw has two sources of error, and its interval includes both: the line is estimated from few models
and questions, and judges rank models differently, so even an exact line would miss.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from eval.stats import CONFIDENCE, resample_counts

Floats = NDArray[np.float64]
MIN_MODELS = 3  # two points always determine a line exactly


@dataclass(frozen=True)
class Equating:
    """old = intercept + slope * new, and how far it can be trusted.

    Attributes:
        slope: old units per new unit, above 0.
        intercept: in old units.
        slope_low: lower end of the slope's 95 % bootstrap interval over models and questions.
        slope_high: its upper end.
        error: root mean squared error, in old units, of models that were left out of the fit.
        shift: mean of old minus new over the models, before equating.
        correlation: of both judges' scores over the models.
        n_models: models in common.
        n_questions: questions in common.
        lines: (resamples, 2) bootstrap replicates of slope and intercept.
        new_range: the lowest and highest new score of the models in common; outside it the line is extrapolated.
    """

    slope: float
    intercept: float
    slope_low: float
    slope_high: float
    error: float
    shift: float
    correlation: float
    n_models: int
    n_questions: int
    lines: Floats
    new_range: tuple[float, float]


def equate(old: ArrayLike, new: ArrayLike, n_bootstrap: int = 1000, seed: int = 0) -> Equating | None:
    """Linear equating of two judges' scores.

    Args:
        old: (models, questions) values by the old judge; questions with a missing value under either judge are dropped.
        new: the same by the new judge: same models, same questions, same order.
        n_bootstrap: resamples of models and of questions together.
        seed: of the resamples.

    Returns:
        None with fewer than three models or two questions, or if one judge gives all models the same score.

    Raises:
        ValueError: the shapes differ.

    Source: Kolen & Brennan, Test Equating, Scaling, and Linking (3rd edition, 2014), section 2.3 (linear equating) and
    chapter 7 (bootstrap standard errors).
    """
    old, new = np.asarray(old, float), np.asarray(new, float)
    if old.shape != new.shape or old.ndim != 2:
        raise ValueError(f"equating needs two (models, questions) tables of one shape, found {old.shape}, {new.shape}")
    kept = ~(np.isnan(old) | np.isnan(new)).any(axis=0)
    old, new = old[:, kept], new[:, kept]
    n_models, n_questions = old.shape
    if n_models < MIN_MODELS or n_questions < 2:
        return None
    x, y = new.mean(axis=1), old.mean(axis=1)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    slope, intercept = _line(x, y)
    lines = _replicates(old, new, n_bootstrap, seed)
    low, high = np.quantile(lines[:, 0], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]) if len(lines) else (0.0, np.inf)
    return Equating(
        slope=slope,
        intercept=intercept,
        slope_low=float(low),
        slope_high=float(high),
        error=_left_out_error(x, y),
        shift=float((y - x).mean()),
        correlation=float(np.corrcoef(x, y)[0, 1]),
        n_models=n_models,
        n_questions=n_questions,
        lines=lines,
        new_range=(float(x.min()), float(x.max())),
    )


def on_old_scale(equating: Equating, score: float) -> tuple[float, float, float]:
    """Map the new judge's score of another model to the old judge's unit: value and both ends of a 95 % interval.

    It is a prediction interval for the old judge's score, not just for the line: t times the square root of the line's
    bootstrap variance plus the mean squared error of left-out models.
    """
    value = equating.intercept + equating.slope * score
    spread = (equating.lines[:, 1] + equating.lines[:, 0] * score).var(ddof=1) if len(equating.lines) > 1 else 0.0
    half = float(stdtrit(equating.n_models - 2, (1 + CONFIDENCE) / 2)) * float(np.sqrt(spread + equating.error**2))
    return value, value - half, value + half


def _line(x: Floats, y: Floats) -> tuple[float, float]:
    """Slope and intercept that give x the mean and standard deviation of y; unlike regression it is symmetric."""
    slope = float(y.std() / x.std())
    return slope, float(y.mean() - slope * x.mean())


def _replicates(old: Floats, new: Floats, n_bootstrap: int, seed: int) -> Floats:
    """Bootstrap lines, (usable resamples, 2): those in which both judges tell the drawn models apart."""
    models = resample_counts(len(old), n_bootstrap, seed)
    questions = resample_counts(old.shape[1], n_bootstrap, seed + 1)
    lines = []
    for model_counts, question_counts in zip(models, questions):
        drawn = np.repeat(np.arange(len(old)), model_counts)
        x, y = ((table[drawn] @ question_counts) / question_counts.sum() for table in (new, old))
        if len(np.unique(drawn)) >= 2 and np.ptp(x) > 0 and np.ptp(y) > 0:
            lines.append(_line(x, y))
    return np.array(lines, float).reshape(-1, 2)


def _left_out_error(x: Floats, y: Floats) -> float:
    """Root mean squared error of each model's old score by the line of all others."""
    errors = []
    for left_out in range(len(x)):
        others = np.arange(len(x)) != left_out
        if np.ptp(x[others]) == 0 or np.ptp(y[others]) == 0:
            continue
        slope, intercept = _line(x[others], y[others])
        errors.append(y[left_out] - intercept - slope * x[left_out])
    return float(np.sqrt(np.mean(np.square(errors)))) if errors else float("inf")
