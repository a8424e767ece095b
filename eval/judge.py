"""Judge one run's answers to one benchmark.

    python -m eval.judge --config results/default/config.yaml --benchmark mtbench --judge gold --run dpo/budget1.0/seed0

Judgments are written to judgments/{benchmark}/{judge}/{run}/iter{t}.json(l) in upstream's formats. An unreadable
judgment is stored as such and never scored. A journal records finished files with their dependencies (questions,
answers, the judge, settings, code), so that an interrupted or repeated job judges only what is missing or out of date.
The journal's final state is the run's manifest, judgments/{benchmark}/{judge}/{run}.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.benchmark import benchmark as declaration
from eval.benchmark import judging_of
from eval.checkpoints import EvaluatedModel, judge_settings_of, judged_runs, models_of_run, sft_model
from eval.judges import Judge
from eval.judges.catalogue import clients_of, judge_settings, judging_code, open_judge
from eval.judges.config import find_judge
from eval.questions import (
    SFT_BASELINE,
    Question,
    answers_in_order,
    baseline_answers,
    baseline_of,
    load_questions,
)
from metaapo.command import load_and_pin
from metaapo.data import DataError, read_json, sha256_file, write_json, write_jsonl
from metaapo.doors import command_line
from metaapo.experiment import Experiment

Record = dict[str, Any]


def judge_model(experiment: Experiment, judge: Judge, benchmark: str, model: EvaluatedModel) -> list[Record]:
    """A judge's judgments of one checkpoint's answers."""
    questions = load_questions(experiment, benchmark, model.world).questions
    baseline = baseline_rows(experiment, benchmark, model.world, questions)
    return _judge(experiment, judge, benchmark, model, questions, baseline)


def _judge(
    experiment: Experiment,
    judge: Judge,
    benchmark: str,
    model: EvaluatedModel,
    questions: list[Question],
    baseline: list[Record],
) -> list[Record]:
    answers = answers_in_order(model.answers(experiment, benchmark), benchmark, questions)
    return judging_of(benchmark).judge_answers(judge, questions, baseline, answers, experiment.evaluation)


def baseline_rows(experiment: Experiment, benchmark: str, world: int, questions: list[Question]) -> list[Record]:
    """The baseline's answers (possibly the SFT policy's), in order; [] if the benchmark has no baseline."""
    if not declaration(benchmark).pairwise:
        return []
    if baseline_of(experiment, benchmark) == SFT_BASELINE:
        return answers_in_order(sft_model(world).answers(experiment, benchmark), benchmark, questions)
    return baseline_answers(experiment, benchmark, world, questions)


def manifest_path(experiment: Experiment, benchmark: str, judge: str, run_id: str) -> Path:
    """Path of the manifest, which is written when all judgments of a run exist and records how they were made."""
    return experiment.results / "judgments" / benchmark / judge / f"{run_id}.json"


def _journal_path(experiment: Experiment, benchmark: str, judge: str, run_id: str) -> Path:
    return experiment.results / "judgments" / ".journal" / benchmark / judge / f"{run_id}.json"


def judge_run(experiment: Experiment, name: str, benchmark: str, run_id: str, ask_again: bool = False) -> None:
    """Judge all checkpoints of a run on one benchmark; write their files, then the manifest.

    Args:
        experiment: names questions, judges and settings.
        name: the judge's name.
        benchmark: the benchmark's name.
        run_id: the run whose answers are judged.
        ask_again: judge again if judgments could not be read; a paid judge is asked only for those.

    Raises:
        ConfigError: unknown judge or run, or the judge is past its end of life.
        DataError: answers are missing, or the judge could not be reached.
    """
    models = models_of_run(experiment, run_id)
    world = models[0].world
    judge = open_judge(experiment, name, world)
    for client in clients_of(judge):  # only paid judges have one
        client.ask_again = ask_again
    questions = load_questions(experiment, benchmark, world).questions
    baseline = baseline_rows(experiment, benchmark, world, questions)
    shared = _shared_stamp(experiment, judge, benchmark, questions, baseline)
    journal_path = _journal_path(experiment, benchmark, name, run_id)
    journal: dict[str, Any] = read_json(journal_path) if journal_path.is_file() else {}
    judged = {}
    for model in models:
        path = model.judgments(experiment, benchmark, name)
        stamp = shared | {"answers": sha256_file(model.answers(experiment, benchmark))}
        again = ask_again and journal.get(str(path), {}).get("unreadable", 0) > 0
        if again or not _is_finished(journal, path, stamp):
            records = _judge(experiment, judge, benchmark, model, questions, baseline)
            _check_readable(judge, benchmark, model, records)
            journal[str(path)] = _write(path, benchmark, records) | {"depends_on": stamp}
            write_json(journal_path, journal)
            entry = {key: journal[str(path)][key] for key in ("n", "unreadable")}
            print(f"{model.id}: judged by {name} on {benchmark}: {json.dumps(entry)}", file=sys.stderr)
        else:
            print(f"{model.id}: judgments by {name} on {benchmark} are finished, reused", file=sys.stderr)
        judged[str(path)] = journal[str(path)]
    for store in {client.store.path: client.store for client in clients_of(judge)}.values():
        print(f"ledger of {store.path.stem}: {store.ledger()}", file=sys.stderr)
    write_json(
        manifest_path(experiment, benchmark, name, run_id),
        {"run": run_id, "judge": describe_judge(experiment, name), "judgments": judged},
    )


def _write(path: Path, benchmark: str, records: list[Record]) -> Record:
    """Write a file of judgments; returns its journal entry."""
    (write_jsonl if path.suffix == ".jsonl" else write_json)(path, records)
    return {
        "sha256": sha256_file(path),
        "n": len(records),
        "unreadable": judging_of(benchmark).unreadable(records),
    }


def _check_readable(judge: Judge, benchmark: str, model: EvaluatedModel, records: list[Record]) -> None:
    """Refuse a file without any readable judgment, which cannot be scored and would keep the judge from being asked
    again.

    Raises:
        DataError: none of the records has a readable judgment.
    """
    unreadable = judging_of(benchmark).unreadable
    if records and all(unreadable([record]) for record in records):
        raise DataError(
            f"judge {judge.name}: none of its {len(records)} judgments of {model.id} on {benchmark} can be read; look "
            "at what it says, check its entry's url, model and prompts, and judge again"
        )


def _shared_stamp(
    experiment: Experiment, judge: Judge, benchmark: str, questions: Sequence[Question], baseline: list[Record]
) -> Record:
    """Dependencies of all checkpoints' judgments besides the answers; if the stamp differs, they are out of date."""
    files = getattr(judge, "depends_on", None)  # only judges that read files have it
    return {
        "code": judging_code(experiment, benchmark, judge.name),
        "judge": judge_settings(experiment, judge.name),
        "judge_files": files(benchmark) if files else {},
        "settings": judge_settings_of(experiment, benchmark),
        "questions": _digest([[question.id, question.turns, question.category] for question in questions]),
        "baseline": _digest(baseline),
    }


