"""A world of real data: prompts and offline pairs from UltraFeedback or any preference dataset.

Reads parquet, JSONL or JSON in the layout of HuggingFaceH4/ultrafeedback_binarized or in TRL's formats, with the
prompt given or shared by both answers, as conversations or plain strings (https://huggingface.co/docs/trl):

    >>> pair_of({"prompt": "hi", "chosen": "hello", "rejected": "no"}, "here")
    Pair(messages=[{'role': 'user', 'content': 'hi'}], chosen='hello', rejected='no')

    python -m metaapo.worlds.ultrafeedback.pairs --config config/llama3.1-8b.yaml --world 0
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaapo.assets import hub
from metaapo.command import errors_in_one_sentence, world_arguments
from metaapo.config import DatasetConfig
from metaapo.data import DataError, Message, read_records, sha256_file, write_json, write_jsonl
from metaapo.experiment import Experiment, load

SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz", ".json", ".json.gz")
ENOUGH = (
    0.95  # share of the requested pairs that must pass the length filters; all parts shrink evenly (see the manifest)
)


@dataclass(frozen=True)
class Pair:
    """A preference pair as text: the prompt's messages, ending with a user turn, and two answers."""

    messages: list[Message]
    chosen: str
    rejected: str


# --- files ---------------------------------------------------------------------------------------------------------


def data_files(source: Path, split: str, key: str) -> list[Path]:
    """The files of a split: the file itself, or those in a folder (or its data/) whose names start with the split.

    Raises:
        DataError: no such file; the message lists what is there.
    """
    if source.is_file():
        return [source]
    present = sorted(f for f in source.rglob("*") if f.name.endswith(SUFFIXES) and f.name != "asset.json")
    files = [file for file in present if file.name.startswith(split)]
    if not files:
        names = ", ".join(str(file.relative_to(source)) for file in present) or "no data file"
        raise DataError(f"{key}: {source} has no file named {split}*; found {names}; set the key split next to it")
    return files


