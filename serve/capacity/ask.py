"""A request as the queue knows it, and how one is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from .drain import RetryAfter
from .tenants import Tenant

TOO_LONG: Final = 413
TOO_MANY: Final = 429
NO_REPLICA: Final = 503
FAILED: Final = 500


class Refusal(Exception):
    """A request is not taken, with the HTTP status that says so. It is safe to repeat, where `retry_after` is set."""

    def __init__(
        self, status: int, reason: str, retry_after: RetryAfter | None = None, cause: Exception | None = None
    ) -> None:
        super().__init__(status, reason, retry_after)
        self.status, self.reason, self.retry_after = status, reason, retry_after
        self.__cause__ = cause


def failure(error: Exception) -> Refusal:
    """That of a request at which the queue itself has failed: others are none the worse for it."""
    return Refusal(FAILED, f"the capacity queue failed at this request: {type(error).__name__}: {error}", cause=error)


class Ask:
    """Told from others by its identity. It takes `prompt`, `output` and, together, `tokens` of a line."""

    __slots__ = (
        "account", "adapter", "arrived", "band", "begins_by", "cached", "chain", "deadline", "load", "makes_way",
        "max_tokens", "model", "output", "place", "prompt", "rank", "router", "served_in", "session", "tenant",
        "tokens", "user",
    )  # fmt: skip

    # Once it runs: the band that it was served in, which may be above its own; of its prompt, what was expected to be
    # there; and what its tenant has.
    served_in: int
    cached: int
    account: Tenant

    def __init__(
        self,
        model: str,
        prompt: int,
        max_tokens: int | None = None,
        tenant: str = "",
        user: str = "",
        band: int = 1,
        arrived: float = 0.0,
        deadline: float = math.inf,
        router: str = "",
        place: float | None = None,
        chain: Sequence[int] = (),
        session: str = "",
        adapter: str = "",
        load: int = 0,
    ) -> None:
        """`prompt` in tokens, `deadline` of its first token; of one that was refused before, `arrived` the first time
        and `place` the deadline that it had then; `chain` of its prompt as prefix_index has it; `session` that it is
        a turn of; `adapter` that it needs, and what `load`ing that costs, in tokens of prompts. Raises ValueError for
        numbers below zero.
        """
        if prompt < 0 or (max_tokens is not None and max_tokens < 0):
            raise ValueError(f"a request has zero or more tokens, not {prompt} and {max_tokens}")
        if load < 0:
            raise ValueError(f"to load an adapter costs zero or more tokens, not {load}")
        if math.isnan(deadline) or math.isnan(arrived):
            raise ValueError("a time must be a number")
        self.model, self.prompt, self.max_tokens = model, prompt, max_tokens
        self.tenant, self.user, self.band = tenant, user, band
        self.arrived, self.deadline, self.router, self.chain = arrived, deadline, router, chain
        self.place = deadline if place is None or math.isnan(place) else min(place, deadline)
        self.session, self.adapter, self.load = session, adapter, load
        # When an engine is to begin with it at the latest.
        self.begins_by = deadline
        # Not what had its place once already.
        self.makes_way = True
        # Turns of a session that runs go before others of their user.
        self.rank = 1
        self.output, self.tokens = 0, prompt

    def come_back(self) -> None:
        """It had a place, and returns without having begun: it makes way for no other, and has no deadline any more."""
        self.begins_by = math.inf
        self.makes_way = False

    def go_first(self) -> None:
        """It is a turn of a session that runs."""
        self.rank = 0

    def run(self, band: int, cached: int, account: Tenant) -> None:
        """It has a place: served in this band, with so many tokens of its prompt expected there, on this account."""
        self.served_in, self.cached, self.account = band, cached, account

    def begin_in_time(self, now: float, reading_s: float) -> None:
        """Its prompt takes so long to read: so much earlier, but by half of the time that there is at most, for who
        asks for an answer sooner than its prompt can be read is still to be answered.
        """
        if self.deadline < math.inf:
            self.begins_by = self.deadline - min(reading_s, max(0.0, self.deadline - now) / 2)

    def expect(self, output: int, most: float = math.inf) -> None:
        """Its answer is expected to have so many tokens, as long as it waits and when it is admitted; less where both
        would not fit into `most`, for an engine ends it there.
        """
        tokens = self.prompt + output
        if tokens > most:
            tokens = max(self.prompt, int(most))
        self.output, self.tokens = tokens - self.prompt, tokens
