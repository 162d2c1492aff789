"""Credits as a line sees them: what runs by each, and which are fenced off.

A router that is cut off from the queue may still reach the line. So the line refuses what begins by a fenced credit,
and says what of it runs: from then on the queue may give the rest to others. With a later queue all are fenced off.
"""

from __future__ import annotations

from typing import Final

from .credit_messages import Room

# Fenced credits by which nothing runs and that are remembered, of one queue: their routers have long stopped.
MOST_FENCED: Final = 100_000


class CreditGate:
    def __init__(self, epoch: int = 0) -> None:
        self.epoch = epoch
        self._running: dict[int, Room] = {}
        self._fenced: dict[int, None] = {}

    def begin_epoch(self, epoch: int) -> None:
        """A queue is there that is later than all before, if it is: what they gave is fenced off."""
        if epoch > self.epoch:
            self.epoch = epoch
            self._fenced = dict.fromkeys(self._running)

    def begin(self, epoch: int, credit: int, tokens: int) -> bool:
        """A request comes by a credit. False: it is fenced off, or of an older queue than the line has heard of."""
        if epoch < self.epoch or (self._fenced and credit in self._fenced):
            return False
        if epoch > self.epoch:
            self.begin_epoch(epoch)
        room = self._running.get(credit)
        self._running[credit] = Room(tokens, 1) if room is None else Room(room.tokens + tokens, room.slots + 1)
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
        self._fenced[credit] = None
        if len(self._fenced) > MOST_FENCED:
            oldest = next((each for each in self._fenced if each not in self._running), None)
            if oldest is not None:
                del self._fenced[oldest]
        return self.running(credit)

    def is_fenced(self, number: int) -> bool:
        return number in self._fenced

    def fenced(self) -> dict[int, Room]:
        """What still runs by credits that are fenced off."""
        return {credit: room for credit, room in self._running.items() if credit in self._fenced}

    def running(self, credit: int) -> Room:
        return self._running.get(credit, Room(0, 0))
