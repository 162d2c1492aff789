"""The way of messages from callers to the executor that runs their calls, in the order in which they came."""

from __future__ import annotations

from typing import Protocol, cast

from actorrt.wire.messages import (
    ActorCall,
    AnyMessage,
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
from .code import Code

# What is handed over to the user's side, in order.
Work = ActorCall | TaskCall | StartActor | StopActor | Cancel | Credit
_WORK = frozenset({ActorCall, TaskCall, StartActor, StopActor})


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


class Intake:
    """Sorts what comes. On the runtime loop."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._enqueue = receiver.enqueue
        self._code = receiver.code
        self._outcomes = receiver.outcomes

    def take(self, link: Link, messages: list[AnyMessage]) -> None:
        """Handle what came over `link` in one frame, in order."""
        work: list[Work] = []
        for message in messages:
            if type(message) in _WORK:
                work.append(cast("Work", message))
            elif isinstance(message, Define):
                self._code.define(link, message)
            elif isinstance(message, Forget):
                self._code.forget(link, message.function)
            elif isinstance(message, Cancel):
                if work:
                    self._enqueue(link, work)
                    work = []
                self._receiver.cancel(link, message)
            elif isinstance(message, Credit):
                if work:
                    self._enqueue(link, work)
                    work = []
                self._receiver.credit(link, message)
            elif isinstance(message, RefsTaken):
                self._outcomes.taken(link.peer, message.seq, message.index)
        if work:
            self._enqueue(link, work)
