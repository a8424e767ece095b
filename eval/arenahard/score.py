"""Arena-Hard: from pairwise verdicts to win rates, plain and style-controlled, as scored in 2024 and in 2025.

    python -m eval.arenahard score --judgments model_judgment/gpt-4.1/*.jsonl --answers model_answer/*.jsonl \\
        --baseline o3-mini-2025-01-31 --version v2.0-2025 --category hard_prompt --style-control

A judge compares every answer with a baseline's in two games: in game 1 the baseline is A, in game 2 it is B. A
verdict of ">>" counts as three battles, a tie as half a win. The two official scorers differ:

| | v0.1-2024 | v2.0-2025 |
| --- | --- | --- |
| a verdict is | [[label]], and no other label | the last [[label]] of the upper-cased text, else the last [label] |
| no label at all | ask the judge once more | null |
| a null game drops | itself | both games of its question |
| style features | (m - b) / (m + b + 1) of counts | tokens: (m - b) / (m + b); others: as 2024, of counts a token |
| z-scores | ddof 0 | ddof 1 |
| style-controlled fit | logistic, L2 with C = 1 | logistic, not regularised |

A style-controlled score depends on the *pool*: the z-scores and the style coefficients are shared by all models in
the judgments. So every result names its pool, version and judge.

Differences from upstream, all on purpose:

- Fits are converged. The 2025 code stops after 50 small steps (87.05 where the maximum likelihood is 87.50). The 2024
  code stops where scikit-learn's default tolerance does, up to 0.07 points from the optimum; since that is what
  papers report, `style_controlled_score` is that fit under v0.1-2024, and `style_controlled_converged` the optimum.
- Scores are those of the data, not means of 100 unseeded resamples.
- Intervals are 95 %, from a seeded bootstrap over *questions*, paired over models and converged. Upstream resamples
  battles, as if the three battles of one ">>" verdict were three verdicts, and shows 90 % in 2025.

`official_quirks` gives upstream's numbers beside ours.

Records: 2024 judgments {question_id, model, judge, games: [{score, judgment}, ...]}, answers {question_id, model_id,
choices, conv_metadata}; 2025 judgments {uid, category, judge, model, baseline, games}, answers {uid, model, messages,
metadata}. Either form is read under either version.

Source: Li et al., "From crowdsourced data to high-quality benchmarks" (arXiv 2406.11939);
github.com/lmarena/arena-hard-auto, commits 0489bf3 (2024) and 196f6b8 (2025).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from eval.stats import percentile_interval, resample_counts
from metaapo.command import print_score
from metaapo.data import DataError, read_records, require_keys

Record = Mapping[str, Any]
Floats = NDArray[np.float64]

VERSIONS = ("v0.1-2024", "v2.0-2025")
STYLE = ("token_len", "header_count", "list_count", "bold_count")
N_BOOTSTRAP = 2000
N_BOOTSTRAP_STYLE = (
    200  # each is a fit over the whole pool; the interval's ends then move by about 0.15 standard errors
)
N_BOOTSTRAP_OFFICIAL = 100

# label -> battles that A (loses, ties, wins); ">>" counts three times
_LABELS_2024 = {"A>>B": (0, 0, 3), "A>B": (0, 0, 1), "A=B": (0, 1, 0), "B>A": (1, 0, 0), "B>>A": (3, 0, 0)}
_LABELS_MIRRORED = {"B<<A": (0, 0, 3), "B<A": (0, 0, 1), "B=A": (0, 1, 0), "A<B": (1, 0, 0), "A<<B": (3, 0, 0)}
_LABELS = {"v0.1-2024": _LABELS_2024, "v2.0-2025": _LABELS_2024 | _LABELS_MIRRORED}
_OUTCOMES = np.array([0.0, 0.5, 1.0])  # what a lost, tied and won battle is worth
_DOUBLE = re.compile(r"\[\[([AB<>=]+)\]\]")
_SINGLE = re.compile(r"\[([AB<>=]+)\]")

# tiktoken's encodings of the two versions, and the names under which its cache stores them (SHA-1 of their addresses)
_ENCODINGS = {
    "v0.1-2024": ("cl100k_base", "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"),
    "v2.0-2025": ("o200k_base", "fb374d419588a4632f3f557e76b4b70aebbca790"),
}


def parse_verdict(text: str, version: str) -> str | None:
    """The verdict in a judge's answer, such as "A>>B"; None if there is none, it is no valid label, or (2024) labels
    conflict.

    >>> parse_verdict("[[A>B]] ... no: [[A=B]]", "v0.1-2024"), parse_verdict("[[A>B]] ... no: [[a=b]]", "v2.0-2025")
    (None, 'A=B')

    Raises:
        DataError: unknown version.
    """
    labels = _labels(version)
    if version == "v0.1-2024":
        found = set(_DOUBLE.findall(text))
        label = found.pop() if len(found) == 1 else None
    else:
        matches = _DOUBLE.findall(text.upper()) or _SINGLE.findall(text.upper())
        label = matches[-1] if matches else None
    return label if label in labels else None


def wants_retry(text: str, version: str) -> bool:
    """Whether the protocol asks the judge once more: in 2024 where its answer holds no label at all, in 2025 never."""
    return version == "v0.1-2024" and not _DOUBLE.search(text)


def style_metadata(text: str, count_tokens: Callable[[str], int]) -> dict[str, Any]:
    """Upstream's style counts of an answer: tokens of all of it; headers, list items and bold runs outside code blocks.

    Args:
        text: the answer.
        count_tokens: `token_counter(version)`, or the model's own count in a world that tiktoken does not know.

    Returns:
        {token_len: int, header_count: {h1..h6}, list_count: {ordered, unordered}, bold_count: {"**", "__"}}, as answers
        files store it (`conv_metadata` in 2024, `metadata` in 2025).
    """
    prose = text
    for block in re.findall(r"```([^`]*)```", text):  # upstream removes the block's content, wherever it occurs
        prose = prose.replace(block, "")
    patterns = {
        "header_count": {f"h{n}": rf"^#{{{n}}}\s" for n in range(1, 7)},
        "list_count": {"ordered": r"^\s*\d+\.\s", "unordered": r"^\s*[-*+]\s"},
        "bold_count": {"**": r"\*\*[^*\n]+\*\*", "__": r"__[^_\n]+__"},
    }
    counts = {
        element: {name: len(re.findall(pattern, prose, re.MULTILINE)) for name, pattern in kinds.items()}
        for element, kinds in patterns.items()
    }
    return {"token_len": count_tokens(text)} | counts


def count_words(text: str) -> int:
    """White-space separated words: a token count for worlds whose tokenizer is a word list."""
    return len(text.split())


def answer_id(model: str, question: str) -> str:
    """A name for an answer in FastChat's files, which MT-Bench shares; upstream draws it, here equal runs are equal."""
    return hashlib.sha256(f"{model}\n{question}".encode()).hexdigest()[:22]


