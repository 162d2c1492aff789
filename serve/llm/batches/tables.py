"""The SQLite database of files and batches: opened, made if it is not there, read, and written in transactions.

It blocks: everything is called in one thread, see database.py.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from .schema import SCHEMA, VERSION

# How long a write waits for another process's.
_BUSY_S: Final = 10.0


class WrongVersionError(Exception):
    """The database is of a later release."""


class Tables:
    def __init__(self, path: Path) -> None:
        """Opens it, and makes it if it is not there. sqlite3.Error if that cannot be."""
        import sqlite3

        # Transactions are begun here by word.
        self._db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        run = self._db.execute
        if not self._version():
            run("PRAGMA auto_vacuum = INCREMENTAL")
        run("PRAGMA journal_mode = WAL")
        # What a client was told is there is there, also when the power goes.
        run("PRAGMA synchronous = FULL")
        # Whoever finds it made writes nothing: also on a disk that is full it can be read.
        if not self._version():
            with self._write():
                if not self._version():  # nobody was faster
                    for statement in SCHEMA:
                        run(statement)
                    run(f"PRAGMA user_version = {VERSION}")
        if (version := self._version()) != VERSION:
            raise WrongVersionError(version)

    def _version(self) -> int:
        return self._one("PRAGMA user_version")[0]

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _write(self) -> Generator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def give_room_back(self, pages: int = 2000) -> None:
        """To the disk, of what is free in the database: a part, so that nobody waits long for it."""
        self._db.execute(f"PRAGMA incremental_vacuum({pages})").fetchall()

    def _place(self, table: str, tenant: str, after: str | None, *, newest_first: bool) -> int | None:
        if after is None:
            return 2**62 if newest_first else 0
        found = self._rows(f"SELECT seq FROM {table} WHERE id = ? AND tenant = ?", after, tenant)
        return found[0][0] if found else None

    def _one(self, statement: str, *values: Any) -> Any:
        return self._db.execute(statement, values).fetchone()

    def _rows(self, statement: str, *values: Any) -> list[Any]:
        return self._db.execute(statement, values).fetchall()
