"""AlpacaEval's length control: the win rate at equal length, in three forms (see `eval.alpacaeval2.score`).

Source: Dubois et al., "Length-controlled AlpacaEval" (arXiv 2404.04475); github.com/tatsu-lab/alpaca_eval, commit
cd543a1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from eval.stats import percentile_interval
from metaapo.data import DataError

Floats = NDArray[np.float64]

OFFICIAL_SIZE = 805
N_FOLDS = 5
GAMED_WEIGHT = 0.1  # upstream's lambda of 0.2, shared by two gamed baselines
C_MINIMAL = 10000.0  # the weakest penalty of the ten that cross-validation tries


@dataclass(frozen=True)
class Design:
    """The data of a length-control fit: k features, n instructions, g gamed rows.

    Attributes:
        form: length_controlled_v1, _noreg or _minimal.
        names: the k features' names.
        delta: (n,) characters of output_1 minus output_2.
        preference: (n,) in [0, 1], NaN if the judge gave none.
        difficulty: (n,), or None in the minimal form.
        gamed_features: (g, k); (0, k) outside v1.
        gamed_preference: (g,) in [0, 1].
    """

    form: str
    names: tuple[str, ...]
    delta: Floats
    preference: Floats
    difficulty: Floats | None
    gamed_features: Floats
    gamed_preference: Floats


def design_of(
    delta: Floats,
    preference: Floats,
    difficulty: Sequence[float] | None,
    gamed: Sequence[Mapping[str, float]] | None,
) -> Design:
    """The design of the form for which there are data.

    Raises:
        DataError: fewer difficulties than rows.
    """
    names = ["tanh_std_delta_len", "instruction_difficulty", "not_gamed_baseline"]
    form = "length_controlled_v1" if gamed is not None else "length_controlled_noreg"
    if difficulty is None and gamed is None:
        del names[1]
        form = "length_controlled_minimal"
    elif difficulty is None:
        by_index: dict[int, float] = {}
        for row in gamed:
            by_index.setdefault(int(row["index"]), row["instruction_difficulty"])
        difficulty = [by_index[index] for index in sorted(by_index)]
    if difficulty is not None:
        if len(difficulty) < len(delta):
            raise DataError(
                f"difficulty: {len(difficulty)} values for {len(delta)} annotations; give the difficulties of these "
                "instructions, or leave --difficulty and --gamed out for the minimal length control"
            )
        difficulty = np.array(difficulty[: len(delta)], dtype=float)
    rows = [row for row in gamed or () if not math.isnan(row["preference"])]
    features = [[math.tanh(row["std_delta_len"]), row["instruction_difficulty"], 0.0] for row in rows]
    return Design(
        form=form,
        names=tuple(names),
        delta=delta,
        preference=preference,
        difficulty=difficulty,
        gamed_features=np.array(features).reshape(len(rows), len(names)),
        gamed_preference=np.array([row["preference"] for row in rows], dtype=float),
    )


def undefined(design: Design) -> dict[str, Any]:
    """The keys of an undefined score."""
    keys = ("winrate", "ci_low", "ci_high", "stderr")
    return {f"length_controlled_{key}": None for key in keys} | {
        "length_control": {"form": design.form, "C": None, "C_from": None, "weights": None}
    }


def length_controlled(
    design: Design, C: float | str | None, counts: NDArray[np.int64], notes: list[str]
) -> dict[str, Any]:
    """Point estimate at the chosen C and bootstrap at that C; counts: (resamples, n)."""
    if design.difficulty is not None and len(design.delta) != OFFICIAL_SIZE:
        notes.append(
            f"{len(design.delta)} rows instead of {OFFICIAL_SIZE}: difficulties are looked up by position, as upstream "
            "does, and are shifted after a dropped row"
        )
    strength, origin = _choose_C(design, C)
    weights, converged = refit(design, strength) if origin == "default" else (_fit_liblinear(design, strength), True)
    replicates = []
    for part in np.array_split(counts, max(1, counts.size // 100_000)):  # about 5 MB per array
        fitted, ok = refit(design, strength, part, weights)
        replicates.append(predict(design, fitted, part))
        converged &= ok
    if not converged:
        notes.append("a length-control fit did not converge; its interval is unreliable")
    low, high = percentile_interval(np.concatenate(replicates))
    return {
        "length_controlled_winrate": float(predict(design, weights[None], np.ones((1, len(design.delta))))[0]),
        "length_controlled_ci_low": low,
        "length_controlled_ci_high": high,
        "length_controlled_stderr": float(np.concatenate(replicates).std(ddof=1)),
        "length_control": {
            "form": design.form,
            "C": strength,
            "C_from": origin,
            "weights": dict(zip(design.names, weights.tolist())),
        },
    }


def _choose_C(design: Design, C: float | str | None) -> tuple[float, str]:
    """The penalty's inverse strength, and where it comes from: given, default or cross-validation."""
    if C is None and design.difficulty is None:
        return C_MINIMAL, "default"
    if C is None or C == "cv":
        if (~np.isnan(design.preference)).sum() < N_FOLDS:
            raise DataError(f"cross-validation needs at least {N_FOLDS} preferences; give --C {C_MINIMAL:g} instead")
        return _cross_validate(design), "cross-validation"
    try:
        strength = float(C)
    except ValueError:
        strength = math.nan
    if not 0 < strength < math.inf:
        raise DataError(f"C is {C!r}; expected a positive number or 'cv'")
    return strength, "given"


