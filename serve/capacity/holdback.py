"""What of each line the bands may fill now: lower ones less while higher ones are in use."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from .fair_order import Band
from .share import WHOLE, Share

# A band is in use for so long after a request of it has come, but for those that its tenant's limits refuse.
IN_USE_S: Final = 60.0


class Holdback:
    def __init__(self, bands: Sequence[Band]) -> None:
        self._alone = [WHOLE if band.is_whole else Share(band.ceiling, band.ceiling) for band in bands]
        self._beside = [
            WHOLE if band.is_whole else Share(band.ceiling, min(band.ceiling, band.beside), band.beside_backlog)
            for band in bands
        ]
        # When a request of each came last.
        self._used = [-math.inf] * len(bands)
        # When the first of those in use is so no more, unless another one has come.
        self._ends = math.inf

    def came(self, band: int, now: float) -> None:
        self._used[band] = now
        if self._ends == math.inf:
            self._ends = now + IN_USE_S

    def share(self, band: int, now: float) -> Share:
        """What those of a band may fill."""
        beside = self._beside[band]
        if beside is WHOLE:
            return WHOLE
        is_beside = now - max(self._used[:band], default=-math.inf) < IN_USE_S
        return beside if is_beside else self._alone[band]

    def has_ended(self, now: float, waiting: Callable[[int], int]) -> bool:
        """Whether some band is not in use any more since this was asked last: lower ones may fill more. One in which
        somebody is `waiting` is in use.
        """
        if now < self._ends:
            return False
        for band, used in enumerate(self._used):
            if used + IN_USE_S <= now and waiting(band):
                self._used[band] = now
        self._ends = min((used + IN_USE_S for used in self._used if used + IN_USE_S > now), default=math.inf)
        return True
