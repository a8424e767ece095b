"""Arena-Hard's answer records: the text, and upstream's counts of its style, in the formats of 2024 and of 2025."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from eval.arenahard.verdicts import labels
from eval.questions import answer_id
from eval.records import require_count, shown, turns_of
from metaapo.data import DataError

Record = Mapping[str, Any]
STYLE = ("token_len", "header_count", "list_count", "bold_count")

# tiktoken's encodings of the two versions, and the names under which its cache stores them (SHA-1 of their addresses)
_ENCODINGS = {
    "v0.1-2024": ("cl100k_base", "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"),
    "v2.0-2025": ("o200k_base", "fb374d419588a4632f3f557e76b4b70aebbca790"),
}


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
    """Number of words separated by white space: the token count for worlds whose tokenizer is a word list."""
    return len(text.split())


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
    """The token count of this version (tiktoken cl100k_base in 2024, o200k_base in 2025), without network access.

    Raises:
        DataError: the encoding is not in the folder TIKTOKEN_CACHE_DIR.
    """
    labels(version)
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
    """The text of an answer record of either version; None if the file has metadata only."""
    content = _content(answer, "answers")
    return content if isinstance(content, str | None) else content.get("answer", content.get("content"))


def _content(answer: Record, where: str) -> Any:
    if "messages" in answer:
        messages = answer["messages"]
        last = messages[-1] if isinstance(messages, list) and messages else None
        if not isinstance(last, dict) or "content" not in last:
            raise DataError(f"{where}: messages is {shown(messages)}; expected a list with {{role, content}}")
        return last["content"]
    return turns_of(answer, where)[0] if "choices" in answer else None


def check_answer(answer: Record, where: str) -> None:
    """Check an answer record of either version: a text, style counts, or both.

    Raises:
        DataError: it is neither.
    """
    content = _content(answer, where)
    text = content.get("answer", content.get("content", False)) if isinstance(content, dict) else content
    if not isinstance(text, str | None):
        raise DataError(f"{where}: the answer is {shown(content)}; expected a text, or {{answer: text}}")
    metadata = answer.get("metadata") or answer.get("conv_metadata")
    if metadata is None:
        return
    for name in STYLE:
        value = metadata.get(name) if isinstance(metadata, dict) else None
        several = isinstance(value, dict) and name != "token_len"
        for count in value.values() if several else [value]:
            require_count(count, f"metadata: {name}", where)
