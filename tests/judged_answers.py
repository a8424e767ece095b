"""Good and bad answers to the tiny world's questions, judged and scored: an experiment without a training run."""

import random

import yaml
from conftest import experiment_document

from eval.checkpoints import evaluated_models, judged_runs
from eval.judge import judge_run
from eval.questions import answer_records, load_questions
from eval.score import score_benchmark
from metaapo.config import QuestionsConfig, WorldConfig
from metaapo.data import write_json, write_jsonl
from metaapo.experiment import load
from metaapo.worlds.tiny import data as tiny

QUESTIONS = QuestionsConfig(mixed=12, composed=10, two_turn=6)
QUALITY = {"sft": 0.3, "dpo": 0.5, "online_dpo": 0.7, "metaapo": 0.9, "random": 0.6}  # share of good answers


def write_answers(folder, judges, evaluation=None, **changes):
    """An experiment with questions and answers of every model; `judges` is the catalogue."""
    (folder / "judges.yaml").write_text(yaml.safe_dump(judges))
    document = experiment_document(folder / "results", iterations=1, seeds=[0]) | changes
    document["evaluation"] = {"judges_file": str(folder / "judges.yaml"), **(evaluation or {})}
    (folder / "config.yaml").write_text(yaml.safe_dump(document))
    experiment = load(folder / "config.yaml")
    data = experiment.world_path(0) / "data" / "eval"
    sets = tiny.evaluation_sets(WorldConfig(questions=QUESTIONS))
    for kind, rows in sets.items():
        write_jsonl(data / f"{kind}.jsonl", rows)
    write_jsonl(data / "composed_answers.jsonl", tiny.baseline_answers(sets["composed"]))
    for model in evaluated_models(experiment):
        rng = random.Random(model.id)
        for benchmark in experiment.benchmarks:
            asked = load_questions(experiment, benchmark, 0)
            said = [[_answer(question.turns[: n + 1], rng, model.run.method) for n in range(len(question.turns))]
                    for question in asked.questions]  # fmt: skip
            rows = answer_records(benchmark, asked.questions, said, model.id, experiment.evaluation, in_world=True)
            path = model.answers(experiment, benchmark)
            (write_jsonl if path.suffix == ".jsonl" else write_json)(path, rows)
    return experiment


def _answer(turns, rng, method):
    messages = [{"role": "user", "content": turns[0]}]
    for turn in turns[1:]:
        first = tiny.model_answer(tiny.parse(messages))
        messages += [{"role": "assistant", "content": first}, {"role": "user", "content": turn}]
    good = tiny.model_answer(tiny.parse(messages))
    return good if rng.random() < QUALITY[method] else " ".join(good.split()[:2])


def judge_and_score(experiment, judges=None):
    """Judge and score everything with the given judges."""
    for benchmark in experiment.benchmarks:
        for judge in judges or experiment.judges:
            for run in judged_runs(experiment, benchmark):
                judge_run(experiment, judge, benchmark, run)
            score_benchmark(experiment, benchmark, judge)
