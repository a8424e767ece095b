"""Arena-Hard: from pairwise verdicts to win rates, plain and style-controlled, as scored in 2024 and in 2025.

    python -m eval.arenahard score --judgments model_judgment/gpt-4.1/*.jsonl --answers model_answer/*.jsonl \\
        --baseline o3-mini-2025-01-31 --version v2.0-2025 --category hard_prompt --style-control

A judge compares every answer with a baseline's in two games: in game 1 the baseline is A, in game 2 it is B. A
verdict of ">>" counts as three battles, a tie as half a win. The two official scorers differ:

| | v0.1-2024 | v2.0-2025 |
| --- | --- | --- |
| a verdict is | [[label]], and no other label | the last [[label]] of the upper-cased text, else the last [label] |
| no label at all | ask the judge once more | null |
| a null game drops | itself | both games of its question |
| style features | (m - b) / (m + b + 1) of counts | tokens: (m - b) / (m + b); others: as 2024, of counts per token |
| z-scores | ddof 0 | ddof 1 |
| style-controlled fit | logistic, L2 with C = 1 | logistic, not regularised |

A style-controlled score depends on the *pool*: the z-scores and the style coefficients are shared by all models in
the judgments. So every result names its pool, version and judge.

Intentional differences from upstream:

- Fits are converged. The 2025 code stops after 50 small steps (87.05 where the maximum likelihood is 87.50). The 2024
  code stops where scikit-learn's default tolerance does, up to 0.07 points from the optimum; since that is what
  papers report, `style_controlled_score` is that fit under v0.1-2024, and `style_controlled_converged` the optimum.
- Scores are those of the data, not means of 100 unseeded resamples.
- Intervals are 95 % and over *questions*: a seeded bootstrap for the plain score, and a t-interval over the questions'
  influence values for the style-controlled one. Upstream resamples battles, as if the three battles of one ">>" verdict
  were three verdicts, and shows 90 % in 2025.

`official_quirks` gives upstream's numbers beside ours.

Records: 2024 judgments {question_id, model, judge, games: [{score, judgment}, ...]}, answers {question_id, model_id,
choices, conv_metadata}; 2025 judgments {uid, category, judge, model, baseline, games}, answers {uid, model, messages,
metadata}. Either form is read under either version.

Source: Li et al., "From crowdsourced data to high-quality benchmarks" (arXiv 2406.11939);
github.com/lmarena/arena-hard-auto, commits 0489bf3 (2024) and 196f6b8 (2025).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.arenahard.answers import answer_text, check_answer, count_words
from eval.arenahard.official import official_scores
from eval.arenahard.pool import Pool, pool_notes, pool_of, question_id
from eval.arenahard.style import STYLE, metadata_of, standardise, style_controlled, style_features
from eval.arenahard.verdicts import LABELS, VERSIONS, labels
from eval.benchmark import Judged, Scores, metric
from eval.records import listed, refuse_copies, require_id, require_text, shown
from eval.stats import percentile_interval, resample_counts
from metaapo.command import print_score, seed_argument
from metaapo.config import EvaluationConfig
from metaapo.data import DataError, read_records, require_keys

Record = Mapping[str, Any]
Floats = NDArray[np.float64]

N_BOOTSTRAP = 2000
RAW, CONTROLLED = "win_rate", "style_controlled_win_rate"


def score(*pool: Any, **options: Any) -> dict[str, Any]:
    """The document of `score_pool`, which takes the same arguments and raises the same errors."""
    return score_pool(*pool, **options)[0]


def score_pool(
    judgments: Iterable[Record],
    answers: Iterable[Record],
    baseline: str | Mapping[str, str],
    version: str,
    style_control: bool = False,
    *,
    category: str | None = None,
    judge: str | None = None,
    features: Sequence[str] = STYLE,
    count_tokens: Callable[[str], int] | None = None,
    official_quirks: bool = False,
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
) -> tuple[dict[str, Any], dict[tuple[str, str], float]]:
    """Score every model in the judgments, which together form the pool.

    Args:
        judgments: of one judge and (2025) one category, any number of models.
        answers: of the models and the baseline; needed for style control and mean lengths, otherwise may be empty.
        baseline: name of the baseline, or model -> its baseline where they differ (one per world).
        version: "v0.1-2024" or "v2.0-2025".
        style_control: also fit the style-controlled scores.
        category: keep this category's judgments only.
        judge: keep this judge's judgments only.
        features: the style features to control for; upstream's length control is ("token_len",).
        count_tokens: for answers without metadata; this version's tiktoken encoding if None.
        official_quirks: add upstream's own numbers (see the module) to every model under "official".
        n_bootstrap: resamples of questions for the plain interval.
        seed: of all resamples.

    Returns:
        A document and the style-controlled value of each (model, question), empty without style control. The document:
        {benchmark, version, judge, category, baseline, pool, n_questions, n_bootstrap, models: [{model, baseline,
        score, ci_low, ci_high, stderr, n, n_battles, n_null, n_failed, position_conflicts, mean_length, mean_tokens,
        style_controlled_score, style_controlled_converged, style_controlled_ci_low, style_controlled_ci_high,
        style_controlled_stderr, [official]}, ...], style: {coefficients, features, left_out}, notes}; best first;
        scores in percent, None if there is none. `n` counts questions with a counted game, `n_null` games without
        a valid verdict, `n_failed` questions of the pool without a counted game, and `position_conflicts` is the
        share of questions whose two games name different winners.

    Raises:
        DataError: unknown version, mixed judges, baselines or categories, missing keys, or missing answers that style
            control needs.
    """
    labels(version)
    rows = _selected(judgments, judge, category)
    baselines = _baselines(rows, baseline)
    pool = pool_of([row for row in rows if row["model"] != baselines[row["model"]]], baselines, version)
    records = _by_model_and_question(answers)
    _check_baselines(pool.baselines, records)
    opponents = sorted(set(pool.baselines))
    notes = pool_notes(rows, pool)
    counts = resample_counts(len(pool.questions), n_bootstrap, seed)
    models = [_plain_score(pool, m, counts) | _sizes(pool, m, records) for m in range(len(pool.models))]
    style, values = None, {}
    if style_control:
        raw = style_features(pool, records, version, features, count_tokens)
        standardised, kept, left_out = standardise(raw, pool.battles, version, features)
        if left_out:
            notes.append(f"style features without any variation in this pool, left out: {', '.join(left_out)}")
        scores, coefficients, table = style_controlled(pool, standardised, version, notes)
        values = {(m, q): v for m, row in zip(pool.models, table.tolist()) for q, v in zip(pool.questions, row)}
        models = [model | styled for model, styled in zip(models, scores)]
        style = {"features": kept, "left_out": left_out, "coefficients": dict(zip(kept, coefficients))}
    if official_quirks:
        quirks = official_scores(pool, standardised if style_control else None, version, seed)
        models = [model | {"official": official} for model, official in zip(models, quirks)]
    document = {
        "benchmark": "arenahard",
        "version": version,
        "judge": rows[0].get("judge"),
        "category": category,
        "baseline": opponents[0] if len(opponents) == 1 else opponents,
        "pool": list(pool.models),
        "n_questions": len(pool.questions),
        "n_bootstrap": n_bootstrap,
        "bootstrap_seed": seed,
        "style": style,
        "notes": notes,
        "models": sorted(models, key=lambda m: (m["score"] is None, -(m["score"] or 0), m["model"])),
    }
    return document, values


def items(
    judgments: Iterable[Record],
    answers: Iterable[Record],
    baseline: str | Mapping[str, str],
    version: str,
    *,
    category: str | None = None,
    judge: str | None = None,
) -> list[dict[str, Any]]:
    """One row per model and question: {model, question, category, value, win_rate, length}.

    `value` in [0, 1] is the share of the question's battles (both games, ">>" thrice, ties half) that the model won,
    None if no game counts; `win_rate` see `raw_values`; `length` the characters of its answer, None without a text.
    Arguments and errors as for `score_pool`.
    """
    rows = _selected(judgments, judge, category)
    baselines = _baselines(rows, baseline)
    rows = [row for row in rows if row["model"] != baselines[row["model"]]]
    pool = pool_of(rows, baselines, version)
    records = _by_model_and_question(answers)
    categories = {question_id(row): row.get("category") for row in rows}
    wins, battles, values = pool.wins, pool.battles, raw_values(pool)
    return [
        {
            "model": model,
            "question": question,
            "category": categories[question],
            "value": float(wins[m, q] / battles[m, q]) if battles[m, q] else None,
            RAW: float(values[m, q]),
            "length": _length(records.get((model, question))) if pool.judged[m, q] else None,
        }
        for m, model in enumerate(pool.models)
        for q, question in enumerate(pool.questions)
    ]


def raw_values(pool: Pool) -> Floats:
    """(M, Q) values that average over the questions to each model's win rate, as shares; NaN for one without a battle.

    The win rate counts battles, of which questions have 0 to 6, so it is no mean of the questions' shares. A value is
    the win rate plus the question's influence on it (the infinitesimal jackknife of a ratio; Cochran, Sampling
    Techniques, 1977, section 6.3).
    """
    battles = pool.battles.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        rates = pool.wins.sum(axis=1, keepdims=True) / battles
        return rates + len(pool.questions) * (pool.wins - rates * pool.battles) / battles


def _selected(judgments: Iterable[Record], judge: str | None, category: str | None) -> list[Record]:
    rows = list(judgments)
    for number, row in enumerate(rows, start=1):
        where = f"judgments, record {number}"
        require_text(row, "model", where)
        require_id(row, "uid" if "uid" in row else "question_id", where)
        for key in ("judge", "baseline", "category"):
            if row.get(key) is not None:
                require_text(row, key, where)
        require_keys(row, ("games",), where)
        _check_games(row["games"], where)
    refuse_copies(rows, "judgments")
    rows = [row for row in rows if (judge is None or row.get("judge") == judge)]
    rows = [row for row in rows if (category is None or row.get("category") == category)]
    judges = sorted({str(row.get("judge")) for row in rows})
    if len(judges) > 1:
        raise DataError(f"judgments: {len(judges)} judges are mixed ({listed(judges)}); pick one with --judge")
    if not rows:
        raise DataError(f"judgments: nothing to score (judge {judge or 'any'}, category {category or 'any'})")
    return rows


def _check_games(games: Any, where: str) -> None:
    """Two games, each null or with a text as verdict; one that is not a label is null, as upstream, unless only its
    case is wrong."""
    if not isinstance(games, list) or len(games) != 2 or not all(isinstance(game, dict | None) for game in games):
        raise DataError(f"{where}: games is {shown(games)}; expected a list of two games {{score, judgment}}")
    for game in games:
        verdict = (game or {}).get("score")
        known = LABELS["v2.0-2025"]
        lower = isinstance(verdict, str) and verdict not in known and verdict.strip().upper() in known
        if lower or not isinstance(verdict, str | None):
            raise DataError(f"{where}: score is {shown(verdict)}; expected a label such as 'A>>B', or null")


def _baselines(rows: Sequence[Record], baseline: str | Mapping[str, str]) -> dict[str, str]:
    """Model -> baseline, checked against the judgments."""
    result = {}
    for row in rows:
        model = row["model"]
        expected = baseline if isinstance(baseline, str) else baseline.get(model)
        if expected is None:
            raise DataError(f"judgments: no baseline is given for model {shown(model)}")
        if row.get("baseline", expected) != expected:
            raise DataError(
                f"judgments: {shown(model)} was judged against {shown(row['baseline'])} on question "
                f"{shown(question_id(row))}, not against {shown(expected)}; pick one category with --category, or the "
                "right --baseline"
            )
        result[model] = expected
    return result


def _plain_score(pool: Pool, m: int, counts: NDArray[np.int64]) -> dict[str, Any]:
    """Win rate of one model and its interval; counts: (resamples, Q)."""
    wins, battles = pool.wins[m], pool.battles[m]
    score = low = high = stderr = None
    if battles.any():
        drawn = counts @ battles
        replicates = 100 * (counts @ wins)[drawn > 0] / drawn[drawn > 0]
        score = float(100 * wins.sum() / battles.sum())
        low, high = percentile_interval(replicates)
        stderr = float(replicates.std(ddof=1))
    complete = int(pool.complete[m].sum())
    return {
        "model": pool.models[m],
        "baseline": pool.baselines[m],
        "score": score,
        "ci_low": low,
        "ci_high": high,
        "stderr": stderr,
        "n": int((battles > 0).sum()),
        "n_battles": int(battles.sum()),
        "n_null": int(pool.null_games[m].sum()),
        "n_failed": int((battles == 0).sum()),
        "position_conflicts": float(pool.conflicts[m].sum() / complete) if complete else None,
    }


def _by_model_and_question(answers: Iterable[Record]) -> dict[tuple[str, str], Record]:
    records = {}
    for number, answer in enumerate(answers, start=1):
        model = answer.get("model_id", answer.get("model"))
        where = f"answers, record {number}"
        if model is None or not ("uid" in answer or "question_id" in answer):
            raise DataError(f"{where}: expected model or model_id, and uid or question_id; found {sorted(answer)}")
        require_text(answer, "model_id" if "model_id" in answer else "model", where)
        require_id(answer, "uid" if "uid" in answer else "question_id", where)
        check_answer(answer, where)
        records[model, question_id(answer)] = answer
    return records


def _check_baselines(baselines: Iterable[str], records: Mapping[tuple[str, str], Record]) -> None:
    """Files of 2024 do not name their baseline, but if answers are given, they must include the baseline's."""
    known = sorted({model for model, _ in records})
    for baseline in sorted(set(baselines)):
        if known and baseline not in known:
            raise DataError(
                f"answers: none of the baseline {shown(baseline)}; they are by {listed(known)}; correct --baseline "
                "or give the baseline's answers too"
            )


