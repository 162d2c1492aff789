"""The functions and classes that callers have defined in this worker."""

from __future__ import annotations

import threading
from typing import Any

import msgspec

from actorrt.types import FunctionKey
from actorrt.wire.messages import Define

from ..base import shipping
from ..links.link import Link
from ..owner.entries import UNMADE, cannot_be_made


class CodeStatistics(msgspec.Struct, frozen=True):
    """How much of others' code a worker has."""

    # Functions and classes that callers have defined and not forgotten.
    defined: int
    # Those of them that have been used, and are unpickled.
    loaded: int
    # Those that are there as bytes still.
    packed: int


class Code:
    """Each by its content hash. It goes with the last of those who have defined it."""

    def __init__(self) -> None:
        self._blobs: dict[FunctionKey, bytes] = {}
        self._loaded: dict[FunctionKey, Any] = {}
        self._definers: dict[FunctionKey, set[Link]] = {}
        # Held where one of the three changes: a thread of the user's loads what the runtime's defines and forgets.
        self._changing = threading.Lock()

    # ---- on the runtime loop

    def define(self, link: Link, message: Define) -> None:
        with self._changing:
            self._definers.setdefault(message.function, set()).add(link)
            if message.function not in self._loaded:
                self._blobs[message.function] = message.blob

    def forget(self, link: Link, key: FunctionKey) -> None:
        with self._changing:
            links = self._definers.get(key)
            if links is not None:
                links.discard(link)
                if not links:
                    del self._definers[key]
                    self._blobs.pop(key, None)
                    self._loaded.pop(key, None)

    def link_lost(self, link: Link) -> None:
        for key in [key for key, links in self._definers.items() if link in links]:
            self.forget(link, key)

    # ---- from any thread

    def is_loaded(self, key: FunctionKey) -> bool:
        return key in self._loaded

    def load(self, key: FunctionKey) -> Any:
        """A function or class, unpickled on first use."""
        found = self._loaded.get(key)
        if found is None:
            blob = self._blobs.get(key)
            if blob is None:
                # Another thread was first, or the caller is gone with what it had defined.
                return self._loaded[key]
            try:
                found = shipping.load(blob)
            except UNMADE as error:
                raise cannot_be_made("the code of this call", error) from error
            with self._changing:
                if key in self._definers:
                    self._loaded[key] = found
                    self._blobs.pop(key, None)
        return found

    def statistics(self) -> CodeStatistics:
        return CodeStatistics(len(self._definers), len(self._loaded), len(self._blobs))
