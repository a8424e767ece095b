"""MT-Bench: from judgments to scores, computed as in FastChat's `show_result.py` (single-answer grading).

    python -m eval.mtbench score --judgments model_judgment/gpt-4_single.jsonl --out scores.json

80 questions in 8 categories, two turns each; a judge gives every turn a grade from 1 to 10, and a model's score is
the mean of all its grades. FastChat silently drops replies without a grade (stored as -1), pools both turns, and
averages repeated judgments. The numbers here are the same, but include their coverage; below `MIN_COVERAGE` a score is
marked partial and comes with bounds on the full score.

Records (FastChat's): judgments {question_id, model, judge: [name, prompt], judgment, score, turn}; answers
{question_id, model_id, choices: [{turns: [text, text]}]}; questions {question_id, category, turns}.

Source: Zheng et al., "Judging LLM-as-a-judge with MT-Bench and Chatbot Arena" (arXiv 2306.05685); FastChat 0.2.36.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.benchmark import Judged, Scores, metric
from eval.mtbench.ratings import HIGHEST_GRADE, LOWEST_GRADE, UNPARSED
from eval.records import is_number, listed, refuse_copies, require_id, require_text, shown, turns_of
from eval.stats import percentile_interval, resample_counts
from metaapo.command import print_score, seed_argument, share_argument
from metaapo.config import EvaluationConfig
from metaapo.data import DataError, read_records, require_keys

Record = Mapping[str, Any]

VERSION = "mt_bench-2023"
CATEGORIES = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")
FIRST_QUESTION = 81  # the official ids are 81 to 160, ten per category, in the order of CATEGORIES
TURNS = (1, 2)
# With 2 % of 160 grades missing, the true mean differs from the reported one by 0.18 at most; models are told apart at
# 0.1 to 0.3.
MIN_COVERAGE = 0.98
N_BOOTSTRAP = 2000


def category_of(questions: Iterable[Record] | None = None) -> dict[Any, str]:
    """Question id -> category; of the official 80 questions if None.

    Raises:
        DataError: there is no question, or one lacks its id or category.
    """
    if questions is None:
        return {FIRST_QUESTION + i: CATEGORIES[i // 10] for i in range(10 * len(CATEGORIES))}
    questions = list(questions)
    if not questions:
        raise DataError("questions: the file has none; give the questions that were judged, or leave it out")
    for number, question in enumerate(questions, start=1):
        require_id(question, "question_id", f"questions, record {number}")
        require_text(question, "category", f"questions, record {number}")
    return {question["question_id"]: question["category"] for question in questions}


def score(
    judgments: Iterable[Record],
    questions: Iterable[Record] | None = None,
    answers: Iterable[Record] | None = None,
    judge: str | None = None,
    min_coverage: float = MIN_COVERAGE,
    n_bootstrap: int = N_BOOTSTRAP,
    seed: int = 0,
) -> dict[str, Any]:
    """Score every model in the judgments.

    Args:
        judgments: single-answer judgments of one judge, of any number of models.
        questions: the questions that should have been judged (two turns each). If None: the official 80 if all ids
            are official,
            else the questions that any model in the file was judged on.
        answers: of the same models, for the mean length in characters.
        judge: keep this judge's rows only.
        min_coverage: share of (question, turn) cells that need a grade for a score to be final.
        n_bootstrap: resamples of questions (both turns together) for the 95 % interval.
        seed: of the resamples; the same resamples serve all models.

    Returns:
        {benchmark, version, judge, judge_prompts, min_coverage, n_expected, models: [{model, average, ci_low, ci_high,
        stderr, turn_1, turn_2, categories, n, n_unparsed, n_repeated, n_missing, n_failed, n_out_of_range, coverage,
        partial, bounds, mean_length}, ...]}, best first; grades from 1 to 10; None if there is no grade; grades out
        of range count as missing. `bounds` is the range of the average if every missing grade were 1 or 10.

    Raises:
        DataError: a record lacks a key, several judges are mixed, or nothing is left to score.
    """
    rows = _of_one_judge(judgments, judge)
    categories = _expected_categories(rows, questions)
    lengths = _lengths(answers or ())
    counts = resample_counts(len(categories), n_bootstrap, seed)
    models = []
    for model, grades in _by_model(rows).items():
        result = _score_model(grades, categories, counts)
        result["mean_length"] = _mean(length for (name, _), length in lengths.items() if name == model)
        result["partial"] = result["coverage"] < min_coverage
        models.append({"model": model} | result)
    return {
        "benchmark": "mtbench",
        "version": VERSION,
        "judge": _judge(rows[0])[0],
        "judge_prompts": sorted({prompt for _, prompt in map(_judge, rows) if prompt}),
        "min_coverage": min_coverage,
        "n_expected": len(categories) * len(TURNS),
        "models": sorted(models, key=lambda m: (m["average"] is None, -(m["average"] or 0), m["model"])),
    }


def items(
    judgments: Iterable[Record],
    questions: Iterable[Record] | None = None,
    answers: Iterable[Record] | None = None,
    judge: str | None = None,
) -> list[dict[str, Any]]:
    """One row per model and question: {model, question, category, value, length}.

    `value` is the mean grade of the question's turns (None if none was graded), `length` the characters of the model's
    answers to both turns (None without answers). Questions without any judgment of a model are absent.

    Raises:
        DataError: as `score`.
    """
    rows = _of_one_judge(judgments, judge)
    categories = _expected_categories(rows, questions)
    lengths = _lengths(answers or ())
    result = []
    for model, grades in _by_model(rows).items():
        by_question: dict[Any, list[float]] = {}
        for question, _, grade in grades:
            counts = grade is not None and LOWEST_GRADE <= grade <= HIGHEST_GRADE
            by_question.setdefault(question, []).extend([grade] if counts else [])
        for question, values in by_question.items():
            result.append(
                {
                    "model": model,
                    "question": str(question),
                    "category": categories.get(question),
                    "value": float(np.mean(values)) if values else None,
                    "length": lengths.get((model, question)),
                }
            )
    return result


def _judge(row: Record) -> tuple[str | None, str | None]:
    """(name, prompt) of the judge; FastChat writes a list of both, other tools the name alone."""
    judge = row.get("judge")
    if judge is None or isinstance(judge, str):
        return judge, None
    return judge[0], judge[1] if len(judge) > 1 else None


def _of_one_judge(judgments: Iterable[Record], judge: str | None) -> list[Record]:
    rows = list(judgments)
    for number, row in enumerate(rows, start=1):
        where = f"judgments, record {number}"
        require_keys(row, ("question_id", "model", "score", "turn"), where)
        require_id(row, "question_id", where)
        require_text(row, "model", where)
        judged_by = row.get("judge")
        names = judged_by if isinstance(judged_by, list) and judged_by else [judged_by]
        if not all(isinstance(name, str | None) for name in names):
            raise DataError(f"{where}: judge is {shown(judged_by)}; expected a name, or a list of name and prompt")
        if row["score"] is not None and not is_number(row["score"]):
            raise DataError(f"{where}: score is {shown(row['score'])}; expected a number, or -1 if there is no grade")
        if isinstance(row["turn"], bool) or row["turn"] not in TURNS:
            raise DataError(f"{where}: turn is {shown(row['turn'])}; expected 1 or 2")
    rows = [row for row in rows if judge is None or _judge(row)[0] == judge]
    judges = sorted({str(_judge(row)[0]) for row in rows})
    if len(judges) > 1:
        raise DataError(f"judgments: {len(judges)} judges are mixed ({listed(judges)}); pick one with --judge")
    if not rows:
        raise DataError(
            f"judgments: nothing to score{f' by judge {shown(judge)}' if judge else ''}; expected single grades"
        )
    refuse_copies(rows, "judgments")  # a turn judged twice counts twice, as upstream, but a copied record must not
    return rows


def _expected_categories(rows: Sequence[Record], questions: Iterable[Record] | None) -> dict[Any, str | None]:
    """The questions that should have been judged, with their categories (None if unknown)."""
    official = category_of()
    if questions is not None:
        return dict(category_of(questions))
    found = {row["question_id"] for row in rows}
    return dict(official) if found <= official.keys() else {question: official.get(question) for question in found}


def _by_model(rows: Sequence[Record]) -> dict[str, list[tuple[Any, int, float | None]]]:
    """Model -> [(question, turn, grade or None)], in the file's order."""
    models: dict[str, list[tuple[Any, int, float | None]]] = {}
    for row in rows:
        grade = row["score"]
        parsed = None if grade is None or grade == UNPARSED or grade != grade else float(grade)
        models.setdefault(row["model"], []).append((row["question_id"], row["turn"], parsed))
    return models


