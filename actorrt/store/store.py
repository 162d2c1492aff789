"""What a head asks of a store, and which one an address names."""

from __future__ import annotations

import importlib
import os
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from actorrt.core.durable import Mark, Snapshot, StoreRefusedError, Write

_REDIS: Final = ("redis", "rediss", "unix")
SQLITE: Final = "sqlite"


class StoreUnavailableError(Exception):
    """The store cannot be used now; later it may. What was asked of it may have been done. The text says why."""


class Store(Protocol):
    """Keeps entries and a mark. One request is under way at a time."""

    @property
    def name(self) -> str:
        """What people know it by; no password is in it."""
        ...

    async def load(self) -> Snapshot:
        """All that it has. Raises StoreUnavailableError, StoreRefusedError."""
        ...

    async def write(self, write: Write, cluster: str) -> Mark:
        """Apply `write` whole if the mark is the expected one, and say which mark there is then.

        What it returns is on disk, as far as the store can say. Raises StoreUnavailableError.
        """
        ...

    async def close(self) -> None: ...


def open_store(address: str) -> Store:
    """The store at `sqlite:///PATH`, a path, or `redis://...`; nothing is read yet. Raises StoreRefusedError."""
    scheme, colon, _ = address.partition("://")
    if not colon:
        return _module(SQLITE).SQLiteStore(os.path.abspath(address))
    if scheme in _REDIS:
        return _module("redis").RedisStore(address)
    if scheme == SQLITE:
        parts = urlsplit(address)
        # sqlite:///a is absolute here: who starts the head and the head may have other working directories.
        if parts.netloc or len(parts.path) < len("/f"):
            raise StoreRefusedError("a file is named as sqlite:///PATH, with an absolute PATH")
        return _module(SQLITE).SQLiteStore(parts.path)
    raise StoreRefusedError(f"{scheme}:// is no kind of store: give sqlite:///PATH, a path, or redis://HOST:PORT/DB")


def _module(kind: str) -> Any:
    """What a store needs is loaded with it."""
    return importlib.import_module(f"actorrt.store.{kind}")
