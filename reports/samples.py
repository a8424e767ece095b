"""The data of the sample browser: for each question, every method's answer and the judge's verdict.

Read from the upstream-format answers and judgments, after the last iteration, at each method's largest budget. A judge
is not part of training, so its verdict is shown exactly as in the judgment file. The gold rubric of an answer comes
from `eval.grade`, if the world has one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval.benchmark import samples_of
from eval.questions import load_questions
from metaapo.data import DataError, read_records
from reports.runs import Results, read_log

MAX_BYTES = 2_500_000  # of the browser's data; keeps the page with its figures below 5 MB
VERDICT_CHARS = 160  # shown of a judge's text


@dataclass(frozen=True)
class Model:
    """A trained model whose answers are shown."""

    method: str
    budget: str
    seed: int
    iteration: int
    world: int

    @property
    def run_id(self) -> str:
        """Its run's folder, such as "dpo/budget1.0/seed0"."""
        return f"{self.method}/budget{self.budget}/seed{self.seed}"

    def path(self, folder: Path) -> Path:
        """Its file of answers or judgments below `folder`."""
        stem = folder / self.run_id / f"iter{self.iteration}"
        for suffix in (".json", ".jsonl", ".json.gz", ".jsonl.gz"):
            if stem.with_name(stem.name + suffix).exists():
                return stem.with_name(stem.name + suffix)
        raise DataError(f"{stem}.json[l]: no such file; run the answering or judging step, which writes it")


def models(results: Results) -> list[Model]:
    """The SFT policies and every run after its last iteration, at each method's largest budget."""
    experiment = results.experiment
    shown = [Model("sft", "0.0", world, 0, world) for world in experiment.world.seeds]
    for run in experiment.compared_runs():
        if run.budget == max(experiment.methods[run.method].budget):
            world = experiment.world_of(run.seed)
            shown.append(Model(run.method, str(run.budget), run.seed, experiment.iterations, world))
    return shown


def browse(results: Results, limit: int = MAX_BYTES) -> dict[str, Any]:
    """All data of the browser.

    Args:
        results: the experiment's results.
        limit: maximum size of the JSON in bytes; to stay below it, questions on which the methods differ least are left
            out.

    Returns:
        {models: [{method, seed}], questions: [{b, c, q, p, d, a}], left_out}: benchmark, category, id, the user's
        turns, disagreement (standard deviation of the judge's value over models, 0 to 1) and the answers, one per
        model: {m: index in `models`, x: texts, v: verdicts, s: value in [0, 1], n: characters, g: gold rubric, one per
        turn}.
    """
    shown = models(results)
    questions = [q for benchmark in results.experiment.benchmarks for q in _questions(results, benchmark, shown)]
    questions.sort(key=lambda question: -question["d"])
    kept, size = [], 0
    for question in questions:
        size += len(json.dumps(question, ensure_ascii=False).encode())
        if size > limit:
            break
        kept.append(question)
    heads = [{"method": model.method, "seed": model.seed} for model in shown]
    return {"models": heads, "questions": kept, "left_out": len(questions) - len(kept)}


def _records(path: Path) -> list[dict[str, Any]]:
    return read_log(path) if ".jsonl" in path.suffixes else read_records(path)


def _questions(results: Results, benchmark: str, shown: list[Model]) -> list[dict[str, Any]]:
    """The questions of one benchmark with all answers; models without a file are left out without an error."""
    judge = results.experiment.judges[0]
    asked = {
        q.id: q for q in load_questions(results.experiment, benchmark, results.experiment.world.seeds[0]).questions
    }
    table: dict[str, dict[str, Any]] = {}
    for index, model in enumerate(shown):
        try:
            answers = _records(model.path(results.folder / "answers" / benchmark))
        except DataError:
            continue
        try:
            judgments = _records(model.path(results.folder / "judgments" / benchmark / judge))
        except DataError:  # the SFT policy is not compared with itself
            judgments = []
        for id, texts, verdicts, value in samples_of(benchmark).rows(answers, judgments):
            if id not in asked:
                continue
            turns = list(asked[id].turns)
            question = table.setdefault(id, {"b": benchmark, "q": id, "c": asked[id].category, "p": turns, "a": []})
            answer = {"m": index, "x": texts, "v": verdicts, "s": value, "n": sum(map(len, texts))}
            answer["g"] = results.answer_gold.get((benchmark, model.run_id, id), [None] * len(texts))
            question["a"].append(answer)
    for question in table.values():
        values = [answer["s"] for answer in question["a"] if answer["s"] is not None]
        question["d"] = round(float(np.std(values)), 4) if values else 0.0
    return list(table.values())
