"""Load a benchmark's questions and its baseline's answers from the configured source.

| source | what is read |
| --- | --- |
| world | the tiny world's questions of the kinds that the benchmark uses, put into the benchmark's own format |
| package | an installed package that contains the benchmark's files |
| hub | the benchmark's repository on the Hugging Face hub |
| a path | a question file in the benchmark's own format |

The source is recorded with the file's SHA-256, so that a score identifies its questions. The hub is contacted only if
the configuration has both `hub` and `network: true`; without network the file must be in the local cache.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.benchmark import benchmark as declaration
from eval.benchmark import questions_of
from metaapo.benchmarks import world_kinds
from metaapo.config import ConfigError, EvaluationConfig
from metaapo.data import DataError, read_records, sha256_file
from metaapo.experiment import Experiment

SFT_BASELINE = "sft"
Record = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        id: stable over models, as upstream identifies it.
        turns: the user turns.
        category: upstream's, such as its topic or the dataset it comes from.
        record: the question as upstream writes it.
    """

    id: str
    turns: tuple[str, ...]
    category: str
    record: Record


@dataclass(frozen=True)
class QuestionSet:
    """The questions of a benchmark and their source."""

    questions: list[Question]
    source: str
    sha256: str

    @property
    def in_world(self) -> bool:
        """Whether the questions come from a world, whose tokens are words."""
        return self.source.startswith("world")


def load_questions(experiment: Experiment, benchmark: str, world: int) -> QuestionSet:
    """Load the questions of an experiment.

    Args:
        experiment: its configuration names the source.
        benchmark: its name.
        world: seed of the world; the questions are the same in every world.

    Raises:
        ConfigError: unknown benchmark, or its package does not contain these questions.
        DataError: the file is missing or is not in the benchmark's format.
    """
    source = source_of(experiment, benchmark)
    stage = questions_of(benchmark)
    if source == "world":
        return _world_questions(experiment, benchmark, world)
    if source == "package":
        return read_questions(stage.package_questions(experiment.evaluation), benchmark, source)
    if source == "hub":
        path = _hub_file(*stage.hub_questions(experiment.evaluation), experiment.network)
        return read_questions(path, benchmark, source)
    return read_questions(Path(source), benchmark, Path(source).name)


def _world_questions(experiment: Experiment, benchmark: str, world: int) -> QuestionSet:
    """The world's questions of the kinds that the benchmark uses, one kind after the other."""
    kinds = {kind: _world_file(experiment, world, kind) for kind in world_kinds(benchmark)}
    from_world = questions_of(benchmark).from_world
    rows = [from_world(row | {"kind": kind}) for kind, path in kinds.items() for row in read_records(path)]
    checksums = [sha256_file(path) for path in kinds.values()]
    whole = checksums[0] if len(checksums) == 1 else hashlib.sha256("".join(checksums).encode()).hexdigest()
    where = kinds[min(kinds)].with_name(f"{' + '.join(kinds)}.jsonl")
    return QuestionSet(_read(rows, benchmark, where), f"world {experiment.world.name}", whole)


def read_questions(path: Path, benchmark: str, source: str) -> QuestionSet:
    """Read a question file in the benchmark's own format.

    Raises:
        DataError: missing file, missing key, no question, or a question that appears twice.
    """
    return QuestionSet(_read(read_records(path), benchmark, path), source, sha256_file(path))


def _read(rows: Sequence[Record], benchmark: str, path: Path) -> list[Question]:
    read = questions_of(benchmark).read
    questions = [read(row, f"{path}, record {number}") for number, row in enumerate(rows, start=1)]
    if not questions:
        raise DataError(f"{path}: no question found; expected those of {benchmark}")
    seen: set[str] = set()
    for question in questions:
        if question.id in seen:
            raise DataError(f"{path}: question {question.id[:80]!r} appears twice; remove one")
        seen.add(question.id)
    return questions


def source_of(experiment: Experiment, benchmark: str) -> str:
    """Where a benchmark's questions come from: world, package, hub, or a path."""
    default = "world" if experiment.world.name == "tiny" else "package"
    return experiment.evaluation.questions.get(benchmark, default)


