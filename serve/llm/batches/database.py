"""The store in a thread of its own, off the loop, and what its failures mean to a client.

It is opened when it is first needed, and again after it could not be: a disk that is full, or a file that is damaged,
fails requests for files and batches, and nothing else.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from ..problems import Problem
from .store import Store
from .tables import WrongVersionError

P = ParamSpec("P")
T = TypeVar("T")

NAME: Final = "batches.sqlite"
FILES: Final = "files"
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# SQLite's own, whose names are not there before it is loaded.
_BUSY, _LOCKED, _FULL = 5, 6, 13
# What an open database does not recover from: READONLY, as of one that was moved, CORRUPT, NOTADB.
_DAMAGED: Final = frozenset({8, 11, 26})
_NO_RETRY: Final = ((b"x-should-retry", b"false"),)


class StorageError(Exception):
    """What is kept cannot be read or written. `problem`: what a client is told."""

    def __init__(self, problem: Problem, cause: str) -> None:
        super().__init__(problem, cause)
        self.problem, self.cause = problem, cause

    def __str__(self) -> str:
        return self.cause


class Database:
    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.path = self.folder / NAME
        self._threads = ThreadPoolExecutor(1, "actorrt-batches")
        self._store: Store | None = None
        self._inode = 0

    def file(self, id: str) -> Path:
        """Where the bytes of a file lie."""
        return self.folder / FILES / id

    @property
    def is_open(self) -> bool:
        return self._store is not None

    async def is_there(self) -> bool:
        """Whether there is one, of this process or of another before. StorageError if that cannot be known."""
        if self.is_open:
            return True
        try:
            return await asyncio.to_thread(self.path.exists)
        except OSError as error:
            raise storage_error(error, str(self.path)) from error

    async def do(self, action: Callable[Concatenate[Store, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method of the store. StorageError if the store cannot; else what it raises. It runs to its end."""
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: self._do(action, *args, **kwargs)
        )

    def _do(self, action: Callable[Concatenate[Store, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        import sqlite3

        try:
            if self._store is None:
                (self.folder / FILES).mkdir(mode=0o700, parents=True, exist_ok=True)
                self._store = Store(self.path)
                self._inode = self.path.stat().st_ino
            return action(self._store, *args, **kwargs)
        except (sqlite3.Error, OSError, WrongVersionError) as error:
            if _code(error) in _DAMAGED or self._is_another_file():
                self._close()
            raise storage_error(error, str(self.path)) from error

    def _is_another_file(self) -> bool:
        try:
            return self.path.stat().st_ino != self._inode
        except OSError:
            return True

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, self._close)
        self._threads.shutdown(wait=False)


def storage_error(error: Exception, where: str) -> StorageError:
    """What an error of the disk or of SQLite means."""
    cause = f"{where}: {error}"
    code = _code(error)
    if code == _FULL or (isinstance(error, OSError) and error.errno in _NO_ROOM):
        message = "the server's disk for files and batches is full"
        return StorageError(Problem(507, message, code="insufficient_storage", headers=_NO_RETRY), cause)
    if code in (_BUSY, _LOCKED):
        return StorageError(Problem(503, "the server's batches are busy", code="overloaded", retry_after_s=1), cause)
    message = "the server's files and batches cannot be read or written"
    return StorageError(Problem(500, message, code="storage_failed", kind="server_error", headers=_NO_RETRY), cause)


def _code(error: Exception) -> int | None:
    """SQLite's primary code."""
    code: Any = getattr(error, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else None
