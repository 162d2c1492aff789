"""What becomes of a request's place in its replica while a slow client takes the response, as a transition table. Pure.

Once the code of a request has ended, its place is free for others, however long its client takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final


class Place(Enum):
    HELD = "HELD"
    ASKED = "ASKED"  # held, and its replica was asked whether the code has ended, which it is once
    FREED = "FREED"  # given back before the client had taken all of the response


class PlaceEvent(Enum):
    CLIENT_SLOW = "CLIENT_SLOW"
    CODE_ENDED = "CODE_ENDED"
    REPEATED = "REPEATED"  # the request goes to another replica, where nothing was asked


_P, _E = Place, PlaceEvent
TABLE: Final[Mapping[tuple[Place, PlaceEvent], Place]] = {
    (_P.HELD, _E.CLIENT_SLOW): _P.ASKED,
    (_P.ASKED, _E.CODE_ENDED): _P.FREED,
    **{(place, _E.REPEATED): _P.HELD for place in Place},
}


class PlaceError(Exception):
    """What cannot happen to a place in this state: an error of ours."""

    def __init__(self, place: Place, event: PlaceEvent) -> None:
        super().__init__(place, event)
        self.place, self.event = place, event

    def __str__(self) -> str:
        return f"a place that is {self.place.value} cannot have {self.event.value}"


def after(place: Place, event: PlaceEvent) -> Place:
    """PlaceError if the table has no such row."""
    try:
        return TABLE[place, event]
    except KeyError:
        raise PlaceError(place, event) from None
