"""The records of files and batches, in SQLite. It blocks: everything is called in one thread, see database.py.

Whoever works on a batch owns it for a time, and renews that. Each of his writes is refused once it is another's, so
that of two who believe to own it only one is heard.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any, Final, NamedTuple

from .outputs import Tokens
from .records import BATCH_COLUMNS, FILE_COLUMNS, Batch, File
from .schema import COMING, GONE, HERE, LEFT, SCHEMA, VERSION
from .states import OPEN, Event, Status, after

_FILE: Final = ", ".join(FILE_COLUMNS)
_BATCH: Final = ", ".join(BATCH_COLUMNS)
_OPEN: Final = ", ".join(f"'{status}'" for status in OPEN)
_OWN: Final = f"id = ? AND owner = ? AND status IN ({_OPEN})"
_NOBODYS: Final = f"status IN ({_OPEN}) AND leased_until <= ?1"
_IN_WORK: Final = f"status IN ({_OPEN}) AND leased_until > ?1"
# How long a write waits for another process's.
_BUSY_S: Final = 10.0
# An upload that has not come to its end by then is nobody's.
UPLOAD_S: Final = 86400
# Of the latest files so many keep their place in a list when they have gone.
MOST_LEFT: Final = 10_000


class Waiting(Enum):
    """Which of the batches that are nobody's."""

    ANY = "each"
    ENDING = "what was cancelled, or is over"
    FIRST = "the oldest of each tenant of whom none is worked on"


_WHICH: Final = {
    Waiting.ANY: "",
    Waiting.ENDING: f"AND (status = '{Status.CANCELLING}' OR expires_at <= ?1)",
    Waiting.FIRST: f"AND seq IN (SELECT min(seq) FROM batches WHERE {_NOBODYS} "
    f"AND tenant NOT IN (SELECT tenant FROM batches WHERE {_IN_WORK}) GROUP BY tenant)",
}


class LostError(Exception):
    """The batch is another's by now, or has ended."""


class TooManyError(Exception):
    """So many are kept, or open, already."""


class WrongVersionError(Exception):
    """The database is of a later release."""


class Done(NamedTuple):
    """A request that has its answer: the line of its output."""

    line: int
    good: bool
    output: bytes
    tokens: Tokens