def answer_record(question: Record, text: str, model: str, count_tokens: Callable[[str], int]) -> Record:
    """An answer as upstream writes it, in the format of 2024 or 2025, as the question is.

    Args:
        question: a record of question.jsonl.
        text: the answer.
        model: its model's name.
        count_tokens: see `style_metadata`.
    """
    metadata = style_metadata(text, count_tokens)
    if "question_id" in question:  # the files of 2024
        return {
            "question_id": question["question_id"],
            "answer_id": answer_id(model, str(question["question_id"])),
            "model_id": model,
            "choices": [{"index": 0, "turns": [{"content": text, "token_len": metadata["token_len"]}]}],
            "conv_metadata": metadata,
        }
    return {
        "uid": question["uid"],
        "ans_id": answer_id(model, str(question["uid"])),
        "model": model,
        "messages": [
            {"role": "user", "content": question["prompt"]},
            {"role": "assistant", "content": {"answer": text}},
        ],
        "metadata": metadata,
    }


def token_counter(version: str) -> Callable[[str], int]:
    """The token count of this version (tiktoken cl100k_base in 2024, o200k_base in 2025), without touching the network.

    Raises:
        DataError: the encoding is not in the folder TIKTOKEN_CACHE_DIR.
    """
    _labels(version)
    name, cached_as = _ENCODINGS[version]
    folder = os.environ.get("TIKTOKEN_CACHE_DIR", "")
    if not folder or not (Path(folder) / cached_as).exists():
        raise DataError(
            f"TIKTOKEN_CACHE_DIR={folder!r} does not hold {cached_as}, the encoding {name} of tiktoken: set it to "
            "a folder that does (the litellm package has one), give answers with metadata, or use --tokens words"
        )
    import tiktoken

    encoding = tiktoken.get_encoding(name)
    return lambda text: len(encoding.encode(text, disallowed_special=()))


def answer_text(answer: Record) -> str | None:
    """The text of an answer record of either version; None where the file keeps metadata only."""
    if "messages" in answer:
        content = answer["messages"][-1]["content"]
    elif "choices" in answer:
        content = answer["choices"][0]["turns"][0]
    else:
        return None
    if isinstance(content, str):
        return content
    return content["answer"] if "answer" in content else content["content"]


