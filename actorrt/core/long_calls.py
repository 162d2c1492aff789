"""When what waits behind a call goes back to its callers, for another worker: once that call has run long. No I/O."""

from __future__ import annotations

from typing import Final, Generic, NamedTuple, TypeVar

T = TypeVar("T")

# A call that runs for so long has those behind it given back.
LONG_S: Final = 0.02


class Look(NamedTuple):
    give_back: bool
    # Look once more, in LONG_S.
    again: bool


class LongCalls(Generic[T]):
    """The look-out of one thread that runs calls one at a time; `T` is what stands for a call."""

    __slots__ = ("_looks", "_seen")

    def __init__(self) -> None:
        self._looks = 0
        self._seen: T | None = None

    def waits(self, current: T | None) -> bool:
        """Something waits behind `current`. True: look in LONG_S; otherwise a look is due already."""
        if self._looks:
            return False
        self._looks = 1
        self._seen = current
        return True

    def look(self, current: T | None, waiting: bool) -> Look:
        """What to do if `current` runs now, with others `waiting` or not: the same call as LONG_S ago is a long one."""
        give_back = current is not None and current is self._seen
        self._looks = int(waiting)
        self._seen = current if waiting else None
        return Look(give_back, waiting)
