"""AlpacaEval 2: from preferences to win rates, plain and length-controlled, as alpaca-eval 0.6.6 computes them.

    python -m eval.alpacaeval2 score --annotations annotations.json --difficulty instruction_difficulty.csv \\
        --gamed df_gamed.csv --C cv --out scores.json

A judge prefers either the baseline's answer (output_1) or the model's (output_2) to an instruction; `preference` runs
from 1 (baseline) to 2 (model), weighted by the judge's token probabilities. The win rate is the mean of preference - 1.

The length-controlled win rate asks what the win rate were at equal length. It fits

    logit P(model preferred) = w1 tanh(D / std(D)) + w2 difficulty + w3,    D = len(output_1) - len(output_2),

with an L1 penalty, and predicts at D = 0. There are three forms, chosen by what is given:

| form | given | used for |
| --- | --- | --- |
| length_controlled_v1 | --gamed, --difficulty | the published leaderboard; two gamed baselines regularise w1 and w2 |
| length_controlled_noreg | --difficulty | the same 805 instructions without the gamed baselines |
| length_controlled_minimal | neither | any other instructions: w1 and w3 only |

With any C ("cv" is upstream's cross-validation, the default of the first two forms) the point estimate comes from
scikit-learn's liblinear with upstream's settings, to reproduce published digits. Bootstrap resamples are fitted by an
exact solver of the same objective (liblinear stops up to 0.003 points away from it). The minimal form's default is
that solver too, at C = 10000, the weakest penalty on upstream's grid: with a few hundred instructions and a win rate
near 50 %, cross-validation often takes the strongest penalty, which makes the score exactly 50 (true rate 53 %: in a
quarter of samples of 512 instructions, in half of those of 256).

Differences from upstream, all on purpose: intervals are 95 % percentile intervals of a seeded bootstrap over
instructions that refits the length control (upstream's `lc_standard_error` is the spread of predictions over
instructions, no uncertainty of the score, and is left out); nothing is downloaded, and no weights are written into
site-packages.

Records: model_outputs {dataset, instruction, output, generator}; annotations the same plus output_1, output_2 (or
their lengths len_1, len_2), generator_1, generator_2, annotator, preference. Upstream looks difficulties up by a
row's position, so a file with dropped rows reads shifted ones; published numbers contain that, and so do these.

Source: Dubois et al., "Length-controlled AlpacaEval" (arXiv 2404.04475); github.com/tatsu-lab/alpaca_eval, commit
cd543a1.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from eval.stats import percentile_interval, resample_counts
from metaapo.command import print_score
from metaapo.data import DataError, read_records, require_keys

Record = Mapping[str, Any]
Floats = NDArray[np.float64]

VERSION = "alpaca_eval_2"
OFFICIAL_SIZE = 805
N_FOLDS = 5
GAMED_WEIGHT = 0.1  # upstream's lambda of 0.2, shared by two gamed baselines
C_MINIMAL = 10000.0  # the weakest penalty of the ten that cross-validation tries
N_BOOTSTRAP = 1000
SMALL = 30  # below this, percentile intervals of a mean are visibly too narrow


def is_switched(instruction: str, seed: int = 0) -> bool:
    """Whether upstream shows the judge output_2 first, decided by the instruction alone.

    The preference that the judge then gives must be turned: 3 - preference.
    """
    return random.Random(f"is_switched_outputs{instruction}{seed}").choices([False, True])[0]


def preference_from_logprobs(
    top_logprobs: Mapping[str, float] | Sequence[Mapping[str, Any]], switched: bool = False
) -> float:
    """The weighted preference in the judge's one token: 1 prefers output_1, 2 prefers output_2.

    Args:
        top_logprobs: natural log-probabilities of the likeliest tokens, as {token: logprob} or as OpenAI's list of
            {token, logprob}. The answer in the first slot is called "m", the one in the second "M".
        switched: whether output_2 was shown in the first slot (`is_switched`).

    Returns:
        2 - P(m) / (P(m) + P(M)), turned where switched; a missing token has probability 0; NaN where both are missing.

    >>> preference_from_logprobs({"m": math.log(0.2), "M": math.log(0.6)})
    1.75
    """
    if not isinstance(top_logprobs, Mapping):
        top_logprobs = {entry["token"]: entry["logprob"] for entry in top_logprobs}
    first, second = (top_logprobs.get(token, -math.inf) for token in ("m", "M"))
    if max(first, second) == -math.inf:
        return math.nan
    preference = 2 - float(expit(first - second))  # P(m) / (P(m) + P(M)) without under- or overflow
    return 3 - preference if switched else preference


def read_difficulty(path: str | Path) -> list[float]:
    """Instruction difficulties by position, from a CSV file (plain or .gz) with the column instruction_difficulty.

    Raises:
        DataError: the file is missing, lacks the column, or holds something that is no number.
    """
    return [_number(row, "instruction_difficulty", f"{path}:{n}") for n, row in enumerate(_read_csv(path), start=2)]


def read_gamed(path: str | Path) -> list[dict[str, float]]:
    """Rows of the gamed baselines, from a CSV file (plain or .gz) like upstream's df_gamed.csv.

    Returns:
        [{index, preference (0 to 1, NaN if none), std_delta_len, instruction_difficulty}, ...] in the file's order.

    Raises:
        DataError: the file is missing, lacks a column, or holds something that is no number.
    """
    columns = ("index", "preference", "std_delta_len", "instruction_difficulty")
    return [
        {column: _number(row, column, f"{path}:{n}") for column in columns}
        for n, row in enumerate(_read_csv(path), start=2)
    ]


def score(
    annotations: Iterable[Record],
    difficulty: Sequence[float] | None = None,
    gamed: Sequence[Mapping[str, float]] | None = None,
    C: float | str | None = None,
    *,
    model: str | None = None,
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
) -> dict[str, Any]:
    """Score one model.

    Args:
        annotations: of one model against one baseline by one judge, in the order of the instructions.
        difficulty: of the instructions, by position (`read_difficulty`); taken from `gamed` if None.
        gamed: annotations of the gamed baselines (`read_gamed`); with them the published v1 form is fitted.
        C: inverse strength of the penalty, "cv" for cross-validation; None is "cv" with difficulties, else 10000.
        model: keep this generator_2 only.
        n_bootstrap: resamples of instructions for both 95 % intervals.
        seed: of the resamples; equal seeds and numbers of instructions pair the resamples of several models.

    Returns:
        {benchmark, version, judge, baseline, model, n (with a preference), n_failed (without), win_rate,
        win_rate_ci_low, win_rate_ci_high, standard_error, discrete_win_rate, n_wins, n_wins_base, n_draws,
        length_controlled_winrate, length_controlled_ci_low, length_controlled_ci_high, length_controlled_stderr,
        length_control: {form, C, C_from, weights}, mean_length, mean_length_baseline (characters), first_slot_rate,
        n_bootstrap, bootstrap_seed, notes}. Rates in percent, None where undefined. `first_slot_rate` is the judge's
        mean preference for the answer shown first, 0 to 1 (0.5 without position bias), under upstream's order.

    Raises:
        DataError: a record lacks a key, several models, baselines or judges are mixed, too few difficulties, or a bad
            C.
    """
    rows = _of_one_model(annotations, model)
    preference = np.array([_preference(row) for row in rows])
    lengths = np.array([_lengths(row) for row in rows], dtype=float)
    rated = ~np.isnan(preference)
    counts = resample_counts(len(rows), n_bootstrap, seed)
    notes = _notes(rows, preference, lengths)
    result = {
        "benchmark": "alpacaeval2",
        "version": VERSION,
        "judge": rows[0].get("annotator"),
        "baseline": rows[0]["generator_1"],
        "model": rows[0]["generator_2"],
        "n": int(rated.sum()),
        "n_failed": int((~rated).sum()),
        **_win_rates(preference, counts),
        "mean_length": float(lengths[:, 1].mean()),
        "mean_length_baseline": float(lengths[:, 0].mean()),
        "first_slot_rate": _first_slot_rate(rows, preference),
        "n_bootstrap": n_bootstrap,
        "bootstrap_seed": seed,
        "notes": notes,
    }
    design = _design(lengths[:, 0] - lengths[:, 1], preference, difficulty, gamed)
    if rows[0]["generator_1"] == rows[0]["generator_2"]:
        notes.append("the model is the baseline: its length-controlled win rate is 50 by definition")
        return result | _undefined(design) | {"length_controlled_winrate": 50.0}
    if not rated.any():
        notes.append("no row has a preference: there is no score")
        return result | _undefined(design)
    return result | _length_controlled(design, C, counts, notes)


def items(annotations: Iterable[Record], model: str | None = None) -> list[dict[str, Any]]:
    """One row an instruction: {model, question, value, length}.

    `question` is a hash of the instruction, the same for all models (a repeated instruction gets "#2", "#3"); `value`
    is preference - 1 in [0, 1], None where the judge gave none; `length` the characters of the model's answer.

    Raises:
        DataError: as `score`; also where a record has no instruction.
    """
    seen: dict[str, int] = {}
    result = []
    for number, row in enumerate(_of_one_model(annotations, model), start=1):
        require_keys(row, ("instruction",), f"annotations, record {number}")
        question = hashlib.sha256(row["instruction"].encode()).hexdigest()[:16]
        seen[question] = seen.get(question, 0) + 1
        preference = _preference(row)
        result.append(
            {
                "model": row["generator_2"],
                "question": question if seen[question] == 1 else f"{question}#{seen[question]}",
                "value": None if math.isnan(preference) else preference,
                "length": _lengths(row)[1],
            }
        )
    return result


def _read_csv(path: str | Path) -> list[dict[str, str]]:
    try:
        raw = Path(path).read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); expected a CSV file, plain or gzipped") from error
    return list(csv.DictReader(io.StringIO(text)))


def _number(row: Mapping[str, str | None], column: str, where: str) -> float:
    require_keys(row, (column,), where)
    try:
        return float(row[column] or math.nan)
    except ValueError as error:
        raise DataError(f"{where}: column {column!r} holds {row[column]!r}; expected a number") from error


def _of_one_model(annotations: Iterable[Record], model: str | None) -> list[Record]:
    rows = list(annotations)
    for number, row in enumerate(rows, start=1):
        where = f"annotations, record {number}"
        require_keys(row, ("preference", "generator_1", "generator_2"), where)
        if not isinstance(row["preference"], int | float | None):
            raise DataError(f"{where}: preference is {row['preference']!r}; expected a number from 1 to 2, or null")
        for length, output in (("len_1", "output_1"), ("len_2", "output_2")):
            if length not in row:
                require_keys(row, (output,), where)
    rows = [row for row in rows if model is None or row["generator_2"] == model]
    if not rows:
        raise DataError(f"annotations: nothing to score{f' of model {model!r}' if model else ''}")
    for key, way_out in (
        ("generator_2", "pick one with --model"),
        ("generator_1", "score each baseline's file alone"),
        ("annotator", "score each judge's file alone"),
    ):
        found = sorted({str(row.get(key)) for row in rows})
        if len(found) > 1:
            raise DataError(f"annotations: {len(found)} values of {key} are mixed ({', '.join(found)}); {way_out}")
    return rows


def _preference(row: Record) -> float:
    """The preference for the model in [0, 1]; NaN where there is none. Upstream's old code for a draw is 0."""
    value = row["preference"]
    value = math.nan if value is None else float(value)
    if value == 0:
        return 0.5
    return value - 1 if 1 <= value <= 2 else math.nan


