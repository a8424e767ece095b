"""Plant effects of known size: answers that are better than a method's by a given number of points.

    python -m eval.planted --config results/assay/config.yaml

The final policies of the method `assay.planted.of` answer every question of the primary benchmark several times. With
probability p a planted policy gives the best of these answers by gold, otherwise the first. The best answer's advantage
over the first is computed exactly from the answers' gold win rates against the SFT policy, over all worlds, so p can be
set for each effect. With p = 0 the planted policy is the method itself under another seed.

Writes answers/planted_<points>/, in the benchmark's own format, and planted.json. The planted answers are then judged
and scored like those of any method, and compared with the method's real answers (reports.assay).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.answer import answer_questions, closing_engine, manifest_path, open_policy, seed_of
from eval.benchmark import Judged, judging_of, score_of
from eval.benchmark import benchmark as declaration
from eval.checkpoints import EvaluatedModel, planted_name, planted_runs
from eval.judge import baseline_rows
from eval.judges.gold import GoldJudge
from eval.questions import Question, answer_records, load_questions
from metaapo.command import errors_in_one_sentence, experiment_arguments, load_and_pin
from metaapo.data import DataError, sha256_file, write_json, write_jsonl
from metaapo.experiment import Experiment, Run

Floats = NDArray[np.float64]
RECORD = "planted.json"


@dataclass(frozen=True)
class Draws:
    """Several answers of one policy to each of m questions.

    Attributes:
        model: the policy.
        questions: the questions.
        texts: texts[i][q]: the turns of answer i to question q.
        values: float (m, samples), each answer's gold win rate against the SFT policy's, 0 to 1.
    """

    model: EvaluatedModel
    questions: list[Question]
    texts: list[list[list[str]]]
    values: Floats


def probability_of(points: float, gain: float) -> float:
    """The probability of giving the best answer for which the expected effect is `points`.

    Args:
        points: the effect to plant, in points.
        gain: expected advantage of the best answer over the first, in points.

    Raises:
        DataError: even the best answers are not that much better.
    """
    if points > gain:
        raise DataError(
            f"assay.planted.points: an effect of {points:g} points cannot be planted, since the best answers are only "
            f"{gain:.2f} points better; lower it, or raise assay.planted.samples"
        )
    return points / gain if points else 0.0


def gain_of_best(values: Sequence[Floats]) -> float:
    """Expected advantage of the best of several answers over the first, as a share: mean over questions, then policies.

    Args:
        values: of each policy, float (questions, samples).
    """
    return float(np.mean([(of.max(axis=1) - of[:, 0]).mean() for of in values]))


def choose(values: Floats, probability: float, uniform: Floats) -> NDArray[np.int64]:
    """The index of each question's planted answer, (questions,): the best where uniform < probability, else the first.

    Args:
        values: (questions, samples).
        probability: of giving the best answer.
        uniform: (questions,), in [0, 1).
    """
    return np.where(uniform < probability, values.argmax(axis=1), 0)


def plant(experiment: Experiment) -> None:
    """Write the answers of all planted policies, their manifests and planted.json.

    Raises:
        DataError: an effect is too large to be planted.
    """
    benchmark, planted = experiment.primary_benchmark, experiment.assay.planted
    sources = {run: run.model_copy(update={"method": planted.of}) for run in planted_runs(experiment)}
    draws = {source: _draw(experiment, source, benchmark) for source in dict.fromkeys(sources.values())}
    gain = declaration(benchmark).item_scale * gain_of_best([of.values for of in draws.values()])
    probabilities = {planted_name(points): probability_of(points, gain) for points in planted.points}
    for run, source in sources.items():
        _write(experiment, benchmark, run, draws[source], probabilities[run.method])
    effects = [
        {"name": planted_name(points), "points": points, "probability": probabilities[planted_name(points)]}
        for points in planted.points
    ]
    record = {"of": planted.of, "benchmark": benchmark, "samples": planted.samples, "gain_of_best": gain}
    write_json(experiment.results / RECORD, record | {"effects": effects})


def _draw(experiment: Experiment, run: Run, benchmark: str) -> Draws:
    """Sample the final policy of a run and grade its answers."""
    model = EvaluatedModel(run, experiment.world_of(run.seed), experiment.iterations)
    asked = load_questions(experiment, benchmark, model.world)
    policy, tokenizer = open_policy(model.checkpoint(experiment), experiment.sampling)
    texts, settings = [], experiment.evaluation
    with closing_engine(policy):
        for number in range(experiment.assay.planted.samples):
            stream = f"{model.id}, planted {number}"
            answered = answer_questions(policy, tokenizer, {benchmark: asked.questions}, settings, stream)
            texts.append([[response.text for response in turns] for turns in answered[benchmark]])
    values = np.array([_win_rates(experiment, benchmark, model, asked.questions, of) for of in texts]).T
    return Draws(model, asked.questions, texts, values)


def _win_rates(
    experiment: Experiment,
    benchmark: str,
    model: EvaluatedModel,
    questions: list[Question],
    texts: list[list[str]],
) -> list[float]:
    """The gold win rate of each answer against the SFT policy's, 0 to 1, by the benchmark's own judging and scoring."""
    judge, settings = GoldJudge("gold", experiment.world.name), experiment.evaluation
    answers = answer_records(benchmark, questions, texts, model.id, settings, in_world=True)
    baseline = baseline_rows(experiment, benchmark, model.world, questions)
    judgments = judging_of(benchmark).judge_answers(judge, questions, baseline, answers, settings)
    judged = Judged({model.id: judgments}, [q.record for q in questions], lambda: answers, lambda: baseline, True)
    scored = score_of(benchmark).score_models(judged, settings, seed=0)
    values = {item["question"]: item["value"] for item in scored.items}
    return [values[question.id] for question in questions]


def _write(experiment: Experiment, benchmark: str, run: Run, draws: Draws, probability: float) -> None:
    """Write one planted policy's answers and their manifest.

    The uniform numbers depend on the run alone, so a larger effect adds to a smaller one.
    """
    model = EvaluatedModel(run, draws.model.world, experiment.iterations)
    uniform = np.random.default_rng(seed_of(draws.model.id, benchmark, "plant")).random(len(draws.questions))
    chosen = choose(draws.values, probability, uniform)
    texts = [draws.texts[sample][number] for number, sample in enumerate(chosen)]
    records = answer_records(benchmark, draws.questions, texts, model.id, experiment.evaluation, in_world=True)
    path = model.answers(experiment, benchmark)
    (write_jsonl if path.suffix == ".jsonl" else write_json)(path, records)
    entry: dict[str, Any] = {"sha256": sha256_file(path), "n": len(records), "best": int((chosen > 0).sum())}
    write_json(manifest_path(experiment, run.id), {"run": run.id, "answers": {str(path): entry}})


def main() -> None:
    """Command line: plant the effects of an experiment."""
    parser = experiment_arguments("Plant effects of known size.")
    with errors_in_one_sentence():
        plant(load_and_pin(parser.parse_args().config))


if __name__ == "__main__":
    main()
