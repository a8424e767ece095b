"""What a judge's endpoint says: read without trusting it, and reduced to the judge's own words."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

_SURROGATES = re.compile("[\ud800-\udfff]")
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")
_THINKING = re.compile(r"<(think|thinking|reasoning)>.*?</\1>", re.DOTALL | re.IGNORECASE)
_THINKING_ENDS = re.compile(r"^.*</(?:think|thinking|reasoning)>", re.DOTALL | re.IGNORECASE)
_THINKING_BEGINS = re.compile(r"<(?:think|thinking|reasoning)>.*$", re.DOTALL | re.IGNORECASE)
_REFUSING = ("content_filter", "refusal", "safety")  # finish reasons of several endpoints
_LONGEST_INTEGER = 100  # digits; Python converts up to 4,300 and raises beyond
SHORTEST_SECRET = 8  # characters; a shorter key, such as "EMPTY", is no secret and may be a word of the answer


class InvalidAnswer(ValueError):
    """A body that is no answer of this API; the message says what is wrong with it."""


@dataclass(frozen=True)
class Answer:
    """What the endpoint said: `choice` in the form of chat completions, or the reason of a refusal; and who said it."""

    choice: dict[str, Any] | None
    refusal: str = ""
    model: str = ""

    @cached_property
    def text(self) -> str:
        """The judge's words without its thinking; empty if it refused or said nothing."""
        return words_of(self.choice) if self.choice else ""

    @cached_property
    def is_blank(self) -> bool:
        """Whether the judge said nothing: no words, only thinking, or a call of a tool."""
        return not self.text.strip()

    @property
    def why_unreadable(self) -> str:
        """In a few words, for the error that stops a run."""
        if self.choice is None:
            return self.refusal
        message = self.choice.get("message") or {}
        if message.get("refusal"):
            return f"refused: {str(message['refusal'])[:200]!r}"
        reason = f"finish_reason {str(self.choice.get('finish_reason'))[:40]}"
        if not self.is_blank:
            return f"{self.text.strip()[-200:]!r} ({reason})"
        if message.get("tool_calls"):
            return f"a call of a tool and no words ({reason})"
        if thinking_length(self.choice):
            return f"thinking and no words ({reason}); allow more with thinking_tokens"
        return f"no words ({reason})"

    @property
    def was_refused(self) -> bool:
        """Whether the model or a filter declined to judge, in an answer of status 200."""
        if self.choice is None:
            return True
        message = self.choice.get("message") or {}
        return self.is_blank and bool(message.get("refusal") or self.choice.get("finish_reason") in _REFUSING)


def words_of(choice: Mapping[str, Any]) -> str:
    """The text of a choice: parts joined, thinking left out.

    >>> words_of({"message": {"content": "<think>Perhaps [[9]]?</think>Rating: [[4]]"}})
    'Rating: [[4]]'
    """
    message = choice.get("message")
    return without_thinking(_joined(message.get("content"))) if isinstance(message, dict) else ""


def thinking_length(choice: Mapping[str, Any]) -> int:
    """Characters of thinking that a choice shows beside the judge's words."""
    message = choice.get("message")
    if not isinstance(message, dict):
        return 0
    content = message.get("content")
    shown = [message.get("reasoning_content"), message.get("reasoning")]
    if isinstance(content, list):
        shown += [part.get("thinking") for part in content if isinstance(part, dict)]
    in_tags = len(_joined(content)) - len(words_of(choice))
    return in_tags + sum(len(text) for text in shown if isinstance(text, str))


