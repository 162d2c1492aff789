"""Who hears of a message that cannot be written here, or that came and cannot be read. No I/O.

Nobody is to wait for what will never come: a call that is lost so fails at its caller, and so does one whose result is
lost, wherever its caller is.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Any, Final

from .messages import ActorCall, Item, ItemValue, Outcome, Reply, StartActor, TaskCall, tag_of

# Each has the number of its call as `seq`.
CALLS: Final = (ActorCall, TaskCall, StartActor)
RESULTS: Final = (Reply, Outcome, Item, ItemValue)
_CALL_TAGS: Final = frozenset(map(tag_of, CALLS))
_RESULT_TAGS: Final = frozenset(map(tag_of, RESULTS))


class Hears(Enum):
    """Who has made the call that fails."""

    # This process.
    HERE = auto()
    # The process at the other end of the link.
    PEER = auto()
    # It belongs to no call that is waited for: only the log tells.
    NOBODY = auto()


def unsendable(kind: type[Any]) -> Hears:
    """For a message of this type that cannot be written."""
    if kind in CALLS:
        return Hears.HERE
    return Hears.PEER if kind in RESULTS else Hears.NOBODY


def unreadable(tag: int, awaited: bool) -> Hears:
    """For a message with this tag that came and cannot be read. `awaited`: a call of this process has its number."""
    if tag in _CALL_TAGS:
        return Hears.PEER
    return Hears.HERE if awaited and tag in _RESULT_TAGS else Hears.NOBODY
