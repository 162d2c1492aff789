"""A replica's side of the capacity queue: the leases that run here, and that none of an older queue begins any more.

Pure. A queue that is new asks for all that runs (`snapshot`) and is told from then on what begins and ends. Of what
runs by credits it is told only once they are fenced off: until then that is within what it has given.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..capacity.credit_gate import CreditGate
from ..capacity.credit_messages import Room
from .messages import Offer, Report, Snapshot, Tag


class RunningLeases:
    def __init__(self, incarnation: int) -> None:
        self.incarnation = incarnation
        self.epoch = 0
        # Whether a queue is told what happens.
        self.is_followed = False
        self.running: dict[int, Tag] = {}
        self._begun: dict[int, Tag] = {}
        self._ended: list[int] = []
        self._gate = CreditGate()
        # Of credits by which something has run: their ranks.
        self._ranks: dict[int, int] = {}
        self._rooms: dict[int, Room] = {}

    def begin(self, tag: Tag) -> bool:
        """A request has come with this lease. False if it must not begin: a later queue does not know of it."""
        if tag.incarnation not in (0, self.incarnation):
            return False
        if tag.number < 0:
            # Its router does without a queue. One that knows of an earlier queue only is told by the next one soon.
            if self.is_followed and 0 < tag.epoch < self.epoch:
                return False
        elif tag.epoch < self.epoch:
            return False
        elif tag.epoch > self.epoch:
            self._begin_epoch(tag.epoch)
        elif not tag.credit and self._gate.is_fenced(tag.number):
            return False
        if tag.credit:
            if not self._gate.begin(tag.epoch, tag.number, tag.prompt + tag.output):
                return False
            self._ranks[tag.number] = tag.rank
            return True
        self.running[tag.number] = self._begun[tag.number] = tag
        return True

    def _begin_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self._gate.begin_epoch(epoch)

    def end(self, tag: Tag) -> None:
        """One that has begun with this lease has ended: told once for each."""
        number = tag.number
        if tag.credit:
            left = self._gate.end(number, tag.prompt + tag.output)
            if left is not None:
                self._rooms[number] = left
            if not self._gate.running(number).slots:
                self._ranks.pop(number, None)
        elif self.running.pop(number, None) is not None and self._begun.pop(number, None) is None:
            self._ended.append(number)

    def fence(self, epoch: int, numbers: Iterable[int]) -> tuple[tuple[int, int, int], ...]:
        """Let nothing more begin by these leases and credits of the queue of this epoch. What runs by them; none if a
        later queue is there.
        """
        if epoch < self.epoch:
            return ()
        self._begin_epoch(epoch)
        rooms = ((number, self._fence(number)) for number in numbers)
        return tuple((number, room.tokens, room.slots) for number, room in rooms)

    def _fence(self, number: int) -> Room:
        tag = self.running.get(number)
        if tag is None:
            return self._gate.fence(number)
        # The answer says that it has begun: its end is to be told in any case.
        self._begun.pop(number, None)
        return Room(tag.prompt + tag.output, 1)

    def snapshot(self, epoch: int, offer: Offer | None) -> Snapshot:
        """For a queue of this epoch, whose leases alone begin here from now on. One that is older changes nothing."""
        if epoch >= self.epoch:
            self._begin_epoch(epoch)
            self._begun.clear()
            self._ended.clear()
            self._rooms.clear()
        fenced = self._gate.fenced()
        credits = tuple((number, self._ranks[number], room.tokens, room.slots) for number, room in fenced.items())
        return Snapshot(self.epoch, self.incarnation, offer, tuple(self.running.values()), credits)

    @property
    def has_news(self) -> bool:
        return bool(self._begun or self._ended or self._rooms)

    def report(self) -> Report:
        begun, ended, rooms = self._begun, self._ended, self._rooms
        self._begun, self._ended, self._rooms = {}, [], {}
        given = tuple(number for number in begun if number >= 0)
        unknown = tuple(tag for number, tag in begun.items() if number < 0)
        left = tuple((number, room.tokens, room.slots) for number, room in rooms.items())
        return Report(given, tuple(ended), unknown, left)
