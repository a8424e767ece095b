"""What a request can cost, what an answer did cost, and a cap that waits for requests under way."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eval.judges.answers import Reply, thinking_length, words_of
from eval.judges.config import JudgeConfig
from eval.judges.store import Cost

Body = Mapping[str, Any]
CHARACTERS_PER_TOKEN = 4  # of English text in current tokenizers, for estimates only
# Fewer tokens than one per so many characters are no honest count: the longest tokens of real text have 16 to 32.
MOST_CHARACTERS_PER_TOKEN = 64
FEW = 8  # a count below so small a fraction of our own, one token for 32 characters, is believed but not relied upon
TOKENS_PER_MESSAGE = 8  # role and separators, an upper bound for known chat templates
TOKENS_BEYOND_LIMIT = 16  # some endpoints count the end of the turn and their own template as well
MOST_TOKENS = 2_000_000  # no model reads or writes more in one request
TYPICAL_ANSWER = 500  # tokens; judges that explain themselves write a few hundred, whatever they are allowed
BATCH_FACTOR = 0.5  # of the list price, in the batch endpoints of OpenAI, Azure and Anthropic alike


def messages_of(body: Body) -> list[str]:
    """The texts of a request, Anthropic's system prompt included."""
    texts = [str(message.get("content") or "") for message in body["messages"]]
    return [str(body["system"]), *texts] if body.get("system") else texts


def limit_of(body: Body, config: JudgeConfig) -> int:
    """The most tokens that an answer may have, thinking included; 0 where nothing says so."""
    for name in ("max_completion_tokens", "max_tokens"):
        if isinstance(body.get(name), int):
            return int(body[name])
    return config.context


@dataclass(frozen=True)
class Size:
    """What a request can hold, computed once: it is needed before it is sent, for each try, and for its answer.

    Attributes:
        characters: of the request.
        counted: our own estimate of its tokens, by its characters.
        most: an upper bound of its tokens: a token has a byte at least.
        limit: the most tokens that its answer may have, thinking included; 0 where nothing says so.
    """

    characters: int
    counted: int
    most: int
    limit: int

    @property
    def tokens(self) -> int:
        """Request and longest answer together, as rate limits count them."""
        return self.counted + self.limit


def size_of(body: Body, config: JudgeConfig) -> Size:
    """The size of a request to this judge."""
    texts = messages_of(body)
    characters = sum(map(len, texts))
    overhead = TOKENS_PER_MESSAGE * len(texts)
    most = characters if all(text.isascii() for text in texts) else sum(len(t.encode(errors="replace")) for t in texts)
    return Size(characters, characters // CHARACTERS_PER_TOKEN + overhead, most + overhead, limit_of(body, config))


class Prices:
    """A judge's prices, halved where its requests go through a batch endpoint."""

    def __init__(self, config: JudgeConfig) -> None:
        factor = BATCH_FACTOR if config.batch else 1.0
        self._input, self._output = config.price.input * factor / 1e6, config.price.output * factor / 1e6

    def dollars(self, prompt_tokens: float, completion_tokens: float) -> float:
        """What so many tokens cost."""
        return prompt_tokens * self._input + completion_tokens * self._output

    def most(self, size: Size) -> float:
        """An upper bound of a request's price."""
        return self.dollars(size.most, size.limit + TOKENS_BEYOND_LIMIT)

    def cost(self, size: Size, reply: Reply) -> Cost:
        """What an answer cost, by the endpoint's count where it is credible.

        A count that is no number, zero, below one token for 64 characters or beyond what the request allowed is
        replaced by our own; what may have been billed beyond that is then unsure, as it is where a count is a small
        fraction of ours.
        """
        said = len(words_of(reply.choice)) + thinking_length(reply.choice)
        counted = (size.counted, said // CHARACTERS_PER_TOKEN + 1)
        least = (size.characters // MOST_CHARACTERS_PER_TOKEN + 1, said // MOST_CHARACTERS_PER_TOKEN + (said > 0))
        most = (size.most, size.limit + TOKENS_BEYOND_LIMIT)
        whole = [isinstance(n, int) and not isinstance(n, bool) for n in reply.usage]
        if all(whole) and all(low <= n <= high for low, n, high in zip(least, reply.usage, most)):
            dollars, suspect = self.dollars(*reply.usage), any(FEW * n < own for n, own in zip(reply.usage, counted))
            return Cost(*reply.usage, dollars, self.dollars(*most) - dollars if suspect else 0.0, *counted)
        # A larger count may be true (thinking that no limit holds), so the money is set aside for it anyway.
        claimed = [n if is_whole and 0 <= n <= MOST_TOKENS else 0 for n, is_whole in zip(reply.usage, whole)]
        dollars = self.dollars(*counted)
        at_most = self.dollars(*(max(pair) for pair in zip(claimed, most, counted)))
        return Cost(*counted, dollars, at_most - dollars, *counted)


class CapReached(Exception):
    """The next request could cross the cap even if nothing else were under way."""


class Purse:
    """The money that may be spent: what is spent, what may be, and what requests under way can cost at most."""

    def __init__(self, cap: float | None, spent: float) -> None:
        """Start.

        Args:
            cap: dollars; None: no cap.
            spent: dollars spent before, those included that may have been.
        """
        self.cap = cap
        self.spent = spent
        self.under_way = 0.0
        self.stopped = False
        self._settled = asyncio.Condition()

    async def reserve(self, most: float) -> None:
        """Set a request's most aside before it is sent; wait for others where it would not fit now.

        Raises:
            CapReached: it would not fit even after those under way.
        """
        async with self._settled:
            while self.cap is not None and self.spent + self.under_way + most > self.cap and not self.stopped:
                if self.spent + most > self.cap or not self.under_way:
                    raise CapReached
                await self._settled.wait()
            self.under_way += most

    async def settle(self, most: float, cost: float) -> None:
        """Replace what was set aside by what it cost, the unsure part included."""
        async with self._settled:
            self.under_way = max(0.0, self.under_way - most)
            self.spent += cost
            self._settled.notify_all()

    async def stop(self) -> None:
        """Wake up who waits: the run ends."""
        async with self._settled:
            self.stopped = True
            self._settled.notify_all()
