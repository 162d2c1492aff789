"""Those that come next and fit nowhere yet: they may pass the first one, each where there is room for it.

They are looked up in the fair order now and then, and not at each event: between, only those are tried that need no
more than has become free. So who passes is up to `FRESH_S`, and half of the window, behind the order; who is the
first of all never is.
"""

from __future__ import annotations

import math
from typing import Final

from .ask import Ask
from .fair_order import FairOrder
from .tenants import Tenants

# Of those that wait, so many are looked at for a place, in their order, while the first of them fits nowhere.
PASSES: Final = 32
FRESH_S: Final = 0.001
_NEVER: Final = -math.inf


class Window:
    def __init__(self, order: FairOrder[Ask], tenants: Tenants) -> None:
        self._order, self._tenants = order, tenants
        self.asks: list[Ask] = []
        # Those that had no place when they were tried: they have none where nothing has been gained since.
        self.tried: set[Ask] = set()
        # None of them needs less; None: some of them were not tried.
        self.least: int | None = 0
        # Whether all are in it that wait and may run.
        self._is_whole = False
        self._gone = 0
        self._built = _NEVER

    def refresh(self, now: float, passes: int) -> bool:
        """Look it up again if it is time to, or if more of them are to be looked at. Whether it did."""
        if passes <= PASSES and 2 * self._gone < len(self.asks) and now - self._built < FRESH_S:
            return False
        asks: list[Ask] = []
        refused: dict[str, int] = {}
        left_out: set[str] = set()
        is_whole = True
        for ask, _ in self._order.turns(left_out):
            if not self._tenants.known[ask.tenant].may_run(ask.tokens):
                # Of a tenant at its limit few are looked at, however many come next.
                count = refused[ask.tenant] = refused.get(ask.tenant, 0) + 1
                if count == passes:
                    left_out.add(ask.tenant)
                continue
            if len(asks) == passes:
                is_whole = False
                break
            asks.append(ask)
        self.asks, self._is_whole = asks, is_whole
        if not is_whole:
            # Others will not be tried as lines gain, so what was found of them will not count when they come next.
            self.tried.intersection_update(asks)
        elif len(self.tried) > len(self._order) + PASSES:
            # Some have left that were tried, and were in the window until now.
            self.tried.difference_update([ask for ask in self.tried if ask not in self._order])
        self.least = None
        self._gone = 0
        self._built = now
        return True

    @property
    def is_behind(self) -> bool:
        """Whether others are among the next by now."""
        return bool(self._gone) and not self._is_whole

    @property
    def is_spent(self) -> bool:
        """Whether half of it has gone, and others wait."""
        return not self._is_whole and 2 * self._gone >= max(1, len(self.asks))

    def came(self, ask: Ask) -> None:
        """One more waits, which is looked at next if so few do."""
        if self._is_whole:
            self.asks.append(ask)
            self.least = None
            self._is_whole = len(self.asks) < 2 * PASSES

    def left(self, ask: Ask) -> None:
        """One of those that wait does not any more."""
        self._gone += 1
        self.tried.discard(ask)

    def look_up_anew(self) -> None:
        """Others are among the next."""
        self._built = _NEVER

    def look_again(self) -> None:
        """Whatever was found of those that wait does not count any more."""
        self._built = _NEVER
        self.tried.clear()

    def was_tried(self) -> None:
        """All that were worth it have been; those that are still there have no place."""
        del self.asks[2 * PASSES :]
        if self.least is None:
            self.least = min((ask.tokens for ask in self.asks if ask in self.tried), default=0)
