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

from eval.stats import interval_over_prompts
from metaapo.data import DataError

Floats = NDArray[np.float64]

OFFICIAL_SIZE = 805
N_FOLDS = 5
GAMED_WEIGHT = 0.1  # upstream's lambda of 0.2, shared by two gamed baselines
C_MINIMAL = 10000.0  # the weakest penalty of the ten that cross-validation tries
RIDGE = 1e-9  # keeps a fit finite whose features do not vary
SCALE = (0.0, 100.0)
# Below this, the model's answer is the longer one, or the shorter one, in less than 5 % of the comparisons.
MIN_OVERLAP = 0.1
EXTRAPOLATES = "equal length lies outside the central 90 % of the length differences to the baseline"


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


def length_controlled(design: Design, C: float | str | None, notes: list[str]) -> tuple[dict[str, Any], Floats]:
    """The score with its interval over prompts, and its (n,) values per prompt, 0 to 1 up to single outliers.

    The values average to the score and vary like its influence values (`influence`), so that every function of
    `eval.stats` takes them as it takes the values of a plain rate.
    """
    if design.difficulty is not None and len(design.delta) != OFFICIAL_SIZE:
        notes.append(
            f"{len(design.delta)} rows instead of {OFFICIAL_SIZE}: difficulties are looked up by position, as upstream "
            "does, and are shifted after a dropped row"
        )
    strength, origin = _choose_C(design, C)
    optimum, converged = refit(design, strength)
    if not converged:
        notes.append("the length-control fit did not converge; its interval is unreliable")
    if not optimum.any():
        notes.append("the penalty sets all weights to 0: the score is 50 whatever the data, and has no interval")
    weights = optimum if origin == "default" else _fit_liblinear(design, strength)
    score = predict(design, weights)
    values = score + influence(design, optimum)
    low, high, stderr = interval_over_prompts(values, SCALE)
    return {
        "length_controlled_winrate": score,
        "length_controlled_ci_low": low,
        "length_controlled_ci_high": high,
        "length_controlled_stderr": stderr,
        "length_control": {
            "form": design.form,
            "C": strength,
            "C_from": origin,
            "weights": dict(zip(design.names, weights.tolist())),
        },
    }, values / 100


def influence(design: Design, weights: Floats) -> Floats:
    """(n,) influence of each prompt on the length-controlled win rate, in percent; they sum to 0.

    The derivative of the score where the prompts' weights move from 1 each towards n on one prompt, times one. It
    follows the whole estimator: the fit, the length scale std(D), and the mean over prompts at which it is evaluated.
    Weights that the penalty holds at 0 stay there. Leaving a prompt out changes the score by -influence / (n - 1), up
    to terms of the order 1 / n^2 and the same small shift for all prompts (the penalty and the gamed rows then weigh
    more). The variance of the score over prompts is their variance over n.

    Args:
        design: the data.
        weights: (k,) at the optimum, see `refit`.

    Source: Jaeckel, "The infinitesimal jackknife", Bell Laboratories Memorandum 72-1215-11 (1972); Efron, The
    Jackknife, the Bootstrap and Other Resampling Plans (1982), chapter 6.
    """
    n = len(design.delta)
    rows, scale = _features(design)
    rated = ~np.isnan(design.preference)
    predicted = expit(rows @ weights)
    residual = np.where(rated, np.nan_to_num(design.preference) - predicted, 0.0)
    information = np.where(rated, predicted * (1 - predicted), 0.0)
    gradients = residual[:, None] * rows
    # The scale: its own influence, and what it does to the fit's gradient through the length feature, column 0.
    centred = design.delta - design.delta.mean()
    on_scale = (centred**2 - (centred**2).mean()) * n / (2 * scale * max(n - 1, 1))
    slope = -(1 - rows[:, 0] ** 2) * design.delta / scale**2
    through_scale = -(information * weights[0] * slope) @ rows
    through_scale[0] += residual @ slope
    moved = n * gradients - gradients.sum(axis=0) + on_scale[:, None] * through_scale
    on_weights = np.zeros((n, len(weights)))
    active = weights != 0
    if active.any():
        features, _, row_weight = _training_rows(design)
        at_gamed = expit(features @ weights)
        hessian = (features * (row_weight * at_gamed * (1 - at_gamed))[:, None]).T @ features
        hessian = (hessian + RIDGE * np.eye(len(weights)))[np.ix_(active, active)]
        on_weights[:, active] = np.linalg.solve(hessian, moved[:, active].T).T
    at_equal_length = _at_equal_length(design, weights)
    change = at_equal_length * (1 - at_equal_length)
    on_mean = on_weights[:, -1] * change.mean()
    if design.difficulty is not None:
        on_mean = on_mean + on_weights[:, 1] * (change * design.difficulty).mean()
    return 100 * (at_equal_length - at_equal_length.mean() + on_mean)


