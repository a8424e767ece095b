"""Have a judge give its judgment of one run's answers to one benchmark.

    python -m eval.judge --config results/default/config.yaml --benchmark mtbench --judge gold --run dpo/budget1.0/seed0

Judgments lie in judgments/{benchmark}/{judge}/{run}/iter{t}.json(l), in upstream's own formats. An judgment that could
not be read is kept as such (preference null, score null, grade -1) and never becomes a score.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.arenahard import score as arenahard
from eval.checkpoints import EvaluatedModel, judged_runs, models_of_run, sft_model
from eval.judges import Comparison, Conversation, Judge, Judgment
from eval.judges.catalogue import open_judge
from eval.judges.config import find_judge
from eval.judges.prompts import NEED_REFERENCE
from eval.mtbench import score as mtbench
from eval.questions import (
    SFT_BASELINE,
    Question,
    answers_in_order,
    baseline_answers,
    baseline_of,
    load_questions,
    mtbench_references,
)
from metaapo.data import sha256_file, write_json, write_jsonl
from metaapo.experiment import Experiment, load

Record = dict[str, Any]
UNREADABLE = mtbench.UNPARSED


def judge_alpacaeval2(
    judge: Judge, questions: Sequence[Question], baseline: list[Record], own: list[Record]
) -> list[Record]:
    """Annotations as alpaca_eval writes them: the baseline is output_1, the model output_2.

    Identical outputs are a draw (1.5) that the judge is not asked about, as upstream.

    Args:
        judge: who is asked.
        questions: in the order of both answer files.
        baseline: the baseline's answers.
        own: the model's answers.
    """
    comparisons = [
        _comparison(q, b["output"], o["output"], (b["generator"], o["generator"]))
        for q, b, o in zip(questions, baseline, own)
    ]
    asked = [comparison for comparison in comparisons if comparison.first != comparison.second]
    judgments = iter(judge.prefer(asked))
    annotations = []
    for comparison, b, o in zip(comparisons, baseline, own):
        same = comparison.first == comparison.second
        judgment = Judgment(1.5, "identical outputs") if same else next(judgments)
        annotations.append(
            {
                "instruction": b["instruction"],
                "dataset": b["dataset"],
                "output_1": b["output"],
                "generator_1": b["generator"],
                "output_2": o["output"],
                "generator_2": o["generator"],
                "annotator": judge.name,
                "preference": judgment.value,
                "preference_raw_completion": judgment.text,
                **judgment.details,
            }
        )
    return annotations


def judge_arenahard(
    judge: Judge, questions: Sequence[Question], baseline: list[Record], own: list[Record]
) -> list[Record]:
    """Judgments as arena-hard-auto writes them: in the first game the baseline is A, in the second the model is."""
    texts = [(arenahard.answer_text(b) or "", arenahard.answer_text(o) or "") for b, o in zip(baseline, own)]
    names = [tuple(row.get("model", row.get("model_id")) for row in rows) for rows in zip(baseline, own)]
    first = [_comparison(q, b, o, (x, y)) for q, (b, o), (x, y) in zip(questions, texts, names)]
    second = [_comparison(q, o, b, (y, x)) for q, (b, o), (x, y) in zip(questions, texts, names)]
    judgments = judge.verdicts(first + second)  # in one go: an endpoint is kept busy
    return [
        {
            **{key: q.record[key] for key in ("uid", "question_id") if key in q.record},
            "category": q.category,
            "judge": judge.name,
            "model": model,
            "baseline": other,
            "games": [_game(judgment) for judgment in games],
        }
        for q, (other, model), games in zip(questions, names, zip(judgments, judgments[len(first) :]))
    ]


def _game(judgment: Judgment) -> Record:
    return {"score": judgment.value, "judgment": judgment.text, "prompt": judgment.prompt, **judgment.details}


def judge_mtbench(
    judge: Judge, questions: Sequence[Question], own: list[Record], references: Mapping[str, tuple[str, ...]]
) -> list[Record]:
    """Single-answer judgments as FastChat writes them, two a question; an unreadable grade is -1.

    Args:
        judge: who is asked.
        questions: in the order of the answers.
        own: the model's answers.
        references: right answers by question, where its category needs them.
    """
    conversations, rows = [], []
    for question, answer in zip(questions, own):
        messages: list[Any] = []
        for turn, (asked, said) in enumerate(zip(question.turns, answer["choices"][0]["turns"]), start=1):
            messages = [*messages, {"role": "user", "content": asked}, {"role": "assistant", "content": said}]
            right = references.get(question.id, ())
            conversations.append(Conversation(messages, question.category, right, question.id, answer["model_id"]))
            rows.append({"question_id": question.record["question_id"], "model": answer["model_id"], "turn": turn})
    return [
        {
            "question_id": row["question_id"],
            "model": row["model"],
            "judge": [judge.name, judgment.details.get("template", judge.name)],
            "user_prompt": judgment.prompt,
            "judgment": judgment.text,
            "score": UNREADABLE if judgment.value is None else judgment.value,
            "turn": row["turn"],
        }
        for row, judgment in zip(rows, judge.grade(conversations))
    ]


def _comparison(question: Question, first: str, second: str, models: tuple[str, str]) -> Comparison:
    prompt: list[Any] = [{"role": "user", "content": question.turns[0]}]
    return Comparison(prompt, first, second, question.id, question.category, models)


PAIRWISE: dict[str, Callable[..., list[Record]]] = {"alpacaeval2": judge_alpacaeval2, "arenahard": judge_arenahard}


def judge_model(experiment: Experiment, judge: Judge, benchmark: str, model: EvaluatedModel) -> list[Record]:
    """A judge's judgments of one checkpoint's answers."""
    questions = load_questions(experiment, benchmark, model.world).questions
    own = answers_in_order(model.answers(experiment, benchmark), benchmark, questions)
    if benchmark == "mtbench":
        needed = any(question.category in NEED_REFERENCE for question in questions)
        return judge_mtbench(judge, questions, own, mtbench_references(experiment) if needed else {})
    return PAIRWISE[benchmark](judge, questions, baseline_rows(experiment, benchmark, model.world, questions), own)


def baseline_rows(experiment: Experiment, benchmark: str, world: int, questions: list[Question]) -> list[Record]:
    """The answers that a pairwise benchmark compares with, the SFT policy's own ones included, in order."""
    if baseline_of(experiment, benchmark) == SFT_BASELINE:
        return answers_in_order(sft_model(world).answers(experiment, benchmark), benchmark, questions)
    return baseline_answers(experiment, benchmark, world, questions)


