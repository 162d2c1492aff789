"""The life of the proxy as a transition table: the controller feeds it events and does what it says. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import Enum
from typing import Final

from ..http.http_options import HTTPOptions
from .statuses import ProxyStatus

# A proxy that cannot be started again is tried with so many seconds in between; the last for as long as there are
# applications.
PROXY_RESTARTS_S: Final = (0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0)


class ProxyEvent(Enum):
    STARTED = "STARTED"  # it listens, or one that did under an earlier controller was found
    DIED = "DIED"
    DRAIN = "DRAIN"  # Serve shuts down
    DRAINED = "DRAINED"  # it has answered what it had, or its time is up
    TRY = "TRY"  # it may be started again
    GIVE_UP = "GIVE_UP"  # it could not be, again and again, and nobody needs it
    SPARED = "SPARED"  # Serve did not come to its end, and goes on


class ProxyAction(Enum):
    WATCH = "WATCH"
    RESTART = "RESTART"
    START = "START"
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
    (S.UNHEALTHY, E.TRY): (S.UNHEALTHY, (A.START,)),
    (S.UNHEALTHY, E.GIVE_UP): (S.UNHEALTHY, (A.STOP_LISTENING,)),
    # A program has started one meanwhile, or Serve shuts down.
    **{(status, event): (status, ()) for status in (S.HEALTHY, S.DRAINING, S.DRAINED) for event in (E.TRY, E.GIVE_UP)},
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
    # Its start took longer than the drain waited: it would outlive the controller, with its name and its port.
    (S.DRAINED, E.STARTED): (S.DRAINED, (A.STOP_LISTENING, A.KILL)),
    (S.DRAINED, E.SPARED): (S.STARTING, ()),
    # Who had it drained has gone in the middle of that. It takes no connections any more.
    (S.DRAINING, E.SPARED): (S.STARTING, (A.KILL,)),
    # It was shut down as the controller did not know yet what runs, and nothing was drained.
    **{(status, E.SPARED): (status, ()) for status in (S.STARTING, S.HEALTHY, S.UNHEALTHY)},
}  # fmt: skip


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


class ProxyLife:
    """The proxy of a controller, apart from its handle: where it listens, with which options, and how it is."""

    def __init__(self) -> None:
        self.status = ProxyStatus.STARTING
        self.url = ""
        self.options = HTTPOptions()
        # How long to wait before the next start; so many have failed since the last one that did not.
        self.pause_s = 0.0
        self._failures = 0

    def happens(self, event: ProxyEvent) -> tuple[ProxyAction, ...]:
        """What is to be done, in order."""
        self.status, actions = advance(self.status, event)
        return actions

    def started(self, options: HTTPOptions, url: str) -> tuple[ProxyAction, ...]:
        """One listens."""
        self.options, self.url, self._failures = options, url, 0
        return self.happens(ProxyEvent.STARTED)

    @property
    def keeps(self) -> bool:
        """Whether it is there for what a later controller needs, and for the socket."""
        return self.status is ProxyStatus.HEALTHY

    def answer(self, options: HTTPOptions, only_if_none: bool) -> tuple[str, str] | None:
        """What a program is told that wants one: its URL, or why it has none. None: it is to be started."""
        if self.status in (ProxyStatus.STARTING, ProxyStatus.UNHEALTHY):
            return None
        if self.status is not ProxyStatus.HEALTHY:
            return "", "Serve is shut down"
        if not only_if_none and options != self.options:
            return "", f"a proxy with other HTTP options listens on {self.url} already"
        return self.url, ""

    def attempt(self, has_applications: bool) -> tuple[ProxyAction, ...]:
        """It is started once more, or not any more."""
        pause_s = restart_pause_s(self._failures, has_applications)
        if pause_s is None:
            return self.happens(ProxyEvent.GIVE_UP)
        actions = self.happens(ProxyEvent.TRY)
        if ProxyAction.START in actions:
            self._failures, self.pause_s = self._failures + 1, pause_s
        return actions

    def options_again(self, has_socket: bool) -> HTTPOptions:
        """Without its socket: on the port that clients know, also where any port would have done at first."""
        return self.options if has_socket else replace(self.options, port=int(self.url.rpartition(":")[2]))

    def shown(self) -> dict[str, ProxyStatus]:
        """How it is, by where it listens, or did."""
        return {self.url: self.status} if self.url else {}