def score(
    judgments: Iterable[Record],
    answers: Iterable[Record],
    baseline: str | Mapping[str, str],
    version: str,
    style_control: bool = False,
    *,
    category: str | None = None,
    judge: str | None = None,
    features: Sequence[str] = STYLE,
    count_tokens: Callable[[str], int] | None = None,
    official_quirks: bool = False,
    n_bootstrap: int = N_BOOTSTRAP,
    n_bootstrap_style: int = N_BOOTSTRAP_STYLE,
    seed: int = 0,
) -> dict[str, Any]:
    """Score every model in the judgments, which together are the pool.

    Args:
        judgments: of one judge and (2025) one category, any number of models.
        answers: of the models and the baseline; needed for style control and mean lengths, may be empty without them.
        baseline: name of the baseline, or model -> its baseline where they differ (one per world).
        version: "v0.1-2024" or "v2.0-2025".
        style_control: also fit the style-controlled scores.
        category: keep this category's judgments only.
        judge: keep this judge's judgments only.
        features: the style features to control for; upstream's length control is ("token_len",).
        count_tokens: for answers without metadata; this version's tiktoken encoding if None.
        official_quirks: add upstream's own numbers (see the module) to every model under "official".
        n_bootstrap: resamples of questions for the plain interval.
        n_bootstrap_style: resamples of questions for the style-controlled one.
        seed: of all resamples.

    Returns:
        {benchmark, version, judge, category, baseline, pool, n_questions, n_bootstrap, models: [{model, baseline,
        score, ci_low, ci_high, stderr, n, n_battles, n_null, n_failed, position_conflicts, mean_length, mean_tokens,
        style_controlled_score, style_controlled_converged, style_controlled_ci_low, style_controlled_ci_high,
        style_controlled_stderr, [official]}, ...], style: {coefficients, features, left_out}, notes}; best first;
        scores in percent, None where there is none. `n` counts questions with a counted game, `n_null` games without
        a valid verdict, `n_failed` questions of the pool without a counted game, and `position_conflicts` is the
        share of questions whose two games name different winners.

    Raises:
        DataError: unknown version, mixed judges, baselines or categories, missing keys, or answers that style control
            needs and does not find.
    """
    _labels(version)
    rows = _selected(judgments, judge, category)
    baselines = _baselines(rows, baseline)
    pool = _pool([row for row in rows if row["model"] != baselines[row["model"]]], baselines, version)
    records = _by_model_and_question(answers)
    opponents = sorted(set(pool.baselines))
    notes = _pool_notes(rows, pool)
    counts = resample_counts(len(pool.questions), n_bootstrap, seed)
    models = [_plain_score(pool, m, counts) | _sizes(pool, m, records) for m in range(len(pool.models))]
    style = None
    if style_control:
        raw = _style_features(pool, records, version, features, count_tokens)
        standardised, kept, left_out = _standardise(raw, pool.battles, version, features)
        if left_out:
            notes.append(f"style features without any variation in this pool, left out: {', '.join(left_out)}")
        counts_style = resample_counts(len(pool.questions), n_bootstrap_style, seed)
        scores, coefficients = _style_controlled(pool, standardised, version, counts_style, notes)
        models = [model | styled for model, styled in zip(models, scores)]
        style = {"features": kept, "left_out": left_out, "coefficients": dict(zip(kept, coefficients))}
    if official_quirks:
        quirks = _official(pool, standardised if style_control else None, version, seed)
        models = [model | {"official": official} for model, official in zip(models, quirks)]
    return {
        "benchmark": "arenahard",
        "version": version,
        "judge": rows[0].get("judge"),
        "category": category,
        "baseline": opponents[0] if len(opponents) == 1 else opponents,
        "pool": list(pool.models),
        "n_questions": len(pool.questions),
        "n_bootstrap": n_bootstrap,
        "n_bootstrap_style": n_bootstrap_style if style_control else None,
        "bootstrap_seed": seed,
        "style": style,
        "notes": notes,
        "models": sorted(models, key=lambda m: (m["score"] is None, -(m["score"] or 0), m["model"])),
    }


def items(
    judgments: Iterable[Record],
    answers: Iterable[Record],
    baseline: str | Mapping[str, str],
    version: str,
    *,
    category: str | None = None,
    judge: str | None = None,
) -> list[dict[str, Any]]:
    """One row a model and question: {model, question, category, value, length}.

    `value` in [0, 1] is the share of the question's battles (both games, ">>" thrice, ties half) that the model won,
    None where no game counts; `length` the characters of its answer, None without a text. Arguments and errors as for
    `score`.
    """
    rows = _selected(judgments, judge, category)
    baselines = _baselines(rows, baseline)
    rows = [row for row in rows if row["model"] != baselines[row["model"]]]
    pool = _pool(rows, baselines, version)
    records = _by_model_and_question(answers)
    categories = {_question(row): row.get("category") for row in rows}
    wins, battles = pool.wins, pool.battles
    return [
        {
            "model": model,
            "question": question,
            "category": categories[question],
            "value": float(wins[m, q] / battles[m, q]) if battles[m, q] else None,
            "length": _length(records.get((model, question))),
        }
        for m, model in enumerate(pool.models)
        for q, question in enumerate(pool.questions)
        if pool.judged[m, q]
    ]


