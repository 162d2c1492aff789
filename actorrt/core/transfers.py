"""The life of a copy of an object that lies on another node, as the node decides it that fetches it. No I/O.

    ROOM --room is there--> ASKING --a source is named--> COPYING --the last byte came--> HERE
                              ^------------ it was lost -----'

A node fetches an object once, however many of its processes wait for it. What it has of it serves other nodes already
(`core/copies.py` says who takes it from whom). What holds:

* Room is there before anybody is asked: who waits for memory keeps no source busy.
* After a break it goes on at the byte where it stopped, at whichever source is named then. What comes of another
  *version* of the object, which was made anew, begins at the first byte, in other memory.
* It goes on as long as a process here waits, or another node takes the object from here.
* The home hears of each that ends before it is whole; and of each that is whole, again over each new link, so that what
  was freed meanwhile is freed here too. A home that has ended frees all.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from enum import auto
from typing import Final

import msgspec

from actorrt.types import NO_PROCESS, ObjectKey, ProcessId

from .labels import Label
from .story import Story

# How long to wait before a source is asked for again that was just lost: at first, and at most.
FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 2.0
# A source from which no byte comes for so long counts as lost.
SILENT_S: Final = 10.0


class State(Label):
    # Memory for it is being made.
    ROOM = auto()
    # Its home is asked for a source.
    ASKING = auto()
    # It is read from a source, or that is being dialled.
    COPYING = auto()
    # It is whole, and the ledger has it.
    HERE = auto()
    GONE = auto()


class Event(Label):
    ROOM_GIVEN = auto()
    NO_ROOM = auto()
    # The home names a source.
    SOURCE = auto()
    # The same one from which it comes already.
    SAME_SOURCE = auto()
    # It has, or is named for, another version of the object than what is here.
    OTHER_VERSION = auto()
    # A process of this node has made it, or the home says that it is here: it is no copy any more.
    IS_HERE = auto()
    # The source was lost, is silent, or does not have the object.
    BROKE = auto()
    WHOLE = auto()
    # Nobody waits for it here, and nobody takes it from here.
    UNWANTED = auto()
    # The home says that it is not to be had; or has ended.
    FREED = auto()
    # There is another link to the home: what was on its way over the one before may be lost.
    LINKED_AGAIN = auto()


class Step(Label):
    # Have the ledger make room, and the memory made; call that off.
    MAKE_ROOM = auto()
    CALL_OFF = auto()
    # Ask the home for a source; tell it that the object is whole here, or that it will not be.
    ASK = auto()
    TELL_HAVE = auto()
    TELL_DROP = auto()
    # Read from the source, from the byte where it stopped; stop reading.
    READ = auto()
    STOP_READING = auto()
    # Give the whole object to the ledger; have the ledger free it.
    SEAL = auto()
    FREE = auto()
    # Close the memory of what is not whole; who takes it from here loses its source.
    DISCARD = auto()
    # Tell who waits that it is here; that it is not to be had.
    WAKE = auto()
    FAIL = auto()


class Serving(Label):
    """What a node answers that is asked for an object."""

    MISSING = auto()
    # It has another version, or does not know better yet.
    NOT_NOW = auto()
    WHOLE = auto()
    # While it comes.
    PART = auto()


S, E, P = State, Event, Step

TABLE: Final[Mapping[tuple[State, Event], tuple[State, tuple[Step, ...]]]] = {
    (S.ROOM, E.ROOM_GIVEN): (S.ASKING, (P.ASK,)),
    (S.ROOM, E.NO_ROOM): (S.GONE, (P.TELL_DROP, P.FAIL)),
    (S.ROOM, E.UNWANTED): (S.GONE, (P.CALL_OFF, P.TELL_DROP)),
    (S.ROOM, E.FREED): (S.GONE, (P.CALL_OFF, P.FAIL)),
    # It asks again once there is room; what was named before that may be lost by then.
    (S.ROOM, E.SOURCE): (S.ROOM, ()),
    (S.ROOM, E.SAME_SOURCE): (S.ROOM, ()),
    (S.ROOM, E.OTHER_VERSION): (S.ROOM, ()),
    (S.ROOM, E.IS_HERE): (S.GONE, (P.CALL_OFF, P.TELL_HAVE, P.WAKE)),
    (S.ROOM, E.LINKED_AGAIN): (S.ROOM, ()),
    (S.ASKING, E.SOURCE): (S.COPYING, (P.READ,)),
    (S.ASKING, E.SAME_SOURCE): (S.COPYING, (P.READ,)),
    (S.ASKING, E.OTHER_VERSION): (S.ROOM, (P.DISCARD, P.MAKE_ROOM)),
    (S.ASKING, E.IS_HERE): (S.GONE, (P.DISCARD, P.TELL_HAVE, P.WAKE)),
    (S.ASKING, E.UNWANTED): (S.GONE, (P.DISCARD, P.TELL_DROP)),
    (S.ASKING, E.FREED): (S.GONE, (P.DISCARD, P.FAIL)),
    (S.ASKING, E.LINKED_AGAIN): (S.ASKING, (P.ASK,)),
    # The home has named another one before it was asked.
    (S.COPYING, E.SOURCE): (S.COPYING, (P.STOP_READING, P.READ)),
    # An answer to a question that was asked twice.
    (S.COPYING, E.SAME_SOURCE): (S.COPYING, ()),
    (S.COPYING, E.OTHER_VERSION): (S.ROOM, (P.STOP_READING, P.DISCARD, P.MAKE_ROOM)),
    (S.COPYING, E.IS_HERE): (S.GONE, (P.STOP_READING, P.DISCARD, P.TELL_HAVE, P.WAKE)),
    (S.COPYING, E.BROKE): (S.ASKING, (P.STOP_READING, P.ASK)),
    (S.COPYING, E.WHOLE): (S.HERE, (P.STOP_READING, P.SEAL, P.TELL_HAVE, P.WAKE)),
    (S.COPYING, E.UNWANTED): (S.GONE, (P.STOP_READING, P.DISCARD, P.TELL_DROP)),
    (S.COPYING, E.FREED): (S.GONE, (P.STOP_READING, P.DISCARD, P.FAIL)),
    (S.COPYING, E.LINKED_AGAIN): (S.COPYING, ()),
    # Answers that come late.
    **{(S.HERE, event): (S.HERE, ()) for event in (E.SOURCE, E.SAME_SOURCE, E.OTHER_VERSION)},
    (S.HERE, E.IS_HERE): (S.GONE, ()),
    (S.HERE, E.FREED): (S.GONE, (P.FREE,)),
    (S.HERE, E.LINKED_AGAIN): (S.HERE, (P.TELL_HAVE,)),
}


class TransferError(Exception):
    """An event that cannot happen to a copy in this state: a bug of ours. It tells the last transitions."""


class Action(msgspec.Struct, frozen=True):
    """A step for one copy, which is as it is now: a copy that is gone may have a successor of the same key."""

    step: Step
    copy: Fetch


class Fetch:
    """One copy: what is here of an object, who waits for it, and who takes it from here."""

    __slots__ = (
        "_story",
        "breaks",
        "cause",
        "failed",
        "got",
        "home",
        "key",
        "mark",
        "missing",
        "size",
        "source",
        "state",
        "takers",
        "version",
        "waiters",
    )

    def __init__(self, key: ObjectKey, home: ProcessId, size: int) -> None:
        self.key = key
        self.home = home
        self.size = size
        self.state = State.ROOM
        # Of which version, from whom, and how many of its bytes there are. 0: no source was named yet.
        self.version = 0
        self.source = NO_PROCESS
        self.got = 0
        # What all its sources say of the memory in which the object was made.
        self.mark = b""
        # The source that was lost, and whether that is since it does not have the object.
        self.failed = NO_PROCESS
        self.missing = False
        # How often it broke without a byte in between.
        self.breaks = 0
        # Why it is gone, for those who wait.
        self.cause = ""
        # The questions of processes of this node that wait for it; the nodes to which it is served.
        self.waiters: dict[Hashable, None] = {}
        self.takers: dict[Hashable, None] = {}
        self._story = Story()

    def __repr__(self) -> str:
        return (
            f"the copy of {self.key[0].hex()}:{self.key[1]} ({self.state.name}, {self.got} of {self.size} bytes); "
            f"before: {self._story}"
        )

    @property
    def pause_s(self) -> float:
        """How long to wait before the home is asked."""
        return 0.0 if self.breaks < 2 else min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self.breaks - 2, 10))

    @property
    def is_wanted(self) -> bool:
        return bool(self.waiters or self.takers)

    def on(self, event: Event) -> tuple[Action, ...]:
        """Apply `event`; what to do now, in this order. Raises TransferError for a pair that the table has not."""
        row = TABLE.get((self.state, event))
        if row is None:
            raise TransferError(f"{event.name} cannot happen to {self!r}")
        self._story.add(f"{self.state.name} --{event.name}--> {row[0].name}")
        self.state = row[0]
        return tuple(Action(step, self) for step in row[1])

    def names(self, source: ProcessId, version: int, here: ProcessId) -> Event:
        """What it means that the home names this source, which is taken down. `here`: this node."""
        if source == here:
            return Event.IS_HERE
        if self.state is State.ROOM or self.state is State.HERE:
            return Event.SOURCE
        if self.version and self.version != version:
            return self._anew(self.size)
        is_same = self.source == source
        self.version = version
        self.source = source
        return Event.SAME_SOURCE if is_same else Event.SOURCE

    def begins(self, mark: bytes, size: int) -> Event | None:
        """The source says what it has: None if that is what was named, and goes on from what is here.

        `mark` is of the memory in which the object was made. One that was made again there has another.
        """
        if size != self.size or (self.got and mark != self.mark):
            return self._anew(size)
        self.mark = mark
        return None

    def _anew(self, size: int) -> Event:
        # It asks again, once there is room for what may have another size.
        self.version = self.got = 0
        self.source = NO_PROCESS
        self.mark = b""
        self.size = size
        return Event.OTHER_VERSION

    def came(self, nbytes: int) -> bool:
        """So many bytes more are here; True if that is all of it."""
        if self.got + nbytes > self.size:
            raise TransferError(f"{nbytes} bytes are too many for {self!r}")
        self.got += nbytes
        self.breaks = 0
        return self.got == self.size

    def lost_source(self, *, missing: bool) -> None:
        self.failed = self.source
        self.missing = missing
        self.source = NO_PROCESS
        self.breaks += 1


class Statistics(msgspec.Struct, frozen=True):
    """Copies that are whole, those that are not yet, the bytes of these that are here, and who waits and is served."""

    copies: int
    fetching: int
    got: int
    waiting: int
    serving: int


class Fetches:
    """All copies that one node has of objects of other homes, or is about to get.

    Methods return what to do now, in this order, and nothing for what has come too late.
    """

    def __init__(self, node: ProcessId) -> None:
        self._node = node
        self._copies: dict[ObjectKey, Fetch] = {}

    def __len__(self) -> int:
        return len(self._copies)

    def __iter__(self) -> Iterator[Fetch]:
        return iter(tuple(self._copies.values()))

    def get(self, key: ObjectKey) -> Fetch | None:
        return self._copies.get(key)

    # -- processes of this node, and nodes that take it from here

    def wanted(self, key: ObjectKey, home: ProcessId, size: int, waiter: Hashable) -> tuple[Fetch, tuple[Action, ...]]:
        """A process waits for an object that is not here."""
        copy = self._copies.get(key)
        if copy is not None and copy.state is State.HERE:
            # The ledger has lost it: it is fetched anew.
            copy.state = State.GONE
            copy = None
        begin = copy is None
        if copy is None:
            copy = self._copies[key] = Fetch(key, home, size)
        copy.waiters[waiter] = None
        return copy, (Action(Step.MAKE_ROOM, copy),) if begin else ()

    def left(self, copy: Fetch, waiter: Hashable) -> tuple[Action, ...]:
        """A process does not wait any more, whether or not it got what it waited for."""
        copy.waiters.pop(waiter, None)
        return self._if_unwanted(copy)

    def asked_for(self, key: ObjectKey, version: int, *, is_here: bool) -> Serving:
        """Another node wants to take the object from here. `is_here`: the ledger has it."""
        copy = self._copies.get(key)
        if copy is None:
            return Serving.WHOLE if is_here else Serving.MISSING
        if copy.state is State.HERE:
            # What the home says of the version may be on the way.
            known = copy.version == version
            return (Serving.WHOLE if known else Serving.NOT_NOW) if is_here else Serving.MISSING
        # The home may name it to others before it hears itself which version it gets.
        return Serving.PART if copy.version in (0, version) else Serving.NOT_NOW

    def taken(self, key: ObjectKey, taker: Hashable) -> Fetch:
        """It is served while it comes."""
        copy = self._copies[key]
        copy.takers[taker] = None
        return copy

    def not_taken(self, copy: Fetch, taker: Hashable) -> tuple[Action, ...]:
        """It takes no more."""
        copy.takers.pop(taker, None)
        return self._if_unwanted(copy)

    def _if_unwanted(self, copy: Fetch) -> tuple[Action, ...]:
        if copy.is_wanted or copy.state in (State.HERE, State.GONE):
            return ()
        return self._on(copy, Event.UNWANTED)

    # -- room and bytes

    def room(self, copy: Fetch) -> tuple[Action, ...]:
        """There is memory for it."""
        return self._on(copy, Event.ROOM_GIVEN) if copy.state is State.ROOM else ()

    def no_room(self, copy: Fetch, cause: str) -> tuple[Action, ...]:
        if copy.state is not State.ROOM:
            return ()
        copy.cause = cause
        return self._on(copy, Event.NO_ROOM)

    def begins(self, copy: Fetch, mark: bytes, size: int) -> tuple[Action, ...]:
        """Its source says what it has, before the first byte; see Fetch.begins."""
        event = copy.begins(mark, size)
        return () if event is None else self._on(copy, event)

    def came(self, copy: Fetch, nbytes: int) -> tuple[Action, ...]:
        """So many bytes came from its source."""
        return self._on(copy, Event.WHOLE) if copy.came(nbytes) else ()

    def broke(self, copy: Fetch, *, missing: bool) -> tuple[Action, ...]:
        """Its source was lost, or is silent; `missing`: does not have the object."""
        if copy.state is not State.COPYING:
            return ()
        copy.lost_source(missing=missing)
        return self._on(copy, Event.BROKE)

    def sealed_here(self, key: ObjectKey) -> tuple[Action, ...]:
        """A process of this node has laid the object into the ledger, in the place of what may have been there."""
        copy = self._copies.get(key)
        return () if copy is None else self._on(copy, Event.IS_HERE)

    # -- from the home

    def source(self, key: ObjectKey, version: int, source: ProcessId) -> tuple[Action, ...]:
        """The home names a source."""
        copy = self._copies.get(key)
        return () if copy is None else self._on(copy, copy.names(source, version, self._node))

    def freed(self, key: ObjectKey, cause: str) -> tuple[Action, ...]:
        """The home says that the object is not to be had any more."""
        copy = self._copies.get(key)
        if copy is None:
            return ()
        copy.cause = cause
        return self._on(copy, Event.FREED)

    def home_died(self, home: ProcessId, cause: str) -> tuple[Action, ...]:
        """A home has ended, and its owners with it."""
        return tuple(action for copy in self if copy.home == home for action in self.freed(copy.key, cause))

    def linked_again(self, home: ProcessId) -> tuple[Action, ...]:
        """There is a new link to a home."""
        return tuple(action for copy in self if copy.home == home for action in self._on(copy, Event.LINKED_AGAIN))

    def statistics(self) -> Statistics:
        whole = sum(copy.state is State.HERE for copy in self._copies.values())
        copies = self._copies.values()
        return Statistics(
            whole,
            len(copies) - whole,
            sum(copy.got for copy in copies if copy.state is not State.HERE),
            sum(len(copy.waiters) for copy in copies),
            sum(len(copy.takers) for copy in copies),
        )

    def _on(self, copy: Fetch, event: Event) -> tuple[Action, ...]:
        actions = copy.on(event)
        if copy.state is State.GONE and self._copies.get(copy.key) is copy:
            del self._copies[copy.key]
        return actions
