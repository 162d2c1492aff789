"""A request: as a trace has it, and on its way through a simulation."""

from __future__ import annotations

import math
from typing import Any, NamedTuple


class Arrival(NamedTuple):
    """A request of a trace. Seconds and tokens."""

    at: float
    prompt: int
    output: int
    chain: tuple[int, ...] = ()
    """One number for each whole block of its prompt that stands for all of the prompt up to there."""
    answer: tuple[int, ...] = ()
    """The same of the blocks that its answer fills, where a later prompt begins with it."""
    tenant: str = ""
    session: str = ""
    band: int = 1


class Request:
    """Told from others by its identity."""

    __slots__ = (
        "answer", "arrived", "attempts", "band", "base", "cached", "chain", "deadline", "ended", "epoch", "first",
        "generated", "is_handed_over", "is_reading", "max_tokens", "memo", "number", "output", "preempted", "prompt",
        "queued_s", "refused", "replica", "router", "sent", "session", "shared", "tenant", "unread",
    )  # fmt: skip

    answers = True
    """Whether what it generates is its client's."""

    def __init__(self, number: int, arrival: Arrival, *, deadline: float = math.inf, router: int = 0) -> None:
        self.number = number
        self.arrived, self.prompt, self.output = arrival.at, arrival.prompt, arrival.output
        self.chain, self.answer = arrival.chain, arrival.answer
        self.tenant, self.session, self.band = arrival.tenant, arrival.session, arrival.band
        self.deadline, self.router = deadline, router
        # What its client allows: clients leave much room, so it says little of how long the answer will be.
        self.max_tokens = max(1024, 1 << (2 * arrival.output).bit_length())
        # Inside of an engine. `base` is the step of the engine after which it had no token.
        self.unread = self.generated = self.base = self.cached = 0
        self.shared: tuple[int, ...] = ()
        self.is_reading = False
        # Whether another engine has read its prompt for the one that it runs on.
        self.is_handed_over = False
        self.epoch = 0
        # What became of it.
        self.replica = -1
        self.sent = self.first = self.ended = math.nan
        self.queued_s = 0.0
        self.refused = ""
        self.attempts = self.preempted = 0
        # Whatever its policy keeps of it.
        self.memo: Any = None

    @property
    def tokens(self) -> int:
        """What an engine has to hold of it now, unless it decodes."""
        return self.prompt + self.generated
