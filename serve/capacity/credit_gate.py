"""Credits as a line sees them: what runs by each, and which are fenced off.

A router that is cut off from the queue may still reach the line. So the line refuses what begins by a fenced credit,
and says what of it runs: from then on the queue may give the rest to others.
"""

from __future__ import annotations

from .credit_messages import Room


class CreditGate:
    def __init__(self, epoch: int = 0) -> None:
        self.epoch = epoch
        self._running: dict[int, Room] = {}
        self._fenced: set[int] = set()

    def begin(self, epoch: int, credit: int, tokens: int) -> bool:
        """A request comes by a credit. False: it is fenced off, or of an older queue than the line has heard of."""
        if epoch < self.epoch or credit in self._fenced:
            return False
        self.epoch = epoch
        room = self._running.get(credit, Room(0, 0))
        self._running[credit] = Room(room.tokens + tokens, room.slots + 1)
        return True

    def end(self, credit: int, tokens: int) -> Room | None:
        """It has ended. What is left of the credit, if that is to be told since it is fenced off."""
        room = self._running.get(credit, Room(0, 0))
        left = Room(room.tokens - tokens, room.slots - 1)
        if left.slots > 0:
            self._running[credit] = left
        else:
            self._running.pop(credit, None)
        return self.running(credit) if credit in self._fenced else None

    def fence(self, credit: int) -> Room:
        """Refuse what comes by it from now on, and say what runs."""
        self._fenced.add(credit)
        return self.running(credit)

    def running(self, credit: int) -> Room:
        return self._running.get(credit, Room(0, 0))
