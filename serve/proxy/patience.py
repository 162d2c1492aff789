"""How long a client may take: to read, to send a head or a body, and between requests. Pure: times are arguments."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple, Protocol

from ..http.http_options import HTTPOptions
from .answer import Answer
from .arrival import Arrival
from .connection_phase import Phase


class Due(Enum):
    NOTHING = "NOTHING"
    CUT_OFF = "CUT_OFF"
    CLOSE = "CLOSE"  # nothing is lost by it
    REFUSE = "REFUSE"
    TOO_SLOW = "TOO_SLOW"  # the body that comes
    ENTER = "ENTER"  # perhaps the client sends the rest of its body only once it is answered
    LINGER = "LINGER"  # the request was answered before its end, and that does not come
    MEASURE = "MEASURE"  # the body that comes: see `pace`
    MEASURE_ANEW = "MEASURE_ANEW"  # the next time: what comes now, or does not, is not held against the client


class Request(Protocol):
    """A request that is being read: how far its body and its answer have come."""

    @property
    def answer(self) -> Answer: ...
    @property
    def arrival(self) -> Arrival: ...
    @property
    def streams(self) -> bool: ...


class Look(NamedTuple):
    """What a connection is found at. `deadline` is of the phase, or of the request that it is `reading`; 0: none.

    `is_paused`: it is the backend that keeps the client waiting. `idle_since`: nothing is under way since then; None:
    something is. `came`: bytes of the body that is read.
    """

    now: float
    deadline: float
    phase: Phase
    reading: Request | None
    is_paused: bool
    idle_since: float | None
    came: int = 0


def due(look: Look, keep_alive_s: float) -> Due:
    """What is due on a connection."""
    now, deadline, phase, reading, is_paused, idle_since, _ = look
    if phase is Phase.LINGERING:
        return Due.CUT_OFF if now >= deadline else Due.NOTHING
    if reading is not None:
        if is_paused or reading.arrival is Arrival.UNASKED:
            return Due.MEASURE_ANEW
        if deadline and now >= deadline:
            return Due.LINGER if reading.answer is Answer.OVER else Due.REFUSE
        # A conversation may be slow: once the response has ended, the rest of the body is measured from then on.
        converses = reading.answer in (Answer.BEGUN, Answer.LENT)
        return Due.MEASURE if reading.streams and not converses and phase is not Phase.HEAD else Due.MEASURE_ANEW
    return Due.CLOSE if idle_since is not None and now - idle_since >= keep_alive_s else Due.NOTHING


def stalled_since(since: float, now: float, left: int, has_taken: Callable[[], bool]) -> float:
    """Since when a client has taken nothing of the `left` bytes that are there for it; 0: it takes them, or has all.

    `has_taken` says whether it took any since it was asked last, and is asked only where that counts.
    """
    if not left:
        return 0.0
    return now if not since or has_taken() else since


class Rate(NamedTuple):
    """So much of a body had come at this time."""

    since: float
    came: int


def pace(rate: Rate | None, now: float, came: int, limit_s: float, least: float) -> tuple[Rate, Due]:
    """What is due for a body of which `came` bytes are here, and what to measure it by the next time.

    Within `limit_s` seconds it has to come at the `least` rate in bytes a second; 0: at any.
    """
    if rate is None:
        return Rate(now, came), Due.NOTHING
    took_s = now - rate.since
    if least and took_s >= limit_s:
        return Rate(now, came), Due.TOO_SLOW if came - rate.came < least * took_s else Due.NOTHING
    return rate, Due.ENTER if took_s >= limit_s / 4 else Due.NOTHING


class Watch:
    """What is remembered of a connection from one look at it to the next."""

    __slots__ = ("_measured", "_options", "_rate", "_stalled_since")

    def __init__(self, options: HTTPOptions) -> None:
        self._options = options
        # The request whose body is measured, and by what.
        self._measured: Request | None = None
        self._rate: Rate | None = None
        self._stalled_since = 0.0

    def forget(self) -> None:
        self._measured = None

    def is_stalled(self, now: float, left: int, has_taken: Callable[[], bool]) -> bool:
        """The client has taken nothing of what is there for it for too long."""
        since = self._stalled_since = stalled_since(self._stalled_since, now, left, has_taken)
        return bool(since) and now - since >= self._options.stalled_client_timeout_s

    def due(self, look: Look) -> Due:
        """What is due, MEASURE and MEASURE_ANEW never: that is done here."""
        options = self._options
        found = due(look, options.keep_alive_timeout_s)
        before, self._measured = self._measured, look.reading if found is Due.MEASURE else None
        if found is Due.MEASURE:
            rate = self._rate if before is look.reading else None
            limit_s, least = options.request_read_timeout_s, options.least_body_rate
            self._rate, found = pace(rate, look.now, look.came, limit_s, least)
        return Due.NOTHING if found is Due.MEASURE_ANEW else found