@dataclass(frozen=True)
class _Pool:
    """All games of a set of models, M models and Q questions.

    Attributes:
        models: names, sorted, as upstream orders them.
        baselines: the baseline of each model.
        questions: ids, in order of appearance.
        outcomes: int (M, Q, 3), battles that the model lost, tied, won.
        null_games: int (M, Q), games without a valid verdict.
        judged: bool (M, Q), whether there is a judgment at all.
        conflicts: bool (M, Q), the two games name different winners.
        complete: bool (M, Q), both games have a valid verdict.
    """

    models: tuple[str, ...]
    baselines: tuple[str, ...]
    questions: tuple[str, ...]
    outcomes: NDArray[np.int64]
    null_games: NDArray[np.int64]
    judged: NDArray[np.bool_]
    conflicts: NDArray[np.bool_]
    complete: NDArray[np.bool_]

    @property
    def battles(self) -> Floats:
        """(M, Q), number of battles."""
        return self.outcomes.sum(axis=-1).astype(float)

    @property
    def wins(self) -> Floats:
        """(M, Q), battles won, a tie counting half."""
        return self.outcomes @ _OUTCOMES


def _labels(version: str) -> Mapping[str, tuple[int, int, int]]:
    if version not in _LABELS:
        raise DataError(f"Arena-Hard version {version!r} is unknown; use one of {', '.join(VERSIONS)}")
    return _LABELS[version]


def _question(row: Record) -> str:
    return str(row["uid"] if "uid" in row else row["question_id"])


def _selected(judgments: Iterable[Record], judge: str | None, category: str | None) -> list[Record]:
    rows = list(judgments)
    for number, row in enumerate(rows, start=1):
        where = f"judgments, record {number}"
        require_keys(row, ("model", "games"), where)
        if "uid" not in row:
            require_keys(row, ("question_id",), where)
        if not isinstance(row["games"], list) or not all(isinstance(game, dict | None) for game in row["games"]):
            raise DataError(f"{where}: games is {row['games']!r}; expected a list of two games {{score, judgment}}")
    rows = [row for row in rows if (judge is None or row.get("judge") == judge)]
    rows = [row for row in rows if (category is None or row.get("category") == category)]
    judges = sorted({str(row.get("judge")) for row in rows})
    if len(judges) > 1:
        raise DataError(f"judgments: {len(judges)} judges are mixed ({', '.join(judges)}); pick one with --judge")
    if not rows:
        raise DataError(f"judgments: nothing to score (judge {judge or 'any'}, category {category or 'any'})")
    return rows


def _baselines(rows: Sequence[Record], baseline: str | Mapping[str, str]) -> dict[str, str]:
    """Model -> baseline, checked against what the judgments themselves say."""
    result = {}
    for row in rows:
        model = row["model"]
        expected = baseline if isinstance(baseline, str) else baseline.get(model)
        if expected is None:
            raise DataError(f"judgments: no baseline is given for model {model!r}")
        if row.get("baseline", expected) != expected:
            raise DataError(
                f"judgments: {model!r} was judged against {row['baseline']!r} on question {_question(row)}, not "
                f"against {expected!r}; pick one category with --category, or the right --baseline"
            )
        result[model] = expected
    return result


def _verdict(game: Record | None, labels: Mapping[str, tuple[int, int, int]]) -> tuple[int, int, int] | None:
    """Battles that A (loses, ties, wins) in a game; None for a null game."""
    return labels.get(game.get("score") or "") if game else None


def _pool(rows: Sequence[Record], baselines: Mapping[str, str], version: str) -> _Pool:
    if not rows:
        raise DataError("judgments: only the baseline itself was judged; nothing to score")
    models = tuple(sorted({row["model"] for row in rows}))
    questions = tuple(dict.fromkeys(_question(row) for row in rows))
    at_model, at_question = {m: i for i, m in enumerate(models)}, {q: i for i, q in enumerate(questions)}
    shape = (len(models), len(questions))
    outcomes, null_games = np.zeros((*shape, 3), dtype=np.int64), np.zeros(shape, dtype=np.int64)
    judged, conflicts, complete = (np.zeros(shape, dtype=bool) for _ in range(3))
    for row in rows:
        cell = at_model[row["model"]], at_question[_question(row)]
        games = [_verdict(game, _labels(version)) for game in (*row["games"], None, None)[:2]]
        first = games[0] and games[0][::-1]  # in game 1 the baseline is A: turn to the model's side
        sides = [side for side in (first, games[1]) if side]
        judged[cell] = True
        null_games[cell] += 2 - len(sides)
        if len(sides) == 2:
            complete[cell] = True
            winners = [np.sign(won - lost) for lost, _, won in sides]
            conflicts[cell] = winners[0] * winners[1] < 0
        elif version == "v2.0-2025":
            continue  # one null game drops the question
        for side in sides:
            outcomes[cell] += side
    return _Pool(
        models, tuple(baselines[m] for m in models), questions, outcomes, null_games, judged, conflicts, complete
    )


