"""Ask an endpoint many questions side by side, surviving its faults, never asking twice, never losing what was paid.

| what happens | what follows |
| --- | --- |
| 429, 5xx, timeout, cut connection, no answer of the API | another try, after a doubling wait or Retry-After |
| nothing but faults, over all requests | one request at a time, then the run stops and quotes the endpoint |
| quota gone, wrong key, unknown model | the run stops at once and quotes the endpoint |
| 400 and the like: too long, filtered | refused: no judgment; a later run asks again |
| no words: empty, thinking only, a tool call | `BLANK_TRIES` tries, then unreadable |
| words without a judgment, no log-probabilities | unreadable, as in the protocols; not asked again while few |
| too many refused or unreadable (`max_unreadable`) | the run stops and quotes the last; the next run asks them again |
| another model answers | the run stops and names both |
| the next request could cross `max_dollars` | it waits for those under way; if it still could, the run stops |
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from eval.judges.answers import Answer, InvalidAnswer, parse_body, reply_of, words_of_error
from eval.judges.breaker import LONGEST_WAIT, Breaker, Broken
from eval.judges.config import JudgeConfig
from eval.judges.money import TYPICAL_ANSWER, Body, CapReached, Prices, Purse, Size, size_of
from eval.judges.pace import Pace
from eval.judges.store import ANSWERED, NOT_SENT, Cost, Intent, Outcome, Store, Stored, Writer, key_of
from eval.judges.transport import Fault, Response, Transport, encode, retry_after
from eval.judges.wire import endpoint_of, headers_of, published, url_of
from metaapo.data import DataError

LONGEST_RETRY_AFTER = 3600.0  # seconds; an endpoint that asks for more is a matter for a person
FEW = 4  # refused or unreadable judgments that stop no run, however small it is
READY = 2  # requests ready to be sent beyond one per connection and one per eight
BLANK_TRIES = 3  # of a request; an endpoint that says nothing often says something the next time
# Codes with which endpoints say that waiting does not help.
GONE = {
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "account_deactivated",
    "invalid_api_key",
    "model_not_found",
}
Reader = Callable[[Answer], bool]


class JudgeError(DataError):
    """A judge could not be asked; the message says why and what to do. Everything answered so far is stored."""


class Refused(Exception):
    """The endpoint will not answer this request, now or later."""


class _NotSent(Exception):
    """The endpoint failed, or the run was stopped, while this request waited for a connection."""


OUTCOMES: dict[type[Exception], str] = {Refused: "refused", _NotSent: NOT_SENT}


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

    def __init__(self, config: JudgeConfig, store: Store, quote: bool = False, ask_again: bool = False) -> None:
        """Connect an endpoint and a store.

        Args:
            config: the judge's entry.
            store: its answers and ledger.
            quote: send nothing, note what would be asked.
            ask_again: ask again for every answer that cannot be read, however few they are.
        """
        self.config = config
        self.store = store
        self.ask_again = ask_again
        self.prices = Prices(config)
        self.quote = Quote() if quote else None

    def ask(self, bodies: Sequence[Body], readable: Reader | None = None, of: int = 0) -> list[Answer]:
        """The endpoint's answers, from the store where they are there.

        Args:
            bodies: JSON bodies (`wire.body_of`); equal ones are asked once.
            readable: whether an answer holds a judgment; default: whether it has words. Too many others stop the run,
                and are asked again by the next one.
            of: how many judgments these requests are a part of, where they are fewer than all; for that share.

        Returns:
            an answer for each body; one that was refused or could not be read is among them.

        Raises:
            JudgeError: wrong key or model, the cap is reached, the endpoint fails, too many answers were refused or
                cannot be read, or requests stayed unanswered. All answers are stored.
            DataError: the store cannot be read or written.
        """
        readable = readable or (lambda answer: not answer.is_blank)
        sample = {"sample": self.config.sample} if self.config.sample else {}  # asked again, stored apart
        keys = [key_of(endpoint_of(self.config), {**body, **sample}) for body in bodies]
        asked = dict(zip(keys, bodies))
        if self.quote is not None:
            self._note_quote(asked, self.quote)
            return [Answer(None, "not asked: a quote") for _ in keys]
        total = max(of, len(asked))
        answers = self._known(asked, readable, total)
        if len(answers) < len(asked):
            with self.store.exclusive(self.config.concurrency):
                answers = self._known(asked, readable, total)  # the process before us may have asked the same
                missing = {key: body for key, body in asked.items() if key not in answers}
                if missing:
                    asking = Asking(self.config, self.store, self.prices, readable, answers, total)
                    answers |= asyncio.run(asking.ask(missing))
        self._check_models(answers.values())
        return [answers[key] for key in keys]

    def _known(self, asked: Mapping[str, Body], readable: Reader, total: int) -> dict[str, Answer]:
        """Stored answers that need not be asked for again."""
        stored = self.store.read(list(asked))
        answers = {key: Answer(row.choice, model=row.model) for key, row in stored.items()}
        unreadable = {key for key, answer in answers.items() if not readable(answer)}
        again = {key for key in unreadable if _lacks_words(answers[key]) and stored[key].times < BLANK_TRIES}
        if self.ask_again or too_many(len(unreadable - again), total, self.config.max_unreadable):
            again = unreadable
        return {key: answer for key, answer in answers.items() if key not in again}

    def _check_models(self, answers: Any) -> None:
        for name in {answer.model for answer in answers if answer.choice is not None}:
            check_model(self.config, name)

    def _note_quote(self, asked: Mapping[str, Body], quote: Quote) -> None:
        new = {key: body for key, body in asked.items() if key not in quote.seen}
        quote.seen |= new.keys()
        stored = self.store.read(list(new))
        quote.stored += len(stored)
        for key, body in new.items():
            if key not in stored:
                size = size_of(body, self.config)
                completion = min(size.limit or TYPICAL_ANSWER, TYPICAL_ANSWER)
                quote.calls += 1
                quote.prompt_tokens += size.counted
                quote.completion_tokens += completion
                quote.dollars += self.prices.dollars(size.counted, completion)
                quote.most_dollars += self.prices.most(size)


def too_many(failed: int, total: int, share: float) -> bool:
    """Whether so many refused or unreadable judgments mean that something is wrong with the judge, not with them."""
    return failed > max(FEW, share * total) or (failed == total and total > 1 and share < 1)


def check_model(config: JudgeConfig, name: str) -> None:
    """Check who answered.

    Raises:
        JudgeError: another model than the one that was asked, as far as names tell.
    """
    if name and not _same_model(config.model, name) and name not in config.answers_as:
        raise JudgeError(
            f"judge {config.model}: the endpoint answers as {name[:80]!r}; if that is the model you mean, add the name "
            "to answers_as, otherwise correct the judge's model or url: its answers are kept"
        )


def _same_model(asked: str, answered: str) -> bool:
    """Equal but for the organisation, the case, and a date or "latest" at the end.

    >>> _same_model("gpt-4.1", "gpt-4.1-2025-04-14"), _same_model("gpt-4.1", "gpt-4.1-mini-2025-04-14")
    (True, False)
    """
    one, two = (name.lower().rsplit("/", 1)[-1].removesuffix("-latest") for name in (asked, answered))
    short, long = sorted((one, two), key=len)
    rest = long.removeprefix(short)
    return long.startswith(short) and not rest.strip("-.:@0123456789")


def _lacks_words(answer: Answer) -> bool:
    """Whether an answer says nothing at all, which another try may cure; a refusal is an answer."""
    if answer.choice is None or answer.was_refused:
        return False
    return answer.is_blank


def _key(config: JudgeConfig) -> str:
    """The API key of the environment, without the line end that files add; "" where none is set.

    Raises:
        JudgeError: it cannot stand in a header; the message does not repeat it.
    """
    key = os.environ.get(config.api_key_env, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise JudgeError(
            f"judge {config.model}: the key in {config.api_key_env} contains a control character or one outside ASCII; "
            "copy it again"
        )
    return key


class Asking:
    """One run of asking: its queue, its connections, its money."""

    def __init__(
        self,
        config: JudgeConfig,
        store: Store,
        prices: Prices,
        readable: Reader,
        known: Mapping[str, Answer],
        total: int,
    ) -> None:
        self.config, self.store, self.prices, self.readable = config, store, prices, readable
        self.key = _key(config)
        self._total = total
        self._unreadable = sum(not readable(answer) for answer in known.values())
        self._answers: dict[str, Answer] = {}
        self._lost: list[Fault] = []
        self._queue: deque[tuple[str, Body]] = deque()
        self._saving: set[asyncio.Future[int]] = set()

    async def ask(self, missing: Mapping[str, Body]) -> dict[str, Answer]:
        """Ask what is missing; raises as `Client.ask`."""
        self.config = published(self.config)
        ledger = self.store.ledger()
        self._stop = asyncio.Event()
        self.purse = Purse(self.config.max_dollars, ledger["dollars"] + ledger["unsure_dollars"])
        self.breaker = Breaker(2 * self.config.backoff, self.pause)
        self.pace = Pace(self.config.requests_per_minute, self.config.tokens_per_minute, self.pause)
        self.writer = Writer(self.store)
        self._url, self.headers = url_of(self.config), headers_of(self.config, self.key)
        self._queue.extend(missing.items())
        self._check_limits(missing)
        every = 0.5 if sys.stderr.isatty() else 30.0  # a log file needs no animation
        self._bar = tqdm(total=len(missing), desc=f"asking {self.config.model}", mininterval=every)
        try:
            async with Transport(self.config.concurrency, self.config.timeout) as self.transport:
                if self.config.batch:
                    from eval.judges.batch import ask_in_batches

                    await ask_in_batches(self, missing)
                else:
                    await self._ask_side_by_side()
        finally:
            await self.writer.close()
            self._bar.close()
        if self._lost:
            raise JudgeError(
                f"judge {self.config.model}: {len(self._lost)} of {len(missing)} requests got no answer in "
                f"{self.config.attempts} tries each (the last fault: {self._lost[-1]}); run again: what is answered is "
                "kept"
            )
        return self._answers

    def _check_limits(self, missing: Mapping[str, Body]) -> None:
        costs = self.config.price.output > 0 or self.config.max_dollars is not None
        if costs and any(not size_of(body, self.config).limit for body in missing.values()):
            raise JudgeError(
                f"judge {self.config.model}: nothing limits an answer, so its price is unknown; give the judge's "
                "context, or max_tokens or max_completion_tokens in its parameters"
            )

    # -- many at once -------------------------------------------------------------------------------------------------

    async def _ask_side_by_side(self) -> None:
        # A few more workers than connections: their requests are on disk, ready to be sent, when a connection is free.
        count = min(self.config.concurrency + READY + self.config.concurrency // 8, len(self._queue))
        self._connections = asyncio.Semaphore(self.config.concurrency)
        workers = [asyncio.create_task(self._work()) for _ in range(count)]
        try:
            await asyncio.gather(*workers)
        finally:
            # After an error nothing new is sent; what is under way is waited for: it may be answered and billed.
            self._stop.set()
            await self.purse.stop()
            await asyncio.gather(*workers, return_exceptions=True)
            saved = await asyncio.gather(*self._saving, return_exceptions=True)
        self._raise_if_unsaved(saved)

    async def saved(self) -> None:
        """Wait until all that came back is on disk.

        Raises:
            DataError: it could not be written.
        """
        self._raise_if_unsaved(await asyncio.gather(*self._saving, return_exceptions=True))

    @staticmethod
    def _raise_if_unsaved(saved: Sequence[int | BaseException]) -> None:
        for error in saved:
            if isinstance(error, BaseException):
                raise error

    async def _work(self) -> None:
        while self._queue and not self._stop.is_set():
            key, body = self._queue.popleft()
            try:
                self.note(key, await self._ask_one(key, body))
            except Fault as fault:
                self._lost.append(fault)
            except Refused as refusal:
                self.note_refusal(key, str(refusal))
            except Broken as broken:
                self._stop.set()
                raise JudgeError(self._broken(broken)) from None
            except CapReached:
                self._stop.set()
                raise JudgeError(self.cap_reached(size_of(body, self.config))) from None
            except DataError:
                self._stop.set()  # before any other worker continues
                raise
            self._bar.set_postfix_str(f"${self.purse.spent:.4f}", refresh=False)
            self._bar.update()

    def note_refusal(self, key: str, reason: str) -> None:
        """Take a refusal; raises as `note`."""
        self.note(key, Answer(None, reason))

    def note(self, key: str, answer: Answer) -> None:
        """Take an answer; stop where too many hold no judgment.

        Raises:
            JudgeError: too many were refused or cannot be read.
        """
        self._answers[key] = answer
        if self.readable(answer):
            return
        self._unreadable += 1
        if too_many(self._unreadable, self._total, self.config.max_unreadable):
            self._stop.set()
            raise JudgeError(
                f"judge {self.config.model}: {self._unreadable} of {self._total} judgments were refused or cannot be "
                f"read, the last one: {answer.why_unreadable}; correct the judge's settings and run again (these are "
                "asked again), or raise max_unreadable"
            )

    def _broken(self, broken: Broken) -> str:
        if broken.fault.outcome == "no connection" and not self._answers:
            return (
                f"judge {self.config.model}: {self.config.url} answers nothing ({broken.fault}); start the server, or "
                "correct the judge's url"
            )
        return (
            f"judge {self.config.model}: {self.config.url} gives no answers{' any more' if self._answers else ''} "
            f"({broken.in_a_row} faults in a row, the last one {broken.fault}); run again when that is over: what is "
            "answered is kept"
        )

    def cap_reached(self, size: Size) -> str:
        """Why nothing more is sent."""
        return (
            f"judge {self.config.model}: the next request could cross the cap of ${self.config.max_dollars:.2f} "
            f"(max_dollars; ${self.purse.spent:.4f} is spent or may be, ${self.prices.most(size):.4f} is what it can "
            "cost); raise the cap and run again: answers are kept"
        )

    async def _ask_one(self, key: str, body: Body) -> Answer:
        """One request until it is answered.

        Raises:
            Fault: it failed as often as the judge's attempts allow.
        """
        blank = faults = 0
        size, content = size_of(body, self.config), encode(body)
        while True:
            try:
                async with self.breaker.turn() as alone:
                    answer = await self._try(key, body, size, content, alone)
            except _NotSent:
                continue
            except Fault as fault:
                faults += 1
                if faults >= self.config.attempts or self._stop.is_set():
                    raise
                if not self.breaker.is_open:  # which waits by itself
                    await self.pause(self.wait(faults, fault))
                continue
            if self.readable(answer) or not _lacks_words(answer) or blank + 1 >= BLANK_TRIES:
                return answer
            blank += 1
            if too_many(self._unreadable + 1, self._total, self.config.max_unreadable):
                return answer  # the endpoint as a whole says nothing

    async def _try(self, key: str, body: Body, size: Size, content: bytes, alone: bool) -> Answer:
        if self._stop.is_set():
            raise Fault("stopped")
        most = self.prices.most(size)
        await self.pace.wait(size.tokens)
        await self.purse.reserve(most)
        if self._stop.is_set():
            await self.purse.settle(most, 0.0)
            raise Fault("stopped")
        cost = Cost(unsure_dollars=most)
        try:
            row = await self.writer.put(Intent(key, most))  # on disk before the request is on the wire
            try:
                async with self._connections:
                    if self._stop.is_set() or (self.breaker.is_open and not alone):
                        raise _NotSent
                    response = await self.transport.send("POST", self._url, self.headers, content)
                answer, cost = self.read(row, key, content.decode(), size, response)
            except Fault as fault:
                cost = Cost(unsure_dollars=most if fault.may_have_cost else 0.0)
                self.save(Outcome(row, fault.outcome, cost))
                self.breaker.failed(fault)
                raise
            except (Refused, _NotSent, JudgeError) as error:
                cost = Cost()
                self.save(Outcome(row, OUTCOMES.get(type(error), "stopped the run"), cost))
                if isinstance(error, JudgeError):
                    self._stop.set()
                raise
        finally:
            self.pace.used(size.tokens, cost.prompt_tokens + cost.completion_tokens)
            await self.purse.settle(most, cost.dollars + cost.unsure_dollars)
        check_model(self.config, answer.model)
        return answer

    def save(self, outcome: Outcome) -> None:
        """Write how a request ended, while the next one is asked."""
        saving = self.writer.put(outcome)
        self._saving.add(saving)

        def check(done: asyncio.Future[int]) -> None:
            if not done.cancelled() and done.exception() is None:
                self._saving.discard(done)  # errors are raised when the run ends
            else:
                self._stop.set()

        saving.add_done_callback(check)

    # -- what came back -----------------------------------------------------------------------------------------------

    def read(self, row: int, key: str, request: str, size: Size, response: Response) -> tuple[Answer, Cost]:
        """The answer in a response, saved with its cost.

        Raises:
            Fault: worth another try.
            Refused: this request will not be answered.
            JudgeError: no request will be.
        """
        if response.status != 200:
            self.raise_for(response)
        try:
            reply = reply_of(parse_body(response.body, self.key), anthropic=self.config.api == "anthropic")
        except InvalidAnswer as error:
            raise Fault("invalid answer", str(error), may_have_cost=True) from None
        self.breaker.answered()
        cost = self.prices.cost(size, reply)
        self.save(Outcome(row, ANSWERED, cost, key, request, Stored(reply.choice, reply.model)))
        return Answer(reply.choice, model=reply.model), cost

    def raise_for(self, response: Response) -> None:
        """Say what an answer of another status than 200 means.

        Raises:
            Fault: worth another try.
            Refused: this request will not be answered.
            JudgeError: no request will be.
        """
        status = response.status
        said = words_of_error(response.body, self.key)
        if any(code in said for code in GONE):
            raise JudgeError(self._stopped(status, said))
        if status in (408, 409, 425, 429) or status >= 500:
            wait = retry_after(response.headers.get("Retry-After"))
            if wait is not None and wait > LONGEST_RETRY_AFTER:
                raise JudgeError(
                    f"judge {self.config.model}: the endpoint asks to wait {wait:.0f} s ({said}); run again then: what "
                    "is answered is kept"
                )
            # Behind a gateway's 502 or 504 the model may have answered, and billed.
            may_have_cost = status >= 500 and status not in (503, 529)
            raise Fault(str(status), said, may_have_cost, wait)
        if status in (400, 413, 422):
            raise Refused(f"{status}: {said}")
        moved = response.headers.get("Location")
        raise JudgeError(self._stopped(status, f"moved to {moved[:100]}" if moved else said))

    def _stopped(self, status: int, said: str) -> str:
        return (
            f"judge {self.config.model}: {self.config.url} answered {status} ({said}); check the url, the model's "
            f"name, the account and the key in {self.config.api_key_env}, and run again: what is answered is kept"
        )

    async def pause(self, seconds: float) -> None:
        """Wait, but no longer once the run is to stop."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    def wait(self, tries: int, fault: Fault) -> float:
        """Seconds until the next try: what the endpoint asks for and a little more, or doubling with full jitter."""
        if fault.retry_after is not None:
            return fault.retry_after + random.uniform(0, self.config.backoff)
        return random.uniform(0, min(LONGEST_WAIT, 2 * self.config.backoff * 2 ** (tries - 1)))
