"""How fast each line reads prompts, measured from when a request was sent there to its first token. Pure."""

from __future__ import annotations

from typing import Final

from ..capacity.ledger import Lease
from ..capacity.need import LineId

# How a rate of reading prompts is averaged.
RATE_PART: Final = 0.1
# A prompt of which less is to be read says nothing of it: when its lease was granted need not be noted.
LEAST_READ: Final = 256


class ReadRates:
    """In tokens a second."""

    def __init__(self) -> None:
        self._rates: dict[LineId, float] = {}
        self._changed: dict[LineId, None] = {}

    def of(self, line: LineId) -> float | None:
        """None: none was measured."""
        return self._rates.get(line)

    def forget(self, line: LineId) -> None:
        self._rates.pop(line, None)
        self._changed.pop(line, None)

    def take_changed(self) -> list[tuple[LineId, float]]:
        """Those that were measured since this was asked last."""
        changed, self._changed = self._changed, {}
        return [(line, self._rates[line]) for line in changed]

    def came(self, lease: Lease, now: float) -> None:
        """Some of its answer has come, so its prompt was read."""
        if lease.granted_at is None:
            return
        took_s = lease.take_reading_s(now)
        if took_s is None or took_s <= 0 or not lease.unread:
            return
        line, rate = lease.line.id, lease.unread / took_s
        before = self._rates.get(line)
        self._changed[line] = None
        self._rates[line] = rate if before is None else before + RATE_PART * (rate - before)