def _score_model(
    grades: Sequence[tuple[Any, int, float | None]],
    categories: Mapping[Any, str | None],
    counts: NDArray[np.int64],
) -> dict[str, Any]:
    """One model's numbers; counts: (resamples, questions), how often each question is drawn."""
    impossible = sum(grade is not None and not LOWEST_GRADE <= grade <= HIGHEST_GRADE for _, _, grade in grades)
    unparsed = sum(grade is None for _, _, grade in grades)
    grades = [(q, t, g if g is not None and LOWEST_GRADE <= g <= HIGHEST_GRADE else None) for q, t, g in grades]
    position = {question: i for i, question in enumerate(categories)}
    unknown = [question for question, _, _ in grades if question not in position]
    if unknown:
        raise DataError(
            f"judgments: question {shown(unknown[0])} is not among the questions; give the file it comes from"
        )
    sums, numbers = np.zeros(len(position)), np.zeros(len(position))
    for question, _, grade in grades:
        if grade is not None:
            sums[position[question]] += grade
            numbers[position[question]] += 1
    cells = {(question, turn) for question, turn, grade in grades if grade is not None}
    judged = {(question, turn) for question, turn, _ in grades}
    expected = len(position) * len(TURNS)
    n, absent = int(numbers.sum()), expected - len(cells)
    low, high, stderr = _interval(sums, numbers, counts)
    return {
        "average": _mean([grade for _, _, grade in grades]),
        "ci_low": low,
        "ci_high": high,
        "stderr": stderr,
        **{f"turn_{turn}": _mean([g for _, t, g in grades if t == turn]) for turn in TURNS},
        "categories": {
            name: _mean([g for question, _, g in grades if categories[question] == name])
            for name in dict.fromkeys(categories.values())
            if name is not None
        },
        "n": n,
        "n_unparsed": unparsed,
        "n_repeated": n - len(cells),
        "n_missing": expected - len(judged),
        "n_failed": absent,
        "n_out_of_range": impossible,
        "coverage": len(cells) / expected,
        "bounds": [(sums.sum() + absent * grade) / (n + absent) for grade in (LOWEST_GRADE, HIGHEST_GRADE)],
    }