def _lengths(row: Record) -> tuple[int, int]:
    """Characters of output_1 and output_2; an answer of null has none."""
    return tuple(row[f"len_{i}"] if f"len_{i}" in row else len(row[f"output_{i}"] or "") for i in (1, 2))


def _first_slot_rate(rows: Sequence[Record], preference: Floats) -> float | None:
    if not all("instruction" in row for row in rows) or np.isnan(preference).all():
        return None
    switched = np.array([is_switched(row["instruction"]) for row in rows])
    return float(np.nanmean(np.where(switched, preference, 1 - preference)))


def _notes(rows: Sequence[Record], preference: Floats, lengths: Floats) -> list[str]:
    """What a reader must know before believing the numbers."""
    notes = []
    rated = preference[~np.isnan(preference)]
    impossible = sum(row["preference"] is not None and not math.isnan(row["preference"]) for row in rows) - len(rated)
    if impossible:
        notes.append(f"{impossible} preferences outside 1 to 2 count as failed")
    if len(rated) < SMALL:
        notes.append(f"only {len(rated)} preferences: the intervals are rough")
    if len(rated) and len(set(rated)) == 1:
        notes.append("all preferences are equal: the intervals have no width")
    if len(set(lengths[:, 0] - lengths[:, 1])) == 1:
        notes.append("all length differences are equal: the length term has nothing to explain")
    return notes