def read_rows(files: Sequence[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield all records with their locations, such as "train.jsonl:12".

    Raises:
        DataError: a file is damaged.
    """
    for file in files:
        rows = _read_parquet(file) if file.suffix == ".parquet" else read_records(file)
        for number, row in enumerate(rows, start=1):
            yield f"{file}:{number}", row


def _read_parquet(file: Path) -> list[dict[str, Any]]:
    from pyarrow import ArrowException, parquet

    try:
        return parquet.read_table(file).to_pylist()
    except (ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{file}: not a readable parquet file ({reason}); fetch or write it again") from error


# --- one record ----------------------------------------------------------------------------------------------------


def pair_of(row: dict[str, Any], where: str) -> Pair:
    """Convert a record of any supported format to a pair.

    Raises:
        DataError: chosen or rejected is missing, the formats are mixed, or the last turns are not answers to a user.
    """
    missing = [side for side in ("chosen", "rejected") if row.get(side) is None]
    if missing:
        raise DataError(
            f"{where}: column {missing[0]!r} is missing; found {sorted(row)}; expected chosen and rejected, with "
            "prompt or a shared beginning (TRL's preference formats)"
        )
    prompt, chosen, rejected = row.get("messages") or row.get("prompt"), row["chosen"], row["rejected"]
    if "chosen" in row and isinstance(chosen, list) and not isinstance(row.get("prompt"), list):
        prompt = None  # UltraFeedback: the conversations hold the prompt, and `messages` holds the chosen one
    kinds = {type(value) for value in (prompt, chosen, rejected) if value is not None}
    if kinds == {str}:
        pair = _standard(prompt, chosen, rejected, where)
    elif kinds == {list}:
        pair = _conversational(prompt, chosen, rejected, where)
    elif isinstance(prompt, list) and isinstance(chosen, str) and isinstance(rejected, str):
        pair = Pair(_messages(prompt, where), chosen, rejected)  # our own pairs.jsonl
    else:
        found = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise DataError(f"{where}: prompt, chosen and rejected mix {found}; expected strings or lists of messages")
    if not pair.messages or pair.messages[-1]["role"] != "user":
        raise DataError(f"{where}: the prompt does not end with a user turn; expected one to answer")
    return pair


def _standard(prompt: str | None, chosen: str, rejected: str, where: str) -> Pair:
    if prompt is None:
        shared = _common_prefix(chosen, rejected)
        while shared and chosen[shared - 1] == " ":  # a space belongs to the answers, as in TRL's extract_prompt
            shared -= 1
        prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
        if not prompt.strip():
            raise DataError(f"{where}: no prompt, and chosen and rejected share no beginning; add a column prompt")
    return Pair([{"role": "user", "content": prompt.strip()}], chosen.strip(), rejected.strip())


def _conversational(prompt: list[Any] | None, chosen: list[Any], rejected: list[Any], where: str) -> Pair:
    chosen, rejected = _messages(chosen, where), _messages(rejected, where)
    if prompt is None:
        shared = _common_prefix(chosen, rejected)
        if shared == min(len(chosen), len(rejected)) > 0:  # equal answers: the last turn is no prompt
            shared -= 1
        prompt, chosen, rejected = chosen[:shared], chosen[shared:], rejected[shared:]
    for side, turns in (("chosen", chosen), ("rejected", rejected)):
        if [turn["role"] for turn in turns] != ["assistant"]:
            roles = ", ".join(turn["role"] for turn in turns) or "nothing"
            raise DataError(f"{where}: {side} adds {roles} after the shared prompt; expected one assistant turn")
    return Pair(_messages(prompt, where), chosen[0]["content"].strip(), rejected[0]["content"].strip())


def _messages(turns: list[Any], where: str) -> list[Message]:
    if any(not isinstance(turn, dict) or not {"role", "content"} <= turn.keys() for turn in turns):
        raise DataError(f"{where}: a message lacks role or content; expected {{'role': ..., 'content': ...}}")
    return [{"role": turn["role"], "content": turn["content"]} for turn in turns]


def _common_prefix(one: Sequence[Any], two: Sequence[Any]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, two)) if a != b), min(len(one), len(two)))


# --- a dataset -----------------------------------------------------------------------------------------------------


def read_pairs(
    dataset: DatasetConfig, source: Path, key: str, count_tokens: Callable[[Pair], tuple[int, int]]
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The usable pairs of a dataset, in file order.

    Args:
        dataset: split and length limits.
        source: file or folder.
        key: the dataset's key in the configuration, for error messages.
        count_tokens: counts the tokens of a pair's prompt, and of its prompt plus the longer answer.

    Returns:
        records {id, messages, chosen, rejected, task}, and counts of those read, kept and dropped for each reason.

    Raises:
        DataError: no file, a record of no known format, or no pair left.
    """
    rows, counts = [], Counter()
    for where, row in read_rows(data_files(source, dataset.split, key)):
        pair = pair_of(row, where)
        reason = _reason_to_drop(pair, dataset, count_tokens)
        counts["read"] += 1
        counts[reason] += 1
        if reason == "kept":
            record = {"messages": pair.messages, "chosen": pair.chosen, "rejected": pair.rejected}
            rows.append({"id": _id_of(row, pair), **record, "task": str(row.get("task") or row.get("source") or "")})
    if not rows:
        raise DataError(f"{key}: no usable pair in {source} ({dict(counts)}); check the split and the length limits")
    seen: Counter[str] = Counter()
    for row in rows:  # a prompt may occur in several pairs
        seen[row["id"]] += 1
        if seen[row["id"]] > 1:
            row["id"] += f"-{seen[row['id']]}"
    return rows, dict(counts)


def _reason_to_drop(pair: Pair, dataset: DatasetConfig, count_tokens: Callable[[Pair], tuple[int, int]]) -> str:
    if not pair.chosen.strip() or not pair.rejected.strip():
        return "empty_answer"
    if pair.chosen == pair.rejected:
        return "equal_answers"
    prompt, longest = count_tokens(pair)
    if prompt > dataset.max_prompt_tokens:
        return "prompt_too_long"
    return "pair_too_long" if longest > dataset.max_tokens else "kept"


def _id_of(row: dict[str, Any], pair: Pair) -> str:
    text = json.dumps(pair.messages, sort_keys=True, ensure_ascii=False)
    return str(row.get("prompt_id") or row.get("id") or hashlib.sha256(text.encode()).hexdigest()[:16])


def split_into_iterations(
    rows: Sequence[dict[str, Any]], size: int, iterations: int, order: random.Random | None, key: str
) -> list[dict[str, Any]]:
    """Disjoint parts of `size` pairs; all pairs of one prompt fall into one part.

    Args:
        rows: records of `read_pairs`.
        size: pairs per part; if up to 5 % of the pairs are missing, all parts shrink evenly.
        iterations: number of parts.
        order: shuffles the prompts; None keeps the order of the rows.
        key: the dataset's key in the configuration, for error messages.

    Returns:
        the records, part by part, with `iteration` counted from 1.

    Raises:
        DataError: too few pairs.
    """
    if len(rows) < ENOUGH * size * iterations:
        raise DataError(
            f"{key}: {len(rows)} usable pairs, {iterations} iterations of {size} need {size * iterations}; lower "
            f"world.pairs_per_iteration to {len(rows) // iterations}"
        )
    size = min(size, len(rows) // iterations)
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(json.dumps(row["messages"], sort_keys=True), []).append(row)
    prompts = list(groups.values())
    if order is not None:
        order.shuffle(prompts)
    parts: list[list[dict[str, Any]]] = [[] for _ in range(iterations)]
    for pairs in prompts:  # into the first part that has room; a group that fits nowhere is cut
        part = next((p for p in parts if len(p) + len(pairs) <= size), None)
        part = part if part is not None else next((p for p in parts if len(p) < size), None)
        if part is None:
            break
        part.extend(pairs[: size - len(part)])
    return [row | {"iteration": number} for number, part in enumerate(parts, start=1) for row in part]


def token_counter(tokenizer: Any) -> Callable[[Pair], tuple[int, int]]:
    """Return a function that counts a pair's tokens as training sees them."""
    from metaapo.models.load import encode_prompt, encode_response

    def count(pair: Pair) -> tuple[int, int]:
        prompt = len(encode_prompt(tokenizer, pair.messages))
        longest = max(len(encode_response(tokenizer, answer)) for answer in (pair.chosen, pair.rejected))
        return prompt, prompt + longest

    return count


def build(experiment: Experiment, seed: int, out_dir: Path) -> None:
    """Write a world's pairs and manifest; the SFT checkpoint, whose tokenizer counts the tokens, is next to `out_dir`.

    Args:
        experiment: what to read and how much of it.
        seed: the world's seed, which orders the prompts.
        out_dir: the folder `data/`; the manifest is written last.

    Raises:
        DataError: the dataset is missing or unusable.
    """
    from metaapo.models.load import load_tokenizer

    key, dataset = "world.dataset.path", experiment.world.dataset
    source = hub.of_dataset(key, dataset).locate(experiment.assets_dir)
    tokenizer = load_tokenizer(experiment.world_path(seed) / "sft")
    rows, counts = read_pairs(dataset, source, key, token_counter(tokenizer))
    order = random.Random(f"ultrafeedback/{seed}") if dataset.shuffle else None
    rows = split_into_iterations(rows, experiment.world.pairs_per_iteration, experiment.iterations, order, key)
    write_jsonl(out_dir / "pairs.jsonl", rows)
    sources = [{"name": f.name, "sha256": sha256_file(f)} for f in data_files(source, dataset.split, key)]
    write_json(
        out_dir / "manifest.json",
        {
            "world": experiment.world.name,
            "seed": seed,
            "dataset": {"path": dataset.path, "revision": dataset.revision, "files": sources, "pairs": counts},
            "pairs_per_iteration": len(rows) // experiment.iterations,
            "files": {"pairs.jsonl": {"sha256": sha256_file(out_dir / "pairs.jsonl"), "n": len(rows)}},
        },
    )
    print(f"world {seed}: {json.dumps(counts)}, {len(rows)} used", file=sys.stderr)


def main() -> None:
    """Command line: build the data of one world."""
    arguments = world_arguments("Write the data of a world of real preference pairs.").parse_args()
    with errors_in_one_sentence():
        experiment = load(arguments.config)
        build(experiment, arguments.world, experiment.world_path(arguments.world) / "data")


if __name__ == "__main__":
    main()
