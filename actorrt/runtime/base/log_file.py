"""A file that takes bytes as they come and starts anew at a size, keeping so many old ones beside it.

Made when the first byte is there. A disk that is full or gone loses output and is said once; it stops nobody.
"""

from __future__ import annotations

import contextlib
import logging
import os

logger = logging.getLogger("actorrt")


class LogFile:
    """`path`, and `path.1` (the youngest) to `path.<count>`; each ends with a whole line where there is one."""

    def __init__(self, path: str, max_bytes: int, count: int) -> None:
        self.path = path
        self._max_bytes = max(1, max_bytes)
        self._count = max(0, count)
        self._fd = -1
        self._size = 0
        self._failed = False

    def write(self, data: bytes) -> None:
        """Append, and rotate where the size is reached. Never raises."""
        try:
            while data:
                if self._fd < 0:
                    self._open()
                room = self._max_bytes - self._size
                if len(data) <= room:
                    self._append(data)
                    return
                # A line that starts in this file ends in it, unless it fills a file alone.
                end = data.rfind(b"\n", 0, room) + 1 if room > 0 else 0
                if end == 0 and self._size == 0:
                    end = room
                self._append(data[:end])
                data = data[end:]
                self._rotate()
        except OSError as error:
            if not self._failed:
                self._failed = True
                logger.warning("output of a worker is lost, %s cannot be written: %s", self.path, error)

    def close(self) -> None:
        """Safe to call again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size

    def _append(self, data: bytes) -> None:
        while data:
            written = os.write(self._fd, data)
            self._size += written
            data = data[written:]

    def _rotate(self) -> None:
        self.close()
        for number in range(self._count, 1, -1):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{self.path}.{number - 1}", f"{self.path}.{number}")
        if self._count:
            os.replace(self.path, f"{self.path}.1")
        else:
            os.truncate(self.path, 0)
