"""Who has an object that lies on several nodes, and from whom the next node takes it. No I/O.

The *home* of an object is the node of its owner. A node that needs a copy asks there (`asked`); the home has the owner
asked where the object lies, once, and names a *source*: a node that has the object, or a part of it and the rest to
come. So one object spreads over many nodes as a tree. What holds:

* A node serves at most two others at a time with one object. One that serves nobody comes first, so that no link is
  shared as long as another one is free; among those, who is nearer to the whole object.
* Nobody takes an object from a node that takes it, over whatever others, from him.
* A source that was lost is not named again to the same node while there is another one.
* What the owner frees, and what belongs to an owner that has ended, is freed by every node that was told of a source,
  or says that it has the object, however late it says so.
* Once no node has the whole object its owner is asked again. What it makes anew is another *version*: parts of an older
  one cannot be completed from it.

Messages between two nodes keep their order; those that were on a lost link are repeated by who asks (`core/transfers`).
"""

from __future__ import annotations

import itertools
from typing import Final

import msgspec

from actorrt.types import NO_PROCESS, ObjectKey, ProcessId

from .recent import RecentSet

# So many nodes are served by one at a time, with one object.
MOST_AT_ONCE: Final = 2
# A chain of nodes that take from each other is no longer than this while there is another way: each may stall the rest.
LONG_CHAIN: Final = 8
# Nodes that have died: an owner may not have heard of the last ones.
DEAD_REMEMBERED: Final = 4096


class AskOwner(msgspec.Struct, frozen=True):
    """Ask the owner where the object lies, then report `found` or `not_found`; `lost`: not on these nodes any more.

    `number` comes back with the report.
    """

    key: ObjectKey
    number: int
    lost: tuple[ProcessId, ...]


class Name(msgspec.Struct, frozen=True):
    """Tell a node from whom to take the object; itself: it has it already."""

    node: ProcessId
    key: ObjectKey
    version: int
    source: ProcessId


class Free(msgspec.Struct, frozen=True):
    """Tell a node that it will get no copy, and is to free the one that it has. `cause`: why, if it waits for one."""

    node: ProcessId
    key: ObjectKey
    cause: str


Action = AskOwner | Name | Free

FREED: Final = "its last ref is gone"
OWNER_ENDED: Final = "its owner ended"


class _Copy:
    """What one node has of an object, or is about to get."""

    __slots__ = ("avoids", "source", "version", "whole")

    def __init__(self, version: int, *, whole: bool) -> None:
        self.version = version
        self.whole = whole
        # From whom it takes the object; NO_PROCESS: it has it, or waits for a source.
        self.source = NO_PROCESS
        # Sources that it has lost.
        self.avoids: set[ProcessId] = set()


class _Object:
    """One object that other nodes have asked for. `version` 0: its owner is asked where it lies."""

    __slots__ = ("copies", "lost", "version")

    def __init__(self) -> None:
        self.version = 0
        # In the order in which they asked.
        self.copies: dict[ProcessId, _Copy] = {}
        # Nodes that had it and do not have it any more, of which its owner is told.
        self.lost: dict[ProcessId, None] = {}

    @property
    def is_lost(self) -> bool:
        """No node has all of it. What some have of it may be completed all the same, by one whose word is late."""
        return not self.version or not any(copy.whole and copy.version == self.version for copy in self.copies.values())


class Statistics(msgspec.Struct, frozen=True):
    """Objects that other nodes have asked for, the copies of them, and nodes that take one or wait for a source."""

    objects: int
    copies: int
    fetching: int


