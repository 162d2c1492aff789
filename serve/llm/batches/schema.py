"""The tables of files, batches and answers."""

from typing import Final

from .records import BATCH_COLUMNS, FILE_COLUMNS
from .states import OPEN

# Another one is not read: it is of a later release.
VERSION: Final = 1
# A file comes, is here, and is gone: then nobody is shown it, and its bytes go when no batch needs them any more.
# What is left then is its place, by which a list goes on.
COMING, HERE, GONE, LEFT = "coming", "here", "gone", "left"

# Of batches that somebody has to work on.
OPEN_STATUSES: Final = ", ".join(f"'{status}'" for status in OPEN)

_TYPES: Final = {
    "id": "TEXT NOT NULL UNIQUE",
    "tenant": "TEXT NOT NULL",
    "metadata": "BLOB NOT NULL",
    "errors": "BLOB NOT NULL",
}


def _columns(names: tuple[str, ...]) -> str:
    return ", ".join(f"{name} {_TYPES.get(name, '')}" for name in names)


# The order of arrival is `seq`, also of those of the same second. An owner is a replica of the front that works on it.
SCHEMA: Final = (
    f"CREATE TABLE files (seq INTEGER PRIMARY KEY AUTOINCREMENT, {_columns(FILE_COLUMNS)}, state TEXT NOT NULL)",
    "CREATE INDEX files_of ON files (tenant, state, seq)",
    "CREATE INDEX files_that_go ON files (state, expires_at)",
    (
        f"CREATE TABLE batches (seq INTEGER PRIMARY KEY AUTOINCREMENT, {_columns(BATCH_COLUMNS)}, "
        "owner TEXT, leased_until REAL NOT NULL DEFAULT 0)"
    ),
    "CREATE INDEX batches_of ON batches (tenant, seq)",
    "CREATE INDEX batches_by_status ON batches (status)",
    "CREATE INDEX batches_by_input ON batches (input_file_id)",
    (
        "CREATE TABLE answers (batch TEXT NOT NULL, line INTEGER NOT NULL, good INTEGER NOT NULL, "
        "output BLOB NOT NULL, PRIMARY KEY (batch, line))"
    ),
)
