"""The borrow protocol: what an owner counts, what a borrower has told, and what may be told only after what. No I/O.

An object, or an actor, lives while its owner holds a ref to it or is told (Borrow, Unborrow) that another process does.
Messages between two processes keep their order; those over different links may cross. So that no owner hears that the
last borrower is gone before it hears of the next one:

| what happens | the rule |
|---|---|
| a ref travels in a call | the caller keeps its own until the call is answered |
| the callee has unpickled it | it answers when the owner surely knows of its borrow (`ask`) |
| a ref travels in an answer | the callee keeps its own until the caller says that it has it (RefsTaken) |
| the caller has unpickled it | it says so when the owner surely knows of its borrow |
| a borrower drops its last ref | the owner hears of it when all others know what they were told (`before_dropping`) |
| a process has ended | it borrows nothing any more |
| a link is lost | nothing of what its other end was told counts as known there; what it borrows, it still does |
| a message to an owner without a link | it opens one if it says that something is held (`TELL`) |

The fifth is there because what is dropped may hold refs itself, which the borrower has taken out and borrowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final, NamedTuple

from actorrt.types import ProcessId


def count(borrowers: dict[ProcessId, int], borrower: ProcessId, delta: int) -> bool:
    """Of one object: a process borrows it once more, or once less. Whether any still does."""
    left = borrowers.get(borrower, 0) + delta
    if left > 0:
        borrowers[borrower] = left
    else:
        # One that was lost may have told more than is counted of it now.
        borrowers.pop(borrower, None)
    return bool(borrowers)


class _Told:
    """How many borrows one owner was told of, and how many of these it surely knows."""

    __slots__ = ("known", "told")

    def __init__(self) -> None:
        self.told = 0
        self.known = 0

    def tell(self) -> None:
        self.told += 1

    def knows(self, told: int) -> None:
        self.known = max(self.known, told)


class Question(NamedTuple):
    """A question to an owner, sent behind all that it was told: its answer says that all of that has arrived."""

    about: _Told
    told: int


class Borrows:
    """What a process has told the owners of what it borrows. Of all this only `is_unsure` needs no lock."""

    __slots__ = ("_owners",)

    def __init__(self) -> None:
        self._owners: dict[ProcessId, _Told] = {}

    def told(self, owner: ProcessId) -> None:
        """A borrow is on its way to its owner."""
        about = self._owners.get(owner)
        if about is None:
            about = self._owners[owner] = _Told()
        about.tell()

    def is_unsure(self, owner: ProcessId) -> bool:
        """True while a borrow may still be on its way to this owner."""
        about = self._owners.get(owner)
        return about is not None and about.told > about.known

    def ask(self, owner: ProcessId) -> Question | None:
        """What to ask an owner, to be sure that it knows all it was told so far; None if that is sure."""
        about = self._owners.get(owner)
        return None if about is None or about.told == about.known else Question(about, about.told)

    @staticmethod
    def sure(question: Question) -> None:
        """The question was answered, or its owner cannot be reached, so that nothing of it can be held any more."""
        question.about.knows(question.told)

    def before_dropping(self, owner: ProcessId) -> set[ProcessId]:
        """The owners that have to be sure before this one hears that something of its own is not held any more."""
        return {other for other in self._owners if other != owner and self.is_unsure(other)}

    def lost(self, owner: ProcessId) -> None:
        self._owners.pop(owner, None)


class Way(Enum):
    """How a message can get to a process."""

    DIALLED = auto()  # a link to it is being opened, and others wait
    LINK = auto()
    NONE = auto()
    ENDED = auto()


class Tell(Enum):
    SEND = auto()
    # Behind those that wait for the link.
    QUEUE = auto()
    # Queue it, and open the link.
    DIAL = auto()
    DROP = auto()


# For a message that says that something is held, and for one that says that it is not.
TELL: Final[Mapping[Way, tuple[Tell, Tell]]] = {
    Way.DIALLED: (Tell.QUEUE, Tell.QUEUE),
    Way.LINK: (Tell.SEND, Tell.SEND),
    # Where there is no link, its owner counts nothing of this process.
    Way.NONE: (Tell.DIAL, Tell.DROP),
    Way.ENDED: (Tell.DROP, Tell.DROP),
}
