"""How a caller spreads its tasks over the workers that it has leased. Pure: times are arguments.

A worker runs one `def` task at a time. Short tasks are handed over many at once, so that the round trip is paid once a
batch; long ones one by one, so that none waits behind another while a worker is idle. And when the calls that a loop
makes are written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

# The work that may lie in front of a worker, in seconds, and in tasks.
AHEAD_S: Final = 0.005
MAX_DEPTH: Final = 1024
# How fast the estimate of a task's duration follows what is measured.
_WEIGHT: Final = 0.3
# No fewer calls than these are worth a write before all of a turn are there.
LEAST_FRAME: Final = 4
# What is believed of tasks that had to be taken back because one of them ran long.
LONG_S: Final = 0.05


class Pace:
    """What is known about the duration of a pool's tasks."""

    __slots__ = ("mean_s",)

    def __init__(self) -> None:
        self.mean_s: float | None = None

    def measured(self, elapsed_s: float, tasks: int) -> None:
        sample = elapsed_s / tasks
        self.mean_s = sample if self.mean_s is None else self.mean_s + _WEIGHT * (sample - self.mean_s)

    def ran_long(self) -> None:
        """Tasks came back unstarted: do not queue behind these."""
        self.mean_s = max(self.mean_s or 0.0, LONG_S)

    @property
    def depth(self) -> int:
        """How many tasks one worker may have at once. 1 as long as nothing is known."""
        if self.mean_s is None:
            return 1
        return max(1, min(MAX_DEPTH, int(AHEAD_S / max(self.mean_s, 1e-9))))


def share(backlog: int, leases: int, room: int) -> int:
    """How many of `backlog` waiting tasks the next of `leases` workers takes, having `room`."""
    return min(room, max(1, -(-backlog // max(1, leases))))


def leases_to_ask(backlog: int, asked: int, limit: int) -> int:
    """How many further leases to ask for, while `backlog` tasks wait and `asked` questions are under way."""
    return max(0, min(backlog, limit) - asked)


def after_crash(
    calls: Sequence[int], lease: int, started: tuple[int, int] | None
) -> tuple[Sequence[int], Sequence[int], Sequence[int]]:
    """Sort the unanswered `calls` of a lease, in the order in which its worker took them, after the worker has died.

    `started` is the task that it began last, as (lease, call): (those before it, which had ended while their answers
    were on their way; the one that it died of; those that it never began). If nobody knows (None), the first is taken
    for the culprit.
    """
    if not calls:
        return (), (), ()
    if started is None:
        return (), calls[:1], calls[1:]
    if started[0] != lease or started[1] not in calls:
        # The last that it began has been answered, or belongs to an earlier lease.
        return (), (), calls
    at = calls.index(started[1])
    return calls[:at], calls[at : at + 1], calls[at + 1 :]


def frame_is_due(queued: int, inflight: int) -> bool:
    """Whether a loop that makes many calls in a turn writes the `queued` ones now, and not at the end of the turn.

    `inflight` are all that have no answer, the queued ones included. A quarter of them is written at a time, so that
    caller and callee work at once: if all went back and forth together, one of the two would always wait.
    """
    return queued >= LEAST_FRAME and 4 * queued >= inflight
