"""The records of batches as their tenants see them, in SQLite: made, shown, listed, and cancelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from .counts import Kept
from .file_records import FileRecords, TooManyError
from .records import BATCH_COLUMNS, Batch
from .schema import OPEN_STATUSES
from .states import Event, Status, after

_BATCH: Final = ", ".join(BATCH_COLUMNS)


class BatchRecords(FileRecords):
    def add_batch(self, batch: Batch, now: float, *, most_open: int, most: int) -> bool:
        """It is nobody's at first. False if its input file is not here; TooManyError if as many are open. Of those of
        all tenants that have ended the `most` newest are kept.
        """
        with self._write():
            if self.file(batch.tenant, batch.input_file_id, now) is None:
                return False
            (number,) = self._one(
                f"SELECT count(*) FROM batches WHERE tenant = ? AND status IN ({OPEN_STATUSES})", batch.tenant
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
            self._db.execute(f"DELETE FROM batches WHERE seq <= ? AND status NOT IN ({OPEN_STATUSES})", (oldest,))
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

    def counts(self) -> list[Kept]:
        """How many batches there are of each model in each state, and their requests."""
        found = self._rows(
            "SELECT coalesce(model, ''), status, count(*), sum(coalesce(total, 0)), sum(completed), sum(failed) "
            "FROM batches GROUP BY 1, 2"
        )
        return [Kept(*row) for row in found]

    def _happens(self, batch: Batch, event: Event, now: float) -> None:
        status = after(batch.status, event)
        if status is batch.status:
            return
        stamp = f", {status}_at = {int(now)}" if f"{status}_at" in BATCH_COLUMNS else ""
        self._db.execute(f"UPDATE batches SET status = ?{stamp} WHERE id = ?", (str(status), batch.id))

    def _batch(self, where: str, *values: Any) -> Batch | None:
        found = self._rows(f"SELECT {_BATCH} FROM batches WHERE {where}", *values)
        return _made(found[0]) if found else None


def _made(row: Sequence[Any]) -> Batch:
    id, tenant, status, *rest = row
    return Batch(id, tenant, Status(status), *rest)
