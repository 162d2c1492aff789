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
| a process has ended | it borrows nothing any more (`ended`) |
| a link is lost | nothing of what its other end was told counts as known there; what it borrows, it still does |
| a message to an owner without a link | it opens one if it says that something is held (`TELL`) |

The fifth is there because what is dropped may hold refs itself, which the borrower has taken out and borrowed.

`Book` says of each object of one process what becomes of it (`TABLE`); `Borrows`, what its owners surely know;
`Outbox`, in which order they hear it. Who keeps the objects that the book speaks of, keeps them by weak refs, and by
strong ones from KEEP to LET_GO.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, auto
from typing import Final, Generic, NamedTuple, TypeVar

from actorrt.types import ObjectKey, ProcessId

from .labels import Label

M = TypeVar("M")


class Standing(IntEnum):
    """How an object stands in one process."""

    # Its own, and no ref of it is left.
    GONE = auto()
    # Its own, and a ref of it is here, or inside of something that is.
    OWN = auto()
    # Its own, and another process borrows it.
    LENT = auto()
    # Another's, and no ref of it is here.
    UNKNOWN = auto()
    BORROWED = auto()


class Event(IntEnum):
    # A ref of it is pickled: by a call or an answer, which keep it until the other end has it.
    EXPORTED = auto()
    # The same by whoever pickles: nobody says when the copy is gone.
    PINNED = auto()
    UNPICKLED = auto()
    # Another process says that it holds a ref (Borrow), or one less (Unborrow).
    LENT = auto()
    RETURNED = auto()
    # The same, or that it has ended, and no other borrows it.
    RETURNED_LAST = auto()


class Action(IntEnum):
    # Find it when another process speaks of it.
    SHOW = auto()
    # Keep it to the end of the process.
    PIN = auto()
    # It is unknown: take it up, and tell its owner, then and when it is dropped.
    BORROW = auto()
    # Whoever looks at it is told that it is gone.
    BE_GONE = auto()
    # Keep it while others borrow it.
    KEEP = auto()
    LET_GO = auto()


S, E, A = Standing, Event, Action

TABLE: Final[Mapping[tuple[Standing, Event], tuple[Standing, tuple[Action, ...]]]] = {
    **{(own, E.EXPORTED): (own, (A.SHOW,)) for own in (S.OWN, S.LENT)},
    **{(own, E.PINNED): (own, (A.SHOW, A.PIN)) for own in (S.OWN, S.LENT)},
    (S.BORROWED, E.EXPORTED): (S.BORROWED, ()),
    # Its owner keeps it as long as it is kept here.
    (S.BORROWED, E.PINNED): (S.BORROWED, (A.PIN,)),
    # The copy was pickled outside of a call in a process that has ended, or was kept as bytes.
    (S.GONE, E.UNPICKLED): (S.GONE, (A.BE_GONE,)),
    (S.UNKNOWN, E.UNPICKLED): (S.BORROWED, (A.BORROW,)),
    **{(here, E.UNPICKLED): (here, ()) for here in (S.OWN, S.LENT, S.BORROWED)},
    # The same copy in another process, which hears of it when it asks for the value.
    (S.GONE, E.LENT): (S.GONE, ()),
    (S.OWN, E.LENT): (S.LENT, (A.KEEP,)),
    (S.LENT, E.LENT): (S.LENT, ()),
    # What said that it is held was never counted, or is not any more: its process had been given up.
    **{(kept, E.RETURNED_LAST): (kept, ()) for kept in (S.GONE, S.OWN)},
    (S.LENT, E.RETURNED): (S.LENT, ()),
    (S.LENT, E.RETURNED_LAST): (S.OWN, (A.LET_GO,)),
}

# To look a member up in its class costs as much as its row does.
SHOW: Final = Action.SHOW
PIN: Final = Action.PIN
BORROW: Final = Action.BORROW
BE_GONE: Final = Action.BE_GONE
KEEP: Final = Action.KEEP
LET_GO: Final = Action.LET_GO
_GONE: Final = Standing.GONE
_OWN: Final = Standing.OWN
_LENT: Final = Standing.LENT
_UNKNOWN: Final = Standing.UNKNOWN
_BORROWED: Final = Standing.BORROWED
_EXPORTED: Final = Event.EXPORTED
_PINNED: Final = Event.PINNED
_UNPICKLED: Final = Event.UNPICKLED
_IS_LENT: Final = Event.LENT
_RETURNED: Final = Event.RETURNED
_RETURNED_LAST: Final = Event.RETURNED_LAST


