"""What a worker gives back of the messages that its blocked loop has not taken up: what others can do. No I/O.

A new actor that shares the loop goes back to its owner, who makes it elsewhere. What is for it behind that finds no
actor, or is of no use any more. Tasks that share the loop go back; those with a lease, and all else, stay here.
"""

from __future__ import annotations

from enum import auto
from typing import Generic, TypeVar

from .labels import Label

A = TypeVar("A")


class Kind(Label):
    # Of an actor, or of a task, that shares the loop with others.
    START = auto()
    TASK = auto()
    # Of any actor.
    CALL = auto()
    STOP = auto()
    OTHER = auto()


class Fate(Label):
    STAY = auto()
    GO_BACK = auto()
    # Its caller is told that the actor is not here, and that it did not begin.
    FIND_NO_ACTOR = auto()
    DROP = auto()


class GivingBack(Generic[A]):
    """One look through all that waits, in its order."""

    def __init__(self) -> None:
        self._gone: set[A] = set()

    def fate(self, kind: Kind, actor: A | None = None) -> Fate:
        """Of the next message; `actor`: whom it is about."""
        match kind:
            case Kind.START:
                assert actor is not None
                self._gone.add(actor)
                return Fate.GO_BACK
            case Kind.TASK:
                return Fate.GO_BACK
            case Kind.CALL if actor in self._gone:
                return Fate.FIND_NO_ACTOR
            case Kind.STOP if actor in self._gone:
                return Fate.DROP
            case _:
                return Fate.STAY
