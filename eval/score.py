"""Score all models of an experiment on one benchmark by one judge.

    python -m eval.score --config results/default/config.yaml --benchmark alpacaeval2 --judge gold

Writes scores/{benchmark}/{judge}.json, which names benchmark version, judge, baseline and pool beside every number, and
scores/{benchmark}/{judge}.items.csv.gz with one value a model and question. Nothing is judged or answered here.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterable, Sequence
from typing import Any

from eval.alpacaeval2 import score as alpacaeval2
from eval.arenahard import score as arenahard
from eval.checkpoints import EvaluatedModel, evaluated_models, judged_runs, models_of_run, sft_model
from eval.judge import describe_judge
from eval.mtbench import score as mtbench
from eval.questions import SFT_BASELINE, baseline_answers, baseline_of, load_questions
from metaapo.command import errors_in_one_sentence, experiment_arguments
from metaapo.data import read_records, write_bytes, write_json
from metaapo.experiment import Experiment, load

Record = dict[str, Any]
ITEM_COLUMNS = ("method", "budget", "seed", "iteration", "question", "value", "length", "category")
BOOTSTRAP_SEED = 0


def judged_models(experiment: Experiment, benchmark: str) -> list[EvaluatedModel]:
    """The models that a benchmark's judges see, SFT policies first."""
    return [model for run in judged_runs(experiment, benchmark) for model in models_of_run(experiment, run)]


def _judgments(experiment: Experiment, benchmark: str, judge: str) -> list[Record]:
    """A judge's judgments of all models."""
    models = judged_models(experiment, benchmark)
    return [row for model in models for row in read_records(model.judgments(experiment, benchmark, judge))]


def metric(
    value: float | None, low: float | None = None, high: float | None = None, stderr: float | None = None
) -> Record:
    """A number as score files hold it; None where it does not exist."""
    return {"value": value, "ci_low": low, "ci_high": high, "stderr": stderr}


def score_alpacaeval2(experiment: Experiment, judge: str) -> Record:
    """Win rates of every model against its baseline; plain, length-controlled and discrete, in percent."""
    rows, items = [], []
    document: Record = {}
    settings = experiment.evaluation
    difficulty = (
        alpacaeval2.read_difficulty(settings.alpacaeval2_difficulty) if settings.alpacaeval2_difficulty else None
    )
    gamed = alpacaeval2.read_gamed(settings.alpacaeval2_gamed) if settings.alpacaeval2_gamed else None
    for model in judged_models(experiment, "alpacaeval2"):
        annotations = read_records(model.judgments(experiment, "alpacaeval2", judge))
        document = alpacaeval2.score(annotations, difficulty, gamed, seed=BOOTSTRAP_SEED)
        rows.append(_model_columns(model) | _alpacaeval2_row(document))
        items += [_model_columns(model) | item for item in alpacaeval2.items(annotations)]
    return {
        "version": f"{document['version']} ({document['length_control']['form']})",
        "rows": rows,
        "items": items,
        "baseline": document["baseline"],
        "notes": document["notes"],
    }


def _alpacaeval2_row(score: Record) -> Record:
    metrics = {
        "win_rate": metric(
            score["win_rate"], score["win_rate_ci_low"], score["win_rate_ci_high"], score["standard_error"]
        ),
        "length_controlled_winrate": metric(
            score["length_controlled_winrate"],
            score["length_controlled_ci_low"],
            score["length_controlled_ci_high"],
            score["length_controlled_stderr"],
        ),
        "discrete_win_rate": metric(score["discrete_win_rate"]),
    }
    counts = {key: score[key] for key in ("n", "n_failed", "mean_length")}
    return {"metrics": metrics, **counts, "first_slot_rate": score["first_slot_rate"], "position_inconsistency": None}


def score_arenahard(experiment: Experiment, judge: str, version: str) -> Record:
    """Win rates of all models, plain and controlled for style over the pool of all of them, in percent.

    Where categories have different baselines (v2.0), the first is the score, and the others stand beside it.
    """
    models = {model.id: model for model in judged_models(experiment, "arenahard")}
    judgments = _judgments(experiment, "arenahard", judge)
    own = [row for model in models.values() for row in read_records(model.answers(experiment, "arenahard"))]
    groups = list(dict.fromkeys((row["category"], row["baseline"]) for row in judgments))
    several = baseline_of(experiment, "arenahard") != SFT_BASELINE and len({baseline for _, baseline in groups}) > 1
    scored = []
    for category in [category for category, _ in groups] if several else [None]:
        part = [row for row in judgments if category in (None, row["category"])]
        answers = own + _baseline_answers(experiment, part)
        baselines = {row["model"]: row["baseline"] for row in part}
        document = arenahard.score(part, answers, baselines, version, style_control=True, seed=BOOTSTRAP_SEED)
        scored.append((category, document, arenahard.items(part, answers, baselines, version)))
    rows = {score["model"]: _arenahard_row(score) for score in scored[0][1]["models"]}
    for category, document, _ in scored[1:]:
        for score in document["models"]:
            for name, value in _arenahard_row(score)["metrics"].items():
                rows[score["model"]]["metrics"][f"{category}:{name}"] = value
    first = scored[0][1]
    return {
        "version": first["version"] + (f" ({scored[0][0]})" if several else ""),
        "rows": [_model_columns(models[name]) | row for name, row in rows.items()],
        "items": [_model_columns(models[item["model"]]) | item for item in scored[0][2]],
        "baseline": first["baseline"],
        "notes": first["notes"],
        "style": first["style"],
    }