def _win_rates(preference: Floats, counts: NDArray[np.int64]) -> dict[str, Any]:
    """Plain win rates in percent; preference (n,) in [0, 1] with NaN; counts (resamples, n)."""
    rated = ~np.isnan(preference)
    values = preference[rated]
    n = len(values)
    low = high = None
    if n:
        drawn = counts[:, rated].sum(axis=1)
        low, high = percentile_interval(100 * (counts[:, rated] @ values)[drawn > 0] / drawn[drawn > 0])
    wins, losses = int((values > 0.5).sum()), int((values < 0.5).sum())
    draws = n - wins - losses
    return {
        "win_rate": float(100 * values.mean()) if n else None,
        "win_rate_ci_low": low,
        "win_rate_ci_high": high,
        "standard_error": float(100 * values.std(ddof=1) / math.sqrt(n)) if n > 1 else None,
        "discrete_win_rate": 100 * (wins + draws / 2) / n if n else None,
        "n_wins": wins,
        "n_wins_base": losses,
        "n_draws": draws,
    }


@dataclass(frozen=True)
class _Design:
    """What the length control is fitted to: k features, n instructions, g gamed rows.

    Attributes:
        form: length_controlled_v1, _noreg or _minimal.
        names: the k features' names.
        delta: (n,) characters of output_1 minus output_2.
        preference: (n,) in [0, 1], NaN where the judge gave none.
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


def _design(
    delta: Floats,
    preference: Floats,
    difficulty: Sequence[float] | None,
    gamed: Sequence[Mapping[str, float]] | None,
) -> _Design:
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
    return _Design(
        form=form,
        names=tuple(names),
        delta=delta,
        preference=preference,
        difficulty=difficulty,
        gamed_features=np.array(features).reshape(len(rows), len(names)),
        gamed_preference=np.array([row["preference"] for row in rows], dtype=float),
    )


def _undefined(design: _Design) -> dict[str, Any]:
    keys = ("winrate", "ci_low", "ci_high", "stderr")
    return {f"length_controlled_{key}": None for key in keys} | {
        "length_control": {"form": design.form, "C": None, "C_from": None, "weights": None}
    }


def _length_controlled(
    design: _Design, C: float | str | None, counts: NDArray[np.int64], notes: list[str]
) -> dict[str, Any]:
    """Point estimate at the chosen C and bootstrap at that C; counts: (resamples, n)."""
    if design.difficulty is not None and len(design.delta) != OFFICIAL_SIZE:
        notes.append(
            f"{len(design.delta)} rows instead of {OFFICIAL_SIZE}: difficulties are looked up by position, as upstream "
            "does, and are shifted after a dropped row"
        )
    strength, origin = _choose_C(design, C)
    weights, converged = _refit(design, strength) if origin == "default" else (_fit_liblinear(design, strength), True)
    replicates = []
    for part in np.array_split(counts, max(1, counts.size // 100_000)):  # some 5 MB an array
        fitted, ok = _refit(design, strength, part, weights)
        replicates.append(_predict(design, fitted, part))
        converged &= ok
    if not converged:
        notes.append("a length-control fit did not converge; its interval is not to be trusted")
    low, high = percentile_interval(np.concatenate(replicates))
    return {
        "length_controlled_winrate": float(_predict(design, weights[None], np.ones((1, len(design.delta))))[0]),
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


def _choose_C(design: _Design, C: float | str | None) -> tuple[float, str]:
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


def _features(design: _Design, counts: NDArray[Any]) -> Floats:
    """(resamples, n, k) features of the model's rows; the scale of the lengths is each resample's own."""
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


def _predict(design: _Design, weights: Floats, counts: NDArray[Any]) -> Floats:
    """(resamples,) win rates in percent at equal length, over all rows, those without a preference too."""
    if design.difficulty is None:
        return 100 * expit(weights[:, -1])
    at_equal_length = expit(weights[:, 1:2] * design.difficulty + weights[:, 2:])
    return 100 * (counts * at_equal_length).sum(axis=1) / counts.sum(axis=1)


def _training_rows(design: _Design) -> tuple[Floats, Floats, Floats]:
    """Features (rows, k), target (rows,) and weight (rows,): gamed rows first, then the model's rated rows."""
    rated = ~np.isnan(design.preference)
    own = _features(design, np.ones((1, len(design.delta))))[0][rated]
    return (
        np.concatenate([design.gamed_features, own]),
        np.concatenate([design.gamed_preference, design.preference[rated]]),
        np.concatenate([np.full(len(design.gamed_features), GAMED_WEIGHT), np.ones(len(own))]),
    )


