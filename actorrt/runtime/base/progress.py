"""The last task that a worker began, in a page of a file: readable when the worker has been killed.

So a death is blamed on the task that ran, not on those that waited behind it, nor on one whose answer was on its
way. The worker writes, its node reads.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from typing import Final

from actorrt.types import ProcessId

_FORM: Final = struct.Struct("<QQ")


def _path(session: str, process: ProcessId) -> str:
    return os.path.join(session, f"{process.hex()}.at")


class Progress:
    """The worker's side."""

    def __init__(self, session: str, process: ProcessId) -> None:
        path = _path(session, process)
        with open(path, "w+b") as file:
            file.truncate(_FORM.size)
            self._page = mmap.mmap(file.fileno(), _FORM.size)

    def begins(self, lease: int, seq: int) -> None:
        self._page[:] = _FORM.pack(lease, seq)


def last_begun(session: str, process: ProcessId) -> tuple[int, int] | None:
    """The last task that an ended worker began, as (lease, sequence number); None if nobody knows. Told once."""
    path = _path(session, process)
    data = b""
    with contextlib.suppress(OSError):
        with open(path, "rb") as file:
            data = file.read()
        os.unlink(path)
    return _FORM.unpack(data) if len(data) == _FORM.size else None