def _length(answer: Record | None) -> int | None:
    text = answer_text(answer) if answer else None
    return None if text is None else len(text)


def _sizes(pool: Pool, m: int, records: Mapping[tuple[str, str], Record]) -> dict[str, float | None]:
    """Mean characters and tokens of a model's answers to the judged questions."""
    answers_judged = [records.get((pool.models[m], q)) for i, q in enumerate(pool.questions) if pool.judged[m, i]]
    lengths = [length for length in map(_length, answers_judged) if length is not None]
    tokens = [metadata_of(answer)["token_len"] for answer in answers_judged if answer and metadata_of(answer)]
    return {
        "mean_length": float(np.mean(lengths)) if lengths else None,
        "mean_tokens": float(np.mean(tokens)) if tokens else None,
    }


def score_models(judged: Judged, settings: EvaluationConfig, seed: int) -> Scores:
    """Win rates of all models, plain and controlled for style over the pool of all of them, in percent.

    If categories have different baselines (v2.0), the first category gives the score and the others are reported with
    it.

    Raises:
        DataError: see `score_pool`.
    """
    version = settings.arenahard_version
    judgments = [row for rows in judged.judgments.values() for row in rows]
    answers = judged.answers() + judged.baseline_answers()
    groups = list(dict.fromkeys((row["category"], row["baseline"]) for row in judgments))
    several = not judged.sft_baseline and len({baseline for _, baseline in groups}) > 1
    scored = []
    for category in dict.fromkeys(category for category, _ in groups) if several else [None]:
        part = [row for row in judgments if category in (None, row["category"])]
        baselines = {row["model"]: row["baseline"] for row in part}
        document, values = score_pool(part, answers, baselines, version, style_control=True, seed=seed)
        found = items(part, answers, baselines, version)
        found = [row | {CONTROLLED: values[row["model"], row["question"]]} for row in found]
        scored.append((category, document, found))
    (category, first, found), *others = scored
    rows = {score["model"]: _row(score) for score in first["models"]}
    for other, document, _ in others:
        for model in document["models"]:
            beside = {f"{other}:{name}": value for name, value in _row(model)["metrics"].items()}
            rows[model["model"]]["metrics"] |= beside
    named = first["version"] + (f" ({category})" if several else "")
    return Scores(named, rows, found, first["baseline"], first["notes"], {"style": first["style"]})