def length_overlap(delta: Floats) -> float:
    """How evenly equal length lies among the length differences, 0 to 1: twice the smaller of the shares of prompts on
    which the model's answer is the longer and the shorter one, ties counting half for each.

    1: the model is longer as often as shorter. 0: equal length is outside the convex hull of the data, and the
    length-controlled win rate is what the fitted curve says beyond it.

    Source: King & Zeng, "The dangers of extreme counterfactuals", Political Analysis 14 (2006), for the hull.
    """
    longer, shorter = float((delta < 0).mean()), float((delta > 0).mean())
    return 1.0 - abs(longer - shorter)


def extrapolates(overlap: float) -> bool:
    """Whether length control extrapolates: equal length lies outside the central 90 % of the length differences."""
    return overlap < MIN_OVERLAP


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


def _features(design: Design) -> tuple[Floats, float]:
    """(n, k) features of the model's rows, and the scale of its length differences in characters."""
    scale = float(design.delta.std(ddof=1)) if len(design.delta) > 1 else 0.0
    if scale < 1e-6:  # equal differences have no length effect; differences are whole characters
        scale = math.inf
    columns = [np.tanh(design.delta / scale)]
    if design.difficulty is not None:
        columns.append(design.difficulty)
    columns.append(np.ones(len(design.delta)))
    return np.stack(columns, axis=-1), scale


def _at_equal_length(design: Design, weights: Floats) -> Floats:
    """(n,) predicted preference for the model's answer if it had the baseline's length."""
    if design.difficulty is None:
        return np.full(len(design.delta), expit(weights[-1]))
    return expit(weights[1] * design.difficulty + weights[2])


def predict(design: Design, weights: Floats) -> float:
    """The win rate in percent at equal length, over all rows, including those without a preference."""
    return float(100 * _at_equal_length(design, weights).mean())


def _training_rows(design: Design) -> tuple[Floats, Floats, Floats]:
    """Features (rows, k), target (rows,) and weight (rows,): gamed rows first, then the model's rated rows."""
    rated = ~np.isnan(design.preference)
    model_rows = _features(design)[0][rated]
    return (
        np.concatenate([design.gamed_features, model_rows]),
        np.concatenate([design.gamed_preference, design.preference[rated]]),
        np.concatenate([np.full(len(design.gamed_features), GAMED_WEIGHT), np.ones(len(model_rows))]),
    )


def refit(design: Design, C: float) -> tuple[Floats, bool]:
    """(k,) weights of the exact fit at this C, and whether it converged."""
    return _fit_exact(*_training_rows(design), C)


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


def _fit_exact(features: Floats, target: Floats, weights: Floats, C: float) -> tuple[Floats, bool]:
    """L1-penalised logistic fit to convergence, by proximal Newton steps.

    Minimises |w|_1 / C + sum of weights * cross-entropy(target, sigmoid(features w)), liblinear's objective divided
    by C.

    Args:
        features: (rows, k).
        target: (rows,) in [0, 1].
        weights: (rows,).
        C: inverse strength of the penalty.

    Returns:
        (k,) weights, and whether the fit converged.

    Source: Lee, Sun & Saunders, "Proximal Newton-type methods for minimizing composite functions" (2014).
    """
    w = np.zeros(features.shape[1])
    for _ in range(100):
        predicted = expit(features @ w)
        gradient = (weights * (predicted - target)) @ features
        information = weights * predicted * (1 - predicted)
        hessian = (features * information[:, None]).T @ features + RIDGE * np.eye(len(w))
        step = np.clip(_soft_quadratic(hessian, gradient, w, 1 / C) - w, -4, 4)
        w = w + step
        if np.abs(step).max() < 1e-7:
            return w, True
    return w, False


def _soft_quadratic(hessian: Floats, gradient: Floats, w: Floats, strength: float) -> Floats:
    """argmin over v of gradient (v - w) + (v - w) H (v - w) / 2 + strength |v|_1, by coordinate descent."""
    v = w.copy()
    for _ in range(200):
        before = v.copy()
        for j in range(len(w)):
            slope = gradient[j] + hessian[j] @ (v - w)
            free = v[j] - slope / hessian[j, j]
            v[j] = math.copysign(max(abs(free) - strength / hessian[j, j], 0.0), free)
        if np.abs(v - before).max() < 1e-10:
            break
    return v
