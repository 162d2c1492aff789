"""The records of files, in SQLite: what comes, what a tenant has, and what goes when.

A file comes, is here, and is gone: then nobody is shown it, and its bytes go when no batch needs them any more.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from .records import FILE_COLUMNS, File
from .schema import COMING, GONE, HERE, LEFT, OPEN_STATUSES
from .tables import Tables

_FILE: Final = ", ".join(FILE_COLUMNS)
# An upload that has not come to its end by then is nobody's.
UPLOAD_S: Final = 86400
# Of the latest files so many keep their place in a list when they have gone.
MOST_LEFT: Final = 10_000


class TooManyError(Exception):
    """So many are kept, or open, already."""


class FileRecords(Tables):
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
                f"WHERE input_file_id = files.id AND status IN ({OPEN_STATUSES})) LIMIT ?",
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

    def _insert_file(self, file: File, state: str) -> None:
        marks = ", ".join("?" * len(FILE_COLUMNS))
        values = [getattr(file, name) for name in FILE_COLUMNS]
        self._db.execute(f"INSERT INTO files ({_FILE}, state) VALUES ({marks}, ?)", (*values, state))

    def _keep_file(self, file: File) -> None:
        # Its row may have gone as that of an upload which stood still.
        self._db.execute("DELETE FROM files WHERE id = ?", (file.id,))
        self._insert_file(file, HERE)