def _joined(content: Any) -> str:
    """Content as a string or as a list of parts, of which those of text count."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = [part for part in content if isinstance(part, dict) and part.get("type", "text") in ("text", "output_text")]
    return "".join(part["text"] for part in parts if isinstance(part.get("text"), str))


def without_thinking(text: str) -> str:
    """A text without <think> blocks, complete ones, one whose opening tag the chat template holds, and one cut off."""
    if "<" not in text:
        return text
    text = _THINKING.sub("", text)
    text = _THINKING_ENDS.sub("", text)
    return _THINKING_BEGINS.sub("", text).lstrip("\n") if "<" in text else text.lstrip("\n")


def parse_body(body: bytes, key: str = "") -> Any:
    """JSON whose strings can be written again, whose numbers are finite, and in which the API key does not occur.

    Raises:
        InvalidAnswer: not JSON, or nested too deeply.
    """
    try:
        text = body.decode("utf-8", errors="replace")
        document = json.loads(text, parse_constant=lambda _: None, parse_float=_finite, parse_int=_integer)
        # Most bodies need no cleaning, which would cost more than parsing them.
        return _clean(document, key) if "\\u" in text or (len(key) >= SHORTEST_SECRET and key in text) else document
    except (ValueError, RecursionError) as error:
        raise InvalidAnswer(f"no JSON ({type(error).__name__})") from None


def _finite(digits: str) -> float | None:
    value = float(digits)
    return value if abs(value) < float("inf") else None


def _integer(digits: str) -> int | None:
    return int(digits) if len(digits) <= _LONGEST_INTEGER else None


def _clean(value: Any, key: str) -> Any:
    if isinstance(value, str):
        return without_key(without_surrogates(value), key)
    if isinstance(value, list):
        return [_clean(item, key) for item in value]
    if isinstance(value, dict):
        return {_clean(name, key): _clean(item, key) for name, item in value.items()}
    return value


def without_surrogates(text: str) -> str:
    """Text that UTF-8 can hold: lone surrogates become the replacement character, one for one."""
    return _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)


def without_key(text: str, key: str) -> str:
    """Text without the API key, which some endpoints repeat."""
    return text.replace(key, "***") if len(key) >= SHORTEST_SECRET else text


def words_of_error(body: bytes, key: str) -> str:
    """What an endpoint says in an error, on one line, at most 300 characters, without the key."""
    try:
        document = parse_body(body, key)
        error = document.get("error", document) if isinstance(document, dict) else document
        error = error[0] if isinstance(error, list) and error else error
        if isinstance(error, dict):
            parts = [str(error[name]) for name in ("message", "type", "code") if error.get(name)]
            said = parts[0] + (f" ({', '.join(dict.fromkeys(parts[1:]))})" if parts[1:] else "") if parts else ""
        else:
            said = str(error)
    except (InvalidAnswer, RecursionError):
        raw = body[:4096].decode("utf-8", errors="replace")
        said = without_key(_ESCAPED.sub(lambda match: chr(int(match[1], 16)), raw), key)
    return without_surrogates(" ".join(said.split())[:300])


@dataclass(frozen=True)
class Reply:
    """An answer as it came: the choice in the form of chat completions, the answering model's name, its own count."""

    choice: dict[str, Any]
    model: str
    usage: tuple[Any, Any]  # prompt and completion tokens as the endpoint says, not yet believed


def reply_of(document: Any, anthropic: bool = False) -> Reply:
    """The first choice of an answer.

    Raises:
        InvalidAnswer: the document is not an answer of this API.
    """
    if not isinstance(document, dict):
        raise InvalidAnswer("no JSON object")
    if document.get("error"):
        raise InvalidAnswer(f"an error: {words_of_error(json.dumps(document).encode(), '')}")
    model = document.get("model")
    usage = document.get("usage") if isinstance(document.get("usage"), dict) else {}
    name = model if isinstance(model, str) else ""
    if anthropic:
        if not isinstance(document.get("content"), list):
            raise InvalidAnswer("no content")
        message = {"role": "assistant", "content": document["content"]}
        choice = {"index": 0, "finish_reason": document.get("stop_reason"), "message": message}
        cached = [usage.get(f"cache_{kind}_input_tokens") or 0 for kind in ("read", "creation")]
        prompt = usage.get("input_tokens")
        if _is_count(prompt) and all(map(_is_count, cached)):
            prompt += sum(cached)
        return Reply(choice, name, (prompt, usage.get("output_tokens")))
    choices = document.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise InvalidAnswer("no choices")
    if not isinstance(choices[0].get("message"), dict):
        raise InvalidAnswer("no message")
    prompt, completion, total = (usage.get(f"{part}_tokens") for part in ("prompt", "completion", "total"))
    if all(map(_is_count, (prompt, completion, total))):
        completion = max(completion, total - prompt)  # some endpoints count thinking in the total only
    return Reply(choices[0], name, (prompt, completion))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
