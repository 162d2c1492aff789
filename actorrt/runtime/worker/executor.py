"""What a worker asks of its executor: `LoopExecutor` runs user code on a loop in the main thread, `RuntimeLoopExecutor`
on the runtime's own loop, and `SyncExecutor` one call at a time in the main thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, Protocol

import msgspec

from actorrt import exceptions
from actorrt.core.cancellation import Reach
from actorrt.core.outcome import EXITS, End, Errors
from actorrt.wire.messages import AnyMessage, Blocked, Unblocked

from ..links.link import Link
from ..links.running import RunningCall
from ..owner.outcomes import Outcomes
from ..owner.program import CallRunner, UserSide
from .code import CodeStatistics

# The cancellation of what a call waited for may be here before its own.
_INTERRUPTS: Final = (asyncio.CancelledError, KeyboardInterrupt, exceptions.TaskCancelledError)
# Of methods, and of tasks that have their process for themselves.
OWN_ERRORS: Final = Errors(_INTERRUPTS, EXITS)
# Of tasks that share their process.
SHARED_ERRORS: Final = Errors(_INTERRUPTS)


class ExecutorStatistics(msgspec.Struct, frozen=True):
    """What an executor has under way. Threads go on while it is counted, so the figures may be of different moments."""

    # Actors that are here, also those that are being made or are to stop.
    actors: int
    # Calls that have begun and not ended: of a loop, those that have come to an await.
    running: int
    # Calls that wait for their turn, at the limit of their actor or behind the call that the main thread runs.
    waiting: int
    # Frames of messages that the user's loop has not taken up yet; 0 where there is none.
    handed_over: int
    # What callers have defined here.
    code: CodeStatistics


class Executor(CallRunner, Protocol):
    """On the runtime loop, unless it says otherwise."""

    @property
    def user_side(self) -> UserSide: ...

    def run(self) -> None:
        """Run calls until the worker ends; in the main thread, which returns then."""

    def stop(self) -> None:
        """Have `run` return; from any thread."""

    def finalize(self, timeout_s: float) -> None:
        """At the end of this process: run what `async def __del__` has begun, for so long; in the main thread."""

    def drop_actor(self) -> None:
        """The process stays for what it owns: what its actor held goes, and calls find no actor."""

    def end_calls(self, runs: Iterable[RunningCall], reach: Reach) -> None:
        """Interrupt running calls, and what they have called as far as `reach` says."""

    def statistics(self) -> ExecutorStatistics:
        """From any thread."""
        ...

    def tell_idle(self, told: Callable[[], None]) -> None:
        """Call `told` from now on for each call that has ended; from whatever thread it has ended in."""


def ended(outcomes: Outcomes, run: RunningCall, end: End, error: BaseException) -> AnyMessage | None:
    """The outcome of a call whose code raised. None: the end of the process is its outcome."""
    match end:
        case End.CANCELLED:
            return outcomes.cancelled(run.seq)
        case End.UNBEGUN:
            return outcomes.no_actor(run.seq)
        case End.GONE:
            return outcomes.no_actor(run.seq, started=True)
        case End.UNSAID:
            return None
        case End.FAILED | End.LEAVES:
            return outcomes.failure(run, error)


def tell_blocked(node: Link, lease: int, blocked: bool) -> None:
    """The user's thread waits in `get`, or goes on: its CPU is free meanwhile."""
    if lease and not node.closed:
        node.post(Blocked(lease) if blocked else Unblocked(lease))
