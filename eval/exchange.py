"""Export scores and judgments in the Every Eval Ever schema, which leaderboards and meta-analyses read.

    python -m eval.exchange --config results/default/config.yaml --judge gold --organization "My lab"

Writes, for every model and benchmark, exchange/data/{collection}/{developer}/{model}/{uuid}.json with all metrics and
their intervals, and next to it {uuid}_samples.jsonl with every question, answer, value and judgment. Equal results give
identical files. The schema's own validator checks them (pip install --no-deps every-eval-ever):

    python -m every_eval_ever validate 'results/default/exchange/data/**/*.json*'

Questions with an unreadable judgment have no sample, since the schema requires a number; `n_failed` counts them.

Source: Every Eval Ever, schema 0.3.0 (EvalEval Coalition, arXiv 2606.14516, MIT licence); the hash of a sample is that
of its reference on instance-level records.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import uuid
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from eval.benchmark import Benchmark, judging_of, questions_of
from eval.benchmark import benchmark as declaration
from eval.checkpoints import EvaluatedModel
from eval.judges.config import JudgeConfig, find_judge
from eval.questions import Question, QuestionSet, answers_in_order, load_questions
from eval.rank_agreement import Items, read_items
from eval.score import judged_models
from metaapo.data import DataError, read_json, read_records, sha256_file, write_bytes, write_json
from metaapo.doors import command_line
from metaapo.experiment import Experiment, load
from metaapo.provenance import git_commit

Record = dict[str, Any]
SCHEMA = "0.3.0"
DEVELOPER = "metaapo-repro"
LONGEST_ID = 64  # characters; AlpacaEval's questions are identified by their whole text
TEXTS = {
    "instruction",
    "output_1",
    "output_2",
    "prompt",
    "user_prompt",
}  # of a judgment; the sample already contains them
INTERVAL = "percentile bootstrap over questions"


def export(experiment: Experiment, judge: str, organization: str, folder: Path) -> list[Path]:
    """Write all models' scores and judgments under one judge.

    Args:
        experiment: whose results they are.
        judge: its name.
        organization: who ran the evaluation.
        folder: receives data/{collection}/{developer}/{model}/.

    Returns:
        The files, two for each model and benchmark.

    Raises:
        DataError: answers, judgments or scores are missing.
    """
    written = []
    for name in experiment.benchmarks:
        path = experiment.results / "scores" / name / f"{judge}.json"
        scores, items = read_json(path), read_items(path.with_suffix(".items.csv.gz"))
        rows = {_key(row): row for row in scores["rows"]}
        for model in judged_models(experiment, name):
            key = (model.run.method, str(model.run.budget), str(model.run.seed), str(model.iteration))
            if key not in rows:
                raise DataError(f"{path}: no score of {model.id} found; score again (eval.score)")
            head = _head(experiment, name, judge, model, scores, organization, int(path.stat().st_mtime))
            head["evaluation_results"] = _results(experiment, name, judge, scores, rows[key], head["evaluation_id"])
            samples = _samples(experiment, name, judge, model, items, head)
            written += _write(folder, head, samples, _collection(experiment, name, scores))
    return written


def _key(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[key]) for key in ("method", "budget", "seed", "iteration"))


def _collection(experiment: Experiment, benchmark: str, scores: Record) -> str:
    """The folder of a benchmark: a small world's questions are not those of the benchmark with the same name."""
    proxy = scores["questions"]["source"].startswith("world")
    return f"{benchmark}-proxy-{experiment.world.name}" if proxy else benchmark


def _head(
    experiment: Experiment,
    benchmark: str,
    judge: str,
    model: EvaluatedModel,
    scores: Record,
    organization: str,
    timestamp: int,
) -> Record:
    """An aggregate record without its results."""
    collection = _collection(experiment, benchmark, scores)
    name = f"{experiment.experiment}-{model.id}"
    base = experiment.sft.checkpoint.path
    details = {"method": model.run.method, "budget": str(model.run.budget), "seed": str(model.run.seed)}
    details |= {"world": str(model.world), "iteration": str(model.iteration)} | ({"base_model": base} if base else {})
    return {
        "schema_version": SCHEMA,
        "evaluation_id": f"{collection}-{judge}/{DEVELOPER}/{name}/{timestamp}",
        "retrieved_timestamp": str(timestamp),
        "source_metadata": {
            "source_name": f"experiment {experiment.experiment}",
            "source_type": "evaluation_run",
            "source_organization_name": organization,
            "evaluator_relationship": "first_party",
        },
        "eval_library": {
            "name": "metaapo-repro",
            "version": _own_version(),
            "additional_details": {"commit": git_commit()},
        },
        "model_info": {
            "name": name,
            "id": f"{DEVELOPER}/{name}",
            "developer": DEVELOPER,
            "additional_details": {"deployment_type": "self_deployed", "model_availability": "unknown", **details},
        },
    }


