"""Tell an engine that hangs from one that is busy: how long it has done nothing for those who wait. No I/O, no clock.

Signs of life are bytes of any answer; numbers of its own that have moved (tokens read, tokens generated, its cache);
and, of an engine that has no such numbers, an answer of its health endpoint. A long prefill moves the numbers, or at
least leaves the endpoint answering. One whose endpoint answers, but whose numbers stand still, hangs all the same: its
front end lives on without what computes.
"""

from typing import Final, NamedTuple

# So often within the limit it is looked at, and no less often than this.
_LOOKS: Final = 6
_MOST_PAUSE_S: Final = 10.0


class Look(NamedTuple):
    """What was seen of an engine since the last look."""

    waits: bool
    """Whether a request waits in it now."""
    heard: bool = False
    """Whether bytes of any answer came."""
    answers: bool = False
    """Whether its health endpoint does."""
    progress: str | None = None
    """Numbers that move while it works, in any form; None: it has none. An engine that has them and does not tell them
    has not moved: "" for that."""


class Silence:
    """`lasts_s`: seconds for which requests have waited without a sign of life."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._waited = False
        self._progress: str | None = None
        self.lasts_s = 0.0

    @property
    def pause_s(self) -> float:
        """When to look again."""
        return min(self._limit_s / _LOOKS, _MOST_PAUSE_S)

    def must_ask(self, waits: bool, heard: bool) -> bool:
        """Whether the engine must be asked for what `Look` says besides."""
        return not heard and (waits or self.lasts_s > 0)

    def is_hung(self, look: Look, passed_s: float) -> bool:
        """Take note of a look, `passed_s` seconds after the last."""
        if self._is_sign(look):
            self.lasts_s = 0.0
        elif look.waits and self._waited:
            # If this process was stopped itself, so may the engine have been.
            self.lasts_s += min(passed_s, 2 * self.pause_s)
        self._waited = look.waits
        return look.waits and self.lasts_s >= self._limit_s

    def _is_sign(self, look: Look) -> bool:
        if look.heard:
            return True
        if look.progress is None:
            return look.answers
        before, self._progress = self._progress, look.progress or self._progress
        return before is not None and self._progress != before
