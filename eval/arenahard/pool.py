"""The pool: all games of a set of models, over which style is controlled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.arenahard.verdicts import labels
from metaapo.data import DataError

Record = Mapping[str, Any]
Floats = NDArray[np.float64]
OUTCOMES = np.array([0.0, 0.5, 1.0])  # value of a lost, tied and won battle


@dataclass(frozen=True)
class Pool:
    """All games of a set of models, M models and Q questions.

    Attributes:
        models: names, sorted, as upstream orders them.
        baselines: the baseline of each model.
        questions: ids, in order of appearance.
        outcomes: int (M, Q, 3), battles that the model lost, tied, won.
        null_games: int (M, Q), games without a valid verdict.
        judged: bool (M, Q), whether there is any judgment.
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
        """(M, Q), battles won; a tie counts half."""
        return self.outcomes @ OUTCOMES


def question_id(row: Record) -> str:
    """The question id of a record of either version."""
    return str(row["uid"] if "uid" in row else row["question_id"])


def _verdict(game: Record | None, labels: Mapping[str, tuple[int, int, int]]) -> tuple[int, int, int] | None:
    """Battles that A (loses, ties, wins) in a game; None for a null game."""
    return labels.get(game.get("score") or "") if game else None


def pool_of(rows: Sequence[Record], baselines: Mapping[str, str], version: str) -> Pool:
    """The pool of judgments.

    Raises:
        DataError: no rows, or an unknown version.
    """
    if not rows:
        raise DataError("judgments: only the baseline itself was judged; nothing to score")
    models = tuple(sorted({row["model"] for row in rows}))
    questions = tuple(dict.fromkeys(question_id(row) for row in rows))
    at_model, at_question = {m: i for i, m in enumerate(models)}, {q: i for i, q in enumerate(questions)}
    shape = (len(models), len(questions))
    outcomes, null_games = np.zeros((*shape, 3), dtype=np.int64), np.zeros(shape, dtype=np.int64)
    judged, conflicts, complete = (np.zeros(shape, dtype=bool) for _ in range(3))
    for row in rows:
        cell = at_model[row["model"]], at_question[question_id(row)]
        games = [_verdict(game, labels(version)) for game in (*row["games"], None, None)[:2]]
        first = games[0] and games[0][::-1]  # in game 1 the baseline is A: reverse to the model's side
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
    return Pool(
        models, tuple(baselines[m] for m in models), questions, outcomes, null_games, judged, conflicts, complete
    )


def pool_notes(rows: Sequence[Record], pool: Pool) -> list[str]:
    """Caveats about the pool that a reader of the numbers must know."""
    notes = []
    cells = [(row["model"], question_id(row)) for row in rows]
    if len(set(cells)) < len(cells):
        repeats = len(cells) - len(set(cells))
        notes.append(f"{repeats} questions were judged more than once; all their games count, as upstream")
    categories = sorted({str(row["category"]) for row in rows if "category" in row})
    if len(categories) > 1:
        notes.append(f"categories pooled: {', '.join(categories)}; upstream scores each separately (--category)")
    if not pool.judged.all():
        notes.append(
            "not all models were judged on all questions; each model is scored on the questions it was judged on"
        )
    return notes