def _features(design: Design, counts: NDArray[Any]) -> Floats:
    """(resamples, n, k) features of the model's rows; lengths are scaled within each resample."""
    n = len(design.delta)
    mean = counts @ design.delta / n
    variance = np.maximum(counts @ design.delta**2 - n * mean**2, 0) / max(n - 1, 1)
    scale = np.sqrt(variance)[:, None]
    scale[scale < 1e-6] = np.inf  # equal lengths in a resample: no length effect; differences are whole characters
    columns = [np.tanh(design.delta / scale)]
    if design.difficulty is not None:
        columns.append(np.broadcast_to(design.difficulty, counts.shape))
    columns.append(np.ones(counts.shape))
    return np.stack(columns, axis=-1)


def predict(design: Design, weights: Floats, counts: NDArray[Any]) -> Floats:
    """(resamples,) win rates in percent at equal length, over all rows, including those without a preference."""
    if design.difficulty is None:
        return 100 * expit(weights[:, -1])
    at_equal_length = expit(weights[:, 1:2] * design.difficulty + weights[:, 2:])
    return 100 * (counts * at_equal_length).sum(axis=1) / counts.sum(axis=1)


def _training_rows(design: Design) -> tuple[Floats, Floats, Floats]:
    """Features (rows, k), target (rows,) and weight (rows,): gamed rows first, then the model's rated rows."""
    rated = ~np.isnan(design.preference)
    model_rows = _features(design, np.ones((1, len(design.delta))))[0][rated]
    return (
        np.concatenate([design.gamed_features, model_rows]),
        np.concatenate([design.gamed_preference, design.preference[rated]]),
        np.concatenate([np.full(len(design.gamed_features), GAMED_WEIGHT), np.ones(len(model_rows))]),
    )


def refit(
    design: Design, C: float, counts: NDArray[Any] | None = None, start: Floats | None = None
) -> tuple[Floats, bool]:
    """Exact fit at this C, (k,) on the data if counts is None, else (resamples, k), and whether all fits converged."""
    if counts is None:
        features, target, weight = _training_rows(design)
        weights, converged = _fit_exact(features[None], target, weight[None], np.array([C]))
        return weights[0], converged
    rated = ~np.isnan(design.preference)
    model_rows = _features(design, counts)[:, rated]
    gamed = np.broadcast_to(design.gamed_features, (len(counts), *design.gamed_features.shape))
    gamed_weight = np.full((len(counts), gamed.shape[1]), GAMED_WEIGHT)
    return _fit_exact(
        np.concatenate([gamed, model_rows], axis=1),
        np.concatenate([design.gamed_preference, design.preference[rated]]),
        np.concatenate([gamed_weight, counts[:, rated]], axis=1),
        np.full(len(counts), C),
        start,
    )


def _liblinear_rows(design: Design) -> tuple[Floats, NDArray[np.int64], Floats, Floats, Floats]:
    """Upstream's way to fit probabilities with a classifier: every row twice, as 1 (weight p s) and as 0 ((1 - p) s).

    Returns:
        features, label, fit weight, probability of the label, row weight s; all of twice as many rows.
    """
    features, target, weight = _training_rows(design)
    probability = np.concatenate([target, 1 - target])
    weight = np.concatenate([weight, weight])
    label = np.repeat([1, 0], len(target))
    return np.concatenate([features, features]), label, probability * weight, probability, weight


