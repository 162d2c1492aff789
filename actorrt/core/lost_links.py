"""What a node does as the link to a process is gone, and as the process has ended. No I/O.

A link that is lost says nothing about the process behind it. A worker may live and use what it has, so it is ended
first, and given up once it has been reaped. A driver may live and use what it has, too, and is not the node's to end:
it is given up once the kernel says that it has ended, or it says goodbye over another link.
"""

from __future__ import annotations

from enum import auto
from typing import Final

from .labels import Label


class Step(Label):
    # Nobody is to dial it any more.
    MARK_DEAD = auto()
    # Its segments, what it has borrowed, what the node had there, its requests and leases.
    GIVE_UP = auto()
    # Have its end watched for; what follows comes with that.
    WATCH = auto()
    # Its end need not be watched for any more; or it does, and nobody else will stop that.
    STOP_WATCHING = auto()
    WATCH_ON = auto()
    # Who asks later is told that its program ended.
    REMEMBER = auto()
    # The names of the actors that it owned.
    FREE_NAMES = auto()
    # If it was a program's driver: its workers go, or the session ends.
    END_PROGRAM = auto()
    # If it is a worker: nothing can be asked of it any more, and it is made to end.
    END_WORKER = auto()
    # Go on once it has ended.
    AWAIT_END = auto()


S: Final = Step
OWNERS: Final = frozenset({"driver", "worker"})


def after_loss(role: str, *, lost: bool, farewell: bool, stopping: bool) -> tuple[Step, ...]:
    """The link to a process is gone. `lost`: nobody knows whether the process lives; `farewell`: it said goodbye;
    `stopping`: the node ends."""
    if role == "head":
        # The next one lives at its address.
        return ()
    if stopping:
        return after_end(role, farewell=farewell, stopping=True)
    if lost and role == "worker":
        return S.END_WORKER, S.AWAIT_END
    if lost and role == "driver":
        return (S.WATCH,)
    return *after_end(role, farewell=farewell, stopping=False), S.END_WORKER


def after_end(role: str, *, farewell: bool, stopping: bool) -> tuple[Step, ...]:
    """The process has ended, or the node has given it up."""
    if stopping:
        # All ends with the node.
        return (S.MARK_DEAD,)
    steps = [S.MARK_DEAD, S.GIVE_UP, S.STOP_WATCHING if farewell else S.WATCH_ON]
    if role == "driver":
        steps.append(S.REMEMBER)
    if role in OWNERS:
        steps.append(S.FREE_NAMES)
    return *steps, S.END_PROGRAM
