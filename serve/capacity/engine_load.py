"""What an engine has beside what its queue let in there, by what the engine says of itself.

Its word only takes room away: where it has more than was given, others use it too, or answers are longer than was
expected. Where it has less, that is still to come, and nothing is given twice. And its word is not needed: without it,
or once it is old, the ledger alone counts.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from .credit_messages import Room

# An older word counts no more.
STALE_S: Final = 5.0
NOTHING: Final = Room(0, 0)


class EngineLoad(NamedTuple):
    """What an engine says that it has now. None: it does not say."""

    kv_tokens: int | None = None
    requests: int | None = None


class Beside:
    """What one engine has beside its leases."""

    __slots__ = ("_heard_at", "_seen", "room")

    def __init__(self) -> None:
        self.room: Room = NOTHING
        self._seen: Room = NOTHING
        self._heard_at: float = -math.inf

    def hear(self, load: EngineLoad, given: Room, now: float) -> Room:
        """It has this, where so much was given to it."""
        seen = Room(max(0, (load.kv_tokens or 0) - given.tokens), max(0, (load.requests or 0) - given.slots))
        # What has begun or ended since it was asked is counted by one of the two only, but not twice in a row.
        before = NOTHING if self.is_stale(now) else self._seen
        self.room = Room(min(seen.tokens, before.tokens), min(seen.slots, before.slots))
        self._seen, self._heard_at = seen, now
        return self.room

    def is_stale(self, now: float) -> bool:
        """Whether its word counts no more."""
        return now - self._heard_at > STALE_S
