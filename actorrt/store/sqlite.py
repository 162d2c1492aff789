"""A store in one SQLite file (with its write-ahead log beside it): the default, for a head that stays on its machine.

A thread of its own runs what waits for the disk. A write returns once the log is synced: what it said is there survives
a kill at any moment, and a machine that loses its power.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from actorrt.core.durable import FORMAT, Entry, Mark, Snapshot, StoreRefusedError, Write

from .store import StoreUnavailableError

# Another head may be at it.
BUSY_S: Final = 5.0
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS store (
    one INTEGER PRIMARY KEY CHECK (one = 1), format INTEGER NOT NULL, cluster TEXT NOT NULL,
    epoch INTEGER NOT NULL, serial INTEGER NOT NULL, writer TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, version INTEGER NOT NULL, value BLOB NOT NULL) WITHOUT ROWID;
"""
# "actorrt" is in no other file's header.
APPLICATION_ID: Final = 0x61637274

T = TypeVar("T")


class SQLiteStore:
    """A file that is made with its folder where it is not there, for its owner alone."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, "actorrt-store")
        self._connection: sqlite3.Connection | None = None
        # Device and number of the file that is open.
        self._file = (0, 0)

    @property
    def name(self) -> str:
        return self._path

    async def load(self) -> Snapshot:
        return await self._run(self._load)

    async def write(self, write: Write, cluster: str) -> Mark:
        return await self._run(lambda connection: _write(connection, write, cluster))

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._work, work)

    # ---- in the thread

    def _work(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return work(self._open())
        except (sqlite3.Error, OSError) as error:
            # Also what is left of a transaction: the next request begins with what is on the disk.
            self._close()
            kind = StoreRefusedError if _is_no_store(error) else StoreUnavailableError
            raise kind(f"{type(error).__name__}: {error}") from error

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None and self._file != _file_at(self._path):
            # It was removed, or another one was put in its place: SQLite would go on with the old one.
            self._close()
        connection = self._connection
        if connection is None:
            os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
            # It is there before SQLite opens it, so that nobody else can ever read it.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            connection = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None)
            try:
                _prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._connection, self._file = connection, _file_at(self._path)
        return connection

    def _load(self, connection: sqlite3.Connection) -> Snapshot:
        with _transaction(connection, "DEFERRED"):
            row = connection.execute("SELECT format, cluster, epoch, serial, writer FROM store").fetchone()
            rows = connection.execute("SELECT key, version, value FROM entries").fetchall()
        if row is None:
            return Snapshot(0, "", Mark(), {})
        return Snapshot(row[0], row[1], Mark(*row[2:]), {key: Entry(version, value) for key, version, value in rows})

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()


def _file_at(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return (0, 0)
    return status.st_dev, status.st_ino


def _is_no_store(error: Exception) -> bool:
    return isinstance(error, sqlite3.DatabaseError) and error.sqlite_errorcode in (
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_MISMATCH,
    )


def _prepare(connection: sqlite3.Connection) -> None:
    (found,) = connection.execute("PRAGMA application_id").fetchone()
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if found != APPLICATION_ID and tables:
        raise StoreRefusedError("it is a database of another program: give another file")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    if not tables:
        with _transaction(connection, "IMMEDIATE"):
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            for statement in _SCHEMA.strip().rstrip(";").split(";\n"):
                connection.execute(statement)


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection, kind: str) -> Generator[None]:
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _mark(connection: sqlite3.Connection) -> Mark:
    row = connection.execute("SELECT epoch, serial, writer FROM store").fetchone()
    return Mark() if row is None else Mark(*row)


def _write(connection: sqlite3.Connection, write: Write, cluster: str) -> Mark:
    if write.mark == write.expected:
        return _mark(connection)
    with _transaction(connection, "IMMEDIATE"):
        found = _mark(connection)
        if found != write.expected:
            return found
        if write.whole:
            connection.execute("DELETE FROM entries")
            connection.execute("INSERT OR REPLACE INTO store VALUES (1, ?, ?, ?, ?, ?)", (FORMAT, cluster, *write.mark))
        else:
            connection.execute("UPDATE store SET epoch = ?, serial = ?, writer = ?", write.mark)
        for key, entry in write.changes.items():
            if entry is None:
                connection.execute("DELETE FROM entries WHERE key = ?", (key,))
            else:
                connection.execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", (key, *entry))
    return write.mark
