"""AlpacaEval 2: from preferences to win rates, plain and length-controlled, as alpaca-eval 0.6.6 computes them.

    python -m eval.alpacaeval2 score --annotations annotations.json --difficulty instruction_difficulty.csv \\
        --gamed df_gamed.csv --C cv --out scores.json

A judge prefers either the baseline's answer (output_1) or the model's (output_2) to an instruction; `preference` runs
from 1 (baseline) to 2 (model), weighted by the judge's token probabilities. The win rate is the mean of preference - 1.

The length-controlled win rate is the predicted win rate at equal length. It fits

    logit P(model preferred) = w1 tanh(D / std(D)) + w2 difficulty + w3,    D = len(output_1) - len(output_2),

with an L1 penalty, and predicts at D = 0. There are three forms, chosen by what is given:

| form | given | used for |
| --- | --- | --- |
| length_controlled_v1 | --gamed, --difficulty | the published leaderboard; two gamed baselines regularise w1 and w2 |
| length_controlled_noreg | --difficulty | the same 805 instructions without the gamed baselines |
| length_controlled_minimal | neither | any other instructions: w1 and w3 only |

With any C ("cv" is upstream's cross-validation, the default of the first two forms) the point estimate comes from
scikit-learn's liblinear with upstream's settings, to reproduce published digits. Its interval comes from the influence
of each prompt on the optimum of the same objective, which an exact solver finds (liblinear stops up to 0.003 points
short of it). The minimal form's default is that solver too, at C = 10000, the weakest penalty on upstream's grid: with
a few hundred instructions and a win rate near 50 %, cross-validation often takes the strongest penalty, which makes the
score exactly 50 (true rate 53 %: in a quarter of samples of 512 instructions, in half of those of 256).

Intentional differences from upstream: the plain rate has a 95 % percentile interval of a seeded bootstrap over
instructions, the length-controlled one a t-interval over the instructions' influence values at the chosen C (upstream's
`lc_standard_error` is the spread of predictions over instructions, not the score's uncertainty, and is left out);
nothing is downloaded, and no weights are written into site-packages.

If one side's answers are nearly always the longer ones, a win rate at equal length is an extrapolation:
`length_overlap` is below 0.1 and `length_control_extrapolates` is true.

Records: model_outputs {dataset, instruction, output, generator}; annotations the same plus output_1, output_2 (or
their lengths len_1, len_2), generator_1, generator_2, annotator, preference. Upstream looks difficulties up by a
row's position, so a file with dropped rows gets shifted ones; published numbers include this effect, and so do these.

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
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.alpacaeval2.length_control import (
    EXTRAPOLATES,
    design_of,
    extrapolates,
    length_controlled,
    length_overlap,
    undefined,
)
from eval.alpacaeval2.preferences import is_switched
from eval.benchmark import Judged, Scores, metric
from eval.records import is_number, listed, refuse_repeats, require_count, require_text, shown
from eval.stats import percentile_interval, resample_counts
from metaapo.command import print_score, seed_argument
from metaapo.config import EvaluationConfig
from metaapo.data import DataError, read_records, require_keys

Record = Mapping[str, Any]
Floats = NDArray[np.float64]

VERSION = "alpaca_eval_2"
CONTROLLED = "length_controlled_winrate"
N_BOOTSTRAP = 1000
SMALL = 30  # below this, percentile intervals of a mean are visibly too narrow


def read_difficulty(path: str | Path) -> list[float]:
    """Instruction difficulties by position, from a CSV file (plain or .gz) with the column instruction_difficulty.

    Raises:
        DataError: the file is missing, lacks the column, or contains a value that is not a number.
    """
    return [_number(row, "instruction_difficulty", f"{path}:{n}") for n, row in enumerate(_read_csv(path), start=2)]


def read_gamed(path: str | Path) -> list[dict[str, float]]:
    """Rows of the gamed baselines, from a CSV file (plain or .gz) like upstream's df_gamed.csv.

    Returns:
        [{index, preference (0 to 1, NaN if none), std_delta_len, instruction_difficulty}, ...] in the file's order.

    Raises:
        DataError: the file is missing, lacks a column, or contains a value that is not a number.
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
        n_bootstrap: resamples of instructions for the plain rate's 95 % interval.
        seed: of the resamples; equal seeds and numbers of instructions pair the resamples of several models.

    Returns:
        {benchmark, version, judge, baseline, model, n (with a preference), n_failed (without), win_rate,
        win_rate_ci_low, win_rate_ci_high, standard_error, discrete_win_rate, n_wins, n_wins_base, n_draws,
        length_controlled_winrate, length_controlled_ci_low, length_controlled_ci_high, length_controlled_stderr,
        length_control: {form, C, C_from, weights}, length_overlap, length_control_extrapolates (see
        `eval.alpacaeval2.length_control.length_overlap`), mean_length, mean_length_baseline (characters),
        first_slot_rate, n_bootstrap, bootstrap_seed, notes}. Rates in percent, None if undefined. `first_slot_rate` is
        the judge's mean preference for the answer shown first, 0 to 1 (0.5 without position bias), under upstream's
        order.

    Raises:
        DataError: a record lacks a key, several models, baselines or judges are mixed, too few difficulties, or a bad
            C.
    """
    return _scored(_of_one_model(annotations, model), difficulty, gamed, C, n_bootstrap, seed)[0]


def _scored(
    rows: Sequence[Record],
    difficulty: Sequence[float] | None,
    gamed: Sequence[Mapping[str, float]] | None,
    C: float | str | None = None,
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
) -> tuple[dict[str, Any], Floats | None]:
    """The result of `score`, and the length-controlled values of all rows, which average to the score (0 to 1)."""
    preference = np.array([_preference(row) for row in rows])
    lengths = np.array([_lengths(row) for row in rows], dtype=float)
    rated = ~np.isnan(preference)
    counts = resample_counts(len(rows), n_bootstrap, seed)
    notes = _notes(rows, preference, lengths)
    delta = lengths[:, 0] - lengths[:, 1]
    overlap = length_overlap(delta)
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
        "length_overlap": overlap,
        "length_control_extrapolates": extrapolates(overlap),
        "first_slot_rate": _first_slot_rate(rows, preference),
        "n_bootstrap": n_bootstrap,
        "bootstrap_seed": seed,
        "notes": notes,
    }
    design = design_of(delta, preference, difficulty, gamed)
    if rows[0]["generator_1"] == rows[0]["generator_2"]:
        notes.append("the model is the baseline: its length-controlled win rate is 50 by definition")
        return result | undefined(design) | {"length_controlled_winrate": 50.0}, None
    if not rated.any():
        notes.append("no row has a preference: there is no score")
        return result | undefined(design), None
    if extrapolates(overlap):
        notes.append(f"the length-controlled win rate is an extrapolation: {EXTRAPOLATES}")
    controlled, values = length_controlled(design, C, notes)
    return result | controlled, values


def items(annotations: Iterable[Record], model: str | None = None) -> list[dict[str, Any]]:
    """One row per instruction: {model, question, value, length}.

    `question` is a hash of the instruction, the same for all models (a repeated instruction gets "#2", "#3"); `value`
    is preference - 1 in [0, 1], None if the judge gave none; `length` the characters of the model's answer.

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
        return list(csv.DictReader(io.StringIO(text)))
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error}); expected a CSV file, plain or gzipped") from error


