"""The rows that a worker adds to the table of messages: what its executor does with those of callers."""

from __future__ import annotations

from typing import Final, Protocol

from actorrt.wire.messages import (
    ActorCall,
    Cancel,
    Credit,
    Define,
    Forget,
    RefsTaken,
    StartActor,
    StopActor,
    TaskCall,
)

from ..links.link import Link
from ..owner.outcomes import Outcomes
from ..owner.program import Handler, Incoming, LoopOfCalls
from .code import Code

# What is handed over to the user's side, in order.
Work = ActorCall | TaskCall | StartActor | StopActor | Cancel | Credit
_QUEUED: Final[frozenset[type]] = frozenset({ActorCall, TaskCall, StartActor, StopActor})


class Receiver(Protocol):
    """An executor, as its intake knows it; on the runtime loop."""

    outcomes: Outcomes
    code: Code

    def enqueue(self, link: Link, work: list[Work]) -> None:
        """Hand work over to the user's side."""

    def cancel(self, link: Link, message: Cancel) -> None:
        """Cancel a call and, if asked, what it has called in turn."""

    def credit(self, link: Link, message: Credit) -> None:
        """Let a stream go on, or be more ahead once it starts."""


def incoming_of(receiver: Receiver, here: LoopOfCalls | None = None) -> Incoming:
    """What an executor does with each kind of message; on the runtime loop. `here`: it runs calls on a loop."""

    def forget(link: Link, message: Forget) -> None:
        receiver.code.forget(link, message.function)

    def taken(link: Link, message: RefsTaken) -> None:
        receiver.outcomes.taken(link.peer, message.seq, message.index)

    handlers: dict[type, Handler] = {
        Define: receiver.code.define,
        Forget: forget,
        Cancel: receiver.cancel,
        Credit: receiver.credit,
        RefsTaken: taken,
    }
    return Incoming(_QUEUED, receiver.enqueue, handlers, here)
