"""Whether a replica can be lent its clients' sockets, as a transition table. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final


class Lending(Enum):
    CLOSED = "CLOSED"  # no channel was tried yet, or one was open and has ended: a large response opens one
    TRIED = "TRIED"  # one is being opened, or cannot be
    OPEN = "OPEN"


class LendingEvent(Enum):
    TRY = "TRY"
    OPENED = "OPENED"
    ENDED = "ENDED"


_L, _E = Lending, LendingEvent
TABLE: Final[Mapping[tuple[Lending, LendingEvent], Lending]] = {
    (_L.CLOSED, _E.TRY): _L.TRIED,
    (_L.TRIED, _E.OPENED): _L.OPEN,
    (_L.OPEN, _E.ENDED): _L.CLOSED,
}


class LendingError(Exception):
    """What cannot happen to a channel in this state: an error of ours."""

    def __init__(self, lending: Lending, event: LendingEvent) -> None:
        super().__init__(lending, event)
        self.lending, self.event = lending, event

    def __str__(self) -> str:
        return f"a channel that is {self.lending.value} cannot have {self.event.value}"


def after(lending: Lending, event: LendingEvent) -> Lending:
    """LendingError if the table has no such row."""
    try:
        return TABLE[lending, event]
    except KeyError:
        raise LendingError(lending, event) from None