def _number(row: Mapping[str, str | None], column: str, where: str) -> float:
    """A finite number; only a preference may be missing (NaN)."""
    require_keys(row, (column,), where)
    try:
        value = float(row[column] or math.nan)
    except (TypeError, ValueError):
        value = math.inf
    if math.isinf(value) or (math.isnan(value) and column != "preference"):
        raise DataError(f"{where}: column {column!r} holds {shown(row[column])}; expected a number")
    return value


def _of_one_model(annotations: Iterable[Record], model: str | None) -> list[Record]:
    rows = list(annotations)
    for number, row in enumerate(rows, start=1):
        where = f"annotations, record {number}"
        require_keys(row, ("preference", "generator_1", "generator_2"), where)
        if row["preference"] is not None and not is_number(row["preference"]):
            value = shown(row["preference"])
            raise DataError(f"{where}: preference is {value}; expected a number from 1 to 2, or null")
        for key in ("generator_1", "generator_2", *(["instruction"] if "instruction" in row else [])):
            require_text(row, key, where)
        for length, output in (("len_1", "output_1"), ("len_2", "output_2")):
            if length in row:
                require_count(row[length], length, where)
            if length not in row or output in row:
                require_text(row, output, where, null=True)
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
            raise DataError(f"annotations: {len(found)} values of {key} are mixed ({listed(found)}); {way_out}")
    if all("instruction" in row for row in rows):
        # A set may contain an instruction twice; the same answer to it with the same lengths is a duplicated row.
        lengths = [_lengths(row) for row in rows]
        refuse_repeats(
            [(row["instruction"], *pair, row.get("output_2")) for row, pair in zip(rows, lengths)], "annotations"
        )
    return rows


