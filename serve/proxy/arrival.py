"""How far the body of a request has come, as a transition table. Pure.

`HttpRequest` writes down the states of the rows that each body takes without a look into the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final


class Arrival(Enum):
    UNASKED = "UNASKED"  # its client sends the body once it is asked to, by "100 Continue"
    COMES = "COMES"  # some of it may be here
    COMPLETE = "COMPLETE"


class ArrivalEvent(Enum):
    EXPECT = "EXPECT"  # the head says that the client waits
    PROCEED = "PROCEED"  # the client does not wait: it was asked, or there is nothing to ask it for
    PART = "PART"
    END = "END"


_A, _E = Arrival, ArrivalEvent
TABLE: Final[Mapping[tuple[Arrival, ArrivalEvent], Arrival]] = {
    (_A.COMES, _E.EXPECT): _A.UNASKED,
    (_A.COMES, _E.PROCEED): _A.COMES,
    (_A.COMES, _E.PART): _A.COMES,
    (_A.COMES, _E.END): _A.COMPLETE,
    # The field is there twice.
    (_A.UNASKED, _E.EXPECT): _A.UNASKED,
    (_A.UNASKED, _E.PROCEED): _A.COMES,
    # A client need not wait.
    (_A.UNASKED, _E.PART): _A.COMES,
    (_A.UNASKED, _E.END): _A.COMPLETE,
}


class ArrivalError(Exception):
    """What cannot happen to a body that has come so far: an error of ours, never of a client."""

    def __init__(self, arrival: Arrival, event: ArrivalEvent) -> None:
        super().__init__(arrival, event)
        self.arrival, self.event = arrival, event

    def __str__(self) -> str:
        return f"a body that is {self.arrival.value} cannot have {self.event.value}"


def after(arrival: Arrival, event: ArrivalEvent) -> Arrival:
    """ArrivalError if the table has no such row."""
    try:
        return TABLE[arrival, event]
    except KeyError:
        raise ArrivalError(arrival, event) from None
