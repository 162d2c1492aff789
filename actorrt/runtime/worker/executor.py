"""What a worker asks of its executor: `LoopExecutor` runs user code on a loop in the main thread, `RuntimeLoopExecutor`
on the runtime's own loop, and `SyncExecutor` one call at a time in the main thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from actorrt import exceptions
from actorrt.core.cancellation import Reach
from actorrt.wire.messages import AnyMessage, Blocked, Unblocked

from ..links.link import Link
from ..links.running import RunningCall
from ..owner.outcomes import Outcomes
from ..owner.program import CallRunner, UserSide
from .code import CodeStatistics


@dataclass(frozen=True, slots=True)
class ExecutorStatistics:
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


def failure(outcomes: Outcomes, run: RunningCall, error: BaseException) -> AnyMessage:
    """The outcome of a call that raised."""
    if run.cancelled and issubclass(type(error), exceptions.TaskCancelledError):
        # What it waited for was cancelled with it, and that was here first.
        return outcomes.cancelled(run.seq)
    return outcomes.failure(run, error)


def tell_blocked(node: Link, lease: int, blocked: bool) -> None:
    """The user's thread waits in `get`, or goes on: its CPU is free meanwhile."""
    if lease and not node.closed:
        node.post(Blocked(lease) if blocked else Unblocked(lease))
