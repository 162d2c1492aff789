"""Whether the generator of the load was itself too slow for what it measured. Pure but for the clock it is given.

A measuring loop that is late sees tokens late, and blames the server. So it looks at itself: how late its own timers
fire, and how much of its one core it uses.
"""

from collections.abc import Callable
from typing import Final

from loadtests.llm.tally import Gaps

LATE_S: Final = 0.02
BUSY: Final = 0.9


class OwnLoop:
    """`woke(planned, now)` after each sleep; `verdict` at the end."""

    def __init__(self, wall: Callable[[], float], cpu: Callable[[], float]) -> None:
        self._wall, self._cpu = wall, cpu
        self._began = wall(), cpu()
        self._lateness = Gaps()

    def woke(self, planned: float, now: float) -> None:
        self._lateness.add((now - planned,))

    def verdict(self) -> str | None:
        """None if the figures can be trusted, else why not."""
        wall, cpu = self._wall() - self._began[0], self._cpu() - self._began[1]
        late = self._lateness.quantile(0.99)
        if late is not None and late > LATE_S:
            return (
                f"the load generator was the bottleneck: one in a hundred of its own timers was {late * 1000:.0f} ms "
                f"late (up to {LATE_S * 1000:.0f} ms can be trusted); take fewer users"
            )
        if wall > 0 and cpu / wall > BUSY:
            return (
                f"the load generator was the bottleneck: it used {cpu / wall:.0%} of its core (up to {BUSY:.0%} can be "
                "trusted); take fewer users"
            )
        return None