def _pool_notes(rows: Sequence[Record], pool: _Pool) -> list[str]:
    notes = []
    cells = [(row["model"], _question(row)) for row in rows]
    if len(set(cells)) < len(cells):
        repeats = len(cells) - len(set(cells))
        notes.append(f"{repeats} questions were judged more than once; all their games count, as upstream")
    categories = sorted({str(row["category"]) for row in rows if "category" in row})
    if len(categories) > 1:
        notes.append(f"categories pooled: {', '.join(categories)}; upstream scores each alone (--category)")
    if not pool.judged.all():
        notes.append("not all models were judged on all questions; every model is scored on its own questions")
    return notes


def _plain_score(pool: _Pool, m: int, counts: NDArray[np.int64]) -> dict[str, Any]:
    """Win rate of one model and its interval; counts: (resamples, Q)."""
    wins, battles = pool.wins[m], pool.battles[m]
    score = low = high = stderr = None
    if battles.any():
        drawn = counts @ battles
        replicates = 100 * (counts @ wins)[drawn > 0] / drawn[drawn > 0]
        score = float(100 * wins.sum() / battles.sum())
        low, high = percentile_interval(replicates)
        stderr = float(replicates.std(ddof=1))
    complete = int(pool.complete[m].sum())
    return {
        "model": pool.models[m],
        "baseline": pool.baselines[m],
        "score": score,
        "ci_low": low,
        "ci_high": high,
        "stderr": stderr,
        "n": int((battles > 0).sum()),
        "n_battles": int(battles.sum()),
        "n_null": int(pool.null_games[m].sum()),
        "n_failed": int((battles == 0).sum()),
        "position_conflicts": float(pool.conflicts[m].sum() / complete) if complete else None,
    }


def _by_model_and_question(answers: Iterable[Record]) -> dict[tuple[str, str], Record]:
    records = {}
    for number, answer in enumerate(answers, start=1):
        model = answer.get("model_id", answer.get("model"))
        if model is None or not ("uid" in answer or "question_id" in answer):
            raise DataError(
                f"answers, record {number}: expected model or model_id, and uid or question_id; found {sorted(answer)}"
            )
        records[model, _question(answer)] = answer
    return records


def _metadata(answer: Record) -> Mapping[str, Any] | None:
    return answer.get("metadata") or answer.get("conv_metadata")


def _length(answer: Record | None) -> int | None:
    text = answer_text(answer) if answer else None
    return None if text is None else len(text)


def _sizes(pool: _Pool, m: int, records: Mapping[tuple[str, str], Record]) -> dict[str, float | None]:
    """Mean characters and tokens of a model's answers to the judged questions."""
    own = [records.get((pool.models[m], q)) for i, q in enumerate(pool.questions) if pool.judged[m, i]]
    lengths = [length for length in map(_length, own) if length is not None]
    tokens = [_metadata(answer)["token_len"] for answer in own if answer and _metadata(answer)]
    return {
        "mean_length": float(np.mean(lengths)) if lengths else None,
        "mean_tokens": float(np.mean(tokens)) if tokens else None,
    }


def _style_features(
    pool: _Pool,
    records: Mapping[tuple[str, str], Record],
    version: str,
    features: Sequence[str],
    count_tokens: Callable[[str], int] | None,
) -> Floats:
    """(M, Q, features): how the model's style differs from its baseline's; zero where no battle counts."""
    unknown = set(features) - set(STYLE)
    if unknown or not features:
        raise DataError(f"style features {sorted(unknown) or 'are missing'}; choose among {', '.join(STYLE)}")
    cache: dict[tuple[str, str], list[float]] = {}

    def counts(model: str, question: str) -> list[float]:
        """Tokens, headers, list items and bold runs of an answer."""
        key = (model, question)
        if key not in cache:
            if key not in records:
                raise DataError(f"answers: {model!r} has none to {question}; style control needs it (--answers)")
            found = _metadata(records[key])
            text = None if found else answer_text(records[key])
            if found is None and text is None:
                raise DataError(f"answers: {model!r}, question {question}: neither text nor style metadata")
            found = found or style_metadata(text, count_tokens or token_counter(version))
            cache[key] = [float(v if isinstance(v := found[name], int | float) else sum(v.values())) for name in STYLE]
        return cache[key]

    result = np.zeros((*pool.battles.shape, len(STYLE)))
    for m, q in zip(*np.nonzero(pool.battles)):
        own, other = counts(pool.models[m], pool.questions[q]), counts(pool.baselines[m], pool.questions[q])
        result[m, q] = _style_difference(np.array(own), np.array(other), version)
    return result[..., [STYLE.index(name) for name in features]]


def _style_difference(own: Floats, other: Floats, version: str) -> Floats:
    """Relative difference of two answers' counts, (4,) each, in [-1, 1]."""
    if version == "v0.1-2024":
        return (own - other) / (own + other + 1)
    tokens = (own[0] - other[0]) / max(own[0] + other[0], 1.0)  # 0 where both are empty; upstream stops there
    own, other = own[1:] / (own[0] + 1), other[1:] / (other[0] + 1)
    return np.concatenate([[tokens], (own - other) / (own + other + 1)])


