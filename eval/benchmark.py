"""What a benchmark is: a folder of eval/ with a declaration and one module for each stage.

`eval/<name>/__init__.py` says `BENCHMARK = Benchmark(...)` with keywords; importing it is cheap. Next to it are

| module | offers | receives |
| --- | --- | --- |
| `questions.py` | how questions are read, asked and answered on disk, and where they come from | question records |
| `judging.py` | judgment records in upstream's format | answer records and a judge |
| `score.py` | rows of metrics, and one value per question | judgment and answer records |
| `samples.py` | answers with verdicts in words, for the report's browser | judgment and answer records |
| `published.py` | published numbers, and our scores of the files behind them (optional, for `eval.verify`) | records |
| `human_labels.py` | how a judge agrees with people's votes (optional) | a judge |
| `__main__.py` | the scorer's command line, for any upstream files (optional) | files |

No other module names a benchmark: to add one, add a folder here and its name to `evaluation.benchmarks`. A module is
imported by its stage's name, so the code of answering does not include the code of scoring (`metaapo.provenance`).

`questions.py`:

    read(row, where) -> Question                  a record of the question file
    from_world(row) -> Record                     a question of the tiny world in the benchmark's own format; ids count
                                                  within a kind, which the row names
    package_questions(settings) -> Path           if `evaluation.questions` is package
    hub_questions(settings) -> (repository, "dataset" or "space", file)    if it is hub
    temperature(question, settings) -> float
    answer_records(questions, answers, model, settings, in_world) -> [Record]    answers: one list of turns per question
    question_of(record) -> str | None             the id of the question that an answer or judgment is about
    package_baseline(settings, questions) -> [Record]    pairwise only: the benchmark's own baseline

`judging.py`:

    judge_answers(judge, questions, baseline, answers, settings) -> [Record]    baseline: [] if none
    unreadable(records) -> int                    judgments that cannot be scored
    texts(answer) -> [str]                        of an answer record, one per turn
    readings(record) -> [[float]]                 the model's values in a record: the judge's, then those of a panel
    orders(record) -> (float, float) | None       the model's share shown first and shown second, if both are known
    compare(judge, comparisons), swaps(comparison)    pairwise only, for eval.judge_checks

`score.py`:

    score_models(judged: Judged, settings, seed) -> Scores

`published.py`:

    comparisons(files: PublishedFiles) -> [Comparison]

`samples.py`:

    rows(answers, judgments) -> [(question id, texts, verdicts in words, value from 0 to 1 or None)]
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Literal

from metaapo.benchmarks import known_benchmarks
from metaapo.config import ConfigError
from metaapo.provenance import code_hash

Record = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """A metric in the main table.

    Attributes:
        metric: its name in score files.
        label: follows the benchmark's title in the column heading, such as "LC"; empty if the title is enough.
        words: the metric in words, such as "length-controlled win rate".
    """

    metric: str
    label: str
    words: str


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What other modules need to know about a benchmark.

    Attributes:
        title: name in the report.
        extension: of its files of answers and judgments: one JSON list, or one JSON object per line.
        pairwise: answers are compared with a baseline's; otherwise each is graded alone.
        scale: lowest and highest score.
        unit: of the scores.
        item_scale: scores per unit of a single question's value (100 where those are shares and scores percent).
        margin: the smallest gain that matters, in the unit of the scores.
        digits: decimals to print.
        raw_metric: the metric that the values of single questions average to.
        columns: metrics of the main table, the most important first.
        primary: the endpoint that decides the claims of an experiment that lists it; the others are then secondary.
        versioned_by: the key of `evaluation` that chooses among several official sets, if there are several.
        official_sizes: value of that key -> questions in its set, where it is not `official_size`.
        judge_calls: requests to a judge per question and turn, for the cost estimate.
        official_size: questions in the official set, for the cost estimate; 0 if there is none, so that the benchmark
            exists in the tiny world only.
        turns: user turns per official question.
        world_questions: which kind of the tiny world's questions it uses; "all" for every kind.
        world_baseline: pairwise: the default baseline in the tiny world, "sft" (the SFT policy of the model's world) or
            "world" (another writer, for kinds of questions to which the world has that writer's answers).
        answer_settings: keys under `evaluation` that its answers depend on, in addition to those of all benchmarks.
        judge_settings: likewise its judgments.
        score_settings: likewise its scores.
    """

    title: str
    extension: Literal["json", "jsonl"]
    pairwise: bool
    scale: tuple[float, float]
    unit: Literal["points", "grade"]
    item_scale: float
    margin: float
    digits: int
    raw_metric: str
    columns: tuple[Column, ...]
    primary: bool = False
    official_size: int
    versioned_by: str = ""
    official_sizes: Mapping[str, int] = field(default_factory=dict)
    judge_calls: int = 1
    turns: int = 1
    world_questions: Literal["mixed", "composed", "two_turn", "all"]
    world_baseline: Literal["", "sft", "world"] = ""
    answer_settings: tuple[str, ...] = ()
    judge_settings: tuple[str, ...] = ()
    score_settings: tuple[str, ...] = ()

    def words(self, metric: str) -> str:
        """A metric in words."""
        known = {column.metric: column.words for column in self.columns}
        return known.get(metric, metric.replace("_", " "))


