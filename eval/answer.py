"""Answer all benchmarks with all checkpoints of one run, in one process (importing torch takes seconds).

    python -m eval.answer --config results/default/config.yaml --run metaapo/budget1.0/seed0

Answers are written to answers/{benchmark}/{run}/iter{t}.json(l) in upstream's formats. A journal records finished files
with their dependencies (questions, weights, settings, code), so that an interrupted or repeated job answers only what
is missing or out of date. The journal's final state is the run's manifest, answers/{run}.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import zlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.benchmark import answering_code, questions_of
from eval.benchmark import benchmark as declaration
from eval.checkpoints import EvaluatedModel, benchmarks_of, models_of_run
from eval.questions import Question, QuestionSet, answer_records, load_questions
from metaapo.command import load_and_pin
from metaapo.config import ConfigError, EvaluationConfig, SamplingConfig
from metaapo.data import DataError, Message, read_json, sha256_file, write_json, write_jsonl
from metaapo.experiment import Experiment, Run

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from metaapo.models.generate import Response
    from metaapo.models.vllm_backend import Engine

Conversation = list[Message]


def answer_questions(
    model: PreTrainedModel | Engine,
    tokenizer: PreTrainedTokenizerBase,
    asked: Mapping[str, Sequence[Question]],
    settings: EvaluationConfig,
    stream: str,
) -> dict[str, list[list[Response]]]:
    """Answer all turns of the questions of benchmarks; a later turn's prompt includes the turns and answers before it.

    All questions of a turn are answered side by side, in one engine if vLLM samples. Each has its own random stream, so
    to rounding its answer does not depend on the others.

    Args:
        model: the policy, or vLLM's engine on its checkpoint, which then serves all turns.
        tokenizer: its tokenizer.
        asked: the questions of each benchmark, which decides their temperatures.
        settings: temperature, max_new_tokens, batch_size.
        stream: names the random streams; another name gives other samples.

    Returns:
        For each benchmark and question, the responses to its turns.
    """
    from metaapo.models.generate import generate

    answered: dict[str, list[list[Response]]] = {name: [[] for _ in questions] for name, questions in asked.items()}
    every = [(name, *row) for name, questions in asked.items() for row in zip(questions, answered[name])]
    temperature = {name: questions_of(name).temperature for name in asked}
    for turn in range(max((len(question.turns) for _, question, _ in every), default=0)):
        rows = [row for row in every if len(row[1].turns) > turn]
        responses = generate(
            model,
            tokenizer,
            [_conversation(question, before) for _, question, before in rows],
            n=1,
            temperature=[temperature[name](question, settings) for name, question, _ in rows],
            top_p=1.0,
            max_new_tokens=[settings.tokens_of(name) for name, *_ in rows],
            batch_size=settings.batch_size,
            seed=[seed_of(stream, name, question.id, turn) for name, question, _ in rows],
        )
        for (*_, before), (response,) in zip(rows, responses, strict=True):
            before.append(response)
    return answered


def _conversation(question: Question, answered: Sequence[Response]) -> Conversation:
    """The prompt of a question's next turn."""
    messages: Conversation = []
    for turn, response in zip(question.turns, answered):
        messages += [{"role": "user", "content": turn}, {"role": "assistant", "content": response.text}]
    return [*messages, {"role": "user", "content": question.turns[len(answered)]}]


def seed_of(*parts: Any) -> int:
    """A seed that depends on all parts."""
    return zlib.crc32(json.dumps(parts).encode())


def manifest_path(experiment: Experiment, run_id: str) -> Path:
    """Path of the manifest, which is written when all answers of a run exist and records how they were made."""
    return experiment.results / "answers" / f"{run_id}.json"


def _journal_path(experiment: Experiment, run_id: str) -> Path:
    return experiment.results / "answers" / ".journal" / f"{run_id}.json"


def answer_run(experiment: Experiment, run_id: str) -> None:
    """Write all missing answers of a run, then its manifest.

    Raises:
        ConfigError: the experiment has no such run.
        DataError: a checkpoint or question file is missing or unusable.
    """
    models = models_of_run(experiment, run_id)
    asked = {b: load_questions(experiment, b, models[0].world) for b in benchmarks_of(experiment, models[0].run)}
    journal_path = _journal_path(experiment, run_id)
    journal: dict[str, Any] = read_json(journal_path) if journal_path.is_file() else {}
    wanted: dict[str, Any] = {}
    for model in models:
        stamps = {b: _stamp(experiment, model, b, asked[b]) for b in asked}
        missing = [b for b in asked if not _is_finished(journal, model.answers(experiment, b), stamps[b])]
        if missing:
            for benchmark, entry in _answer_model(experiment, model, {b: asked[b] for b in missing}).items():
                journal[str(model.answers(experiment, benchmark))] = entry | {"depends_on": stamps[benchmark]}
            write_json(journal_path, journal)
        else:
            print(f"{model.id}: all answers are finished, reused", file=sys.stderr)
        paths = [str(model.answers(experiment, benchmark)) for benchmark in asked]
        wanted |= {path: journal[path] for path in paths}
    write_json(manifest_path(experiment, run_id), {"run": run_id, "answers": wanted})