class Copies:
    """What one home knows of the objects of its owners. Methods return what to do, in this order."""

    def __init__(self) -> None:
        self._objects: dict[ObjectKey, _Object] = {}
        # Of versions and of questions.
        self._numbers = itertools.count(1)
        # Objects whose owner is being asked.
        self._asked: dict[ObjectKey, AskOwner] = {}
        self._dead: RecentSet[ProcessId] = RecentSet(DEAD_REMEMBERED)

    # -- from nodes

    def asked(self, key: ObjectKey, node: ProcessId, failed: ProcessId, *, missing: bool) -> tuple[Action, ...]:
        """A node needs a copy; again, if `failed` was lost as its source, or (`missing`) does not have the object."""
        known = self._objects.get(key)
        if known is None:
            known = self._objects[key] = _Object()
        copy = known.copies.pop(node, None)
        if copy is None or copy.whole:
            copy = _Copy(known.version, whole=False)
        # It waits behind those that wait already.
        known.copies[node] = copy
        copy.source = NO_PROCESS
        if failed:
            copy.avoids.add(failed)
            if missing:
                self._is_missing(failed, known)
        return self._go_on(key, known)

    @staticmethod
    def _is_missing(node: ProcessId, known: _Object) -> None:
        other = known.copies.get(node)
        if other is None:
            return
        if other.whole:
            known.lost[node] = None
            # It is told all the same when the object is freed: it may have another version.
            other.version = 0
        elif other.source:
            # It takes the object no more. If it does, it will say that it has it.
            del known.copies[node]

    def has(self, key: ObjectKey, node: ProcessId, version: int) -> tuple[Action, ...]:
        """A node has the whole object."""
        known = self._objects.get(key)
        if known is None:
            return (Free(node, key, FREED),)
        # One of another version is good for those who read it there, and for nobody else.
        known.copies[node] = _Copy(version, whole=True)
        if version == known.version:
            known.lost.pop(node, None)
        return self._go_on(key, known)

    def dropped(self, key: ObjectKey, node: ProcessId) -> tuple[Action, ...]:
        """A node has no copy, nor waits for one any more."""
        known = self._objects.get(key)
        if known is None or known.copies.pop(node, None) is None:
            return ()
        return self._go_on(key, known)

    # -- from owners

    def found(self, key: ObjectKey, number: int, node: ProcessId) -> tuple[Action, ...]:
        """The owner says that the whole object lies on this node."""
        question = self._asked.get(key)
        if question is None or question.number != number:
            return ()
        del self._asked[key]
        known = self._objects[key]
        if node in self._dead:
            if node in question.lost:
                return self.freed(key, f"node {node.hex()}, where it lay, has ended")
            # The owner has not heard of that, nor was it told.
            known.lost[node] = None
            return self._go_on(key, known)
        if not known.is_lost:
            # One whose word was late has it.
            return self._go_on(key, known)
        known.version = next(self._numbers)
        known.lost.clear()
        waits = known.copies.pop(node, None)
        known.copies[node] = _Copy(known.version, whole=True)
        for copy in known.copies.values():
            # What they were told of is not to be had any more.
            copy.source = NO_PROCESS
        told = () if waits is None or waits.whole else (Name(node, key, known.version, node),)
        return *told, *self._go_on(key, known)

    def not_found(self, key: ObjectKey, number: int, cause: str) -> tuple[Action, ...]:
        """The owner has freed the object, cannot make it again, or has ended."""
        question = self._asked.get(key)
        return () if question is None or question.number != number else self.freed(key, cause)

    def freed(self, key: ObjectKey, cause: str = FREED) -> tuple[Action, ...]:
        """Nobody wants the object any more, or nobody can have it."""
        known = self._objects.pop(key, None)
        if known is None:
            return ()
        self._asked.pop(key, None)
        return tuple(Free(node, key, cause) for node in known.copies)

    def owner_died(self, owner: ProcessId) -> tuple[Action, ...]:
        """All that it owned is freed."""
        owned = [key for key in self._objects if key[0] == owner]
        return tuple(action for key in owned for action in self.freed(key, OWNER_ENDED))

    # -- nodes that are gone

    def node_died(self, node: ProcessId) -> tuple[Action, ...]:
        """It has nothing any more, and asks for nothing."""
        self._dead.add(node)
        actions: list[Action] = []
        for key, known in tuple(self._objects.items()):
            gone = known.copies.pop(node, None)
            if gone is not None and gone.whole:
                known.lost[node] = None
            served = [copy for copy in known.copies.values() if copy.source == node]
            for copy in served:
                # It is told of another one before it finds out by itself.
                copy.source = NO_PROCESS
                copy.avoids.add(node)
            if served or gone is not None:
                actions += self._go_on(key, known)
        return tuple(actions)

    def link_lost(self, node: ProcessId) -> None:
        """What it was told, and has said, last may be lost. It asks again for what it needs, and says what it has."""
        for known in self._objects.values():
            copy = known.copies.get(node)
            if copy is not None and not copy.whole:
                del known.copies[node]

    def statistics(self) -> Statistics:
        copies = [copy for known in self._objects.values() for copy in known.copies.values()]
        whole = sum(copy.whole for copy in copies)
        return Statistics(len(self._objects), whole, len(copies) - whole)

    def holders(self, key: ObjectKey) -> tuple[ProcessId, ...]:
        """The nodes that have the whole object, as far as is known."""
        known = self._objects.get(key)
        return () if known is None else tuple(node for node, copy in known.copies.items() if copy.whole)

    # -- decisions

    def _go_on(self, key: ObjectKey, known: _Object) -> tuple[Action, ...]:
        """Name a source to each that waits; ask the owner if nobody has the object."""
        if known.is_lost:
            return self._ask_owner(key, known)
        named: list[Action] = []
        for node, copy in known.copies.items():
            if copy.whole or copy.source:
                continue
            source = self._source_for(node, copy, known)
            if source:
                copy.source, copy.version = source, known.version
                named.append(Name(node, key, known.version, source))
        return tuple(named)

    def _ask_owner(self, key: ObjectKey, known: _Object) -> tuple[Action, ...]:
        if key in self._asked:
            return ()
        if not known.copies:
            # Nobody wants it.
            del self._objects[key]
            return ()
        question = self._asked[key] = AskOwner(key, next(self._numbers), tuple(known.lost))
        return (question,)

    @staticmethod
    def _source_for(node: ProcessId, wants: _Copy, known: _Object) -> ProcessId:
        load: dict[ProcessId, int] = {}
        for copy in known.copies.values():
            load[copy.source] = load.get(copy.source, 0) + 1
        best: tuple[bool, bool, int, int] | None = None
        chosen = NO_PROCESS
        for other, copy in known.copies.items():
            serves = load.get(other, 0)
            if other == node or copy.version != known.version or serves >= MOST_AT_ONCE:
                continue
            hops = _hops(other, node, known)
            if hops < 0:
                continue
            rank = other in wants.avoids, hops >= LONG_CHAIN, serves, hops
            if best is None or rank < best:
                best, chosen = rank, other
        return chosen


def _hops(node: ProcessId, but: ProcessId, known: _Object) -> int:
    """Over how many others what `node` serves comes to it; -1: from none that has it all, or over `but`."""
    hops = 0
    copy = known.copies[node]
    while not copy.whole:
        source = copy.source
        above = known.copies.get(source)
        if source == but or above is None or above.version != known.version:
            return -1
        hops += 1
        copy = above
    return hops
