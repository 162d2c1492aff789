"""The promise of a link, checked frame by frame: what is written comes once, whole and in order, or not at all."""

from __future__ import annotations

from collections import deque


class Deliveries:
    """What is under way on each link. `broken` says what came that should not have."""

    def __init__(self) -> None:
        self.broken: list[str] = []
        self._under_way: dict[tuple[bytes, bool], deque[bytes]] = {}

    def sent(self, link: bytes, by_dialler: bool, payload: bytes) -> None:
        self._under_way.setdefault((link, by_dialler), deque()).append(payload)

    def came(self, link: bytes, by_dialler: bool, payload: bytes) -> None:
        due = self._under_way.get((link, by_dialler))
        if not due:
            self.broken.append(f"a frame of {len(payload)} bytes came over link {link.hex()} once more")
        elif (wanted := due.popleft()) != payload:
            self.broken.append(
                f"a frame of {len(payload)} bytes came over link {link.hex()}, and one of {len(wanted)} was due"
            )
