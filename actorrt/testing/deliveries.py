"""The promise of a link, checked frame by frame: what is written comes once, whole and in order, or not at all."""

from __future__ import annotations

from collections import deque
from collections.abc import Container

from actorrt.types import ProcessId


class Deliveries:
    """What is under way on each link. `broken` says what came that should not have."""

    def __init__(self) -> None:
        self.broken: list[str] = []
        self._under_way: dict[tuple[bytes, bool], deque[bytes]] = {}
        self._senders: dict[tuple[bytes, bool], ProcessId] = {}

    def sent(self, link: bytes, by_dialler: bool, payload: bytes, sender: ProcessId) -> None:
        self._under_way.setdefault((link, by_dialler), deque()).append(payload)
        self._senders[link, by_dialler] = sender

    def never_came(self, dead: Container[ProcessId]) -> bool:
        """Whether something never came that a process had written before it ended: a cut had lost it by then."""
        return any(due and self._senders[key] in dead for key, due in self._under_way.items())

    def came(self, link: bytes, by_dialler: bool, payload: bytes) -> None:
        due = self._under_way.get((link, by_dialler))
        if not due:
            self.broken.append(f"a frame of {len(payload)} bytes came over link {link.hex()} once more")
        elif (wanted := due.popleft()) != payload:
            self.broken.append(
                f"a frame of {len(payload)} bytes came over link {link.hex()}, and one of {len(wanted)} was due"
            )