def _refit(
    design: _Design, C: float, counts: NDArray[Any] | None = None, start: Floats | None = None
) -> tuple[Floats, bool]:
    """Exact fit at this C: (k,) of the data if counts is None, else (resamples, k); and whether all converged."""
    if counts is None:
        features, target, weight = _training_rows(design)
        weights, converged = _fit_exact(features[None], target, weight[None], np.array([C]))
        return weights[0], converged
    rated = ~np.isnan(design.preference)
    own = _features(design, counts)[:, rated]
    gamed = np.broadcast_to(design.gamed_features, (len(counts), *design.gamed_features.shape))
    gamed_weight = np.full((len(counts), gamed.shape[1]), GAMED_WEIGHT)
    return _fit_exact(
        np.concatenate([gamed, own], axis=1),
        np.concatenate([design.gamed_preference, design.preference[rated]]),
        np.concatenate([gamed_weight, counts[:, rated]], axis=1),
        np.full(len(counts), C),
        start,
    )


def _liblinear_rows(design: _Design) -> tuple[Floats, NDArray[np.int64], Floats, Floats, Floats]:
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


def _fit_liblinear(design: _Design, C: float) -> Floats:
    """(k,) weights as upstream's solver leaves them."""
    from sklearn.linear_model import LogisticRegression

    features, label, fit_weight, _, _ = _liblinear_rows(design)
    return LogisticRegression(C=C, l1_ratio=1.0, **_LIBLINEAR).fit(features, label, sample_weight=fit_weight).coef_[0]


def _cross_validate(design: _Design) -> float:
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; prints one JSON object. Returns the exit status: 0, or 2 where the input is wrong."""
    parser = argparse.ArgumentParser(prog="python -m eval.alpacaeval2", description=__doc__.split("\n")[0])
    command = parser.add_subparsers(dest="command", required=True).add_parser("score", help="score annotations")
    command.add_argument("--annotations", required=True, help="annotations of one model (JSON, JSONL, .gz)")
    command.add_argument("--difficulty", help="CSV with the column instruction_difficulty")
    command.add_argument("--gamed", help="CSV like upstream's df_gamed.csv; gives the published v1 form")
    command.add_argument("--C", help="inverse penalty strength, or cv; default: cv, without --difficulty/--gamed 10000")
    command.add_argument("--model", help="keep this generator_2 only")
    command.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    command.add_argument("--out", help="also write the JSON object to this file")
    args = parser.parse_args(arguments)
    return print_score(
        lambda: score(
            read_records(args.annotations),
            read_difficulty(args.difficulty) if args.difficulty else None,
            read_gamed(args.gamed) if args.gamed else None,
            args.C,
            model=args.model,
            seed=args.seed,
        ),
        args.out,
    )
