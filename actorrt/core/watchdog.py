"""When a loop is blocked: what is asked of it, how long its answer may take, and what is told of that, once. No I/O.

A question is handed to the loop, which answers it in its turn. While one is open, the loop has been in one step since
the question was asked, or, at most, since it was excused: what blocks it on purpose does not count until it has ended.
A look at the loop that is late itself says that something kept the GIL, or that there was no CPU for it.

All times are in seconds, by one clock that does not go back; `now` is when the look at the loop began.
"""

from __future__ import annotations

from enum import auto
from typing import Final, NamedTuple

from .labels import Label

# How often a loop that runs nothing is looked at: its actors may have background tasks.
IDLE_PERIOD_S: Final = 0.5
# Looks within the limit. A step that began just after a look is found by the time it has lasted for as long.
LOOKS: Final = 4
# An import, or work of the runtime's own, that lasts for so long has others go elsewhere.
LONG_WORK_S: Final = 1.0
# Whoever looks is stopped for so many times the limit: then the alarm goes off that needs no GIL.
GIL_FACTOR: Final = 20


class Alarm(Label):
    """What is to be done about the alarm that goes off while whoever looks is stopped."""

    KEEP = auto()
    # Put it off, to GIL_FACTOR times the limit from now.
    PUT_OFF = auto()
    TURN_OFF = auto()


class Pace(Label):
    # The next look is due within the limit.
    BUSY = auto()
    IDLE = auto()


class Finding(NamedTuple):
    # For how long the loop has been blocked, if it still is.
    blocked_s: float | None
    # What is to be told of that, as long as nothing was told since the last question.
    tell_s: float | None
    # It was the GIL that was kept, and it is over.
    kept_the_gil: bool = False


NOTHING: Final = Finding(None, None)


class Watch:
    """One loop. A block of more than `limit_s` is to be told."""

    __slots__ = (
        "_alarm_since",
        "_answered",
        "_asked",
        "_due",
        "_had_work",
        "_limit",
        "_looked",
        "_pace",
        "_patience",
        "_said",
        "_since",
        "_told",
        "_waited_for_cpu",
    )

    def __init__(self, limit_s: float) -> None:
        self._limit = limit_s
        # So long a question may be open before the loop counts as blocked.
        self._patience = limit_s * (LOOKS - 1) / LOOKS
        self._pace = Pace.IDLE
        self._due = 0.0
        self._looked = 0.0
        # Work that was handed over since the last look.
        self._had_work = 0
        # The number of the last question, and of the last answer.
        self._asked = 0
        self._answered = 0
        self._since = 0.0
        # The question while which a block was told.
        self._told = -1
        # As it was at the last look.
        self._waited_for_cpu = 0.0
        # Since when the alarm is on; 0 while it is off.
        self._alarm_since = 0.0
        # What was said last of what blocks the loop, and whether that holds others up.
        self._said = ("", False)

    # ---- what is asked of the loop

    def work(self) -> bool:
        """Work is about to be handed to the loop. True: it was idle, and the next look is to be soon."""
        self._had_work = 1
        return self._pace is Pace.IDLE

    def ask(self, now: float) -> int | None:
        """The number of a question that is to be handed to the loop now; None if one is open."""
        if self._answered != self._asked:
            return None
        self._asked += 1
        self._since = now
        return self._asked

    def answer(self, number: int) -> None:
        """The loop has come to this question. From the loop's thread."""
        self._answered = number

    @property
    def is_late(self) -> bool:
        """Whether a question is open."""
        return self._answered != self._asked

    # ---- looks

    def next_look(self, now: float, busy: bool, waited_for_cpu: float) -> float:
        """How long to wait until the next look. `waited_for_cpu`: for how long there has been no CPU by now."""
        self._pace = Pace.BUSY if busy else Pace.IDLE
        if busy:
            self._waited_for_cpu = waited_for_cpu
        delay = self._limit / LOOKS if busy else IDLE_PERIOD_S
        self._due = now + delay
        return delay

    def look(self, now: float, runs: bool) -> float | None:
        """Begin a look: by how much it is late, if the loop may be blocked; then `find` says. `runs`: the loop has
        begun to run, and answers."""
        if not runs:
            self._since = now
        if self._alarm_since and now - self._alarm_since > self._limit * GIL_FACTOR:
            # The alarm has told it.
            self.tell()
        late_s = 0.0 if self._pace is Pace.IDLE else now - self._due
        return late_s if late_s > self._limit or (self.is_late and now - self._since >= self._patience) else None

    def counts_cpu(self, late_s: float) -> bool:
        """Whether `find` asks for how long there has been no CPU."""
        return late_s > self._limit

    def find(
        self, now: float, late_s: float, *, on_purpose: bool, excused_until: float, waited_for_cpu: float
    ) -> Finding:
        """What has become of a block. What is read of the loop for this is read before: it goes on meanwhile."""
        blocked_s = now - max(self._since, excused_until)
        late = self.is_late and blocked_s >= self._patience
        if on_purpose:
            self.tell()
            return Finding(blocked_s if late else None, None)
        if excused_until > self._looked:
            # What blocks from then on is another thing than what blocked until then.
            self._told = -1
        tell_s = None
        kept_the_gil = late_s > self._limit
        if kept_the_gil:
            stopped_s = min(late_s, now - excused_until)
            if stopped_s - (waited_for_cpu - self._waited_for_cpu) > self._limit:
                tell_s = stopped_s
        elif late:
            tell_s = blocked_s
        if self._told == self._asked:
            tell_s = None
        return Finding(blocked_s if late else None, tell_s, kept_the_gil and tell_s is not None)

    def tell(self) -> None:
        """It is told, or is not to be: once for each question."""
        self._told = self._asked

    def looked(self, now: float, was_late: bool, runs_calls: bool) -> bool:
        """End a look; whether the loop is busy. `was_late`: `is_late` as the look began."""
        # A loop that looks idle is asked once more: a call whose first step blocks is not among those that run.
        busy = was_late or self._pace is Pace.IDLE or bool(self._had_work) or runs_calls
        self._had_work = 0
        self._looked = now
        return busy

    # ---- what others are told

    def says(self, by: str, harmful: bool) -> bool:
        """Whether it is news what blocks the loop, "" for nothing, and whether that holds others up."""
        if (by, harmful) == self._said:
            return False
        self._said = (by, harmful)
        return True

    def alarm(self, now: float, busy: bool) -> Alarm:
        """What to do about the alarm: it is put off where it comes near."""
        if now - self._alarm_since < self._limit * GIL_FACTOR / 4:
            return Alarm.KEEP
        if busy:
            self._alarm_since = now
            return Alarm.PUT_OFF
        if self._alarm_since:
            self._alarm_since = 0.0
            return Alarm.TURN_OFF
        return Alarm.KEEP

    @property
    def alarm_s(self) -> float:
        return self._limit * GIL_FACTOR

    @property
    def limit_s(self) -> float:
        return self._limit


def sends_others_elsewhere(blocked_s: float, by_user: bool) -> bool:
    """Whether a blocked loop has others go elsewhere: for code of a user at once, else only if it lasts."""
    return by_user or blocked_s >= LONG_WORK_S