def _world_file(experiment: Experiment, world: int, name: str) -> Path:
    return experiment.world_path(world) / "data" / "eval" / f"{name}.jsonl"


def _hub_file(repository: str, kind: str, file: str, network: bool) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repository, file, repo_type=kind, local_files_only=not network))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        way_out = "check the network" if network else "set network: true, or give a file or package"
        raise DataError(
            f"{repository}/{file}: could not be fetched from the hub ({type(error).__name__}); {way_out}"
        ) from error


def baseline_of(experiment: Experiment, benchmark: str) -> str:
    """The baseline that a pairwise benchmark's models are compared with: sft, world, package, or a path.

    Empty for a benchmark that compares nothing.
    """
    declared = declaration(benchmark)
    if not declared.pairwise:
        return ""
    default = declared.world_baseline if experiment.world.name == "tiny" else "package"
    return experiment.evaluation.baselines.get(benchmark, default)


def baseline_answers(experiment: Experiment, benchmark: str, world: int, questions: list[Question]) -> list[Record]:
    """The answers of a baseline that is not a policy of the experiment, in the order of the questions.

    Args:
        experiment: its configuration names the baseline.
        benchmark: a pairwise one.
        world: seed of the world whose folder is read if the baseline is the tiny world's (it is the same in all).
        questions: the questions.

    Raises:
        ConfigError: the world has no baseline for this benchmark.
        DataError: a question without an answer.
    """
    source = baseline_of(experiment, benchmark)
    if source == "world":
        return _world_answers(experiment, benchmark, world, questions)
    if source == "package":
        return questions_of(benchmark).package_baseline(experiment.evaluation, questions)
    return answers_in_order(Path(source), benchmark, questions)


def _world_answers(experiment: Experiment, benchmark: str, world: int, questions: list[Question]) -> list[Record]:
    """The other writer's answers to the world's questions, in the benchmark's own format."""
    kind = declaration(benchmark).world_questions
    path = _world_file(experiment, world, f"{kind}_answers")
    if experiment.world.name != "tiny" or not path.is_file():
        raise ConfigError(
            f"evaluation.baselines.{benchmark}: the world {experiment.world.name} has no other writer's answers to "
            f"questions of kind {kind}; give sft, package or a file of answers"
        )
    stage, rows = questions_of(benchmark), read_records(path)
    asked = {stage.read(stage.from_world(row), str(path)).id: row for row in rows}
    missing = [question.id for question in questions if question.id not in asked]
    if missing:
        raise DataError(f"{path}: no answer to {missing[0][:80]!r} found; delete the world's data to regenerate it")
    found = [asked[question.id] for question in questions]
    texts = [[row["answer"]] for row in found]
    return stage.answer_records(questions, texts, rows[0]["model"], experiment.evaluation, in_world=True)


def answers_in_order(path: Path, benchmark: str, questions: Sequence[Question]) -> list[Record]:
    """A model's answers in the order of the questions.

    Raises:
        DataError: the file is missing or lacks the answer to a question.
    """
    question_of = questions_of(benchmark).question_of
    found = {question_of(row): row for row in read_records(path)}
    missing = [question.id for question in questions if question.id not in found]
    if missing:
        raise DataError(
            f"{path}: {len(missing)} of {len(questions)} answers are missing, such as that to {missing[0][:80]!r}; "
            "answer again (eval.answer), or give the answers to these questions"
        )
    return [found[question.id] for question in questions]


def answer_records(
    benchmark: str,
    questions: Sequence[Question],
    answers: Sequence[Sequence[str]],
    model: str,
    settings: EvaluationConfig,
    in_world: bool,
) -> list[Record]:
    """Answers in the benchmark's own file format.

    Args:
        benchmark: its name.
        questions: the questions.
        answers: texts, one list of turns per question.
        model: name of the model in the file.
        settings: the section `evaluation`.
        in_world: whether the questions come from a world, whose tokens are words.
    """
    return questions_of(benchmark).answer_records(questions, answers, model, settings, in_world=in_world)


def answer_id(model: str, question: str) -> str:
    """An answer's id in FastChat's formats; upstream's is random, this one is deterministic."""
    return hashlib.sha256(f"{model}\n{question}".encode()).hexdigest()[:22]
