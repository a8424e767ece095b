"""Ask an OpenAI-compatible endpoint many questions side by side, surviving its faults, never asking twice.

What is worth another try (429, 5xx, timeouts, cut connections, answers that are no JSON) is tried again after a wait
that doubles, with jitter, or after the time that the endpoint names (Retry-After). What is not (a wrong key, an unknown
model) ends the run at once. A request that the endpoint refuses for itself (400: too long, filtered) is reported as
refused and never stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import os
import random
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt
from tqdm import tqdm

from eval.judges.config import JudgeConfig
from eval.judges.store import Cost, Store, key_of
from metaapo.data import DataError

Body = Mapping[str, Any]
CHARACTERS_PER_TOKEN = 4  # of English text in current tokenizers, for estimates only
TOKENS_PER_MESSAGE = 8  # role and separators, an upper bound for known chat templates
LONGEST_WAIT = 60.0  # seconds between two tries
LONGEST_RETRY_AFTER = 3600.0  # seconds; an endpoint that asks for more is a matter for a person
REFUSALS_ALLOWED = (
    0.05  # share of refused requests beyond which the endpoint or the settings are wrong, not the request
)


class JudgeError(DataError):
    """A judge could not be asked; the message says why and what to do. Everything answered so far is stored."""


@dataclass(frozen=True)
class Answer:
    """What the endpoint said: `choice` as in the API, or the reason of a refusal."""

    choice: dict[str, Any] | None
    refusal: str = ""

    @property
    def text(self) -> str:
        """The judge's words, empty if refused."""
        content = self.choice["message"]["content"] if self.choice else None
        return (content or "").encode(errors="replace").decode()  # lone surrogates cannot be written to a file


class _Retry(Exception):
    """A fault that another try may cure."""

    def __init__(self, outcome: str, retry_after: float | None = None, may_have_cost: bool = False) -> None:
        super().__init__(outcome)
        self.outcome = outcome
        self.retry_after = retry_after
        self.may_have_cost = may_have_cost


class _Refused(Exception):
    """The endpoint will not answer this request, now or later."""


@dataclass
class Quote:
    """What asking would take: `dollars` by estimated tokens, `most_dollars` if every answer used all its tokens."""

    calls: int = 0
    stored: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    dollars: float = 0.0
    most_dollars: float = 0.0
    seen: set[str] = field(default_factory=set, repr=False)


