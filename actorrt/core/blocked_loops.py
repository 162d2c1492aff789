"""Which shared workers of a node have a blocked loop: others go elsewhere, and one that holds them up long is ended.

A worker says itself what blocks its loop. One whose code keeps the GIL cannot: it is asked again and again whether it
is there, and counts as blocked once two questions in a row have found the one before them open. No I/O: the node asks,
and has the timers.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from actorrt.types import ProcessId

# How often each shared worker is asked, at most; and after so many questions without an answer it counts as blocked.
ASK_EVERY_S: Final = 1.0
SILENT_AFTER: Final = 2
# So often, at least, it is asked within the time after which it is ended.
QUESTIONS: Final = 8
# The states of a process, as the kernel has them, in which it could answer: it is neither stopped nor held by a
# debugger.
RUNS: Final = frozenset("RSD")


class Tell(Struct, frozen=True):
    """Those who use the worker are to know that its loop is blocked, or goes on."""

    process: ProcessId
    blocked: bool


class Arm(Struct, frozen=True):
    """Call `due` with the worker after so long."""

    process: ProcessId
    delay_s: float


class Disarm(Struct, frozen=True):
    process: ProcessId


class End(Struct, frozen=True):
    """The worker has held up others for too long."""

    process: ProcessId
    why: str


Action = Tell | Arm | Disarm | End


class BlockedLoops:
    """The shared workers of a node. One that holds others up for `timeout_s` is ended; 0: none is."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        # What blocks them, as they say; and how many looks in a row have found a question open.
        self._said: dict[ProcessId, str] = {}
        self._silent: dict[ProcessId, int] = {}
        # Those that have a question.
        self._asked: set[ProcessId] = set()
        # Those that are ended after a while, and why.
        self._deadlines: dict[ProcessId, str] = {}

    @property
    def period_s(self) -> float:
        """How often `look` is called."""
        return ASK_EVERY_S if self._timeout_s <= 0 else min(ASK_EVERY_S, self._timeout_s / QUESTIONS)

    def is_blocked(self, process: ProcessId) -> bool:
        return process in self._said or self._silent.get(process, 0) >= SILENT_AFTER

    def heard(self, process: ProcessId, by: str, harmful: bool) -> list[Action]:
        """A worker says what blocks its loop, "" for nothing. `harmful`: others wait, and it is no import nor the
        like."""
        before = self.is_blocked(process)
        self._silent.pop(process, None)
        if by:
            self._said[process] = by
        else:
            self._said.pop(process, None)
        actions: list[Action] = []
        if not harmful:
            self._disarm(process, actions)
        elif self._timeout_s > 0 and process not in self._deadlines:
            self._deadlines[process] = f"its event loop was blocked for {self._timeout_s:g} s by {by}"
            actions.append(Arm(process, self._timeout_s))
        self._look(process, before, actions)
        return actions

    def due(self, process: ProcessId) -> list[Action]:
        """The time of a worker that holds others up is over."""
        why = self._deadlines.pop(process, None)
        return [] if why is None else [End(process, why)]

    def ended(self, process: ProcessId) -> list[Action]:
        """A worker is gone."""
        self._said.pop(process, None)
        self._silent.pop(process, None)
        actions: list[Action] = []
        self._disarm(process, actions)
        return actions

    def _disarm(self, process: ProcessId, actions: list[Action]) -> None:
        if self._deadlines.pop(process, None) is not None:
            actions.append(Disarm(process))

    def _look(self, process: ProcessId, before: bool, actions: list[Action]) -> None:
        now = self.is_blocked(process)
        if now is not before:
            actions.append(Tell(process, now))

    # ---- those who cannot say anything

    def asks(self, process: ProcessId) -> bool:
        """Whether a worker is to be asked now: not while it has a question; then `no_answer` follows."""
        if process in self._asked:
            return False
        self._asked.add(process)
        return True

    def no_answer(self, process: ProcessId, state: str | None) -> list[Action]:
        """A look has found a question open, and the process in this state. One that comes late counts once."""
        actions: list[Action] = []
        if state not in RUNS:
            return actions
        before = self.is_blocked(process)
        silent = self._silent[process] = self._silent.get(process, 0) + 1
        self._look(process, before, actions)
        if self._timeout_s > 0 and silent * self.period_s >= self._timeout_s:
            why = f"it did not answer for {self._timeout_s:g} s: code in it keeps the interpreter to itself"
            actions.append(End(process, why))
        return actions

    def answered(self, process: ProcessId) -> list[Action]:
        """It has answered, or cannot any more."""
        self._asked.discard(process)
        before = self.is_blocked(process)
        self._silent.pop(process, None)
        actions: list[Action] = []
        self._look(process, before, actions)
        return actions
