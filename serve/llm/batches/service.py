"""What a replica of the front has of files and batches, and what every handler of theirs works with."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol
from urllib.parse import parse_qsl

from ..problems import Problem
from .counts import Kept
from .database import Database, StorageError
from .store import Store

if TYPE_CHECKING:
    from ..config import BatchConfig
    from ..exchange import Exchange


class Batches:
    def __init__(self, config: BatchConfig) -> None:
        self.config = config
        self.database = Database(config.folder)
        # Told when there is a new batch, or one that is to be cancelled.
        self.wake: Callable[[], None] = lambda: None
        # Requests that are in hand here, by model.
        self.running: Counter[str] = Counter()

    async def counts(self) -> list[Kept]:
        """Of all batches that are kept; nothing where nobody had one since this replica began, or where that cannot be
        told."""
        if not self.database.is_open:
            return []
        try:
            return await self.database.do(Store.counts)
        except StorageError:
            return []


class Keeper(Protocol):
    """A front, which keeps batches or does not."""

    @property
    def batches(self) -> Batches | None: ...


def batches_of(keeper: Keeper) -> Batches:
    """Problem 501 where none are kept."""
    if keeper.batches is None:
        message = "this server keeps no files and no batches: it has no FrontConfig(batches=BatchConfig(folder=...))"
        raise Problem(501, message, code="not_configured", headers=((b"x-should-retry", b"false"),))
    return keeper.batches


def query_of(exchange: Exchange) -> dict[str, str]:
    return dict(parse_qsl(exchange.query.decode("latin-1"), keep_blank_values=True))


def new_id(prefix: str) -> str:
    return f"{prefix}{uuid.uuid4().hex}"


def not_here(kind: str, id: str, param: str | None = None) -> Problem:
    return Problem(404, f"there is no {kind} {id[:128]!r}", param=param, code="not_found")