def _own_version() -> str:
    try:
        return version("metaapo-repro")
    except PackageNotFoundError:
        return "unknown"


def _results(
    experiment: Experiment, benchmark: str, judge: str, scores: Record, row: Record, evaluation_id: str
) -> list[Record]:
    """One entry for each metric that has a value."""
    declared = declaration(benchmark)
    counts = {key: str(row[key]) for key in ("n", "n_failed", "mean_length") if row.get(key) is not None}
    config = find_judge(experiment.evaluation.judges_file, judge)
    return [
        {
            "evaluation_result_id": f"{evaluation_id}#{name}",
            "evaluation_name": f"{declared.title} {scores['version']}",
            "source_data": {
                "dataset_name": benchmark,
                "source_type": "other",
                "additional_details": {k: str(scores["questions"][k]) for k in ("source", "sha256", "n")},
            },
            "metric_config": _metric_config(experiment, benchmark, declared, name, scores, config),
            "score_details": {"score": found["value"], "details": counts, **_uncertainty(found, row)},
        }
        for name, found in row["metrics"].items()
        if found["value"] is not None
    ]


def _metric_config(
    experiment: Experiment, benchmark: str, declared: Benchmark, name: str, scores: Record, config: JudgeConfig
) -> Record:
    low, high = declared.scale
    about = {"judge": scores["judge"], "judge_kind": config.kind, "judge_date": str(config.date or "unknown")}
    if scores["baseline"]:
        about["baseline"] = str(scores["baseline"])
    metric = {
        "metric_id": f"{benchmark}.{name}",
        "metric_name": declared.words(name),
        "metric_kind": "win_rate" if declared.pairwise else "rating",
        "metric_unit": "percent" if declared.pairwise else "points",
        "lower_is_better": False,
        "score_type": "continuous",
        "min_score": low,
        "max_score": high,
        "additional_details": about,
    }
    judges = _language_models(experiment, scores["judge"], config)
    if judges:
        prompts = config.prompts.get(benchmark, f"the official prompt of {declared.title} ({scores['version']})")
        metric["llm_scoring"] = {"judges": judges, "input_prompt": prompts}
        if len(judges) > 1:
            metric["llm_scoring"]["aggregation_method"] = "average"
    return metric


def _language_models(experiment: Experiment, judge: str, config: JudgeConfig) -> list[Record]:
    """The language models behind a judge; none behind a program or a reward model."""
    if config.members:
        entries = [(name, find_judge(experiment.evaluation.judges_file, name)) for name in config.members]
    else:
        entries = [(judge, config)]
    found = []
    for name, entry in entries:
        if entry.kind not in ("openai", "replay"):
            continue
        here = entry.kind == "openai" and any(host in entry.url for host in ("://localhost", "://127.0.0.1"))
        deployment = "self_deployed" if here else "externally_managed" if entry.kind == "openai" else "unknown"
        details = {"deployment_type": deployment, "model_availability": "unknown"}
        model = entry.model or name
        found.append({"model_info": {"name": name, "id": model, "additional_details": details}})
    return found


def _uncertainty(found: Record, row: Record) -> Record:
    """A metric's interval and standard error, if it has them."""
    known: Record = {}
    if found["stderr"] is not None:
        known["standard_error"] = {"value": found["stderr"], "method": "bootstrap"}
    if found["ci_low"] is not None and found["ci_high"] is not None:
        ends = {"lower": found["ci_low"], "upper": found["ci_high"]}
        known["confidence_interval"] = ends | {"confidence_level": 0.95, "method": INTERVAL}
    return {"uncertainty": known | {"num_samples": row["n"]}} if known else {}


def _samples(
    experiment: Experiment, benchmark: str, judge: str, model: EvaluatedModel, items: Items, head: Record
) -> list[Record]:
    """One record for each question whose judgment could be read."""
    asked: QuestionSet = load_questions(experiment, benchmark, model.world)
    answers = answers_in_order(model.answers(experiment, benchmark), benchmark, asked.questions)
    said = _judgments(experiment, benchmark, judge, model)
    stage, declared = judging_of(benchmark), declaration(benchmark)
    values = items.get((model.run.method, str(model.run.budget), str(model.run.seed), str(model.iteration)), {})
    config = find_judge(experiment.evaluation.judges_file, judge)
    method = "llm_judge" if _language_models(experiment, judge, config) else config.kind
    shared = {"evaluation_id": head["evaluation_id"], "model_id": head["model_info"]["id"]}
    raw = f"{head['evaluation_id']}#{declared.raw_metric}"
    result = next((r for r in head["evaluation_results"] if r["evaluation_result_id"] == raw), None)
    rows = []
    for question, answer in zip(asked.questions, answers):
        value = values.get(sample_id(question.id))
        if value is None or result is None:
            continue
        rows.append(
            {
                "schema_version": SCHEMA,
                **shared,
                "evaluation_name": result["evaluation_name"],
                "evaluation_result_id": raw,
                **_interaction(question, stage.texts(answer)),
                "evaluation": {
                    "score": declared.item_scale * value,
                    "is_correct": declared.item_scale * value > sum(declared.scale) / 2,
                    "num_turns": len(question.turns),
                },
                "answer_attribution": [_attribution(len(question.turns), value, method)],
                "metadata": {
                    "category": question.category,
                    "is_correct": "above the middle of the scale",
                    "judgments": json.dumps(said.get(question.id, []), ensure_ascii=False),
                },
            }
        )
    return rows