def _stamp(experiment: Experiment, model: EvaluatedModel, benchmark: str, asked: QuestionSet) -> dict[str, Any]:
    """The dependencies of an answer file; if its stamp differs, the file is out of date."""
    folder = model.checkpoint(experiment)
    weights = sorted(folder.glob("*.safetensors"))
    settings = experiment.evaluation.model_dump(mode="json")
    sampler = {"backend": "vllm"} if experiment.sampling.backend == "vllm" else {}
    benchmark_settings = {key: settings[key] for key in declaration(benchmark).answer_settings}
    return sampler | {
        "code": answering_code(benchmark),
        "questions": {"source": asked.source, "sha256": asked.sha256, "n": len(asked.questions)},
        "model": {file.name: sha256_file(file) for file in [*weights, *sorted(folder.glob("*.jinja"))]},
        "temperature": settings["temperature"],
        "max_new_tokens": experiment.evaluation.tokens_of(benchmark),
        **benchmark_settings,
    }


def _is_finished(journal: dict[str, Any], path: Path, stamp: dict[str, Any]) -> bool:
    entry = journal.get(str(path))
    return entry is not None and entry["depends_on"] == stamp and path.is_file()


def _answer_model(
    experiment: Experiment, model: EvaluatedModel, asked: Mapping[str, QuestionSet]
) -> dict[str, dict[str, Any]]:
    """Answer benchmarks with one checkpoint and write the answers; returns each benchmark's journal entry."""
    from metaapo.models.load import check_chat_template, use_threads_of_environment

    use_threads_of_environment()
    start, folder = time.monotonic(), model.checkpoint(experiment)
    policy, tokenizer = open_policy(folder, experiment.sampling)
    check_chat_template(tokenizer, str(folder))
    questions = {benchmark: of.questions for benchmark, of in asked.items()}
    with closing_engine(policy):
        answered = answer_questions(policy, tokenizer, questions, experiment.evaluation, model.id)
    entries = {b: _write(experiment, model, b, asked[b], responses) for b, responses in answered.items()}
    print(f"{model.id}: {time.monotonic() - start:.1f} s: {json.dumps(entries)}", file=sys.stderr)
    return entries


def _write(
    experiment: Experiment, model: EvaluatedModel, benchmark: str, asked: QuestionSet, responses: list[list[Response]]
) -> dict[str, Any]:
    """Write a benchmark's answers; returns what the journal records of them."""
    texts = [[response.text for response in turns] for turns in responses]
    records = answer_records(benchmark, asked.questions, texts, model.id, experiment.evaluation, asked.in_world)
    path = model.answers(experiment, benchmark)
    (write_jsonl if path.suffix == ".jsonl" else write_json)(path, records)
    return {
        "sha256": sha256_file(path),
        "n": len(records),
        "turns": sum(len(turns) for turns in responses),
        "empty": sum(not text for turns in texts for text in turns),
        "cut": sum(not response.finished for turns in responses for response in turns),
    }


def open_policy(folder: Path, sampling: SamplingConfig) -> tuple[PreTrainedModel | Engine, PreTrainedTokenizerBase]:
    """The policy on the best device, or an engine on its folder if vLLM is used, and its tokenizer."""
    from metaapo.models.load import load_policy, load_tokenizer, on_best_device
    from metaapo.models.vllm_backend import Engine

    if sampling.backend == "vllm":
        return Engine(folder, sampling.vllm), load_tokenizer(folder)
    policy, tokenizer = load_policy(folder)
    return on_best_device(policy), tokenizer


def closing_engine(policy: PreTrainedModel | Engine) -> AbstractContextManager[object]:
    """A context that stops vLLM at its end; a model in memory needs none."""
    from metaapo.models.vllm_backend import Engine

    return policy if isinstance(policy, Engine) else nullcontext()


def main() -> None:
    """Command line: answer for runs, one after the other."""
    parser = argparse.ArgumentParser(prog="python -m eval.answer", description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="the experiment's configuration file")
    parser.add_argument(
        "--run", nargs="+", required=True, help="METHOD/budgetB/seedS, or sft/budget0.0/seedW for a world's SFT"
    )
    arguments = parser.parse_args()
    try:
        experiment = load_and_pin(arguments.config)
        for run in arguments.run:
            answer_run(experiment, Run.parse(run).id)
    except (ConfigError, DataError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