def count(borrowers: dict[ProcessId, int], borrower: ProcessId, delta: int) -> bool:
    """Of one object: a process borrows it once more, or once less. Whether any still does."""
    left = borrowers.get(borrower, 0) + delta
    if left > 0:
        borrowers[borrower] = left
    else:
        # One that was lost may have told more than is counted of it now.
        borrowers.pop(borrower, None)
    return bool(borrowers)


class Book:
    """How the objects stand in one process. `is_here`: it is found, so that a ref or a loan keeps it.

    Loans are counted by one thread; refs are pickled and unpickled by any.
    """

    __slots__ = ("_loans", "_process")

    def __init__(self, process: ProcessId) -> None:
        self._process = process
        # How often each borrower has an own object, by its number.
        self._loans: dict[int, dict[ProcessId, int]] = {}

    def standing(self, key: ObjectKey, is_here: bool) -> Standing:
        owner, seq = key
        if owner != self._process:
            return _BORROWED if is_here else _UNKNOWN
        if seq in self._loans:
            return _LENT
        return _OWN if is_here else _GONE

    def exported(self, key: ObjectKey, collected: bool) -> tuple[Action, ...]:
        """A ref is pickled. `collected`: by what hears when the copy is gone."""
        _, actions = TABLE[self.standing(key, True), _EXPORTED if collected else _PINNED]
        return actions

    def unpickled(self, key: ObjectKey, is_here: bool) -> tuple[Action, ...]:
        _, actions = TABLE[self.standing(key, is_here), _UNPICKLED]
        return actions

    def lent(self, seq: int, borrower: ProcessId, is_here: bool) -> tuple[Action, ...]:
        """A process says that it holds an own object."""
        standing, actions = TABLE[self.standing((self._process, seq), is_here), _IS_LENT]
        if standing is _LENT:
            count(self._loans.setdefault(seq, {}), borrower, 1)
        return actions

    def returned(self, seq: int, borrower: ProcessId, is_here: bool) -> tuple[Action, ...]:
        """A process says that it does not hold it any more."""
        before = self.standing((self._process, seq), is_here)
        counts = self._loans.get(seq, {})
        left = count(counts, borrower, -1)
        standing, actions = TABLE[before, _RETURNED if left else _RETURNED_LAST]
        if before is not standing:
            del self._loans[seq]
        return actions

    def ended(self, borrower: ProcessId) -> list[tuple[int, tuple[Action, ...]]]:
        """A process has ended: what becomes of each object that it had borrowed."""
        happened: list[tuple[int, tuple[Action, ...]]] = []
        for seq, counts in list(self._loans.items()):
            if counts.pop(borrower, None) is not None:
                standing, actions = TABLE[_LENT, _RETURNED if counts else _RETURNED_LAST]
                if standing is not _LENT:
                    del self._loans[seq]
                happened.append((seq, actions))
        return happened

    def borrowers(self, seq: int) -> Mapping[ProcessId, int]:
        """Who holds an own object, and how often."""
        return self._loans.get(seq, {})

    @property
    def lends(self) -> bool:
        """True while another process holds an own object."""
        return bool(self._loans)

    @property
    def loans(self) -> tuple[int, int]:
        """How many objects are lent, and to how many processes, summed up."""
        counted = list(self._loans.values())
        return len(counted), sum(map(len, counted))


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


class Way(Label):
    """How a message can get to a process."""

    DIALLED = auto()  # a link to it is being opened, and others wait
    LINK = auto()
    NONE = auto()
    ENDED = auto()


class Tell(Label):
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


class Outbox(Generic[M]):
    """The messages to owners whose links are being opened, in order."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[ProcessId, list[M]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def tell(self, owner: ProcessId, message: M, held: bool, linked: bool, ended: bool) -> Tell:
        """What to do with a message, which is kept here if it has to wait. `held`: it says that something is held.

        `linked`: there is a link to the owner; `ended`: its process has ended.
        """
        if owner in self._waiting:
            way = Way.DIALLED
        elif linked:
            way = Way.LINK
        else:
            way = Way.ENDED if ended else Way.NONE
        if_held, if_not = TELL[way]
        tell = if_held if held else if_not
        if tell is Tell.QUEUE:
            self._waiting[owner].append(message)
        elif tell is Tell.DIAL:
            self._waiting[owner] = [message]
        return tell

    def take(self, owner: ProcessId) -> list[M]:
        """What waits for an owner; its link is open now, or cannot be opened."""
        return self._waiting.pop(owner, [])