def _digest(document: Any) -> str:
    """SHA-256 of plain data."""
    return hashlib.sha256(json.dumps(document).encode()).hexdigest()


def _is_finished(journal: Record, path: Path, stamp: Record) -> bool:
    """Whether a file of judgments exists, is complete and is up to date."""
    entry = journal.get(str(path))
    if entry is None or entry["depends_on"] != stamp or not path.is_file():
        return False
    return sha256_file(path) == entry["sha256"]


def describe_judge(experiment: Experiment, name: str) -> Record:
    """The description of the judge in every score file: {name, kind, model, date}."""
    config = find_judge(experiment.evaluation.judges_file, name)
    return {"name": name} | config.model_dump(mode="json", include={"kind", "model", "date"})


def quote(experiment: Experiment, name: str, benchmarks: Sequence[str], run_ids: Sequence[str]) -> Record:
    """Estimate calls, tokens and dollars for judging the existing answers, without sending anything.

    Returns:
        {judge, calls, stored (answered already), prompt_tokens, completion_tokens, dollars, most_dollars, spent}; calls
        and dollars are 0 for a free judge.
    """
    judge = open_judge(experiment, name, quote=True)
    clients = clients_of(judge)
    if not clients:
        return {"judge": name, "calls": 0, "dollars": 0.0}
    for benchmark in benchmarks:
        for run_id in run_ids or judged_runs(experiment, benchmark):
            for model in models_of_run(experiment, run_id):
                judge_model(experiment, judge, benchmark, model)
    fields = ("calls", "stored", "prompt_tokens", "completion_tokens", "dollars", "most_dollars")
    stores = {client.store.path: client.store for client in clients}
    spent = sum(store.ledger()["dollars"] for store in stores.values())
    totals = {key: sum(getattr(client.quote, key) for client in clients) for key in fields}
    return {"judge": name, **totals, "spent": spent}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options to a command-line parser."""
    parser.add_argument("--config", required=True, help="the experiment's configuration file")
    parser.add_argument("--judge", required=True, help="a name in config/judges.yaml")
    parser.add_argument("--benchmark", nargs="+", help="names of benchmarks; default: the experiment's")
    parser.add_argument("--run", nargs="+", default=[], help="METHOD/budgetB/seedS, sft/budget0.0/seedW; default: all")
    parser.add_argument("--quote", action="store_true", help="print calls, tokens and dollars; send nothing")
    parser.add_argument(
        "--ask-again", action="store_true", help="ask an endpoint's judge again if its answers cannot be read"
    )


def run(arguments: argparse.Namespace) -> None:
    """Judge, or print the expected cost."""
    try:
        experiment = load_and_pin(arguments.config)
        benchmarks = arguments.benchmark or experiment.benchmarks
        if arguments.quote:
            print(json.dumps(quote(experiment, arguments.judge, benchmarks, arguments.run), indent=2))
            return
        for benchmark in benchmarks:
            for run_id in arguments.run or judged_runs(experiment, benchmark):
                judge_run(experiment, arguments.judge, benchmark, run_id, arguments.ask_again)
    except ValueError as error:  # ConfigError, DataError, PromptError
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    sys.exit(command_line(__spec__.name, __doc__, add_arguments, run))