def _mean(grades: Iterable[float | None]) -> float | None:
    present = [grade for grade in grades if grade is not None]
    return float(np.mean(present)) if present else None


def _interval(
    sums: NDArray[np.float64], numbers: NDArray[np.float64], counts: NDArray[np.int64]
) -> tuple[float | None, float | None, float | None]:
    """95 % percentile interval and standard error of the pooled mean, questions resampled with both turns."""
    drawn = counts @ numbers
    if not drawn.any():
        return None, None, None
    replicates = (counts @ sums)[drawn > 0] / drawn[drawn > 0]
    return *percentile_interval(replicates), float(replicates.std(ddof=1))


def _lengths(answers: Iterable[Record]) -> dict[tuple[str, Any], int]:
    """(model, question) -> characters of the first choice's turns."""
    lengths = {}
    for number, answer in enumerate(answers, start=1):
        where = f"answers, record {number}"
        require_id(answer, "question_id", where)
        require_text(answer, "model_id", where)
        turns = turns_of(answer, where)
        if not all(isinstance(turn, str) for turn in turns):
            raise DataError(f"{where}: turns is {shown(turns)}; expected a list of texts")
        lengths[answer["model_id"], answer["question_id"]] = sum(map(len, turns))
    return lengths


def score_models(judged: Judged, settings: EvaluationConfig, seed: int) -> Scores:
    """Mean grades of all models, 1 to 10; a model with too few readable grades is marked partial.

    Raises:
        DataError: see `score`.
    """
    judgments = [row for rows in judged.judgments.values() for row in rows]
    answers = judged.answers()
    document = score(judgments, judged.questions, answers, seed=seed)
    rows = {model["model"]: _row(model) for model in document["models"]}
    found = items(judgments, judged.questions, answers)
    return Scores(document["version"], rows, found, details={"judge_prompts": document["judge_prompts"]})


def _row(score: Record) -> dict[str, Any]:
    metrics = {
        "average": metric(score["average"], score["ci_low"], score["ci_high"], score["stderr"]),
        "turn_1": metric(score["turn_1"]),
        "turn_2": metric(score["turn_2"]),
        **{f"category:{name}": metric(value) for name, value in score["categories"].items()},
    }
    counts = {key: score[key] for key in ("n", "n_failed", "n_unparsed", "coverage", "partial", "mean_length")}
    return {"metrics": metrics, **counts, "position_inconsistency": None}


EXAMPLE = "--judgments examples/mtbench_judgments.jsonl --questions examples/mtbench.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the scorer's options to a command-line parser."""
    parser.add_argument("--judgments", nargs="+", required=True, help="judgment files of one judge (JSON, JSONL, .gz)")
    parser.add_argument("--questions", help="question file; default: the official 80, or those found")
    parser.add_argument("--answers", nargs="+", default=[], help="answer files, for the mean length")
    parser.add_argument("--judge", help="keep this judge's rows only")
    parser.add_argument(
        "--min-coverage", type=share_argument, default=MIN_COVERAGE, help="share of grades a final score needs"
    )
    parser.add_argument("--seed", type=seed_argument, default=0, help="of the bootstrap")
    parser.add_argument("--out", help="also write the JSON object to this file")


def run(args: argparse.Namespace) -> int:
    """Print one JSON object. Returns the exit status: 0, or 2 for invalid input."""
    return print_score(
        lambda: score(
            [row for path in args.judgments for row in read_records(path)],
            read_records(args.questions) if args.questions else None,
            [row for path in args.answers for row in read_records(path)],
            judge=args.judge,
            min_coverage=args.min_coverage,
            seed=args.seed,
        ),
        args.out,
    )