def _preference(row: Record) -> float:
    """The preference for the model in [0, 1]; NaN if there is none. Upstream's old code for a draw is 0."""
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
    """Caveats that a reader of the numbers must know."""
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
        total, drawn = (counts @ np.column_stack([np.where(rated, preference, 0.0), rated])).T
        low, high = percentile_interval(100 * total[drawn > 0] / drawn[drawn > 0])
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


def score_models(judged: Judged, settings: EvaluationConfig, seed: int) -> Scores:
    """Win rates of every model against its baseline; plain, length-controlled and discrete, in percent.

    Raises:
        DataError: see `score`.
    """
    difficulty = read_difficulty(settings.alpacaeval2_difficulty) if settings.alpacaeval2_difficulty else None
    gamed = read_gamed(settings.alpacaeval2_gamed) if settings.alpacaeval2_gamed else None
    rows, found, last = {}, [], {}
    for model, records in judged.judgments.items():
        last, controlled = _scored(_of_one_model(records, None), difficulty, gamed, seed=seed)
        rows[model] = _row(last)
        found += _with_controlled(items(records), controlled)
    version = f"{last['version']} ({last['length_control']['form']})"
    return Scores(version, rows, found, last["baseline"], last["notes"])


def _with_controlled(found: list[dict[str, Any]], controlled: Floats | None) -> list[dict[str, Any]]:
    """Items with their length-controlled values, if there are any."""
    if controlled is None:
        return found
    return [item | {CONTROLLED: value} for item, value in zip(found, controlled.tolist())]


def _row(score: Record) -> dict[str, Any]:
    plain = [score[key] for key in ("win_rate", "win_rate_ci_low", "win_rate_ci_high", "standard_error")]
    controlled = [score[f"length_controlled_{key}"] for key in ("winrate", "ci_low", "ci_high", "stderr")]
    flag = EXTRAPOLATES if score["length_control_extrapolates"] else None
    metrics = {
        "win_rate": metric(*plain),
        CONTROLLED: metric(*controlled, flag=flag),
        "discrete_win_rate": metric(score["discrete_win_rate"]),
    }
    counts = {key: score[key] for key in ("n", "n_failed", "mean_length", "length_overlap")}
    return {"metrics": metrics, **counts, "first_slot_rate": score["first_slot_rate"], "position_inconsistency": None}


EXAMPLE = "--annotations examples/annotations.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the scorer's options to a command-line parser."""
    parser.add_argument("--annotations", required=True, help="annotations of one model (JSON, JSONL, .gz)")
    parser.add_argument("--difficulty", help="CSV with the column instruction_difficulty")
    parser.add_argument("--gamed", help="CSV like upstream's df_gamed.csv; gives the published v1 form")
    parser.add_argument("--C", help="inverse penalty strength, or cv; default: cv, without --difficulty/--gamed 10000")
    parser.add_argument("--model", help="keep this generator_2 only")
    parser.add_argument("--seed", type=seed_argument, default=0, help="of the bootstrap")
    parser.add_argument("--out", help="also write the JSON object to this file")


def run(args: argparse.Namespace) -> int:
    """Print one JSON object. Returns the exit status: 0, or 2 for invalid input."""
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
