"""Judge one run's answers to one benchmark.

    python -m eval.judge --config results/default/config.yaml --benchmark mtbench --judge gold --run dpo/budget1.0/seed0

Judgments lie in judgments/{benchmark}/{judge}/{run}/iter{t}.json(l), in upstream's own formats. A judgment that could
not be read is kept as such and never becomes a score. What is finished is noted in a journal with what it depends on
(questions, answers, the judge, settings, code), so that a killed or repeated job judges only what is missing or out of
date; the journal's last state is the run's manifest, judgments/{benchmark}/{judge}/{run}.json.
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
from eval.judges.catalogue import judge_settings, judging_code, open_judge
from eval.judges.config import find_judge
from eval.questions import (
    SFT_BASELINE,
    Question,
    answers_in_order,
    baseline_answers,
    baseline_of,
    load_questions,
)
from metaapo.data import DataError, read_json, sha256_file, write_json, write_jsonl
from metaapo.experiment import Experiment, load

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
    own = answers_in_order(model.answers(experiment, benchmark), benchmark, questions)
    return judging_of(benchmark).judge_answers(judge, questions, baseline, own, experiment.evaluation)


def baseline_rows(experiment: Experiment, benchmark: str, world: int, questions: list[Question]) -> list[Record]:
    """The answers that a benchmark compares with, the SFT policy's own ones included, in order; [] without any."""
    if not declaration(benchmark).pairwise:
        return []
    if baseline_of(experiment, benchmark) == SFT_BASELINE:
        return answers_in_order(sft_model(world).answers(experiment, benchmark), benchmark, questions)
    return baseline_answers(experiment, benchmark, world, questions)


def manifest_path(experiment: Experiment, benchmark: str, judge: str, run_id: str) -> Path:
    """Written when all judgments of a run are there: by whom, of which answers."""
    return experiment.results / "judgments" / benchmark / judge / f"{run_id}.json"


def _journal_path(experiment: Experiment, benchmark: str, judge: str, run_id: str) -> Path:
    return experiment.results / "judgments" / ".journal" / benchmark / judge / f"{run_id}.json"


def judge_run(experiment: Experiment, name: str, benchmark: str, run_id: str, ask_again: bool = False) -> None:
    """Have the judge of that name judge all checkpoints of a run; write their files, then the manifest.

    Args:
        experiment: names questions, judges and settings.
        name: of the judge.
        benchmark: on which.
        run_id: whose answers.
        ask_again: judge again where judgments could not be read; a judge that is paid for is asked for those only.

    Raises:
        ConfigError: no such judge or run, or the judge is past its end of life.
        DataError: answers are missing, or the judge could not be asked.
    """
    models = models_of_run(experiment, run_id)
    world = models[0].world
    judge = open_judge(experiment, name, world)
    client = getattr(judge, "client", None)  # only judges that are paid for have one
    if client is not None:
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
    if client is not None:
        print(f"ledger of {name}: {client.store.ledger()}", file=sys.stderr)
    write_json(
        manifest_path(experiment, benchmark, name, run_id),
        {"run": run_id, "judge": describe_judge(experiment, name), "judgments": judged},
    )


def _write(path: Path, benchmark: str, records: list[Record]) -> Record:
    """Write a file of judgments; returns what the journal notes of it."""
    (write_jsonl if path.suffix == ".jsonl" else write_json)(path, records)
    return {
        "sha256": sha256_file(path),
        "n": len(records),
        "unreadable": judging_of(benchmark).unreadable(records),
    }


def _check_readable(judge: Judge, benchmark: str, model: EvaluatedModel, records: list[Record]) -> None:
    """A model without a single judgment has no score, and a file of nothing would keep the judge from being asked.

    Raises:
        DataError: none of the records holds a judgment.
    """
    unreadable = judging_of(benchmark).unreadable
    if records and all(unreadable([record]) for record in records):
        raise DataError(
            f"judge {judge.name}: none of its {len(records)} judgments of {model.id} on {benchmark} can be read; look "
            "at what it says (its entry's url, model and prompts) and judge again"
        )


def _shared_stamp(
    experiment: Experiment, judge: Judge, benchmark: str, questions: Sequence[Question], baseline: list[Record]
) -> Record:
    """What the judgments of all checkpoints depend on beside the answers; another stamp: they are out of date."""
    files = getattr(judge, "depends_on", None)  # only judges that read files of their own have it
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
    """Whether a file of judgments is there, whole and up to date."""
    entry = journal.get(str(path))
    if entry is None or entry["depends_on"] != stamp or not path.is_file():
        return False
    return sha256_file(path) == entry["sha256"]


def describe_judge(experiment: Experiment, name: str) -> Record:
    """What every score says of its judge: {name, kind, model, date}."""
    config = find_judge(experiment.evaluation.judges_file, name)
    return {"name": name} | config.model_dump(mode="json", include={"kind", "model", "date"})


def quote(experiment: Experiment, name: str, benchmarks: Sequence[str], run_ids: Sequence[str]) -> Record:
    """What judging would take, of answers that are there: calls, tokens and dollars; nothing is sent.

    Returns:
        {judge, calls, stored (answered already), prompt_tokens, completion_tokens, dollars, most_dollars, spent}; a
        judge that is not paid for has calls and dollars of 0.
    """
    judge = open_judge(experiment, name, quote=True)
    client = getattr(judge, "client", None)
    if client is None:
        return {"judge": name, "calls": 0, "dollars": 0.0}
    for benchmark in benchmarks:
        for run_id in run_ids or judged_runs(experiment, benchmark):
            for model in models_of_run(experiment, run_id):
                judge_model(experiment, judge, benchmark, model)
    fields = ("calls", "stored", "prompt_tokens", "completion_tokens", "dollars", "most_dollars")
    spent = client.store.ledger()["dollars"]
    return {"judge": name, **{key: getattr(client.quote, key) for key in fields}, "spent": spent}


def main() -> None:
    """Command line: judge, or say what it would cost."""
    parser = argparse.ArgumentParser(prog="python -m eval.judge", description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="the experiment's configuration file")
    parser.add_argument("--judge", required=True, help="a name in config/judges.yaml")
    parser.add_argument("--benchmark", nargs="+", help="names of benchmarks; default: the experiment's")
    parser.add_argument("--run", nargs="+", default=[], help="METHOD/budgetB/seedS, sft/budget0.0/seedW; default: all")
    parser.add_argument("--quote", action="store_true", help="print calls, tokens and dollars; send nothing")
    parser.add_argument(
        "--ask-again", action="store_true", help="ask a judge behind an endpoint again for answers that cannot be read"
    )
    arguments = parser.parse_args()
    try:
        experiment = load(arguments.config)
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
    main()