def _standardise(
    raw: Floats, battles: Floats, version: str, features: Sequence[str]
) -> tuple[Floats, list[str], list[str]]:
    """Z-scores over all battles of the pool: (M, Q, kept features), the kept names, the names without any variation."""
    weight = battles[..., None]
    total = max(battles.sum(), 1.0)
    centred = raw - (weight * raw).sum(axis=(0, 1)) / total
    ddof = 0 if version == "v0.1-2024" else 1
    spread = np.sqrt((weight * centred**2).sum(axis=(0, 1)) / max(total - ddof, 1))
    varies = spread > 1e-12
    kept = [name for name, keep in zip(features, varies) if keep]
    return centred[..., varies] / spread[varies], kept, [name for name in features if name not in kept]


def _style_controlled(
    pool: _Pool, standardised: Floats, version: str, counts: NDArray[np.int64], notes: list[str]
) -> tuple[list[dict[str, Any]], list[float]]:
    """Every model's style-controlled score with its interval over questions, and the style coefficients."""
    n_models = len(pool.models)
    penalty = _penalty(pool.baselines, standardised.shape[-1], version)
    estimate, converged = _fit(standardised, pool.wins[:, None], pool.battles[:, None], penalty)
    resampled = []
    for part in np.array_split(counts, max(1, len(counts) * pool.battles.size // 2_000_000)):  # some 16 MB an array
        fits, ok = _fit(standardised, pool.wins[:, None] * part, pool.battles[:, None] * part, penalty, estimate)
        resampled.append(fits)
        converged &= ok
    if not converged:
        notes.append("a style-controlled fit did not converge; its scores are not to be trusted")
    converged_scores = 100 * expit(estimate[0, :n_models])
    points = _sklearn_ratings(pool, standardised, pool.outcomes) if version == "v0.1-2024" else converged_scores
    replicates = 100 * expit(np.concatenate(resampled)[:, :n_models])
    scores = []
    for m in range(n_models):
        played = pool.battles[m].any()
        low, high = percentile_interval(replicates[:, m]) if played else (None, None)
        scores.append(
            {
                "style_controlled_score": float(points[m]) if played else None,
                "style_controlled_converged": float(converged_scores[m]) if played else None,
                "style_controlled_ci_low": low,
                "style_controlled_ci_high": high,
                "style_controlled_stderr": float(replicates[:, m].std(ddof=1)) if played else None,
            }
        )
        if played and pool.wins[m].sum() in (0, pool.battles[m].sum()):
            notes.append(f"{pool.models[m]} won or lost every battle: its style-controlled score is at the bound")
    return scores, estimate[0, n_models:].tolist()


def _penalty(baselines: Sequence[str], n_features: int, version: str) -> Floats:
    """Matrix P of the penalty theta' P theta / 2, where theta holds the models' log-odds against their baselines,
    then style.

    2025 is not regularised; 1e-6 only keeps a model that won every battle finite. 2024 fits twice the battles with an
    L2 penalty of 1/2 on every rating, the baseline's too, in units of ln 10; with the baseline's best rating put in,
    the ratings' differences are penalised by identity minus 1 / (models + 1) within the models of a baseline.
    """
    n_models = len(baselines)
    if version == "v2.0-2025":
        return 1e-6 * np.eye(n_models + n_features)
    same = np.array([[a == b for b in baselines] for a in baselines], dtype=float)
    result = np.eye(n_models + n_features)
    result[:n_models, :n_models] -= same / (same.sum(axis=1, keepdims=True) + 1)
    result[:n_models, :n_models] /= np.log(10) ** 2
    return result / 2


def _fit(
    features: Floats, wins: Floats, battles: Floats, penalty: Floats, start: Floats | None = None
) -> tuple[Floats, bool]:
    """Penalised logistic fits of all resamples at once, by Newton's method to convergence.

    Args:
        features: (M, Q, k) standardised style differences.
        wins: (M, resamples, Q) battles won.
        battles: (M, resamples, Q) battles fought.
        penalty: (M + k, M + k), see `_penalty`.
        start: (1, M + k) where to start; zeros if None.

    Returns:
        (resamples, M + k) log-odds of the models against their baselines at equal style, then style coefficients; and
        whether all fits converged.
    """
    n_models, _, k = features.shape
    theta = np.zeros((wins.shape[1], n_models + k)) + (0.0 if start is None else start)
    by_question = features.transpose(0, 2, 1)
    products = (features[..., :, None] * features[..., None, :]).reshape(*features.shape[:2], k * k)
    diagonal = np.arange(n_models)
    for _ in range(100):
        won = expit(theta[:, :n_models].T[..., None] + theta[:, n_models:] @ by_question)
        residual, information = wins - battles * won, battles * won * (1 - won)
        gradient = np.concatenate([residual.sum(axis=2).T, (residual @ features).sum(axis=0)], axis=1) - theta @ penalty
        hessian = np.repeat(penalty[None], len(theta), axis=0)
        hessian[:, diagonal, diagonal] += information.sum(axis=2).T
        cross = (information @ features).transpose(1, 0, 2)
        hessian[:, :n_models, n_models:] += cross
        hessian[:, n_models:, :n_models] += cross.transpose(0, 2, 1)
        hessian[:, n_models:, n_models:] += (information @ products).sum(axis=0).reshape(len(theta), k, k)
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        theta += np.clip(step, -4, 4)  # a full step from far away can overshoot
        if np.abs(step).max() < 1e-8:
            return theta, True
    return theta, False


def _official(pool: _Pool, standardised: Floats | None, version: str, seed: int) -> list[dict[str, Any]]:
    """Upstream's own numbers for every model: 100 resamples of *battles*, and in 2025 fits that stop early.

    2024: score of the data, 2.5 and 97.5 percentiles. 2025: mean (style: median) of the resamples, 5 and 95
    percentiles. Upstream sets no seed, so its numbers scatter around these.
    """
    rng = np.random.default_rng(seed)
    is_2024 = version == "v0.1-2024"
    levels = [0.025, 0.975] if is_2024 else [0.05, 0.95]
    total = max(pool.outcomes.sum(), 1)
    drawn = rng.multinomial(pool.outcomes.sum(), pool.outcomes.ravel() / total, size=N_BOOTSTRAP_OFFICIAL)
    drawn = drawn.reshape(-1, *pool.outcomes.shape)  # (resamples, M, Q, 3)
    result = []
    for m in range(len(pool.models)):
        own = pool.outcomes[m].sum(axis=0)
        if not own.any():
            result.append(dict.fromkeys(("score", "ci_low", "ci_high")))
            continue
        # 2025 resamples within each model, 2024 the whole pool
        counts = drawn[:, m].sum(axis=1) if is_2024 else rng.multinomial(own.sum(), own / own.sum(), len(drawn))
        counts = counts[counts.any(axis=1)]
        means = 100 * (counts @ _OUTCOMES) / counts.sum(axis=1)
        low, high = np.quantile(means, levels)
        score = 100 * (own @ _OUTCOMES) / own.sum() if is_2024 else means.mean()
        result.append({"score": float(score), "ci_low": float(low), "ci_high": float(high)})
    if standardised is not None:
        fit = _sklearn_ratings if is_2024 else _unconverged_ratings
        single = fit(pool, standardised, pool.outcomes)
        replicates = np.array([fit(pool, standardised, counts) for counts in drawn])
        low, high = np.quantile(replicates, levels, axis=0)
        scores = single if is_2024 else np.median(replicates, axis=0)
        styled = {"score": scores, "ci_low": low, "ci_high": high, "single_fit": single}
        for m, model in enumerate(result):
            played = model["score"] is not None
            model |= {f"style_controlled_{key}": float(values[m]) if played else None for key, values in styled.items()}
    return result


def _sklearn_ratings(pool: _Pool, standardised: Floats, outcomes: NDArray[np.int64]) -> Floats:
    """(M,) style-controlled scores in percent as upstream's 2024 optimiser leaves them, for these battles, (M, Q, 3).

    Upstream calls scikit-learn 1.4's LogisticRegression(fit_intercept=False) on every battle twice, in units of ln
    10: L-BFGS on the mean loss until no gradient exceeds 1e-4. Ratings of models and baselines start at zero and are
        all penalised.
    """
    from scipy.optimize import minimize

    n_models, scale = len(pool.models), np.log(10)
    names = sorted(set(pool.baselines))
    opponent = n_models + np.array([names.index(name) for name in pool.baselines])
    first_style = n_models + len(names)
    wins, battles = 2 * (outcomes @ _OUTCOMES), 2 * outcomes.sum(axis=-1)
    total = max(battles.sum(), 1.0)

    def loss_and_gradient(theta: Floats) -> tuple[float, Floats]:
        logits = scale * (theta[:n_models] - theta[opponent])[:, None] + standardised @ theta[first_style:]
        residual = battles * expit(logits) - wins
        gradient = theta.copy()
        gradient[:n_models] += scale * residual.sum(axis=1)
        np.subtract.at(gradient, opponent, scale * residual.sum(axis=1))
        gradient[first_style:] += np.tensordot(residual, standardised, axes=2)
        loss = (battles * np.logaddexp(0, logits) - wins * logits).sum() + theta @ theta / 2
        return float(loss / total), gradient / total

    options = {"maxiter": 100, "maxls": 50, "gtol": 1e-4, "ftol": 64 * np.finfo(float).eps}
    start = np.zeros(first_style + standardised.shape[-1])
    theta = minimize(loss_and_gradient, start, method="L-BFGS-B", jac=True, options=options).x
    return 100 * expit(scale * (theta[:n_models] - theta[opponent]))


def _unconverged_ratings(pool: _Pool, standardised: Floats, outcomes: NDArray[np.int64]) -> Floats:
    """(M,) style-controlled scores in percent as upstream's 2025 optimiser leaves them, for these battles, (M, Q, 3).

    Upstream runs torch's L-BFGS without line search: models, baseline and style start at 0.5; 50 steps of a tenth of
    the proposed length. It does so in single precision, where the order of the battles moves a score by 0.03.
    """
    n_models = len(pool.models)
    wins, battles = outcomes @ _OUTCOMES, outcomes.sum(axis=-1)

    def loss_and_gradient(theta: Floats) -> tuple[float, Floats]:
        logits = (theta[:n_models] - theta[n_models])[:, None] + standardised @ theta[n_models + 1 :]
        residual = battles * expit(logits) - wins
        ratings = residual.sum(axis=1)
        style = np.tensordot(residual, standardised, axes=2)
        loss = (battles * np.logaddexp(0, logits) - wins * logits).sum()
        return float(loss), np.concatenate([ratings, [-ratings.sum()], style])

    theta = _lbfgs(loss_and_gradient, np.full(n_models + 1 + standardised.shape[-1], 0.5))
    return 100 * expit(theta[:n_models] - theta[n_models])


def _lbfgs(
    loss_and_gradient: Callable[[Floats], tuple[float, Floats]],
    theta: Floats,
    rate: float = 0.1,
    steps: int = 50,
    tolerance: float = 1e-9,
) -> Floats:
    """The iterates of `torch.optim.LBFGS` without line search, so that torch need not be imported.

    Source: Nocedal & Wright, Numerical Optimization (2006), algorithm 7.4, with torch's stopping rules.
    """
    loss, gradient = loss_and_gradient(theta)
    direction, length = -gradient, rate / max(1.0, np.abs(gradient).sum())
    pairs, scale = [], 1.0
    for number in range(1, steps + 1):
        if gradient @ direction > -tolerance:
            break
        moved = length * direction
        theta = theta + moved
        if number == steps:
            break
        previous_loss, previous_gradient = loss, gradient
        loss, gradient = loss_and_gradient(theta)
        if np.abs(gradient).max() <= tolerance or np.abs(moved).max() <= tolerance:
            break
        if abs(loss - previous_loss) < tolerance:
            break
        change = gradient - previous_gradient
        if change @ moved > 1e-10:
            pairs.append((change, moved))
            scale = (change @ moved) / (change @ change)
        direction, length = _two_loops(gradient, pairs, scale), rate
    return theta


def _two_loops(gradient: Floats, pairs: Sequence[tuple[Floats, Floats]], scale: float) -> Floats:
    """Minus the inverse Hessian's approximation times the gradient, from (gradient change, step) pairs."""
    direction, factors = -gradient, []
    for change, moved in reversed(pairs):
        factors.append((moved @ direction) / (change @ moved))
        direction = direction - factors[-1] * change
    direction = direction * scale
    for (change, moved), factor in zip(pairs, reversed(factors)):
        direction = direction + moved * (factor - (change @ direction) / (change @ moved))
    return direction


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; prints one JSON object. Returns the exit status: 0, or 2 where the input is wrong."""
    parser = argparse.ArgumentParser(prog="python -m eval.arenahard", description=__doc__.split("\n")[0])
    command = parser.add_subparsers(dest="command", required=True).add_parser("score", help="score judgments")
    command.add_argument("--judgments", nargs="+", required=True, help="judgment files, together the pool")
    command.add_argument("--answers", nargs="+", default=[], help="answer files, of the baseline too")
    command.add_argument("--baseline", required=True, help="name of the baseline in the files")
    command.add_argument("--version", required=True, choices=VERSIONS)
    command.add_argument("--style-control", action="store_true", help="also fit style-controlled scores")
    command.add_argument("--features", nargs="+", default=STYLE, choices=STYLE, help="style features to control for")
    command.add_argument("--tokens", choices=("tiktoken", "words"), default="tiktoken", help="without metadata")
    command.add_argument("--category", help="keep this category only")
    command.add_argument("--judge", help="keep this judge only")
    command.add_argument("--official-quirks", action="store_true", help="add upstream's own numbers")
    command.add_argument("--seed", type=int, default=0, help="of the bootstraps")
    command.add_argument("--out", help="also write the JSON object to this file")
    args = parser.parse_args(arguments)
    return print_score(
        lambda: score(
            [row for path in args.judgments for row in read_records(path)],
            [row for path in args.answers for row in read_records(path)],
            args.baseline,
            args.version,
            args.style_control,
            category=args.category,
            judge=args.judge,
            features=args.features,
            count_tokens=count_words if args.tokens == "words" else None,
            official_quirks=args.official_quirks,
            seed=args.seed,
        ),
        args.out,
    )
