"""Use stored judgments as a judge: upstream's files by any judge, matched by question and model.

This keeps a retired judge usable for the answers that it saw. A question without a stored judgment counts as failed; a
file without any match is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.judges import Comparison, Conversation, Judgment
from eval.judges.config import JudgeConfig
from eval.records import is_number, shown
from metaapo.data import DataError, read_json, read_records, sha256_file
from metaapo.experiment import Experiment

MISSING = "no stored judgment"
UNPARSED = -1  # what FastChat stores if a judge gave no grade


def open_judge(name: str, config: JudgeConfig, experiment: Experiment, world: int, quote: bool) -> ReplayJudge:
    """The judge of a catalogue's entry."""
    return ReplayJudge(name, config.path)


class ReplayJudge:
    """Looks judgments up in alpaca_eval's, arena-hard-auto's and FastChat's files (JSON or JSONL, plain or .gz)."""

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self._path = path

    def _root(self, benchmark: str) -> Path:
        return Path(self._path.replace("{benchmark}", benchmark))

    def _records(self, benchmark: str) -> list[dict[str, Any]]:
        root = self._root(benchmark)
        records = [record for file in _files(root) for record in _judgments(file)]
        if not records:
            raise DataError(f"{root}: no judgments found; expected files as written by alpaca_eval or FastChat")
        return records

    def depends_on(self, benchmark: str) -> dict[str, str]:
        """Checksums of the stored judgments."""
        return {str(file): sha256_file(file) for file in _files(self._root(benchmark))}

    def prefer(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        """AlpacaEval's annotations, by instruction and models; the outputs, if stored, must be the same."""
        records = self._records(comparisons[0].benchmark) if comparisons else []
        names = ("instruction", "generator_1", "generator_2")
        stored = _by_key([(tuple(row.get(name) for name in names), row) for row in records], "preference")
        found = [stored.get((comparison.prompt[-1]["content"], *comparison.models)) for comparison in comparisons]
        self._check(found)
        for comparison, row in zip(comparisons, found):
            if row and (row.get("output_1", comparison.first), row.get("output_2", comparison.second)) != (
                comparison.first,
                comparison.second,
            ):
                raise DataError(
                    f"judge {self.name}: it judged different answers of {comparison.models[1]}, for example to "
                    f"{comparison.prompt[-1]['content'][:60]!r}; replay requires the same answers"
                )
        return [_judgment(row, "preference", "preference_raw_completion") for row in found]

    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        """Arena-Hard's games, by question and both models."""
        rows = []
        for row in self._records(comparisons[0].benchmark) if comparisons else []:
            question, model, games = str(row.get("uid", row.get("question_id"))), row.get("model"), row["games"]
            if not isinstance(games, list):
                raise DataError(f"judge {self.name}: games is {shown(games)}; expected a list of two")
            keys = ((question, None, model), (question, model, None))
            rows += [(key, (game, row.get("baseline"))) for key, game in zip(keys, [*games, None, None])]
        stored = _by_key(rows)
        found = []
        for comparison in comparisons:
            first, second = comparison.models
            # One side is the baseline, which 2024 files do not name.
            game, baseline = stored.get((comparison.question, None, second)) or (None, None)
            if game is None or baseline not in (None, first):
                game, baseline = stored.get((comparison.question, first, None)) or (None, None)
                game = game if baseline in (None, second) else None
            found.append(game)
        self._check(found)
        return [_judgment(game, "score", "judgment", numeric=False) for game in found]

    def grade(self, conversations: Sequence[Conversation]) -> list[Judgment]:
        """FastChat's single-answer judgments, by question, model and turn."""
        records = self._records(conversations[0].benchmark) if conversations else []
        keys = [(str(row.get("question_id")), row.get("model"), row.get("turn")) for row in records]
        stored = _by_key(list(zip(keys, records)), "score")
        found = [stored.get((c.question, c.model, len(c.messages) // 2)) for c in conversations]
        self._check(found)
        return [_judgment(row, "score", "judgment", UNPARSED) for row in found]

    def _check(self, found: Sequence[Any]) -> None:
        if found and not any(found):
            raise DataError(f"judge {self.name}: {self._path} has no judgment of these models; check models and path")


def _files(root: Path) -> list[Path]:
    return [root] if root.is_file() else sorted(root.rglob("*.json*"))


def _judgments(file: Path) -> list[dict[str, Any]]:
    """The judgments in a file; empty for manifests, which are in the same folder."""
    if file.suffix == ".json" and isinstance(document := read_json(file), dict) and "judgments" in document:
        return []
    return [row for row in read_records(file) if {"preference", "games", "score"} & row.keys()]


def _by_key(rows: Sequence[tuple[tuple[Any, ...], Any]], value: str | None = None) -> dict[tuple[Any, ...], Any]:
    """Index judgments by question and models.

    Raises:
        DataError: two of them contradict each other.
    """
    found: dict[tuple[Any, ...], Any] = {}
    for key, row in rows:
        try:
            other = found.setdefault(key, row)
        except TypeError:
            raise DataError(f"stored judgments: {shown(key)} contains a list or mapping; expected texts") from None
        if other is not row and (other if value is None else other[value]) != (row if value is None else row[value]):
            raise DataError(f"stored judgments: two of {shown(key)} contradict each other; remove one")
    return found


def _judgment(row: Any, value: str, text: str, unparsed: Any = None, numeric: bool = True) -> Judgment:
    if row is None:
        return Judgment(None, MISSING)
    if not isinstance(row, dict) or value not in row:
        raise DataError(f"stored judgments: {shown(row)} has no {value}; expected files as written by upstream's tools")
    found = row[value]
    if found is not None and not (is_number(found) if numeric else isinstance(found, str)):
        expected = "a number" if numeric else "a text"
        raise DataError(f"stored judgments: {value} is {shown(found)}; expected {expected} or null")
    if found == unparsed or found != found:  # NaN is what pandas writes for null
        found = None
    prompt = row.get("user_prompt") or row.get("prompt") or ""
    details = {"template": row["judge"][1]} if isinstance(row.get("judge"), list) and len(row["judge"]) > 1 else {}
    return Judgment(found, str(row.get(text) or ""), str(prompt), details)
