"""Whether memory runs short on a machine, and which work is ended for that. No I/O.

The newest work that may be repeated is ended first: it has lost the least, and comes back. Where there is none, the
newest that may not. One at a time: the next only once the last has ended, and with it what it had. What runs no work is
never ended, nor is any process of the runtime's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from actorrt.types import ProcessId

MIB: Final = 1 << 20


class Reading(NamedTuple):
    """How much of a memory is used that nobody could give back, and how much there is; both in bytes."""

    used: int
    limit: int
    # What has this limit, in words.
    where: str


class Work(NamedTuple):
    """What a worker runs."""

    process: ProcessId
    # In words, for errors.
    what: str
    # What its process has for itself, in bytes.
    used: int
    # How many seconds ago it began.
    age_s: float
    may_repeat: bool


class Victim(NamedTuple):
    process: ProcessId
    # Why it is ended, in words.
    reason: str


class MemoryWatch:
    """One machine's. `threshold`: the part of a memory that may be used."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        # The last that was ended, until it is known to be gone.
        self._ending: ProcessId | None = None

    def short(self, readings: Iterable[Reading]) -> Reading | None:
        """The memory that is used most, if that is too much."""
        full = [one for one in readings if one.limit > 0 and one.used > self._threshold * one.limit]
        return max(full, key=lambda one: one.used / one.limit, default=None)

    def victim(self, reading: Reading, works: Iterable[Work], living: Iterable[ProcessId]) -> Victim | None:
        """Whom to end, now that this memory is short. None: nobody, or the last one is still ending. `living`: all
        processes of workers that have not ended."""
        if self._ending is not None and self._ending in living:
            return None
        self._ending = None
        found = min(works, key=lambda work: (not work.may_repeat, work.age_s), default=None)
        if found is None:
            return None
        self._ending = found.process
        kind = "may be repeated" if found.may_repeat else "may not be repeated, and none was left that may"
        used, limit = reading.used // MIB, reading.limit // MIB
        return Victim(
            found.process,
            f"ended since memory ran short: {used:,} of {limit:,} MiB of {reading.where} were used, "
            f"{found.used // MIB:,} MiB of them by {found.what}, the newest work that {kind}",
        )
