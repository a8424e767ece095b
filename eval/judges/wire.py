"""How a request looks on its way: OpenAI-compatible, Azure-style or Anthropic-style.

| `api` | address | key | differs in |
| --- | --- | --- | --- |
| openai | url/chat/completions | Authorization: Bearer | - |
| azure | url/chat/completions?api-version=... (url ends in /openai/deployments/NAME) | api-key | - |
| anthropic | url/messages | x-api-key, anthropic-version | system prompt beside the messages; no log-probabilities |

Judges that think do so by default, or by `parameters` (`reasoning_effort`, `thinking`); `thinking_tokens` is what the
limit of an answer leaves for it.

Sources: platform.openai.com/docs/api-reference/chat; learn.microsoft.com/azure/ai-services/openai/reference;
docs.anthropic.com/en/api/messages.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import ValidationError

from eval.judges.answers import without_surrogates
from eval.judges.config import JudgeConfig
from metaapo.data import DataError, Message

Body = Mapping[str, Any]
AZURE_VERSION = "2024-10-21"
ANTHROPIC_VERSION = "2023-06-01"
LIMITS = ("max_tokens", "max_completion_tokens")
SHORTEST_ANSWER = 16  # tokens; a thinking judge needs a few to write even one letter after its thinking


def endpoint_of(config: JudgeConfig) -> str:
    """What tells an endpoint from others in the store."""
    return config.endpoint or f"{config.api} {config.url_file or config.url.rstrip('/')}"


def published(config: JudgeConfig) -> JudgeConfig:
    """The judge at the address in its `url_file`, which is read before anything is asked; without one, as it is.

    Raises:
        DataError: the file is not there after `url_wait` seconds, or holds no address.
    """
    if not config.url_file:
        return config
    path, until = Path(config.url_file), time.monotonic() + config.url_wait
    while not path.is_file() and time.monotonic() < until:
        time.sleep(min(1.0, config.url_wait))
    if not path.is_file():
        raise DataError(
            f"judge {config.model}: {path} (url_file) is not there; start the job that serves the judge and writes it "
            "(docs/scaling.md), or raise url_wait"
        )
    url = path.read_text(encoding="utf-8").strip()
    try:
        return JudgeConfig.model_validate(config.model_dump() | {"url": url, "endpoint": endpoint_of(config)})
    except ValidationError as error:
        raise DataError(f"{path}: {url[:80]!r} is no address of an endpoint; expected http://host:port/v1") from error


def url_of(config: JudgeConfig) -> str:
    """Where requests go."""
    base = config.url.rstrip("/")
    if config.api == "anthropic":
        return f"{base}/messages"
    if config.api == "azure":
        return f"{base}/chat/completions?api-version={quote(config.api_version or AZURE_VERSION)}"
    return f"{base}/chat/completions"


def headers_of(config: JudgeConfig, key: str) -> dict[str, str]:
    """The request's headers; without a key where none is set, as own servers allow."""
    headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
    if config.api == "anthropic":
        headers["anthropic-version"] = config.api_version or ANTHROPIC_VERSION
    if key:
        name = {"openai": "Authorization", "azure": "api-key", "anthropic": "x-api-key"}[config.api]
        headers[name] = f"Bearer {key}" if config.api == "openai" else key
    return headers


def body_of(config: JudgeConfig, messages: Sequence[Message], settings: Mapping[str, Any]) -> dict[str, Any]:
    """A request's JSON body.

    Args:
        config: the judge; its `parameters` override the benchmark's settings, and null removes one.
        messages: system, user and assistant turns.
        settings: the benchmark's: max_tokens, temperature and the like.
    """
    merged = {name: value for name, value in {**settings, **config.parameters}.items() if value is not None}
    limit = _limit(config, settings, merged)
    if config.thinking_tokens and "temperature" not in config.parameters:
        merged.pop("temperature", None)  # models that think answer any but the default with an error
    if not config.logprobs:
        merged = {name: value for name, value in merged.items() if name not in ("logprobs", "top_logprobs")}
    turns = [{**message, "content": without_surrogates(message["content"])} for message in messages]
    body: dict[str, Any] = {"model": config.model, "messages": turns, **merged}
    if config.api == "anthropic":
        return _anthropic(config, body, limit or config.context)
    if limit is not None:
        body[config.token_limit] = limit
    return body


def _limit(config: JudgeConfig, settings: Mapping[str, Any], merged: dict[str, Any]) -> int | None:
    """The tokens that an answer may have, thinking included; taken out of the merged settings."""
    found = [merged.pop(name, None) for name in LIMITS]
    given = [config.parameters[name] for name in LIMITS if config.parameters.get(name) is not None]
    removed = any(name in config.parameters and config.parameters[name] is None for name in LIMITS)
    if given:
        return int(given[-1])
    if removed or found == [None, None]:
        return None
    limit = next(value for value in found if value is not None)
    thinks = config.thinking_tokens > 0
    return max(int(limit), SHORTEST_ANSWER) + config.thinking_tokens if thinks else int(limit)


def _anthropic(config: JudgeConfig, body: dict[str, Any], limit: int) -> dict[str, Any]:
    system = "\n\n".join(turn["content"] for turn in body["messages"] if turn["role"] == "system")
    body = {**body, "messages": [turn for turn in body["messages"] if turn["role"] != "system"], "max_tokens": limit}
    if system:
        body["system"] = system
    return body
