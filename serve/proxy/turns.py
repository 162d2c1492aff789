"""Whose turn it is on a client's connection: requests are answered in the order in which they came. Pure.

    reading --the end of its body--> current, or behind others --its turn--> current --its answer--> the next one

What holds for every connection:

* The backend has one request at a time, and gets each request once.
* It gets a request whose body still comes only while no other waits, and once enough of that body is here.
* What came before something wrong is answered first, then the client hears what is wrong; nothing is read behind it.
* A client that does not take its answers gets no more of them: they would be held here.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Final, Generic, Protocol, TypeVar

from .answer import Answer
from .arrival import Arrival

# One read of the socket may bring many requests. More than these do not wait behind the one that is answered.
MOST_BEHIND: Final = 1000


class Request(Protocol):
    """What turns go by: how far its body and its answer have come."""

    @property
    def answer(self) -> Answer: ...
    @property
    def arrival(self) -> Arrival: ...
    @property
    def streams(self) -> bool: ...
    @property
    def length(self) -> int | None: ...
    @property
    def held(self) -> int: ...
    @property
    def keep_alive(self) -> bool: ...


R = TypeVar("R", bound=Request)


class Step(Enum):
    NOTHING = "NOTHING"
    ENTER = "ENTER"  # the backend gets `current`
    HOLD = "HOLD"  # those that are here are answered before more is read
    TOO_MANY = "TOO_MANY"
    ADVANCE = "ADVANCE"  # the backend has none: see `next`
    REST = "REST"  # nothing waits to be answered
    SAY = "SAY"  # what is wrong with what came last; then the connection ends
    DISCARD = "DISCARD"  # the rest of the body is thrown away before the next request can begin
    END = "END"  # the connection ends
    LINGER = "LINGER"  # it ends, once the client has had time to read why


class Refusal(Enum):
    NOW = "NOW"
    IN_TURN = "IN_TURN"  # once all that came before has been answered
    LINGER = "LINGER"  # it cannot be said, since the answer is given: what still comes is thrown away
    ABORT = "ABORT"  # nor can it, in the middle of an answer


# Python looks up the members of an enum slowly, and each request asks for these.
NOTHING: Final = Step.NOTHING
ENTER: Final = Step.ENTER
HOLD: Final = Step.HOLD
ADVANCE: Final = Step.ADVANCE
REST: Final = Step.REST
DISCARD: Final = Step.DISCARD
END: Final = Step.END
LINGER: Final = Step.LINGER
COMPLETE: Final = Arrival.COMPLETE
OVER: Final = Answer.OVER


class Turns(Generic[R]):
    """The requests of one connection, as far as they are not over."""

    __slots__ = ("behind", "current", "is_refused", "reading")

    def __init__(self) -> None:
        # Whose head or body is being read.
        self.reading: R | None = None
        # The one that the backend has, and those that wait behind it.
        self.current: R | None = None
        self.behind: deque[R] = deque()
        # What came last is wrong, and its client has not heard so yet.
        self.is_refused = False

    @property
    def is_empty(self) -> bool:
        return self.current is None and not self.behind and self.reading is None

    def is_free(self, is_slow: bool) -> bool:
        """A request could go to the backend at once. `is_slow`: the client does not take its answers."""
        return self.current is None and not self.behind and not is_slow

    # The end of a body, and of an answer.

    def begin(self, request: R) -> None:
        self.reading = request

    def read(self, is_slow: bool) -> Step:
        """All of the request that is being read is here."""
        request, self.reading = self.reading, None
        assert request is not None
        current = self.current
        if request is current:
            if request.answer is not OVER:
                return NOTHING
            self.current = None
            return ADVANCE
        if current is None and not self.behind and not is_slow:
            self.current = request
            return ENTER
        self.behind.append(request)
        return HOLD if len(self.behind) <= MOST_BEHIND else Step.TOO_MANY

    def answered(self, request: R, closes: bool) -> Step:
        """The answer to the current request is over. `closes`: so is the connection, for the backend or the server."""
        if closes or not request.keep_alive:
            if request.arrival is not COMPLETE:
                return LINGER
            self.reading = self.current = None
            return END
        if request.arrival is not COMPLETE:
            return DISCARD
        self.current = None
        return ADVANCE if self.behind or self.reading is not None or self.is_refused else REST

    def next(self, *, is_slow: bool, in_head: bool, window: int) -> Step:
        """Who is next. `in_head`: of what is read there is no whole head."""
        if self.current is None:
            if self.is_refused and not self.behind:
                return Step.SAY
            if self.behind and not is_slow:
                self.current = self.behind.popleft()
                return ENTER
            if not in_head and self.begins_early(window, is_slow):
                return ENTER
        return NOTHING if self.behind else REST

    # A body that is longer than it is worth to wait for.

    def begins_early(self, window: int, is_slow: bool) -> bool:
        """Whether the backend gets the request whose body is read now: `window` bytes of it, or all, are here.

        One without a length may answer its answer, and one that is not asked for is asked by the backend.
        """
        reading = self.reading
        if reading is None or not reading.streams or not self.is_free(is_slow):
            return False
        length = reading.length
        if length is not None and reading.arrival is not Arrival.UNASKED and reading.held < min(length, window):
            return False
        self.current = reading
        return True

    def holds_up(self, is_slow: bool) -> bool:
        """Of the body that is read some is here that cannot be passed on at once: the rest waits with its client."""
        reading = self.reading
        return reading is not None and reading.held > 0 and (reading is self.current or not self.is_free(is_slow))

    def may_read(self, request: R, window: int) -> bool:
        """Whether more is read once the backend has taken some of this body."""
        return request.held <= window and (request is self.reading or not self.behind)

    # Ends.

    def refuse(self) -> tuple[Refusal, R | None]:
        """What comes last is wrong. How its client hears of that, and a request of the backend's that ends by it."""
        self.is_refused = True
        reading, self.reading = self.reading, None
        if reading is not None and reading is self.current:
            self.current = None
            if reading.answer is OVER:
                return Refusal.LINGER, reading
            if reading.answer is not Answer.WAITED_FOR:
                return Refusal.ABORT, reading
            return (Refusal.IN_TURN if self.behind else Refusal.NOW), reading
        return (Refusal.NOW if self.current is None and not self.behind else Refusal.IN_TURN), None

    def drop(self) -> list[R]:
        """Nothing more is answered. All requests that are not over."""
        dropped = [each for each in (self.current, self.reading, *self.behind) if each is not None]
        self.reading = self.current = None
        self.behind.clear()
        self.is_refused = False
        return list(dict.fromkeys(dropped))
