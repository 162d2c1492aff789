"""Credits as a router holds them: it admits by them without asking, and reports behind.

Whoever holds it hands over what the queue says (`heard`), sends `report` a few times a second, and asks `take` for a
place. `None` means: ask the queue. A router that the queue does not hear stops by itself before it is fenced off.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from .credit_messages import Grants, Report, Room, Usage
from .credits import NOTHING, STOPS_S
from .need import LineId


class Held:
    """One credit, and what is filled of it. Who took some makes `filled` and `running` less when that has ended."""

    __slots__ = (
        "epoch", "filled", "following", "incarnation", "keeper", "line", "most_unread", "number", "place", "replica",
        "running", "slots", "tag", "tokens", "unread",
    )  # fmt: skip

    def __init__(self, epoch: int, number: int, line: LineId, incarnation: int, most_unread: int) -> None:
        self.epoch, self.number, self.line = epoch, number, line
        self.replica = line.replica
        self.incarnation, self.most_unread = incarnation, most_unread
        self.tokens = self.slots = self.filled = self.running = self.unread = 0
        # Those that may be filled are a ring.
        self.following = self
        # Whatever whoever holds it wants to keep with it.
        self.place: Any = None
        self.tag: Any = None
        self.keeper: Any = None

    def set_room(self, room: Room) -> None:
        self.tokens, self.slots = room

    def count_at(self, place: Any) -> None:
        self.place = place

    def keep_by(self, keeper: Any, place: Any) -> None:
        self.keeper, self.place = keeper, place

    def name(self, tag: Any) -> None:
        self.tag = tag

    def end(self, tokens: int) -> None:
        """One that filled so much of it has ended."""
        self.filled -= tokens
        self.running -= 1

    def go_before(self, following: Held) -> None:
        self.following = following

    def has_read(self, unread: int) -> None:
        """So much of a prompt waits no more, as its first token has come, or its end."""
        self.unread -= unread


class CreditHolder:
    def __init__(self, router: str, is_usable: Callable[[str], bool] = lambda _: True) -> None:
        """`is_usable` says of a replica whether it takes requests now; once that changes, `look_again`."""
        self.router = router
        self.epoch = 0
        self._is_usable = is_usable
        self._version = -1
        self._held: dict[int, Held] = {}
        # Of those that may be filled, which is next.
        self.next: Held | None = None
        self._number = 0
        self._sent: deque[tuple[int, float]] = deque()
        self._until = 0.0
        self._usage = Usage(0, {})
        self._served: dict[tuple[str, str, str], float] = {}

    def begin(self, epoch: int) -> None:
        """A queue is there that knows nothing of these credits; what runs by them it hears from the lines."""
        self.epoch, self._version = epoch, -1
        for held in self._held.values():
            held.set_room(NOTHING)
        self._held.clear()
        self.next = None
        self._sent.clear()
        self._until = 0.0
        self._number, self._usage = 0, Usage(0, {})

    def heard(self, grants: Grants, now: float) -> None:
        """What the queue says counts, unless something later has."""
        if grants.epoch < self.epoch:
            return
        if grants.epoch > self.epoch:
            self.begin(grants.epoch)
        while self._sent and self._sent[0][0] <= grants.heard:
            number, at = self._sent.popleft()
            if number == grants.heard:
                self._until = max(self._until, at + STOPS_S)
        if grants.counted == self._usage.number:
            self._usage = Usage(self._usage.number, {})
        if grants.version <= self._version:
            return
        self._version = grants.version
        for number, credit in grants.credits.items():
            held = self._held.get(number)
            if held is None:
                held = self._held[number] = Held(self.epoch, number, credit.line, credit.incarnation, credit.unread)
            held.set_room(credit.room)
        for number in [number for number in self._held if number not in grants.credits]:
            self._held.pop(number).set_room(NOTHING)
        self.look_again()

    def look_again(self) -> None:
        """Other replicas than before take requests."""
        usable = self._is_usable
        ready = [held for held in self._held.values() if held.slots and usable(held.replica)]
        for held, following in zip(ready, (*ready[1:], *ready[:1]), strict=True):
            held.go_before(following)
        self.next = ready[0] if ready else None

    def stop(self) -> None:
        """Admit nothing more until the queue has been heard again."""
        self._until = 0.0

    def spoil(self, held: Held) -> None:
        """Its line has refused it: it is fenced off, or a later queue is there."""
        held.set_room(NOTHING)
        self.look_again()

    def take(self, tokens: int, now: float, unread: int = 0) -> Held | None:
        """Fill so much of some credit, of which `unread` is a prompt that is to be read; None: ask the queue."""
        held = self.next
        if held is None or now >= self._until:
            return None
        # Of two that come next the one that runs less.
        other = held.following
        if other.running < held.running:
            held = other
        last = held
        while (
            held.running >= held.slots
            or held.filled + tokens > held.tokens
            or (unread and held.unread + unread > held.most_unread)
        ):
            held = held.following
            if held is last:
                return None
        self.next = held.following
        # Written here and not by a method: that would cost a twentieth of a request by credit.
        held.filled += tokens
        held.running += 1
        if unread:
            held.unread += unread
        return held

    def serve(self, key: tuple[str, str, str], served: float) -> None:
        """Of band, tenant and user so many tokens were served, by their weights."""
        self._served[key] = self._served.get(key, 0.0) + served

    def report(self, now: float) -> Report:
        """What the queue is to be told now."""
        self._number += 1
        self._sent.append((self._number, now))
        if len(self._sent) > 64:
            self._sent.popleft()
        if not self._usage.served and self._served:
            # What was sent is sent again as it was until it has been counted.
            self._usage = Usage(self._usage.number + 1, self._served)
            self._served = {}
        held = {
            number: Room(max(each.tokens, each.filled), max(each.slots, each.running))
            for number, each in self._held.items()
        }
        filled = {number: Room(each.filled, each.running) for number, each in self._held.items()}
        return Report(self.router, self.epoch, self._number, self._version, held, self._usage, filled)