class Client:
    """An endpoint, the store of its answers, and the money that may be spent on it."""

    def __init__(self, config: JudgeConfig, store: Store, quote: bool = False) -> None:
        self.config = config
        self.store = store
        self.quote = Quote() if quote else None
        self._key = os.environ.get(config.api_key_env, "")
        self.spent = 0.0  # dollars, by answers
        self._committed = 0.0  # dollars spent, or possibly spent by requests under way

    def ask(self, bodies: Sequence[Body]) -> list[Answer]:
        """The endpoint's answers, from the store where they are there.

        Args:
            bodies: JSON bodies of chat completions; equal ones are asked once.

        Raises:
            JudgeError: wrong key or model, the cap is reached, or requests stayed unanswered; all answers are stored.
        """
        sample = {"sample": self.config.sample} if self.config.sample else {}
        keys = [key_of({**body, **sample}) for body in bodies]
        if self.quote is not None:
            self._note_quote(dict(zip(keys, bodies)), self.quote)
            return [Answer(None, "not asked: a quote") for _ in keys]
        answers = {key: Answer(choice) for key, choice in self.store.read(list(dict.fromkeys(keys))).items()}
        missing = {key: body for key, body in zip(keys, bodies) if key not in answers}
        if missing:
            with self.store.exclusive():  # the process before us may have asked the same
                found = {key: Answer(choice) for key, choice in self.store.read(list(missing)).items()}
                answers |= found
                missing = {key: body for key, body in missing.items() if key not in found}
                answers |= asyncio.run(self._ask_missing(missing, stored=len(answers)))
        return [answers[key] for key in keys]

    # -- money ------------------------------------------------------------------------------------------------------

    def _dollars(self, prompt_tokens: float, completion_tokens: float) -> float:
        price = self.config.price
        return (prompt_tokens * price.input + completion_tokens * price.output) / 1e6

    def _most_dollars(self, body: Body) -> float:
        """An upper bound of a request's price: a token has a byte at least, an answer max_tokens at most."""
        prompt = sum(len(m["content"].encode()) + TOKENS_PER_MESSAGE for m in body["messages"])
        return self._dollars(prompt, body["max_tokens"])

    def _note_quote(self, asked: Mapping[str, Body], quote: Quote) -> None:
        new = {key: body for key, body in asked.items() if key not in quote.seen}
        quote.seen |= new.keys()
        stored = self.store.read(list(new))
        quote.stored += len(stored)
        for key, body in new.items():
            if key not in stored:
                prompt = sum(len(m["content"]) // CHARACTERS_PER_TOKEN + TOKENS_PER_MESSAGE for m in body["messages"])
                # Judges that explain themselves write a few hundred tokens, whatever they are allowed.
                completion = min(body["max_tokens"], 500)
                quote.calls += 1
                quote.prompt_tokens += prompt
                quote.completion_tokens += completion
                quote.dollars += self._dollars(prompt, completion)
                quote.most_dollars += self._most_dollars(body)

    def _commit(self, body: Body) -> float:
        """Set a request's price aside before it is sent.

        Raises:
            JudgeError: it could cross the cap.
        """
        most = self._most_dollars(body)
        cap = self.config.max_dollars
        if cap is not None and self._committed + most > cap:
            raise JudgeError(
                f"judge {self.config.model}: the next request could cross the cap of ${cap:.2f} (max_dollars; "
                f"${self._committed:.4f} is spent or under way); raise the cap and run again: answers are kept"
            )
        self._committed += most
        return most

    # -- asking -----------------------------------------------------------------------------------------------------

    async def _ask_missing(self, missing: Mapping[str, Body], stored: int) -> dict[str, Answer]:
        ledger = self.store.ledger()
        self.spent, self._committed = ledger["dollars"], ledger["dollars"] + ledger["unsure_dollars"]
        self._stop = asyncio.Event()
        queue = deque(missing.items())
        answers: dict[str, Answer] = {}
        lost: list[str] = []
        every = 0.5 if sys.stderr.isatty() else 30.0  # a log file needs no animation
        bar = tqdm(total=stored + len(missing), initial=stored, desc=f"asking {self.config.model}", mininterval=every)

        async def work(http: httpx.AsyncClient) -> None:
            while queue and not self._stop.is_set():
                key, body = queue.popleft()
                try:
                    answers[key] = await self._ask_one(http, key, body)
                except _Retry as error:
                    lost.append(error.outcome)
                    self._check_alive(answers, lost)
                except _Refused as error:
                    answers[key] = Answer(None, str(error))
                    self._check_refusals(answers, len(missing))
                bar.set_postfix_str(f"${self.spent:.4f}", refresh=False)
                bar.update()

        limits = httpx.Limits(max_connections=self.config.concurrency)
        async with httpx.AsyncClient(limits=limits) as http:
            workers = [asyncio.create_task(work(http)) for _ in range(min(self.config.concurrency, len(missing)))]
            try:
                await asyncio.gather(*workers)
            finally:
                # After an error nothing new is sent; what is under way is waited for: it may be answered and billed.
                self._stop.set()
                await asyncio.gather(*workers, return_exceptions=True)
                bar.close()
        if lost:
            raise JudgeError(
                f"judge {self.config.model}: {len(lost)} of {len(missing)} requests got no answer in "
                f"{self.config.attempts} tries each (the last fault: {lost[-1]}); run again: what is answered is kept"
            )
        return answers

    def _check_alive(self, answers: Mapping[str, Answer], lost: Sequence[str]) -> None:
        if not answers and len(lost) >= min(3, self.config.concurrency):
            raise JudgeError(
                f"judge {self.config.model}: {self.config.url} answers nothing ({lost[-1]}); start the server, or "
                "correct the judge's url"
            )

    def _check_refusals(self, answers: Mapping[str, Answer], asked: int) -> None:
        refused = [answer.refusal for answer in answers.values() if answer.choice is None]
        if len(refused) > max(4, REFUSALS_ALLOWED * asked) or len(refused) == asked:
            raise JudgeError(
                f"judge {self.config.model}: {len(refused)} requests were refused, the last with: {refused[-1]}; "
                "correct the judge's settings"
            )

    async def _ask_one(self, http: httpx.AsyncClient, key: str, body: Body) -> Answer:
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self.config.attempts),
            wait=self._wait,
            retry=retry_if_exception_type(_Retry),
            sleep=self._pause,
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                return await self._try(http, key, body)
        raise AssertionError("tenacity either returns or raises")

    async def _pause(self, seconds: float) -> None:
        """Wait, but no longer once the run is to stop."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    async def _try(self, http: httpx.AsyncClient, key: str, body: Body) -> Answer:
        if self._stop.is_set():
            raise _Retry("stopped")
        most = self._commit(body)
        unsure = 0.0
        try:
            document = await self._post(http, body)
        except _Retry as error:
            unsure = most if error.may_have_cost else 0.0
            self.store.note_failure(key, error.outcome, Cost(unsure_dollars=unsure))
            raise
        except _Refused:
            self.store.note_failure(key, "refused", Cost())
            raise
        else:
            cost = self._cost(body, document)
            unsure = cost.dollars
            self.spent += cost.dollars
            choice = document["choices"][0]
            self.store.add(key, body, choice, cost)
            return Answer(choice)
        finally:
            self._committed += unsure - most

    def _cost(self, body: Body, document: Mapping[str, Any]) -> Cost:
        usage = document.get("usage") or {}
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if not isinstance(prompt, int) or not isinstance(completion, int):  # an endpoint that does not count
            prompt = sum(len(m["content"]) // CHARACTERS_PER_TOKEN + TOKENS_PER_MESSAGE for m in body["messages"])
            completion = len(document["choices"][0]["message"]["content"] or "") // CHARACTERS_PER_TOKEN + 1
        return Cost(prompt, completion, self._dollars(prompt, completion))

    async def _post(self, http: httpx.AsyncClient, body: Body) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        url = self.config.url.rstrip("/") + "/chat/completions"
        try:
            async with asyncio.timeout(self.config.timeout):  # httpx's own limits each part of a request only
                response = await http.post(url, json=dict(body), headers=headers, timeout=None)
        except TimeoutError:
            raise _Retry("timeout", may_have_cost=True) from None
        except httpx.ConnectError:
            raise _Retry("no connection") from None
        except httpx.HTTPError:
            raise _Retry("connection cut", may_have_cost=True) from None
        status = response.status_code
        if status == 429 or status == 408 or status >= 500:
            raise _Retry(str(status), retry_after=_retry_after(response.headers.get("retry-after")))
        if status in (400, 413, 422):
            raise _Refused(f"{status}: {self._said(response)}")
        if status != 200:
            raise JudgeError(
                f"judge {self.config.model}: {self.config.url} answered {status} ({self._said(response)}); check the "
                f"url, the model's name and the key in {self.config.api_key_env}"
            )
        return _checked(self._without_key(response.text))

    def _said(self, response: httpx.Response) -> str:
        """The endpoint's words without the key, which some endpoints repeat."""
        return " ".join(self._without_key(response.text).split())[:300]

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text

    def _wait(self, state: RetryCallState) -> float:
        """Seconds until the next try: what the endpoint asks for and a little more, or doubling with full jitter."""
        fault = state.outcome.exception() if state.outcome else None
        if isinstance(fault, _Retry) and fault.retry_after is not None:
            if fault.retry_after > LONGEST_RETRY_AFTER:
                raise JudgeError(
                    f"judge {self.config.model}: the endpoint asks to wait {fault.retry_after:.0f} s; run again then"
                )
            return fault.retry_after + random.uniform(0, self.config.backoff)
        longest = min(LONGEST_WAIT, 2 * self.config.backoff * 2 ** (state.attempt_number - 1))
        return random.uniform(0, longest)


def _retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or a date; None where it says nothing."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _checked(text: str) -> dict[str, Any]:
    """A chat completion with a choice.

    Raises:
        _Retry: the body is no JSON, or no chat completion.
    """
    try:
        document = json.loads(text)
        content = document["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        raise _Retry("invalid answer", may_have_cost=True) from None
    if content is not None and not isinstance(content, str):
        raise _Retry("invalid answer", may_have_cost=True)
    return document
