"""The life of the proxy as a transition table: the controller feeds it events and does what it says. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from .statuses import ProxyStatus

# A proxy that cannot be started again is tried with so many seconds in between; the last for as long as there are
# applications.
PROXY_RESTARTS_S: Final = (0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0)


class ProxyEvent(Enum):
    STARTED = "STARTED"  # it listens, or one that did under an earlier controller was found
    DIED = "DIED"
    DRAIN = "DRAIN"  # Serve shuts down
    DRAINED = "DRAINED"  # it has answered what it had, or its time is up


class ProxyAction(Enum):
    WATCH = "WATCH"
    RESTART = "RESTART"
    STOP_LISTENING = "STOP_LISTENING"
    DRAIN = "DRAIN"
    KILL = "KILL"


S, E, A = ProxyStatus, ProxyEvent, ProxyAction
TABLE: Final[Mapping[tuple[ProxyStatus, ProxyEvent], tuple[ProxyStatus, tuple[ProxyAction, ...]]]] = {
    (S.STARTING, E.STARTED): (S.HEALTHY, (A.WATCH,)),
    # There never was one, or the next one is not there yet: there is nobody to drain, and none is started any more.
    (S.STARTING, E.DRAIN): (S.DRAINED, (A.STOP_LISTENING,)),
    (S.UNHEALTHY, E.STARTED): (S.HEALTHY, (A.WATCH,)),
    (S.UNHEALTHY, E.DRAIN): (S.DRAINED, (A.STOP_LISTENING,)),
    (S.HEALTHY, E.DIED): (S.UNHEALTHY, (A.RESTART,)),
    # First: a client that comes now is refused and does not wait for nothing.
    (S.HEALTHY, E.DRAIN): (S.DRAINING, (A.STOP_LISTENING, A.DRAIN)),
    # Two programs shut Serve down.
    (S.DRAINING, E.DRAIN): (S.DRAINING, (A.STOP_LISTENING, A.DRAIN)),
    # Who waits for the drain is told of it.
    (S.DRAINING, E.DIED): (S.DRAINING, ()),
    (S.DRAINING, E.DRAINED): (S.DRAINED, (A.KILL,)),
    (S.DRAINED, E.DRAINED): (S.DRAINED, ()),
    (S.DRAINED, E.DRAIN): (S.DRAINED, (A.STOP_LISTENING,)),
    # Serve did not come to its end, and a program has it listen again.
    (S.DRAINED, E.STARTED): (S.HEALTHY, (A.WATCH,)),
}


class ProxyTransitionError(Exception):
    """An event that cannot happen in this state: an error of ours, never of a user."""

    def __init__(self, status: ProxyStatus, event: ProxyEvent) -> None:
        super().__init__(status, event)
        self.status, self.event = status, event

    def __str__(self) -> str:
        return f"a proxy that is {self.status.value} cannot have {self.event.value}"


def advance(status: ProxyStatus, event: ProxyEvent) -> tuple[ProxyStatus, tuple[ProxyAction, ...]]:
    """The next state and what is to be done, in order. ProxyTransitionError if the table has no such row."""
    try:
        return TABLE[status, event]
    except KeyError:
        raise ProxyTransitionError(status, event) from None


def restart_pause_s(failures: int, has_applications: bool) -> float | None:
    """How long to wait should one more start fail after so many. None: nobody needs a proxy, it is given up."""
    if failures < len(PROXY_RESTARTS_S):
        return PROXY_RESTARTS_S[failures]
    return PROXY_RESTARTS_S[-1] if has_applications else None