def _row(score: Record) -> dict[str, Any]:
    styled = [score[f"style_controlled_{key}"] for key in ("score", "ci_low", "ci_high", "stderr")]
    metrics = {
        RAW: metric(score["score"], score["ci_low"], score["ci_high"], score["stderr"]),
        CONTROLLED: metric(*styled),
    }
    counts = {key: score[key] for key in ("n", "n_failed", "n_null", "mean_length")}
    return {"metrics": metrics, **counts, "position_inconsistency": score["position_conflicts"]}


EXAMPLE = (
    "--judgments examples/arenahard_judgments.jsonl --answers examples/arenahard_answers.jsonl "
    "--baseline baseline --version v2.0-2025"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the scorer's options to a command-line parser."""
    parser.add_argument("--judgments", nargs="+", required=True, help="judgment files, together the pool")
    parser.add_argument("--answers", nargs="+", default=[], help="answer files, of the baseline too")
    parser.add_argument("--baseline", required=True, help="name of the baseline in the files")
    parser.add_argument("--version", required=True, choices=VERSIONS)
    parser.add_argument("--style-control", action="store_true", help="also fit style-controlled scores")
    parser.add_argument("--features", nargs="+", default=STYLE, choices=STYLE, help="style features to control for")
    parser.add_argument("--tokens", choices=("tiktoken", "words"), default="tiktoken", help="without metadata")
    parser.add_argument("--category", help="keep this category only")
    parser.add_argument("--judge", help="keep this judge only")
    parser.add_argument("--official-quirks", action="store_true", help="add upstream's own numbers")
    parser.add_argument("--seed", type=seed_argument, default=0, help="of the bootstraps")
    parser.add_argument("--out", help="also write the JSON object to this file")


def run(args: argparse.Namespace) -> int:
    """Print one JSON object. Returns the exit status: 0, or 2 for invalid input."""
    return print_score(
        lambda: score(
            [row for path in args.judgments for row in read_records(path)],
            [row for path in args.answers for row in read_records(path)],
            args.baseline,
            args.version,
            args.style_control,
            category=args.category,
            judge=args.judge,
            features=args.features,
            count_tokens=count_words if args.tokens == "words" else None,
            official_quirks=args.official_quirks,
            seed=args.seed,
        ),
        args.out,
    )