_LIBLINEAR = {"solver": "liblinear", "dual": False, "fit_intercept": False, "random_state": 123}


def _fit_liblinear(design: Design, C: float) -> Floats:
    """(k,) weights as upstream's solver leaves them."""
    from sklearn.linear_model import LogisticRegression

    features, label, fit_weight, _, _ = _liblinear_rows(design)
    return LogisticRegression(C=C, l1_ratio=1.0, **_LIBLINEAR).fit(features, label, sample_weight=fit_weight).coef_[0]


def _cross_validate(design: Design) -> float:
    """Upstream's C: 5 folds that keep a row's two copies together, least weighted log loss on the held-out fold."""
    import sklearn
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.metrics import make_scorer
    from sklearn.model_selection import GroupKFold

    def loss(label: Floats, predicted: Floats, probability: Floats, weight: Floats) -> float:
        target = np.where(label == 1, probability, 1 - probability)
        return float(np.mean(weight * _cross_entropy(target, predicted)))

    features, label, fit_weight, probability, weight = _liblinear_rows(design)
    with sklearn.config_context(enable_metadata_routing=True):
        scorer = make_scorer(loss, response_method="predict_proba", greater_is_better=False)
        search = LogisticRegressionCV(
            cv=GroupKFold(N_FOLDS),
            scoring=scorer.set_score_request(probability=True, weight=True),
            l1_ratios=(1.0,),
            use_legacy_attributes=False,
            **_LIBLINEAR,
        ).set_fit_request(sample_weight=True)
        groups = np.tile(np.arange(len(label) // 2), 2)
        search.fit(features, label, sample_weight=fit_weight, groups=groups, probability=probability, weight=weight)
    return float(search.C_)


def _cross_entropy(target: Floats, predicted: Floats) -> Floats:
    predicted = np.clip(predicted, 1e-15, 1 - 1e-15)
    return -(target * np.log(predicted) + (1 - target) * np.log(1 - predicted))


def _fit_exact(
    features: Floats, target: Floats, weights: Floats, C: Floats, start: Floats | None = None
) -> tuple[Floats, bool]:
    """L1-penalised logistic fits of all resamples at once, to convergence, by proximal Newton steps.

    Minimises |w|_1 / C + sum of weights * cross-entropy(target, sigmoid(features w)), liblinear's objective divided
    by C.

    Args:
        features: (resamples or 1, rows, k).
        target: (rows,) in [0, 1].
        weights: (resamples, rows).
        C: (resamples,) inverse strength of the penalty.
        start: (k,) where to start; zeros if None.

    Returns:
        (resamples, k) weights, and whether all fits converged.

    Source: Lee, Sun & Saunders, "Proximal Newton-type methods for minimizing composite functions" (2014).
    """
    k = features.shape[-1]
    w = np.zeros((len(weights), k)) + (0.0 if start is None else start)
    for _ in range(100):
        predicted = expit((features @ w[..., None])[..., 0])
        gradient = ((weights * (predicted - target))[:, None, :] @ features)[:, 0]
        information = weights * predicted * (1 - predicted)
        hessian = np.swapaxes(features * information[..., None], 1, 2) @ features + 1e-9 * np.eye(k)
        step = np.clip(_soft_quadratic(hessian, gradient, w, 1 / C) - w, -4, 4)
        w = w + step
        if np.abs(step).max() < 1e-7:
            return w, True
    return w, False


def _soft_quadratic(hessian: Floats, gradient: Floats, w: Floats, strength: Floats) -> Floats:
    """argmin over v of gradient (v - w) + (v - w) H (v - w) / 2 + strength |v|_1, by coordinate descent, batched."""
    v = w.copy()
    for _ in range(200):
        before = v.copy()
        for j in range(w.shape[1]):
            slope = gradient[:, j] + (hessian[:, j] * (v - w)).sum(axis=1)
            free = v[:, j] - slope / hessian[:, j, j]
            v[:, j] = np.sign(free) * np.maximum(np.abs(free) - strength / hessian[:, j, j], 0)
        if np.abs(v - before).max() < 1e-10:
            break
    return v
