"""The last so many of what only ever grows: who has ended, and how. Pure."""

from __future__ import annotations

from collections.abc import Sized
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Sized, Generic[K, V]):
    """A table that forgets the oldest entry where it would hold more than `most`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: dict[K, V] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def get(self, key: K) -> V | None:
        return self._entries.get(key)

    def put(self, key: K, value: V) -> None:
        """Remember it as the newest."""
        self._entries.pop(key, None)
        self._entries[key] = value
        if len(self._entries) > self._most:
            del self._entries[next(iter(self._entries))]


class RecentSet(Recent[K, None]):
    """The same without values."""

    def add(self, key: K) -> None:
        self.put(key, None)
