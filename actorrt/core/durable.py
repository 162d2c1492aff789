"""What survives the end of a head: keyed, versioned entries, and how they get to a store that others may write too.

No I/O. A store keeps the entries and one `Mark`, which says who wrote last; it takes a write only if the mark that it
has is the one that the writer expects. So

* what a head has been told is written was written on top of all that it wrote before;
* a head whose store was taken over by another one finds the mark of that one at its next write, and is fenced;
* a write whose answer was lost is sent again as it was, and found to be there, or not;
* a store that has lost what it had (it was emptied, or an old copy was put back) gets all of it again.

What a head answers from waits for a look at the mark (`Durable.next`), so a head that is fenced answers nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import auto
from typing import Final, NamedTuple

from .labels import Label

# The layout of what a store has; a later one is not read.
FORMAT: Final = 1


class Mark(NamedTuple):
    """Who wrote last: the `epoch` grows with each head, the `serial` with each of its writes; `writer` is a head's own
    id."""

    epoch: int = 0
    serial: int = 0
    writer: str = ""


NOBODY: Final = Mark()


class Entry(NamedTuple):
    """`version` grows with each change of the entry, from 1."""

    version: int
    value: bytes


class Snapshot(NamedTuple):
    """All that a store has. `format` is 0 and `cluster` "" in one that nothing was written to."""

    format: int
    cluster: str
    mark: Mark
    entries: Mapping[str, Entry]


class Write(NamedTuple):
    """To be applied if the store's mark is `expected`, all or nothing. `changes`: None drops an entry; `whole`: all
    else goes, and format and cluster are written too. If both marks are the same, it is looked at alone.
    """

    expected: Mark
    mark: Mark
    changes: Mapping[str, Entry | None]
    whole: bool = False


class Verdict(Label):
    # It is there.
    WRITTEN = auto()
    # Another head has the store: this one has to end.
    FENCED = auto()
    # The store has forgotten: it is to be given all.
    FORGOTTEN = auto()


def judge(write: Write, found: Mark) -> Verdict:
    """What the mark that a store has after `write` says. `found` is the new one if the write was applied."""
    if found == write.mark:
        return Verdict.WRITTEN
    mine = write.mark
    if found.epoch > mine.epoch or (found.epoch == mine.epoch and found.writer != mine.writer):
        return Verdict.FENCED
    return Verdict.FORGOTTEN


class StoreRefusedError(Exception):
    """A store that this head cannot use; the text is a sentence for who started it."""


def take_over(snapshot: Snapshot, cluster: str, writer: str) -> Write:
    """The first write of a head: from then on the store is its own. Raises StoreRefusedError."""
    if snapshot.format > FORMAT:
        raise StoreRefusedError(
            f"it was written by a newer actorrt (format {snapshot.format}, and this one reads {FORMAT}): "
            "install that one, or give another store"
        )
    if snapshot.format and snapshot.cluster != cluster:
        raise StoreRefusedError(
            f"it is the store of cluster {snapshot.cluster!r}, not of {cluster!r}: "
            f"give `--name {snapshot.cluster}`, or another store"
        )
    mark = Mark(snapshot.mark.epoch + 1, 0, writer)
    return Write(snapshot.mark, mark, snapshot.entries, whole=True)


class VersionConflictError(Exception):
    """An entry is not at the version that was expected. `version`: the one that it has, 0: there is none."""

    def __init__(self, key: str, expected: int, version: int) -> None:
        super().__init__(key, expected, version)
        self.key, self.expected, self.version = key, expected, version

    def __str__(self) -> str:
        return f"{self.key!r} is at version {self.version}, not at {self.expected}"


class Statistics(NamedTuple):
    """`unwritten`: changes that no store has yet."""

    entries: int
    unwritten: int
    mark: Mark


class Durable:
    """The entries of one head, and what of them is not written yet. One write is under way at a time."""

    def __init__(self, mark: Mark, entries: Mapping[str, Entry]) -> None:
        """`mark`: that of the write that took the store over."""
        self._entries = dict(entries)
        self._mark = mark
        # What has changed since the last write was begun.
        self._changed: dict[str, None] = {}
        self._under_way: Write | None = None
        # The mark that the store has in place of this head's, if it has forgotten.
        self._forgot: Mark | None = None

    def __len__(self) -> int:
        return len(self._entries)

    # ---- entries

    def get(self, key: str) -> Entry | None:
        return self._entries.get(key)

    def listed(self, prefix: str) -> list[tuple[str, Entry]]:
        """Those whose key begins so, in order."""
        return sorted((key, entry) for key, entry in self._entries.items() if key.startswith(prefix))

    def put(self, key: str, value: bytes, expected: int | None = None) -> int:
        """Change an entry or make one; its version now. `expected`: the version that it must have, 0: none.

        Raises VersionConflictError.
        """
        version = self._check(key, expected) + 1
        self._entries[key] = Entry(version, value)
        self._changed[key] = None
        return version

    def drop(self, key: str, expected: int | None = None) -> bool:
        """Whether there was one. Raises VersionConflictError."""
        self._check(key, expected)
        if self._entries.pop(key, None) is None:
            return False
        self._changed[key] = None
        return True

    def _check(self, key: str, expected: int | None) -> int:
        entry = self._entries.get(key)
        version = 0 if entry is None else entry.version
        if expected is not None and expected != version:
            raise VersionConflictError(key, expected, version)
        return version

    # ---- writes

    def next(self) -> Write:
        """What to send now: the write under way as it was, or what has changed since; a look if nothing has."""
        if self._under_way is None:
            mark = self._mark
            if self._forgot is not None:
                write = Write(self._forgot, mark._replace(serial=mark.serial + 1), dict(self._entries), whole=True)
                self._changed.clear()
            elif self._changed:
                changes = {key: self._entries.get(key) for key in self._changed}
                write = Write(mark, mark._replace(serial=mark.serial + 1), changes)
                self._changed.clear()
            else:
                return Write(mark, mark, {})
            self._under_way = write
        return self._under_way

    def answered(self, write: Write, found: Mark) -> Verdict:
        """The store has said which mark it has now."""
        verdict = judge(write, found)
        match verdict:
            case Verdict.WRITTEN:
                self._mark = found
                self._under_way = self._forgot = None
            case Verdict.FORGOTTEN:
                # All entries are in the next write, and what this one had with them.
                self._under_way, self._forgot = None, found
                # A number of its own: an answer to this write that comes late is not taken for one to the next.
                self._mark = write.mark
            case Verdict.FENCED:
                pass
        return verdict

    def statistics(self) -> Statistics:
        under_way = self._under_way
        unwritten = len(self._changed) + (0 if under_way is None or under_way.whole else len(under_way.changes))
        return Statistics(len(self._entries), unwritten, self._mark)


# ---- keys: parts that may hold any text


def key_of(kind: str, *parts: str) -> str:
    """The key of an entry; the kind is a plain word, and no two lists of parts give one key."""
    return "/".join((kind, *(part.replace("%", "%25").replace("/", "%2F") for part in parts)))


def key_parts(key: str) -> tuple[str, ...]:
    """The parts of a key, the kind first."""
    return tuple(part.replace("%2F", "/").replace("%25", "%") for part in key.split("/"))