@dataclass(frozen=True)
class Judged:
    """What a benchmark's scorer receives: the records of all models under one judge.

    Attributes:
        judgments: model -> its judgment records.
        questions: the question records, in the benchmark's own format.
        answers: reads the answer records of all models; called only if a scorer needs them.
        baseline_answers: likewise the baseline's, to the questions that were judged.
        sft_baseline: each model is compared with the SFT policy of its own world.
    """

    judgments: Mapping[str, Sequence[Record]]
    questions: Sequence[Record]
    answers: Callable[[], list[Record]]
    baseline_answers: Callable[[], list[Record]]
    sft_baseline: bool


@dataclass(frozen=True)
class Scores:
    """What a benchmark's scorer returns.

    Attributes:
        version: of the protocol.
        rows: model -> {metrics: {name: see `metric`}, n, n_failed, mean_length, position_inconsistency, ...}.
        items: {model, question, value, length, category} of every model and question; value None if unreadable. A
            metric that is no mean over questions, such as a length-controlled one, has a key of its own name with the
            score plus the question's influence on it, in the unit of `value`: they average to the score.
        baseline: the model compared with; None without one.
        notes: caveats that a reader of the numbers must know.
        details: further entries of the score file.
    """

    version: str
    rows: dict[str, Record]
    items: list[Record]
    baseline: str | list[str] | None = None
    notes: list[str] = field(default_factory=list)
    details: Record = field(default_factory=dict)


def metric(
    value: float | None,
    low: float | None = None,
    high: float | None = None,
    stderr: float | None = None,
    flag: str | None = None,
) -> Record:
    """A number as stored in score files; None if undefined. `flag` says why it is not to be taken at face value."""
    return {"value": value, "ci_low": low, "ci_high": high, "stderr": stderr} | ({"flag": flag} if flag else {})


def benchmark(name: str) -> Benchmark:
    """What a benchmark declares.

    Raises:
        ConfigError: no folder of eval/ declares a benchmark of this name.
    """
    known = known_benchmarks()
    if name not in known:
        raise ConfigError(f"benchmark {name!r}: no folder of eval/ declares it; known: {', '.join(known)}")
    return importlib.import_module(f"eval.{name}").BENCHMARK


def benchmarks() -> dict[str, Benchmark]:
    """All benchmarks by name, sorted."""
    return {name: benchmark(name) for name in known_benchmarks()}


def questions_of(name: str) -> ModuleType:
    """The module that reads a benchmark's questions and writes its answers."""
    return _stage(name, "questions")


def judging_of(name: str) -> ModuleType:
    """The module that makes a benchmark's judgments."""
    return _stage(name, "judging")


def score_of(name: str) -> ModuleType:
    """The module that scores a benchmark."""
    return _stage(name, "score")


def samples_of(name: str) -> ModuleType:
    """The module that describes a benchmark's answers and judgments in words."""
    return _stage(name, "samples")


def people_modules(name: str) -> list[str]:
    """The module with people's votes on a benchmark's answers, in a list that may be empty."""
    module = f"eval.{name}.human_labels"
    return [module] if importlib.util.find_spec(module) else []


def _stage(name: str, stage: str) -> ModuleType:
    benchmark(name)  # raises a readable error for an unknown name
    return importlib.import_module(f"eval.{name}.{stage}")


def answering_code(name: str) -> str:
    """Hash of the code that a benchmark's answers depend on."""
    return code_hash("eval.answer", f"eval.{name}.questions")


def scoring_code(name: str) -> str:
    """Hash of the code that a benchmark's scores depend on."""
    return code_hash("eval.score", f"eval.{name}.score")
