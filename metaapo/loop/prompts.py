"""The prompts of one iteration, with their offline and online preference pairs as token ids."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from metaapo.data import DataError, Message, read_jsonl, require_keys
from metaapo.loop.ledger import LedgerRow
from metaapo.models.load import encode_prompts, encode_responses
from metaapo.models.logps import IntList


@dataclass(frozen=True)
class PreferencePair:
    """A preference pair as token ids, with the reference's log-probabilities (natural log, summed).

    Attributes:
        chosen: y_w.
        rejected: y_l.
        reference_chosen: log ref(y_w given x).
        reference_rejected: log ref(y_l given x).
        greedy: y_0, the prompt's greedy response, if the method needs it.
        reference_greedy: log ref(y_0 given x).
    """

    chosen: IntList
    rejected: IntList
    reference_chosen: float = 0.0
    reference_rejected: float = 0.0
    greedy: IntList | None = None
    reference_greedy: float = 0.0


@dataclass
class Prompt:
    """One prompt of an iteration.

    Attributes:
        id: unique in the world.
        messages: the conversation; it ends with a user turn.
        ids: the same as token ids.
        texts: the offline pair's (chosen, rejected) responses.
        offline: the offline pair as token ids.
        ledger: what the prompt has cost so far.
        online: the online pair; None before annotation, or if the prompt was not sampled or gave no pair.
        online_texts: the online pair's (chosen, rejected) responses.
        fixed_weight: offline weight that replaces the method's `weigh`; nan: none.
        reward_gap: reward of y_w minus that of y_l in the offline pair; 0 unless the method sets `rates_offline`.
    """

    id: str
    messages: list[Message]
    ids: IntList
    texts: tuple[str, str]
    offline: PreferencePair
    ledger: LedgerRow
    online: PreferencePair | None = None
    online_texts: tuple[str, str] | None = None
    fixed_weight: float = math.nan
    reward_gap: float = 0.0


def read_part(path: Path, iteration: int) -> list[dict[str, Any]]:
    """Read the offline pairs of one iteration.

    Raises:
        DataError: a record lacks a key, holds an empty response, or the iteration has no pairs.
    """
    rows = read_jsonl(path)
    for number, row in enumerate(rows, start=1):
        require_keys(row, ("id", "messages", "chosen", "rejected", "iteration"), f"{path}:{number}")
        for side in ("chosen", "rejected"):
            if not row[side].strip():
                raise DataError(f"{path}:{number}: empty {side} response; drop the pair or fill it in")
    part = [row for row in rows if row["iteration"] == iteration]
    if not part:
        raise DataError(f"{path}: no pairs for iteration {iteration}; lower `iterations` or build a larger world")
    return part


def read_prompts(path: Path, iteration: int, tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[Prompt]:
    """Read the prompts of an iteration.

    Args:
        path: the world's pairs.jsonl.
        iteration: counted from 1.
        tokenizer: the policy's.
        max_length: maximum tokens of prompt plus response (`train.max_length`).

    Raises:
        DataError: a bad record, or a pair longer than `max_length`.
    """
    part = read_part(path, iteration)
    conversations = encode_prompts(tokenizer, [row["messages"] for row in part])
    sides = [encode_responses(tokenizer, [row[side] for row in part]) for side in ("chosen", "rejected")]
    prompts = []
    for row, ids, *pair_ids in zip(part, conversations, *sides, strict=True):
        pair = PreferencePair(*pair_ids)
        longest = len(ids) + max(len(pair.chosen), len(pair.rejected))
        if longest > max_length:
            raise DataError(
                f"{path}: pair {row['id']} has {longest} tokens, train.max_length is {max_length}; "
                "raise it or drop the pair"
            )
        ledger = LedgerRow(row["id"], row.get("task", ""))
        prompts.append(Prompt(row["id"], row["messages"], ids, (row["chosen"], row["rejected"]), pair, ledger))
    return prompts