def sample_id(question: str) -> str:
    """A question's id in score files: upstream's, or the hash of a text used as id."""
    return question if len(question) <= LONGEST_ID else hashlib.sha256(question.encode()).hexdigest()[:16]


def _judgments(experiment: Experiment, benchmark: str, judge: str, model: EvaluatedModel) -> dict[str, list[Any]]:
    """Question -> judgments, without the texts that the sample already contains."""
    found: dict[str, list[Any]] = {}
    for row in read_records(model.judgments(experiment, benchmark, judge)):
        found.setdefault(questions_of(benchmark).question_of(row), []).append(_without_texts(row))
    return found


def _without_texts(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_texts(inner) for key, inner in value.items() if key not in TEXTS}
    return [_without_texts(inner) for inner in value] if isinstance(value, list) else value


def _interaction(question: Question, texts: Sequence[str]) -> Record:
    """The question and answer: one turn as input and output, several as messages."""
    asked: Record = {"raw": "\n\n".join(question.turns), "reference": []}
    canonical = json.dumps({"raw": asked["raw"], "reference": []}, sort_keys=True, separators=(",", ":"))
    shared = {
        "sample_id": sample_id(question.id),
        "sample_hash": hashlib.sha256(canonical.encode()).hexdigest(),
        "input": asked,
    }
    if len(question.turns) == 1:
        return shared | {"interaction_type": "single_turn", "output": {"raw": list(texts)}, "messages": None}
    turns = [(role, text) for pair in zip(question.turns, texts) for role, text in zip(("user", "assistant"), pair)]
    messages = [{"turn_idx": i, "role": role, "content": text} for i, (role, text) in enumerate(turns)]
    return shared | {"interaction_type": "multi_turn", "output": None, "messages": messages}


def _attribution(turns: int, value: float, method: str) -> Record:
    last = 2 * turns - 1 if turns > 1 else 0
    return {
        "turn_idx": last,
        "source": "output.raw" if turns == 1 else "messages[turn_idx].content",
        "extracted_value": repr(value),
        "extraction_method": method,
        "is_terminal": True,
    }


def _write(folder: Path, head: Record, samples: list[Record], collection: str) -> list[Path]:
    """Write a model's aggregate and samples under a name derived from their content."""
    path = Path("data") / collection / head["model_info"]["developer"] / head["model_info"]["name"]
    digest = hashlib.sha256(head["evaluation_id"].encode()).digest()
    name = str(uuid.UUID(bytes=digest[:16], version=4))
    lines = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in samples)
    paths = [folder / path / f"{name}.json"]
    if samples:
        paths.append(folder / path / f"{name}_samples.jsonl")
        write_bytes(paths[1], lines.encode("utf-8"))
        head["detailed_evaluation_results"] = {
            "format": "jsonl",
            "file_path": f"{path.as_posix()}/{name}_samples.jsonl",
            "hash_algorithm": "sha256",
            "checksum": sha256_file(paths[1]),
            "total_rows": len(samples),
        }
    write_json(paths[0], head)
    return paths


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to a command-line parser."""
    parser.add_argument("--config", required=True, help="the experiment's configuration file")
    parser.add_argument("--judge", required=True, help="a name in config/judges.yaml")
    parser.add_argument("--organization", default=DEVELOPER, help="who ran the evaluation")
    parser.add_argument("--out", help="the folder that receives data/; default: exchange in the experiment's results")


def run(arguments: argparse.Namespace) -> None:
    """Export one judge's scores and judgments."""
    try:
        experiment = load(arguments.config)
        folder = Path(arguments.out) if arguments.out else experiment.results / "exchange"
        written = export(experiment, arguments.judge, arguments.organization, folder)
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(f"{len(written)} files under {folder}/data", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(command_line(__spec__.name, __doc__, add_arguments, run))
