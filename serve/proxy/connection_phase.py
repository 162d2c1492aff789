"""What a client's connection is read as, as a transition table. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final


class Phase(Enum):
    BODIES = "BODIES"  # behind a head: a body, or nothing yet
    HEAD = "HEAD"
    LINGERING = "LINGERING"  # what comes is thrown away, so that the client can read why; then it ends


class PhaseEvent(Enum):
    MESSAGE = "MESSAGE"  # the first byte of a request
    HEAD_OVER = "HEAD_OVER"
    REFUSED = "REFUSED"  # nothing is parsed any more; what came before is answered first
    LINGER = "LINGER"


_P, _E = Phase, PhaseEvent
TABLE: Final[Mapping[tuple[Phase, PhaseEvent], Phase]] = {
    (_P.BODIES, _E.MESSAGE): _P.HEAD,
    (_P.HEAD, _E.HEAD_OVER): _P.BODIES,
    (_P.HEAD, _E.REFUSED): _P.BODIES,
    (_P.BODIES, _E.REFUSED): _P.BODIES,
    # An answer whose connection is to end comes at any time.
    **{(phase, _E.LINGER): _P.LINGERING for phase in Phase},
}


class PhaseError(Exception):
    """What cannot happen to a connection in this phase: an error of ours, never of a client."""

    def __init__(self, phase: Phase, event: PhaseEvent) -> None:
        super().__init__(phase, event)
        self.phase, self.event = phase, event

    def __str__(self) -> str:
        return f"a connection in {self.phase.value} cannot have {self.event.value}"


def after(phase: Phase, event: PhaseEvent) -> Phase:
    """PhaseError if the table has no such row."""
    try:
        return TABLE[phase, event]
    except KeyError:
        raise PhaseError(phase, event) from None


class Upgrade(Enum):
    """What the head that was read last asked for besides."""

    NONE = "NONE"
    WEBSOCKET = "WEBSOCKET"
    IGNORED = "IGNORED"  # a protocol that is not spoken here
