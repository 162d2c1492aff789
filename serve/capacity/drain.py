"""How fast waiting tokens go, and hence how long a wait will be and when to ask again."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

# A rate is of about so many seconds back.
WINDOW_S: Final = 10.0
# Where nothing has gone yet nobody is told to come back later than this.
LONGEST_S: Final = 120.0
JITTER: Final = 0.1


class DrainRate:
    """Tokens a second that were admitted, of late; older ones count less and less."""

    def __init__(self, now: float) -> None:
        self._began = self._at = now
        self._tokens = 0.0

    def add(self, tokens: int, now: float) -> None:
        # What is this new counts in full: it makes no difference, and this is done for each request.
        if now - self._at > WINDOW_S / 1000:
            self._decay(now)
        self._tokens += tokens

    def _decay(self, now: float) -> None:
        if now > self._at:
            self._tokens *= math.exp((self._at - now) / WINDOW_S)
            self._at = now

    def per_s(self, now: float) -> float:
        """0 if nothing has gone yet."""
        self._decay(now)
        # What a constant rate would have gathered since the beginning.
        seen = WINDOW_S * -math.expm1((self._began - now) / WINDOW_S)
        return self._tokens / seen if seen > 0 else 0.0

    def wait_s(self, tokens: int, now: float) -> float | None:
        """How long so many tokens take to go; None if that cannot be told."""
        rate = self.per_s(now)
        return tokens / rate if rate > 0 else None


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """What a refused client is told."""

    seconds: float

    @property
    def header(self) -> str:
        """Of `Retry-After`: whole seconds, rounded up."""
        return str(max(1, math.ceil(self.seconds)))

    @property
    def milliseconds(self) -> str:
        """Of `retry-after-ms`."""
        return str(math.ceil(self.seconds * 1000))

    @property
    def should_retry(self) -> bool:
        """OpenAI's client waits as it is told only up to two minutes, and asks too early beyond."""
        return self.seconds <= LONGEST_S


def retry_after(wait_s: float | None, deadline_s: float, chance: float) -> RetryAfter:
    """When to ask again: once so much has gone that the wait is within the deadline, and not all at once.

    `chance`, in [0, 1), spreads them by up to a tenth.
    """
    if wait_s is None:
        return RetryAfter(1.0 + chance * JITTER)
    return RetryAfter(max(1.0, wait_s - deadline_s) * (1 + chance * JITTER))