def _baseline_answers(experiment: Experiment, judgments: Sequence[Record]) -> list[Record]:
    """The baseline's answers to the questions that were judged."""
    worlds = {model.world for model in judged_models(experiment, "arenahard")}
    if baseline_of(experiment, "arenahard") == SFT_BASELINE:
        return [row for w in worlds for row in read_records(sft_model(w).answers(experiment, "arenahard"))]
    judged = {str(row.get("uid", row.get("question_id"))) for row in judgments}
    questions = load_questions(experiment, "arenahard", min(worlds)).questions
    return baseline_answers(experiment, "arenahard", min(worlds), [q for q in questions if q.id in judged])


def _arenahard_row(score: Record) -> Record:
    styled = [score[f"style_controlled_{key}"] for key in ("score", "ci_low", "ci_high", "stderr")]
    metrics = {
        "win_rate": metric(score["score"], score["ci_low"], score["ci_high"], score["stderr"]),
        "style_controlled_win_rate": metric(*styled),
    }
    counts = {key: score[key] for key in ("n", "n_failed", "n_null", "mean_length")}
    return {"metrics": metrics, **counts, "position_inconsistency": score["position_conflicts"]}


def score_mtbench(experiment: Experiment, judge: str) -> Record:
    """Mean grades of all models, 1 to 10; a model with too few readable grades is marked partial."""
    models = {model.id: model for model in judged_models(experiment, "mtbench")}
    world = next(iter(models.values())).world
    questions = [question.record for question in load_questions(experiment, "mtbench", world).questions]
    judgments = [
        row for model in models.values() for row in read_records(model.judgments(experiment, "mtbench", judge))
    ]
    answers = [row for model in models.values() for row in read_records(model.answers(experiment, "mtbench"))]
    document = mtbench.score(judgments, questions, answers, seed=BOOTSTRAP_SEED)
    items = mtbench.items(judgments, questions, answers)
    return {
        "version": document["version"],
        "rows": [_model_columns(models[score["model"]]) | _mtbench_row(score) for score in document["models"]],
        "items": [_model_columns(models[item["model"]]) | item for item in items],
        "notes": [],
        "judge_prompts": document["judge_prompts"],
    }


def _mtbench_row(score: Record) -> Record:
    metrics = {
        "average": metric(score["average"], score["ci_low"], score["ci_high"], score["stderr"]),
        "turn_1": metric(score["turn_1"]),
        "turn_2": metric(score["turn_2"]),
        **{f"category:{name}": metric(value) for name, value in score["categories"].items()},
    }
    counts = {key: score[key] for key in ("n", "n_failed", "n_unparsed", "coverage", "partial", "mean_length")}
    return {"metrics": metrics, **counts, "position_inconsistency": None}


def _model_columns(model: EvaluatedModel) -> Record:
    return {
        "method": model.run.method,
        "budget": str(model.run.budget),
        "seed": model.run.seed,
        "world": model.world,
        "iteration": model.iteration,
    }


def score_benchmark(experiment: Experiment, benchmark: str, judge: str) -> None:
    """Write the scores of all models on one benchmark by one judge.

    Raises:
        DataError: answers or judgments are missing.
    """
    if benchmark == "alpacaeval2":
        scored = score_alpacaeval2(experiment, judge)
    elif benchmark == "arenahard":
        scored = score_arenahard(experiment, judge, experiment.evaluation.arenahard_version)
    else:
        scored = score_mtbench(experiment, judge)
    items, rows = scored.pop("items"), scored.pop("rows")
    source, scored_baseline = baseline_of(experiment, benchmark), scored.pop("baseline", None)
    baseline = SFT_BASELINE if source == SFT_BASELINE else scored_baseline
    order = [_model_columns(model) for model in evaluated_models(experiment)]
    rows.sort(key=lambda row: order.index({key: row[key] for key in order[0]}))
    head = {"benchmark": benchmark, "version": scored.pop("version"), "judge": judge, "baseline": baseline}
    head["judge_model"] = describe_judge(experiment, judge)
    asked = load_questions(experiment, benchmark, order[0]["world"])
    questions = {"source": asked.source, "sha256": asked.sha256, "n": len(asked.questions)}
    path = experiment.results / "scores" / benchmark / f"{judge}.json"
    write_bytes(path.with_suffix(".items.csv.gz"), items_csv(items))
    write_json(path, head | {"questions": questions, "bootstrap_seed": BOOTSTRAP_SEED} | scored | {"rows": rows})


def items_csv(items: Iterable[Record]) -> bytes:
    """Values of single questions as gzipped CSV, the same bytes for the same values."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ITEM_COLUMNS, extrasaction="ignore", restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(items)
    return gzip.compress(text.getvalue().encode(), mtime=0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: score one benchmark by one judge."""
    parser = experiment_arguments("Score one benchmark by one judge.")
    parser.add_argument("--benchmark", required=True, help="alpacaeval2, arenahard or mtbench")
    parser.add_argument("--judge", required=True, help="a name in config/judges.yaml")
    args = parser.parse_args(arguments)
    with errors_in_one_sentence():
        score_benchmark(load(args.config), args.benchmark, args.judge)


if __name__ == "__main__":
    main()