def manifest_path(experiment: Experiment, benchmark: str, judge: str, run_id: str) -> Path:
    """Written when all judgments of a run are there: by whom, of which answers."""
    return experiment.results / "judgments" / benchmark / judge / f"{run_id}.json"


def judge_run(experiment: Experiment, name: str, benchmark: str, run_id: str) -> None:
    """Have the judge of that name judge all checkpoints of a run; write their files, then the manifest.

    Raises:
        ConfigError: no such judge or run, or the judge is past its end of life.
        DataError: answers are missing, or the judge could not be asked.
    """
    models = models_of_run(experiment, run_id)
    judge = open_judge(experiment, name, models[0].world)
    judged = {}
    for model in models:
        path = model.judgments(experiment, benchmark, name)
        records = judge_model(experiment, judge, benchmark, model)
        (write_jsonl if path.suffix == ".jsonl" else write_json)(path, records)
        answers = sha256_file(model.answers(experiment, benchmark))
        unreadable = _unreadable(benchmark, records)
        judged[str(path)] = {
            "answers_sha256": answers,
            "sha256": sha256_file(path),
            "n": len(records),
            "unreadable": unreadable,
        }
        print(f"{model.id}: {len(records)} records by {name} on {benchmark}, {unreadable} unreadable", file=sys.stderr)
    client = getattr(judge, "client", None)  # only judges that are paid for have one
    if client is not None:
        print(f"ledger of {name}: {client.store.ledger()}", file=sys.stderr)
    write_json(
        manifest_path(experiment, benchmark, name, run_id),
        {"run": run_id, "judge": describe_judge(experiment, name), "judgments": judged},
    )


def _unreadable(benchmark: str, records: Sequence[Record]) -> int:
    """Judgments that could not be read: no score is made of them."""
    if benchmark == "alpacaeval2":
        return sum(record["preference"] is None for record in records)
    if benchmark == "mtbench":
        return sum(record["score"] == UNREADABLE for record in records)
    return sum(game["score"] is None for record in records for game in record["games"])


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
    parser.add_argument("--benchmark", nargs="+", help="alpacaeval2, arenahard, mtbench; default: the experiment's")
    parser.add_argument("--run", nargs="+", default=[], help="METHOD/budgetB/seedS, sft/budget0.0/seedW; default: all")
    parser.add_argument("--quote", action="store_true", help="print calls, tokens and dollars; send nothing")
    arguments = parser.parse_args()
    try:
        experiment = load(arguments.config)
        benchmarks = arguments.benchmark or experiment.benchmarks
        if arguments.quote:
            print(json.dumps(quote(experiment, arguments.judge, benchmarks, arguments.run), indent=2))
            return
        for benchmark in benchmarks:
            for run_id in arguments.run or judged_runs(experiment, benchmark):
                judge_run(experiment, arguments.judge, benchmark, run_id)
    except ValueError as error:  # ConfigError, DataError, PromptError
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