class Store:
    def __init__(self, path: Path) -> None:
        """Opens it, and makes it if it is not there. sqlite3.Error if that cannot be."""
        import sqlite3

        # Transactions are begun here by word.
        self._db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
        try:
            self._begin()
        except BaseException:
            self._db.close()
            raise

    def _begin(self) -> None:
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

    # Files.

    def used_bytes(self, tenant: str) -> int:
        """Of all files of a tenant that are here."""
        (total,) = self._one("SELECT coalesce(sum(bytes), 0) FROM files WHERE tenant = ? AND state = ?", tenant, HERE)
        return int(total)

    def begin_file(self, file: File, most_files: int) -> None:
        """It comes. TooManyError if its tenant has so many."""
        with self._write():
            (number,) = self._one(
                "SELECT count(*) FROM files WHERE tenant = ? AND state IN (?, ?)", file.tenant, COMING, HERE
            )
            if number >= most_files:
                raise TooManyError
            self._insert_file(file, COMING)

    def keep_file(self, file: File, most_bytes: int) -> None:
        """All of its bytes are here; it is what it is said to be now. TooManyError if its tenant has more than so many
        bytes with it: others may have come meanwhile.
        """
        with self._write():
            if self.used_bytes(file.tenant) + file.bytes > most_bytes:
                raise TooManyError
            self._keep_file(file)

    def give_up_file(self, id: str) -> None:
        """It will not come."""
        with self._write():
            self._db.execute("DELETE FROM files WHERE id = ? AND state = ?", (id, COMING))

    def file(self, tenant: str, id: str, now: float) -> File | None:
        found = self._rows(
            f"SELECT {_FILE} FROM files WHERE id = ? AND tenant = ? AND state = '{HERE}' "
            "AND (expires_at IS NULL OR expires_at > ?)",
            id, tenant, now,
        )  # fmt: skip
        return File(*found[0]) if found else None

    def files(
        self, tenant: str, now: float, *, limit: int, after: str | None, newest_first: bool, purpose: str | None
    ) -> list[File] | None:
        """None if `after` is none of this tenant's."""
        place = self._place("files", tenant, after, newest_first=newest_first)
        if place is None:
            return None
        beyond, order = ("<", "DESC") if newest_first else (">", "ASC")
        found = self._rows(
            f"SELECT {_FILE} FROM files WHERE tenant = ? AND state = '{HERE}' AND seq {beyond} ? "
            "AND (expires_at IS NULL OR expires_at > ?) AND (? IS NULL OR purpose = ?) "
            f"ORDER BY seq {order} LIMIT ?",
            tenant, place, now, purpose, purpose, limit,
        )  # fmt: skip
        return [File(*row) for row in found]

    def delete_file(self, tenant: str, id: str, now: float) -> bool:
        with self._write():
            changed = self._db.execute(
                f"UPDATE files SET state = '{GONE}' WHERE id = ? AND tenant = ? AND state = '{HERE}' "
                "AND (expires_at IS NULL OR expires_at > ?)",
                (id, tenant, now),
            )
            return changed.rowcount > 0

    def files_to_remove(self, now: float, most: int = 1000) -> list[str]:
        """Those whose bytes nobody needs: deleted or expired ones that no open batch reads, and uploads that stand
        still."""
        with self._write():
            self._db.execute(f"UPDATE files SET state = '{GONE}' WHERE state = '{HERE}' AND expires_at <= ?", (now,))
            self._db.execute(
                f"UPDATE files SET state = '{GONE}' WHERE state = '{COMING}' AND created_at <= ?", (now - UPLOAD_S,)
            )
            found = self._rows(
                f"SELECT id FROM files WHERE state = '{GONE}' AND NOT EXISTS (SELECT 1 FROM batches "
                f"WHERE input_file_id = files.id AND status IN ({_OPEN})) LIMIT ?",
                most,
            )
        return [id for (id,) in found]

    def forget_files(self, ids: Iterable[str]) -> None:
        """Their bytes are not here any more. Their places in the list are for a while: some delete what they list, page
        by page."""
        with self._write():
            self._db.executemany(
                f"UPDATE files SET state = '{LEFT}' WHERE id = ? AND state = '{GONE}'", [(id,) for id in ids]
            )
            self._db.execute(
                f"DELETE FROM files WHERE state = '{LEFT}' AND seq <= (SELECT max(seq) FROM files) - ?", (MOST_LEFT,)
            )

    # Batches, as their tenants see them.

    def add_batch(self, batch: Batch, now: float, *, most_open: int, most: int) -> bool:
        """It is nobody's at first. False if its input file is not here; TooManyError if as many are open. Of those of
        all tenants that have ended the `most` newest are kept.
        """
        with self._write():
            if self.file(batch.tenant, batch.input_file_id, now) is None:
                return False
            (number,) = self._one(
                f"SELECT count(*) FROM batches WHERE tenant = ? AND status IN ({_OPEN})", batch.tenant
            )
            if number >= most_open:
                raise TooManyError
            marks = ", ".join("?" * len(BATCH_COLUMNS))
            values = [getattr(batch, name) for name in BATCH_COLUMNS]
            added = self._db.execute(
                f"INSERT INTO batches ({_BATCH}) VALUES ({marks})",
                [str(value) if isinstance(value, Status) else value for value in values],
            )
            oldest = (added.lastrowid or 0) - most
            self._db.execute(f"DELETE FROM batches WHERE seq <= ? AND status NOT IN ({_OPEN})", (oldest,))
        return True

    def batch(self, tenant: str, id: str) -> Batch | None:
        return self._batch("id = ? AND tenant = ?", id, tenant)

    def batches(self, tenant: str, *, limit: int, after: str | None) -> list[Batch] | None:
        """The newest first. None if `after` is none of this tenant's."""
        place = self._place("batches", tenant, after, newest_first=True)
        if place is None:
            return None
        found = self._rows(
            f"SELECT {_BATCH} FROM batches WHERE tenant = ? AND seq < ? ORDER BY seq DESC LIMIT ?", tenant, place, limit
        )
        return [_made(row) for row in found]

    def cancel(self, tenant: str, id: str, now: float) -> Batch | None:
        """WrongEventError if it is too late."""
        with self._write():
            if (batch := self.batch(tenant, id)) is None:
                return None
            self._happens(batch, Event.CANCEL, now)
        return self.batch(tenant, id)

    def statuses(self) -> dict[str, int]:
        """How many batches there are in each state."""
        return dict(self._rows("SELECT status, count(*) FROM batches GROUP BY status"))

    # Batches, as those see them that work on them.

    def claim(self, owner: str, now: float, lease_s: float, most: int, which: Waiting = Waiting.ANY) -> list[Batch]:
        """Take open batches that are nobody's: of the tenants of whom the fewest are worked on, then the oldest."""
        with self._write():
            found = self._waiting(now, most, which)
            self._db.executemany(
                "UPDATE batches SET owner = ?, leased_until = ? WHERE id = ?",
                [(owner, now + lease_s, id) for id in found],
            )
        return [batch for id in found if (batch := self._batch("id = ?", id)) is not None]

    def renew(self, owner: str, ids: Sequence[str], now: float, lease_s: float) -> dict[str, Status]:
        """Of these, those that are still his, and how they are."""
        with self._write():
            held = {id: batch.status for id in ids if (batch := self._batch(_OWN, id, owner)) is not None}
            self._db.executemany(
                "UPDATE batches SET leased_until = ? WHERE id = ?", [(now + lease_s, id) for id in held]
            )
        return held

    def has_open(self, now: float, which: Waiting = Waiting.ANY) -> bool:
        """Whether there is one that could be claimed."""
        return bool(self._waiting(now, 1, which))

    def release(self, owner: str, ids: Sequence[str]) -> None:
        """They are nobody's now."""
        with self._write():
            self._db.executemany(
                "UPDATE batches SET owner = NULL, leased_until = 0 WHERE id = ? AND owner = ?",
                [(id, owner) for id in ids],
            )

    def own(self, owner: str, id: str) -> Batch:
        """LostError if it is not his, or has ended."""
        if (batch := self._batch(_OWN, id, owner)) is None:
            raise LostError
        return batch

    def validated(self, owner: str, id: str, total: int, model: str | None, now: float) -> Batch:
        with self._write():
            batch = self.own(owner, id)
            self._db.execute("UPDATE batches SET total = ?, model = ? WHERE id = ?", (total, model, id))
            self._happens(batch, Event.VALID, now)
        return self.own(owner, id)

    def refused(self, owner: str, id: str, errors: bytes, now: float) -> None:
        with self._write():
            batch = self.own(owner, id)
            self._db.execute("UPDATE batches SET errors = ? WHERE id = ?", (errors, id))
            self._happens(batch, Event.INVALID, now)

    def happened(self, owner: str, id: str, event: Event, now: float) -> Batch:
        with self._write():
            self._happens(self.own(owner, id), event, now)
        return self.own(owner, id)

    def record(self, owner: str, id: str, done: Sequence[Done]) -> None:
        """Answers that came, each once: a line that has one keeps it."""
        with self._write():
            self.own(owner, id)
            for each in done:
                added = self._db.execute(
                    "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?)", (id, each.line, each.good, each.output)
                )
                if added.rowcount:
                    self._db.execute(
                        "UPDATE batches SET completed = completed + ?, failed = failed + ?, "
                        "input_tokens = input_tokens + ?, cached_tokens = cached_tokens + ?, "
                        "output_tokens = output_tokens + ?, reasoning_tokens = reasoning_tokens + ? WHERE id = ?",
                        (each.good, not each.good, *each.tokens, id),
                    )

    def lines_done(self, id: str) -> set[int]:
        return {line for (line,) in self._rows("SELECT line FROM answers WHERE batch = ?", id)}

    def answers(self, id: str, beyond: int, most: int, *, good: bool) -> list[tuple[int, bytes]]:
        """The lines of answers, in the order of the requests, from those after that line on."""
        return self._rows(
            "SELECT line, output FROM answers WHERE batch = ? AND line > ? AND good = ? ORDER BY line LIMIT ?",
            id, beyond, good, most,
        )  # fmt: skip

    def finish(self, owner: str, id: str, event: Event, now: float, output: File | None, errors: File | None) -> None:
        """Its files are written. Those that had no answer count as failed."""
        with self._write():
            batch = self.own(owner, id)
            self._happens(batch, event, now)
            for file in (output, errors):
                if file is not None:
                    self._keep_file(file)
            self._db.execute(
                "UPDATE batches SET output_file_id = ?, error_file_id = ?, failed = coalesce(total, 0) - completed, "
                "owner = NULL, leased_until = 0 WHERE id = ?",
                (output and output.id, errors and errors.id, id),
            )
            self._db.execute("DELETE FROM answers WHERE batch = ?", (id,))

    def give_room_back(self, pages: int = 2000) -> None:
        """To the disk, of what is free in the database: a part, so that nobody waits long for it."""
        self._db.execute(f"PRAGMA incremental_vacuum({pages})").fetchall()

    # What the above is made of.

    def _waiting(self, now: float, most: int, which: Waiting) -> list[str]:
        found = self._rows(
            f"SELECT id FROM batches AS b WHERE {_NOBODYS} {_WHICH[which]} "
            f"ORDER BY (SELECT count(*) FROM batches WHERE tenant = b.tenant AND {_IN_WORK}), seq LIMIT ?2",
            now, most,
        )  # fmt: skip
        return [id for (id,) in found]

    def _happens(self, batch: Batch, event: Event, now: float) -> None:
        status = after(batch.status, event)
        if status is batch.status:
            return
        stamp = f", {status}_at = {int(now)}" if f"{status}_at" in BATCH_COLUMNS else ""
        self._db.execute(f"UPDATE batches SET status = ?{stamp} WHERE id = ?", (str(status), batch.id))

    def _batch(self, where: str, *values: Any) -> Batch | None:
        found = self._rows(f"SELECT {_BATCH} FROM batches WHERE {where}", *values)
        return _made(found[0]) if found else None

    def _insert_file(self, file: File, state: str) -> None:
        marks = ", ".join("?" * len(FILE_COLUMNS))
        values = [getattr(file, name) for name in FILE_COLUMNS]
        self._db.execute(f"INSERT INTO files ({_FILE}, state) VALUES ({marks}, ?)", (*values, state))

    def _keep_file(self, file: File) -> None:
        # Its row may have gone as that of an upload which stood still.
        self._db.execute("DELETE FROM files WHERE id = ?", (file.id,))
        self._insert_file(file, HERE)

    def _place(self, table: str, tenant: str, after: str | None, *, newest_first: bool) -> int | None:
        if after is None:
            return 2**62 if newest_first else 0
        found = self._rows(f"SELECT seq FROM {table} WHERE id = ? AND tenant = ?", after, tenant)
        return found[0][0] if found else None

    def _one(self, statement: str, *values: Any) -> Any:
        return self._db.execute(statement, values).fetchone()

    def _rows(self, statement: str, *values: Any) -> list[Any]:
        return self._db.execute(statement, values).fetchall()


def _made(row: Sequence[Any]) -> Batch:
    id, tenant, status, *rest = row
    return Batch(id, tenant, Status(status), *rest)
