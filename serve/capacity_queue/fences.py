"""Which replicas are to fence leases and credits off now: to begin nothing more by them, and to say what runs.

A router that has left the queue may still reach replicas. What it had in hand is given to others only once its replica
has answered. A replica that does not answer, or could not be asked, is asked again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

FENCE_AGAIN_S: Final = 0.5


class Fences:
    def __init__(self) -> None:
        self._asked_at: dict[int, float] = {}
        # Replicas that are asked and have not answered.
        self._asked: set[str] = set()

    def due(self, unanswered: Mapping[int, str], now: float) -> dict[str, list[int]]:
        """By replica, the numbers that it is to fence off, of those that none has answered for. It is asked for no
        others until `ended`.
        """
        self._asked_at = {number: at for number, at in self._asked_at.items() if number in unanswered}
        found: dict[str, list[int]] = {}
        for number, replica in unanswered.items():
            if replica in self._asked or now - self._asked_at.get(number, float("-inf")) < FENCE_AGAIN_S:
                continue
            self._asked_at[number] = now
            found.setdefault(replica, []).append(number)
        self._asked.update(found)
        return found

    def ended(self, replica: str) -> None:
        """It has answered, or could not be asked."""
        self._asked.discard(replica)
