"""Grade probes and answers by the gold reward, if the world has one; used in the report, but not in any verdict.

    python -m eval.grade --config results/default/config.yaml

Writes below the experiment's results:

    probe_gold.csv        method, budget, seed, iteration, step, id, gold: each probed response, in the order of the
                          probe logs; gold is empty if the world cannot read the prompt
    answer_gold.jsonl.gz  method, budget, seed, iteration, benchmark, question, turns: the rubric of each turn's answer
                          after the last iteration, at each method's largest budget
    gold_rubric.json      what the rubric's parts mean
"""

from __future__ import annotations

import csv
import importlib
import importlib.util
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from eval.benchmark import Record, judging_of
from eval.checkpoints import SFT, EvaluatedModel, evaluated_models
from eval.questions import Question, answers_in_order, load_questions
from metaapo.command import errors_in_one_sentence, experiment_arguments
from metaapo.data import Message, read_jsonl, write_json, write_jsonl, write_text
from metaapo.experiment import Experiment, Run, load
from metaapo.provenance import code_hash

PROBE_COLUMNS = ("method", "budget", "seed", "iteration", "step", "id", "gold")
FILES = ("probe_gold.csv", "answer_gold.jsonl.gz", "gold_rubric.json")


def gold_module(world: str) -> str | None:
    """The module name of a world's grader; None if the world has no gold reward."""
    name = f"metaapo.worlds.{world}.gold"
    return name if importlib.util.find_spec(name) else None


def grading_code(experiment: Experiment) -> str:
    """Hash of the code that gold rewards depend on."""
    stages = [f"eval.{name}.{stage}" for name in experiment.benchmarks for stage in ("questions", "judging")]
    return code_hash("eval.grade", gold_module(experiment.world.name), *stages)


def gold_files(experiment: Experiment) -> list[str]:
    """The files this module writes, as a Snakemake input; empty if the world has no gold reward."""
    return [str(experiment.results / name) for name in FILES] if gold_module(experiment.world.name) else []


def grade(experiment: Experiment) -> None:
    """Write the experiment's gold rewards; does nothing if its world has none.

    Raises:
        DataError: a probe log, the world's pairs or an answer is missing.
    """
    name = gold_module(experiment.world.name)
    if name is None:
        return
    world = importlib.import_module(name)
    probes, answers, rubric = (experiment.results / file for file in FILES)
    write_text(probes, _to_csv(graded_probes(experiment, world)))
    write_jsonl(answers, graded_answers(experiment, world))
    write_json(rubric, {"reward": f"{world.LOW:g} to {world.HIGH:g}: the sum of the parts"} | world.RUBRIC)


def graded_probes(experiment: Experiment, world: ModuleType) -> Iterator[Record]:
    """A row of PROBE_COLUMNS for each probed response of every run."""
    asked = {seed: _prompts(experiment.world_path(seed)) for seed in experiment.world.seeds}
    for run in experiment.compared_runs():
        prompts = asked[experiment.world_of(run.seed)]
        for iteration in range(1, experiment.iterations + 1):
            path = experiment.run_path(run) / f"iter{iteration}" / "probes.jsonl"
            for row in read_jsonl(path) if path.exists() else []:
                graded = _gold(world, prompts.get(row["id"], []), row["response"])
                gold = None if graded is None else graded.reward
                yield _keys(run, iteration) | {"step": row["step"], "id": row["id"], "gold": gold}


def graded_answers(experiment: Experiment, world: ModuleType) -> Iterator[Record]:
    """A row for each question and model that the report's sample browser shows."""
    for benchmark in experiment.benchmarks:
        texts = judging_of(benchmark).texts
        for model in evaluated_models(experiment):
            path = model.answers(experiment, benchmark)
            if not _is_shown(experiment, model) or not path.exists():
                continue
            questions = load_questions(experiment, benchmark, model.world).questions
            for question, answer in zip(questions, answers_in_order(path, benchmark, questions)):
                turns = [_rubric(_gold(world, *turn)) for turn in conversations(question, texts(answer))]
                where = {"benchmark": benchmark, "question": question.id}
                yield _keys(model.run, model.iteration) | where | {"turns": turns}


def conversations(question: Question, texts: Sequence[str]) -> Iterator[tuple[list[Message], str]]:
    """Each answer with the conversation before it."""
    messages: list[Message] = []
    for turn, text in zip(question.turns, texts):
        messages = [*messages, {"role": "user", "content": turn}]
        yield messages, text
        messages = [*messages, {"role": "assistant", "content": text}]


def _is_shown(experiment: Experiment, model: EvaluatedModel) -> bool:
    if model.run.method == SFT:
        return True
    if model.run.method == experiment.assay.aa:
        return False
    largest = max(experiment.methods[model.run.method].budget)
    return model.iteration == experiment.iterations and model.run.budget == largest


def _prompts(world: Path) -> dict[str, list[Message]]:
    return {row["id"]: row["messages"] for row in read_jsonl(world / "data" / "pairs.jsonl")}


def _gold(world: ModuleType, messages: list[Message], response: str) -> Any:
    """The graded response; None if the world cannot read the prompt."""
    try:
        return world.gold(messages, response) if messages else None
    except world.PromptError:
        return None


def _rubric(graded: Any) -> dict[str, float] | None:
    if graded is None:
        return None
    return {"reward": round(graded.reward, 2)} | {part: round(value, 2) for part, value in graded.rubric.items()}


def _keys(run: Run, iteration: int) -> Record:
    return {"method": run.method, "budget": str(run.budget), "seed": run.seed, "iteration": iteration}


def _to_csv(rows: Iterator[Record]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, PROBE_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def main() -> None:
    """Command line: grade what an experiment sampled and answered."""
    arguments = experiment_arguments(__doc__.splitlines()[0]).parse_args()
    with errors_in_one_sentence():
        grade(load(arguments.config))


if __name__ == "__main__":
    main()
