"""Which responses are kept, for whom, and what goes when there is no more room. No I/O, no clock.

A response keeps the items that went into it and those that came out. A later one that names it as its previous keeps
the same items again, without a copy: so a conversation goes on when its first responses have made room for others.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

Key = tuple[str, str]
"""Tenant and id: what one tenant keeps is not there for another."""


class ItemBytes(NamedTuple):
    id: str
    data: bytes
    """Its JSON."""


class _Kept:
    """An item, and how many responses hold it."""

    __slots__ = ("data", "holders", "id")

    def __init__(self, item: ItemBytes) -> None:
        self.id, self.data = item
        self.holders = 0

    def hold(self) -> None:
        """One more response holds it."""
        self.holders += 1

    def let_go(self) -> bool:
        """One response less holds it. Whether none does now."""
        self.holders -= 1
        return not self.holders


class NoRoomError(Exception):
    """What is kept is still being made, all of it: nothing may go for another."""


class Record:
    """A response. `running`: it is being made in the background."""

    __slots__ = ("events", "given", "given_bytes", "output", "response", "running", "size", "streams")

    def __init__(self, response: bytes, given: tuple[_Kept, ...], *, running: bool, streams: bool) -> None:
        self.response = response
        self.given = given
        self.output: tuple[_Kept, ...] = ()
        self.running = running
        self.streams = streams
        # Each at its sequence number.
        self.events: list[bytes] = []
        # In bytes, of the response and its events; items are counted once, whoever holds them.
        self.size = len(response)
        self.given_bytes = sum(len(item.data) for item in given)

    def add_events(self, events: Sequence[bytes]) -> int:
        """By how many bytes it has grown."""
        return self._grow(events, self.response)

    def change(self, response: bytes) -> int:
        """By how many bytes it has grown."""
        return self._grow((), response)

    def _grow(self, events: Sequence[bytes], response: bytes) -> int:
        grown = sum(map(len, events)) + len(response) - len(self.response)
        self.events += events
        self.response = response
        self.size += grown
        return grown

    def stop(self) -> None:
        """It is made no more."""
        self.running = False

    def say(self, output: tuple[_Kept, ...]) -> None:
        self.output = output

    @property
    def held(self) -> int:
        """Bytes that it keeps here, at most: others may hold some of its items too."""
        return self.size + self.given_bytes


class ResponseTable:
    """At most `most` responses of at most `most_bytes` together; those that were not used for longest go first."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._records: OrderedDict[Key, Record] = OrderedDict()
        self._items: dict[Key, _Kept] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._records)

    def put(
        self,
        key: Key,
        response: bytes,
        *,
        before: str | None,
        own: Iterable[ItemBytes],
        output: Iterable[ItemBytes] = (),
        running: bool = False,
        streams: bool = False,
    ) -> bool:
        """Keep a response whose context is that of `before` and then `own`. False, and nothing kept, without `before`.

        NoRoomError for one that is still being made, where with it those that are would be all that is kept.
        """
        given: tuple[_Kept, ...] = ()
        if before is not None:
            previous = self.get((key[0], before))
            if previous is None:
                return False
            given = previous.given + previous.output
        record = Record(response, given + tuple(map(_Kept, own)), running=running, streams=streams)
        if running:
            others = [each for each in self._records.values() if each.running]
            held = record.held + sum(each.held for each in others)
            if len(others) >= self._most or (others and held > self._most_bytes):
                raise NoRoomError
        self.remove(key)
        self._hold(key[0], record.given)
        self._records[key] = record
        self.bytes += record.size
        self._say(key[0], record, output)
        self._make_room()
        return True

    def get(self, key: Key) -> Record | None:
        """A response, which thereby was used."""
        record = self._records.get(key)
        if record is not None:
            self._records.move_to_end(key)
        return record

    def item(self, key: Key) -> bytes | None:
        """An item that some response holds, by its own id."""
        kept = self._items.get(key)
        return None if kept is None else kept.data

    def add_events(self, key: Key, events: Sequence[bytes], response: bytes | None = None) -> bool:
        """What is new of a response that is being made. False if it need not be made any more."""
        record = self.get(key)
        if record is None or not record.running:
            return False
        self.bytes += record.add_events(events)
        if response is not None:
            self.bytes += record.change(response)
        self._make_room()
        return True

    def finish(self, key: Key, response: bytes, output: Iterable[ItemBytes]) -> bool:
        """It has been made. False if it was not being made any more."""
        record = self.get(key)
        if record is None or not record.running:
            return False
        record.stop()
        self.bytes += record.change(response)
        self._say(key[0], record, output)
        self._make_room()
        return True

    def remove(self, key: Key) -> bool:
        record = self._records.pop(key, None)
        if record is None:
            return False
        record.stop()
        self.bytes -= record.size
        self._let_go(key[0], record.given + record.output)
        return True

    def _say(self, tenant: str, record: Record, output: Iterable[ItemBytes]) -> None:
        self._let_go(tenant, record.output)
        record.say(tuple(map(_Kept, output)))
        self._hold(tenant, record.output)

    def _hold(self, tenant: str, items: Iterable[_Kept]) -> None:
        for kept in items:
            if not kept.holders:
                self.bytes += len(kept.data)
                self._items[tenant, kept.id] = kept
            kept.hold()

    def _let_go(self, tenant: str, items: Iterable[_Kept]) -> None:
        for kept in items:
            if kept.let_go():
                self.bytes -= len(kept.data)
                if self._items.get((tenant, kept.id)) is kept:
                    del self._items[tenant, kept.id]

    def _make_room(self) -> None:
        while len(self._records) > self._most or self.bytes > self._most_bytes:
            oldest = next(self._may_go(), None)
            if oldest is None:
                return
            self.remove(oldest)

    def _may_go(self) -> Iterator[Key]:
        return (key for key, record in self._records.items() if not record.running)
