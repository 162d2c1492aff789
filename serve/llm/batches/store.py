"""The records of batches as those see them that work on them, in SQLite; and with them all that is kept.

Whoever works on a batch owns it for a time, and renews that. Each of his writes is refused once it is another's, so
that of two who believe to own it only one is heard.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final, NamedTuple

from .batch_records import BatchRecords
from .outputs import Tokens
from .records import Batch, File
from .schema import OPEN_STATUSES
from .states import Event, Status

_OWN: Final = f"id = ? AND owner = ? AND status IN ({OPEN_STATUSES})"
_NOBODYS: Final = f"status IN ({OPEN_STATUSES}) AND leased_until <= ?1"
_IN_WORK: Final = f"status IN ({OPEN_STATUSES}) AND leased_until > ?1"


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


class Done(NamedTuple):
    """A request that has its answer: the line of its output."""

    line: int
    good: bool
    output: bytes
    tokens: Tokens


class Store(BatchRecords):
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

    def _waiting(self, now: float, most: int, which: Waiting) -> list[str]:
        found = self._rows(
            f"SELECT id FROM batches AS b WHERE {_NOBODYS} {_WHICH[which]} "
            f"ORDER BY (SELECT count(*) FROM batches WHERE tenant = b.tenant AND {_IN_WORK}), seq LIMIT ?2",
            now, most,
        )  # fmt: skip
        return [id for (id,) in found]
