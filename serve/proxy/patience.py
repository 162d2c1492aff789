"""How long a client may take: to read, to send a head or a body, and between requests. Pure: times are arguments."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from .connection_phase import Phase


class Due(Enum):
    NOTHING = "NOTHING"
    CUT_OFF = "CUT_OFF"
    CLOSE = "CLOSE"  # nothing is lost by it
    REFUSE = "REFUSE"
    LINGER = "LINGER"  # the request was answered before its end, and that does not come
    MEASURE = "MEASURE"  # the body that comes: see `pace`
    MEASURE_ANEW = "MEASURE_ANEW"  # the next time: what comes now, or does not, is not held against the client


def due(
    now: float,
    deadline: float,
    phase: Phase,
    *,
    reads: bool,
    is_held_up: bool,
    is_answered: bool,
    streams: bool,
    idle_since: float | None,
    keep_alive_s: float,
) -> Due:
    """What is due on a connection. `deadline` is of the phase or of the request that it `reads`; 0: there is none.

    `is_held_up`: the client is not to send now. `idle_since`: nothing is under way since then; None: something is.
    """
    if phase is Phase.LINGERING:
        return Due.CUT_OFF if now >= deadline else Due.NOTHING
    if reads:
        if is_held_up:
            return Due.MEASURE_ANEW
        if deadline and now >= deadline:
            return Due.LINGER if is_answered else Due.REFUSE
        # A conversation may be slow: once the response has ended, the rest of the body is measured from then on.
        return Due.MEASURE if streams and phase is not Phase.HEAD else Due.MEASURE_ANEW
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


class Pace(Enum):
    FINE = "FINE"
    TOO_SLOW = "TOO_SLOW"
    # Perhaps it sends the rest only once it is answered.
    ENTER = "ENTER"


def pace(rate: Rate | None, now: float, came: int, limit_s: float, least: float) -> tuple[Rate, Pace]:
    """How a body comes, of which `came` bytes are here, and what to measure it by the next time.

    Within `limit_s` seconds it has to come at the `least` rate in bytes a second; 0: at any.
    """
    if rate is None:
        return Rate(now, came), Pace.FINE
    took_s = now - rate.since
    if least and took_s >= limit_s:
        return Rate(now, came), Pace.TOO_SLOW if came - rate.came < least * took_s else Pace.FINE
    return rate, Pace.ENTER if took_s >= limit_s / 4 else Pace.FINE
