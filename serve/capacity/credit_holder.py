"""Credits as a router holds them: it admits by them without asking, and reports behind.

Whoever holds it hands over what the queue says (`heard`), sends `report` a few times a second, and asks `admit` for a
place. `None` means: ask the queue. A router that the queue does not hear stops by itself before it is fenced off.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from .credit_messages import Grants, Report, Room, Usage
from .credits import STOPS_S
from .need import LineId


class Held:
    """One credit, and what is filled of it."""

    __slots__ = ("filled", "incarnation", "line", "number", "running", "slots", "tokens")

    def __init__(self, number: int, line: LineId, incarnation: int) -> None:
        self.number, self.line, self.incarnation = number, line, incarnation
        self.tokens = self.slots = self.filled = self.running = 0


@dataclass(slots=True)
class LocalGrant:
    """A request that was admitted by a credit, until it is given back."""

    credit: Held
    tokens: int
    is_running: bool = True


class CreditHolder:
    def __init__(self, router: str) -> None:
        self.router = router
        self.epoch = 0
        self._version = -1
        self._held: dict[int, Held] = {}
        # Those that may be filled, the one that was filled last at the end.
        self._ready: deque[Held] = deque()
        self._number = 0
        self._sent: deque[tuple[int, float]] = deque()
        self._until = 0.0
        self._usage = Usage(0, {})
        self._served: dict[tuple[int, str, str], float] = {}

    def heard(self, grants: Grants, now: float) -> None:
        """What the queue says counts, unless something later has."""
        if grants.epoch < self.epoch:
            return
        if grants.epoch > self.epoch:
            # Another queue knows nothing of these credits; what runs by them it hears from the lines.
            self.epoch, self._version = grants.epoch, -1
            self._held.clear()
            self._sent.clear()
            self._until = 0.0
            self._number, self._usage = 0, Usage(0, {})
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
                held = self._held[number] = Held(number, credit.line, credit.incarnation)
            held.tokens, held.slots = credit.room
        for number in [number for number in self._held if number not in grants.credits]:
            gone = self._held.pop(number)
            gone.tokens = gone.slots = 0
        self._ready = deque(held for held in self._held.values() if held.slots)

    def admit(self, tokens: int, now: float) -> LocalGrant | None:
        """A place for so many tokens, or None: the queue is to be asked."""
        if now >= self._until:
            return None
        ready = self._ready
        for _ in range(min(4, len(ready))):
            held = ready[0]
            ready.rotate(-1)
            if held.filled + tokens <= held.tokens and held.running < held.slots:
                held.filled += tokens
                held.running += 1
                return LocalGrant(held, tokens)
        return None

    def release(self, grant: LocalGrant, key: tuple[int, str, str] = (0, "", ""), served: float = 0.0) -> bool:
        """It has ended; of band, tenant and user it was served so many tokens by their weights. False if it had."""
        if not grant.is_running:
            return False
        grant.is_running = False
        grant.credit.filled -= grant.tokens
        grant.credit.running -= 1
        if served:
            self._served[key] = self._served.get(key, 0.0) + served
        return True

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
        return Report(self.router, self.epoch, self._number, self._version, held, self._usage)
