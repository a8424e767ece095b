"""Have a judge give its opinion of one run's answers to one benchmark.

    python -m eval.judge --config results/default/config.yaml --benchmark mtbench --judge gold --run dpo/budget1.0/seed0

Judgments lie in judgments/{benchmark}/{judge}/{run}/iter{t}.json(l), in upstream's own formats. An opinion that could
not be read is kept as such (preference null, score null, grade -1) and never becomes a score.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from eval import arenahard, mtbench
from eval.judges import Conversation, Judge, Opinion, Pair
from eval.judges.catalogue import open_judge
from eval.models import EvaluatedModel, models_of_run, sft_model
from eval.questions import Question, load_questions
from metaapo.config import Experiment, load
from metaapo.data import DataError, read_records, sha256_file, write_json, write_jsonl

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
    pairs = [_pair(q.turns[0], b["output"], o["output"]) for q, b, o in zip(questions, baseline, own)]
    asked = [pair for pair in pairs if pair.first != pair.second]
    opinions = iter(judge.prefer(asked))
    annotations = []
    for pair, b, o in zip(pairs, baseline, own):
        same = pair.first == pair.second
        opinion = Opinion(1.5, "identical outputs") if same else next(opinions)
        annotations.append(
            {
                "instruction": b["instruction"],
                "dataset": b["dataset"],
                "output_1": b["output"],
                "generator_1": b["generator"],
                "output_2": o["output"],
                "generator_2": o["generator"],
                "annotator": judge.name,
                "preference": opinion.value,
                "preference_raw_completion": opinion.text,
                **opinion.details,
            }
        )
    return annotations


def judge_arenahard(
    judge: Judge, questions: Sequence[Question], baseline: list[Record], own: list[Record]
) -> list[Record]:
    """Judgments as arena-hard-auto writes them: in the first game the baseline is A, in the second the model is."""
    texts = [(arenahard.answer_text(b) or "", arenahard.answer_text(o) or "") for b, o in zip(baseline, own)]
    first = judge.verdicts([_pair(q.turns[0], b, o) for q, (b, o) in zip(questions, texts)])
    second = judge.verdicts([_pair(q.turns[0], o, b) for q, (b, o) in zip(questions, texts)])
    return [
        {
            **{key: q.record[key] for key in ("uid", "question_id") if key in q.record},
            "category": q.category,
            "judge": judge.name,
            "model": o.get("model", o.get("model_id")),
            "baseline": b.get("model", b.get("model_id")),
            "games": [_game(opinion) for opinion in games],
        }
        for q, b, o, games in zip(questions, baseline, own, zip(first, second))
    ]


def _game(opinion: Opinion) -> Record:
    return {"score": opinion.value, "judgment": opinion.text, "prompt": opinion.prompt, **opinion.details}


def judge_mtbench(judge: Judge, questions: Sequence[Question], own: list[Record]) -> list[Record]:
    """Single-answer judgments as FastChat writes them, two a question; an unreadable grade is -1."""
    conversations, rows = [], []
    for question, answer in zip(questions, own):
        messages: list[Any] = []
        for turn, (asked, said) in enumerate(zip(question.turns, answer["choices"][0]["turns"]), start=1):
            messages = [*messages, {"role": "user", "content": asked}, {"role": "assistant", "content": said}]
            references = tuple(question.record.get("reference") or ())
            conversations.append(Conversation(messages, question.category, references))
            rows.append({"question_id": question.record["question_id"], "model": answer["model_id"], "turn": turn})
    return [
        {
            "question_id": row["question_id"],
            "model": row["model"],
            "judge": [judge.name, opinion.details.get("template", judge.name)],
            "user_prompt": opinion.prompt,
            "judgment": opinion.text,
            "score": UNREADABLE if opinion.value is None else opinion.value,
            "turn": row["turn"],
        }
        for row, opinion in zip(rows, judge.grade(conversations))
    ]


def _pair(prompt: str, first: str, second: str) -> Pair:
    return Pair([{"role": "user", "content": prompt}], first, second)


PAIRWISE: dict[str, Callable[..., list[Record]]] = {"alpacaeval2": judge_alpacaeval2, "arenahard": judge_arenahard}
# Where each benchmark's answers name their question.
_QUESTION_KEYS = {
    "alpacaeval2": ("instruction",),
    "arenahard": ("uid", "question_id"),
    "mtbench": ("question_id",),
}


def read_answers(path: Path, benchmark: str, questions: Sequence[Question]) -> list[Record]:
    """A model's answers in the order of the questions.

    Raises:
        DataError: the file is missing or lacks the answer to a question.
    """
    found = {}
    for row in read_records(path):
        key = next((key for key in _QUESTION_KEYS[benchmark] if key in row), None)
        if key is not None:
            found[str(row[key])] = row
    missing = [question.id for question in questions if question.id not in found]
    if missing:
        raise DataError(
            f"{path}: {len(missing)} of {len(questions)} answers are missing, such as that to {missing[0][:80]!r}; "
            "answer again (eval.answer)"
        )
    return [found[question.id] for question in questions]


def judge_model(experiment: Experiment, judge: Judge, benchmark: str, model: EvaluatedModel) -> list[Record]:
    """A judge's opinions of one checkpoint's answers; the SFT policy is the baseline of pairwise benchmarks."""
    questions = load_questions(experiment, benchmark, model.world).questions
    own = read_answers(model.answers(experiment, benchmark), benchmark, questions)
    if benchmark == "mtbench":
        return judge_mtbench(judge, questions, own)
    baseline = read_answers(sft_model(model.world).answers(experiment, benchmark), benchmark, questions)
    return PAIRWISE[benchmark](judge, questions, baseline, own)


def manifest_path(experiment: Experiment, benchmark: str, judge: str, run_id: str) -> Path:
    """Written when all judgments of a run are there: by whom, of which answers."""
    return experiment.results / "judgments" / benchmark / judge / f"{run_id}.json"


def judge_run(experiment: Experiment, judge: Judge, benchmark: str, run_id: str) -> None:
    """Judge all checkpoints of a run, write their files, then the manifest."""
    judged = {}
    for model in models_of_run(experiment, run_id):
        path = model.judgments(experiment, benchmark, judge.name)
        records = judge_model(experiment, judge, benchmark, model)
        (write_jsonl if path.suffix == ".jsonl" else write_json)(path, records)
        answers = sha256_file(model.answers(experiment, benchmark))
        judged[str(path)] = {"answers_sha256": answers, "sha256": sha256_file(path), "n": len(records)}
        print(f"{model.id}: {len(records)} judgments by {judge.name} on {benchmark}", file=sys.stderr)
    write_json(manifest_path(experiment, benchmark, judge.name, run_id), {"run": run_id, "judgments": judged})


def main() -> None:
    """Command line: judge one run on one benchmark."""
    parser = argparse.ArgumentParser(prog="python -m eval.judge", description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="the experiment's configuration file")
    parser.add_argument("--benchmark", required=True, help="alpacaeval2, arenahard or mtbench")
    parser.add_argument("--judge", required=True, help="a name in config/judges.yaml")
    parser.add_argument("--run", required=True, help="METHOD/budgetB/seedS, or sft/budget0.0/seedW for a world's SFT")
    arguments = parser.parse_args()
    try:
        experiment = load(arguments.config)
        judge = open_judge(experiment, arguments.judge)
        judge_run(experiment, judge, arguments.benchmark, arguments.run)
    except ValueError as error:  # ConfigError, DataError, PromptError
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
