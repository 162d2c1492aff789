"""A replica's side of the capacity queue: the leases that run here, and that none of an older queue begins any more.

Pure. A queue that is new asks for all that runs (`snapshot`) and is told from then on what begins and ends.
"""

from __future__ import annotations

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
            self.epoch = tag.epoch
        self.running[tag.number] = self._begun[tag.number] = tag
        return True

    def end(self, number: int) -> None:
        if self.running.pop(number, None) is not None and self._begun.pop(number, None) is None:
            self._ended.append(number)

    def snapshot(self, epoch: int, offer: Offer | None) -> Snapshot:
        """For a queue of this epoch, whose leases alone begin here from now on. One that is older changes nothing."""
        if epoch >= self.epoch:
            self.epoch = epoch
            self._begun.clear()
            self._ended.clear()
        return Snapshot(self.epoch, self.incarnation, offer, tuple(self.running.values()))

    @property
    def has_news(self) -> bool:
        return bool(self._begun or self._ended)

    def report(self) -> Report:
        begun, ended = self._begun, self._ended
        self._begun, self._ended = {}, []
        given = tuple(number for number in begun if number >= 0)
        return Report(given, tuple(ended), tuple(tag for number, tag in begun.items() if number < 0))
