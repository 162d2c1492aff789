"""What the options of a call say of its time and of its repetitions, and how it stands with that. No I/O, no clock.

A call without such options has no record: its options then say no more than which errors it is repeated for.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import auto
from typing import Final

from msgspec import Struct

from actorrt.types import RetryPolicy

from .labels import Label

# True: whatever error its code raises. Else the classes of errors; () and False are none.
RetryOn = bool | tuple[type[BaseException], ...]


class Limit(Label):
    # It has so long in all, from when it is called to its outcome.
    TIMEOUT = auto()
    # It has so long to begin.
    START = auto()


# What options call them.
OPTIONS: Final = {Limit.TIMEOUT: "timeout_s", Limit.START: "start_timeout_s"}


class Limits(Struct, frozen=True):
    """What options say; None: nothing."""

    timeout_s: float | None = None
    start_timeout_s: float | None = None
    retry_policy: RetryPolicy | None = None

    def of(self, limit: Limit) -> float | None:
        """After how many seconds a limit is over; None: never."""
        return self.timeout_s if limit is Limit.TIMEOUT else self.start_timeout_s


NO_LIMITS: Final = Limits()
NO_POLICY: Final = RetryPolicy(pause_s=0.0)


def pause_after(policy: RetryPolicy, repeated: int, chance: float) -> float:
    """For how many seconds a call waits that was repeated so often before; `chance`: from 0 to 1."""
    try:
        grown = policy.pause_s * policy.growth**repeated
    except OverflowError:
        grown = policy.longest_pause_s
    return min(grown, policy.longest_pause_s) * (1.0 + policy.jitter * (2.0 * chance - 1.0))


class CallTerms:
    """One call's."""

    __slots__ = ("_dice", "_repeated", "began", "limits", "over", "pause_s", "retry_on")

    def __init__(self, limits: Limits, retry_on: RetryOn, dice: Callable[[], float]) -> None:
        """`dice`: a number from 0 to 1, another one each time."""
        self.limits = limits
        self.retry_on = retry_on
        self._dice = dice
        self._repeated = 0
        # How long its next pause is.
        self.pause_s = 0.0
        # The limit that was over first and has not been met, and whether it had begun by then, as far as is known.
        self.over: Limit | None = None
        self.began = False

    @property
    def never_for(self) -> tuple[type[BaseException], ...]:
        """Errors that it is not repeated for, whatever else is said."""
        return (self.limits.retry_policy or NO_POLICY).never_for

    def takes_pause(self) -> bool:
        """It goes once more: False if that is at once."""
        policy = self.limits.retry_policy
        if policy is None or not policy.pause_s:
            return False
        self.pause_s = pause_after(policy, self._repeated, self._dice())
        self._repeated += 1
        return True

    def is_over(self, limit: Limit, began: bool) -> None:
        """It has not kept to this limit."""
        self.over, self.began = limit, began
