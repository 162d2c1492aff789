"""The words that the state API has for what the parts of a process call otherwise. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .calls import AWAY
from .calls import State as CallState
from .leases import UNIT
from .lifecycle import State as Life
from .object_state import State as Known

_OBJECTS: Final[Mapping[Known, str]] = {
    Known.REMOTE: "PENDING",
    Known.PENDING: "PENDING",
    Known.PRESENT: "INLINE",
    Known.SHARED: "SHARED",
    Known.RAISED: "ERROR",
}


def of_actor(life: Life, incarnation: int) -> str:
    """The state of an actor in this life of it."""
    if life is Life.PLACING or life is Life.STARTING:
        return "RESTARTING" if incarnation else "PENDING_CREATION"
    return life.name


def of_call(state: CallState, waits: str) -> str:
    """The state of a call; `waits`: what it waits for, if it is with its caller."""
    return "SUBMITTED_TO_WORKER" if state is AWAY else waits


def of_object(state: Known) -> str:
    return _OBJECTS[state]


def amounts(shape: Mapping[str, int]) -> dict[str, float]:
    """Resources as users write them."""
    return {name: amount / UNIT for name, amount in shape.items()}


def class_and_name(title: str) -> tuple[str, str]:
    """What the title of an actor is made of: `"Counter(mine)"` is the Counter that is named mine."""
    if title.endswith(")") and "(" in title:
        cls, _, name = title[:-1].partition("(")
        return cls, name
    return title, ""
