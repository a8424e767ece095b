"""Compare a judge with MT-Bench's human votes.

Votes on pairs of answers of six models to the 80 questions, each turn on its own, with the conversations that people
saw (lmsys/mt_bench_human_judgments on the hub, CC-BY-4.0; `snakemake prefetch` fetches it where
`evaluation.trust.human_labels` names it). Experts' votes count and those of the benchmark's authors do not, as in
FastChat. The
judge grades every answer once, as MT-Bench asks for; the better
grade wins, and grades within 0.1 are a tie (FastChat's TIE_DELTA).

Agreement is that of Zheng et al. 2023 (table 5, FastChat's compute_agreement.py): over single human votes, with ties
(setup S1) and only where neither side has a tie (S2). People do not agree perfectly with each other, so their mutual
agreement is reported as well.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval.agreement import bootstrap_items, cohen_kappa, corrected_win_rate, krippendorff_alpha, order_effects
from eval.families import families_of
from eval.judges import Conversation, Judge
from eval.mtbench.judging import references
from eval.mtbench.pairwise import Pair, ask_pairs, decided
from eval.mtbench.questions import package_questions
from eval.questions import read_questions
from eval.stats import Estimate
from metaapo.assets.hub import human_labels
from metaapo.data import DataError, Message, read_records, require_keys
from metaapo.experiment import Experiment

KEYS = ("question_id", "model_a", "model_b", "winner", "judge", "turn", "conversation_a", "conversation_b")
TIE_DELTA = 0.1  # fastchat.llm_judge.common: grades this close are a tie
N_BOOTSTRAP = 500


@dataclass(frozen=True)
class Vote:
    """One person's decision between two answers.

    Attributes:
        question: the question's id.
        turn: 1 or 2.
        models: model a and model b, in alphabetical order.
        rater: id of the voter.
        share: 1 if the first model's answer is better, 0 if the second's, 0.5 for a tie.
        talks: both models' conversations up to this turn, ending with the assistant.
    """

    question: str
    turn: int
    models: tuple[str, str]
    rater: str
    share: float
    talks: tuple[tuple[Message, ...], tuple[Message, ...]]

    @property
    def item(self) -> tuple[str, int, str, str]:
        """The voted item: question, turn and both models."""
        return (self.question, self.turn, *self.models)


def read_votes(path: str | Path) -> list[Vote]:
    """Read human votes: a parquet, JSON or JSONL file in the layout of lmsys/mt_bench_human_judgments, or their folder.

    Raises:
        DataError: no such file, or a record is not a vote.
    """
    path = Path(path)
    files = [path] if path.is_file() else sorted(f for f in path.rglob("human*") if f.suffix in (".parquet", ".jsonl"))
    votes = [_vote(row, f"{file}, record {n}") for file in files for n, row in enumerate(_rows(file), start=1)]
    votes = [vote for vote in votes if not vote.rater.startswith("author")]
    if not votes:
        raise DataError(
            f"{path}: no human votes found; expected files human*.parquet of lmsys/mt_bench_human_judgments (snakemake "
            "prefetch), or one file in that layout"
        )
    return votes


def _rows(file: Path) -> list[dict[str, Any]]:
    if file.suffix != ".parquet":
        return read_records(file)
    import pyarrow.parquet as parquet

    try:
        return parquet.read_table(file).to_pylist()
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read ({error}); expected a parquet file") from error


def _vote(row: dict[str, Any], where: str) -> Vote:
    require_keys(row, KEYS, where)
    winner, turn = str(row["winner"]), row["turn"]
    if turn not in (1, 2) or not (winner in ("model_a", "model_b") or "tie" in winner):
        raise DataError(f"{where}: winner {winner!r}, turn {turn!r}; expected model_a, model_b or tie, and turn 1 or 2")
    share = {"model_a": 1.0, "model_b": 0.0}.get(winner, 0.5)
    talks = tuple(
        tuple(Message(role=m["role"], content=m["content"]) for m in row[key][: 2 * turn])
        for key in ("conversation_a", "conversation_b")
    )
    if any(len(talk) != 2 * turn for talk in talks):
        raise DataError(f"{where}: a conversation shorter than turn {turn}; expected question and answer of each turn")
    models = (str(row["model_a"]), str(row["model_b"]))
    if models[0] > models[1]:
        models, share, talks = models[::-1], 1 - share, talks[::-1]
    return Vote(str(row["question_id"]), int(turn), models, str(row["judge"]), share, (talks[0], talks[1]))


def decide(
    judge: Judge, votes: Sequence[Vote], categories: Mapping[str, str], references: Mapping[str, tuple[str, ...]]
) -> dict[tuple[str, int, str, str], float]:
    """The judge's decision on every voted item, from its grades of single answers.

    Args:
        judge: grades each answer once.
        votes: the human votes.
        categories: question -> category, which decides the prompt.
        references: reference answers by question, if its category needs them.

    Returns:
        item -> 1, 0 or 0.5; NaN if a grade could not be read.
    """
    asked: dict[tuple[str, int, str], Conversation] = {}
    for vote in votes:
        for model, talk in zip(vote.models, vote.talks):
            asked[vote.question, vote.turn, model] = Conversation(
                list(talk), categories.get(vote.question, ""), references.get(vote.question, ()), vote.question, model
            )
    grades = {
        key: np.nan if judgment.value is None else float(judgment.value)
        for key, judgment in zip(asked, judge.grade(list(asked.values())))
    }
    return {vote.item: _share(*(grades[vote.question, vote.turn, model] for model in vote.models)) for vote in votes}


def _share(one: float, other: float) -> float:
    if np.isnan(one) or np.isnan(other):
        return float("nan")
    return 0.5 if abs(one - other) <= TIE_DELTA else float(one > other)


def agreement(votes: Sequence[Vote], decisions: Mapping[tuple[str, int, str, str], float]) -> dict[str, Any]:
    """Agreement of a judge's decisions with people's votes.

    Args:
        votes: people's votes.
        decisions: the judge's decisions, item -> share, NaN if unreadable.

    Returns:
        {n_votes, n_items, n_raters, unreadable, with_ties, without_ties, people_with_ties, people_without_ties (shares
        of equal votes), kappa (against the people's majority, three categories), alpha_people, alpha_with_judge
        (Krippendorff, ordinal), right_when_first_wins, right_when_second_wins (if both decide), corrected (the win
        rate that people would give if the judge gives 60 % in 1000 comparisons, by its errors here)}; each measure
        is {value, ci_low, ci_high, n}, its interval a bootstrap over questions.
    """
    pairs = [(vote.question, decisions[vote.item], vote.share) for vote in votes]
    people = _people_pairs(votes)
    table, items, raters = _table(votes)
    of_items = np.array([item[0] for item in items])
    judged = np.array([decisions[item] for item in items])
    majority = np.array([_majority(column) for column in table.T])

    def against_majority(statistic: Any) -> dict[str, Any]:
        known = ~(np.isnan(judged) | np.isnan(majority))
        return _measured(statistic, np.stack([judged, majority])[:, known], of_items[known])

    def alpha(ratings: np.ndarray) -> dict[str, Any]:
        return _measured(lambda table: krippendorff_alpha(table, "ordinal"), ratings, of_items)

    return {
        "n_votes": len(votes),
        "n_items": len(items),
        "n_raters": len(raters),
        "unreadable": int(np.isnan(judged).sum()),
        "with_ties": _agreement(pairs),
        "without_ties": _agreement(_decided(pairs)),
        "people_with_ties": _agreement(people),
        "people_without_ties": _agreement(_decided(people)),
        "kappa": against_majority(lambda table: cohen_kappa(*table)),
        "alpha_people": alpha(table),
        "alpha_with_judge": alpha(np.concatenate([table, judged[None]])),
        "right_when_first_wins": against_majority(lambda table: _right(table, 1.0)),
        "right_when_second_wins": against_majority(lambda table: _right(table, 0.0)),
        "corrected": _corrected(judged, majority),
    }


def self_preference(
    votes: Sequence[Vote], decisions: Mapping[tuple[str, int, str, str], float], judge_model: str
) -> dict[str, Any] | None:
    """How much more often a judge prefers its own family over others than people do, as a share of votes.

    Returns:
        {families, value, ci_low, ci_high, n}, value in [-1, 1], 0 if it decides as people do; None if no vote is
        between a relative of the judge and another model.
    """
    judge_families = families_of(judge_model)
    rows, questions = [], []
    for vote in votes:
        related = [bool(judge_families & families_of(model)) for model in vote.models]
        if related[0] == related[1]:
            continue
        judged, human = decisions[vote.item], vote.share
        rows.append((judged - human) if related[0] else (human - judged))
        questions.append(vote.question)
    if not rows or np.isnan(rows).all():
        return None
    estimate = bootstrap_items(lambda table: float(np.nanmean(table)), np.array([rows]), questions, N_BOOTSTRAP)
    return {"families": sorted(judge_families), **_plain(estimate)}


# a question and two raters' shares of it
Shares = tuple[str, float, float]


def _people_pairs(votes: Sequence[Vote]) -> list[Shares]:
    """All pairs of people's votes on one item."""
    by_item: dict[Any, list[float]] = defaultdict(list)
    for vote in votes:
        by_item[vote.item].append(vote.share)
    return [(item[0], *pair) for item, shares in by_item.items() for pair in itertools.combinations(shares, 2)]


def _decided(pairs: Sequence[Shares]) -> list[Shares]:
    return [pair for pair in pairs if 0.5 not in pair[1:]]


def _agreement(pairs: Sequence[Shares]) -> dict[str, Any]:
    """The share of readable pairs that are equal."""
    known = [pair for pair in pairs if not np.isnan(pair[1:]).any()]
    equal = np.array([[one == other for _, one, other in known]], float)
    return _measured(lambda table: float(table.mean()), equal, np.array([question for question, _, _ in known]))


def _table(votes: Sequence[Vote]) -> tuple[np.ndarray, list[Any], list[str]]:
    """(raters, items) of shares, NaN if a rater did not vote; a rater's later vote on the same item counts."""
    items = list(dict.fromkeys(vote.item for vote in votes))
    raters = sorted({vote.rater for vote in votes})
    table = np.full((len(raters), len(items)), np.nan)
    columns, rows = {item: n for n, item in enumerate(items)}, {rater: n for n, rater in enumerate(raters)}
    for vote in votes:
        table[rows[vote.rater], columns[vote.item]] = vote.share
    return table, items, raters


def _majority(column: np.ndarray) -> float:
    """The most frequent vote; NaN if two are equally frequent."""
    first, *rest = Counter(column[~np.isnan(column)].tolist()).most_common(2)
    return float("nan") if rest and rest[0][1] == first[1] else first[0]


def _measured(statistic: Any, ratings: np.ndarray, clusters: np.ndarray) -> dict[str, Any]:
    return _plain(bootstrap_items(statistic, ratings, clusters, N_BOOTSTRAP))


def _right(table: np.ndarray, winner: float) -> float:
    decided = table[:, np.isin(table, (0.0, 1.0)).all(axis=0)]
    judged = decided[0, decided[1] == winner]
    return float((judged == winner).mean()) if len(judged) else float("nan")


def _corrected(judged: np.ndarray, majority: np.ndarray) -> dict[str, Any] | None:
    """Corrected win rate for 600 wins in 1000 comparisons; None if the judge is no better than chance."""
    decided = np.isin(judged, (0.0, 1.0)) & np.isin(majority, (0.0, 1.0))
    found = corrected_win_rate([1.0] * 600 + [0.0] * 400, judged[decided], majority[decided])
    return None if found is None else _plain(found)


def _plain(estimate: Estimate) -> dict[str, Any]:
    """A number of a JSON file: None for NaN."""
    values = {"value": estimate.value, "ci_low": estimate.low, "ci_high": estimate.high}
    return {k: None if np.isnan(v) else float(v) for k, v in values.items()} | {"n": estimate.n_prompts}


def check(experiment: Experiment, judge: Judge, judge_model: str) -> dict[str, Any]:
    """Compare a judge with the human votes named in the configuration.

    Returns:
        what `agreement` returns, and {source, self_preference, pairs}; `pairs` as `pairwise_agreement`, None if it
        is not asked for or the judge cannot be asked.

    Raises:
        DataError: the votes are not on this machine, or there are none.
    """
    votes = read_votes(human_labels(experiment).locate(experiment.assets_dir))
    asked = read_questions(package_questions(experiment.evaluation), "mtbench", "package").questions
    categories = {question.id: question.category for question in asked}
    right = references(experiment.evaluation)
    decisions = decide(judge, votes, categories, right)
    pairs = experiment.evaluation.trust.human_pairs and hasattr(judge, "ask_about")
    return {
        "source": experiment.evaluation.trust.human_labels,
        **agreement(votes, decisions),
        "self_preference": self_preference(votes, decisions, judge_model),
        "pairs": pairwise_agreement(judge, votes, categories, right) if pairs else None,
    }


def pairwise_agreement(
    judge: Any, votes: Sequence[Vote], categories: Mapping[str, str], references: Mapping[str, tuple[str, ...]]
) -> dict[str, Any]:
    """Agreement with human votes from MT-Bench's pairwise prompts, in both orders.

    Returns:
        {orders: `eval.agreement.order_effects`, with_ties, without_ties, kappa} as in `agreement`.
    """
    items = {vote.item: vote for vote in votes}
    pairs = [
        Pair(v.question, categories.get(v.question, ""), *v.talks, references.get(v.question, ()))
        for v in items.values()
    ]
    straight, swapped = ask_pairs(judge, pairs)
    found = agreement(votes, dict(zip(items, decided(straight, swapped).tolist())))
    kept = {key: found[key] for key in ("with_ties", "without_ties", "kappa")}
    return {"orders": order_effects(straight, swapped), **kept}
