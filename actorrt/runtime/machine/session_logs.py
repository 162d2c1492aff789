"""What is left of sessions that have ended: their logs, for whoever asks why; the oldest go when there are too many.

Removed is what actorrt has put there, by its names; a file of the user's stays, wherever it lies, and the folders above
it. Functions here may be called by the node and by its driver, in any order and twice.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Callable, Generator
from typing import Final

from .session_folder import INFO, LOGS, if_ended, is_name, opened

KEPT_SESSIONS: Final = 5
KEPT_BYTES: Final = 200 * 1024 * 1024

# Names of files, and what kind of file each is.
FileNames = tuple[tuple[re.Pattern[str], Callable[[int], bool]], ...]

_SPILL: Final = "spill"
# What lies in the folder of a session beside its mark and folders.
_FILES: Final[FileNames] = (
    (re.compile(r"[0-9a-f]{16}\.sock"), stat.S_ISSOCK),
    # Where the head is another session's.
    (re.compile(r"[0-9a-f]{16}\.sock"), stat.S_ISLNK),
    (re.compile(r"[0-9a-f]{16}\.at"), stat.S_ISREG),
)
_MARK: Final[FileNames] = ((re.compile(re.escape(INFO)), stat.S_ISREG),)
_SPILLED: Final[FileNames] = ((re.compile(r"\d+-\d+\.spill"), stat.S_ISREG),)
_LOGGED: Final[FileNames] = ((re.compile(r"node\.err|worker-[0-9a-f]{16}-\d+\.(out|err)(\.\d+)?"), stat.S_ISREG),)


def retire(session: str) -> None:
    """Remove what is left of one's own session, which has ended, except for logs; and what is too much of others'."""
    with contextlib.suppress(OSError), opened(session) as folder:
        _strip(session, folder)
    _prune(os.path.dirname(session), os.path.basename(session))


def sweep(folder: str) -> None:
    """Retire the sessions whose processes were all killed, so that nobody was left to do it."""
    for session in _sessions(folder):
        with if_ended(session) as ended:
            if ended is not None:
                _strip(session, ended)
    _prune(folder, "")


def _sessions(folder: str) -> list[str]:
    """The youngest first: their names begin with the time of their start."""
    try:
        return [os.path.join(folder, name) for name in sorted(os.listdir(folder), reverse=True) if is_name(name)]
    except OSError:
        return []


def _prune(folder: str, own: str) -> None:
    room = KEPT_BYTES
    kept = 0
    for session in _sessions(folder):
        # One's own is locked still.
        is_own = os.path.basename(session) == own
        with contextlib.suppress(OSError), opened(session) if is_own else if_ended(session) as ended:
            if ended is None or not _is_retired(ended):
                continue
            kept += 1
            room -= sum(_logs(ended).values())
            if kept > KEPT_SESSIONS or (room < 0 and kept > 1):
                _remove(session, ended)


def _strip(session: str, folder: int) -> None:
    for name in _found(folder, _FILES):
        _unlink(folder, name)
    _empty(folder, _SPILL, _SPILLED)
    if not any(_logs(folder).values()):
        _remove(session, folder)


def _remove(session: str, folder: int) -> None:
    _empty(folder, LOGS, _LOGGED)
    for name in _found(folder, _MARK):
        _unlink(folder, name)
    with contextlib.suppress(OSError):
        os.rmdir(session)


def _is_retired(folder: int) -> bool:
    return not _found(folder, _FILES)


def _logs(folder: int) -> dict[str, int]:
    """The log files of a session, and their sizes."""
    with contextlib.suppress(OSError), _inside(folder, LOGS) as logs:
        return _found(logs, _LOGGED)
    return {}


def _empty(folder: int, name: str, names: FileNames) -> None:
    """Remove such files from a folder inside of a session's, and the folder if that was all."""
    with contextlib.suppress(OSError):
        with _inside(folder, name) as inner:
            for found in _found(inner, names):
                _unlink(inner, found)
        os.rmdir(name, dir_fd=folder)


@contextlib.contextmanager
def _inside(folder: int, name: str) -> Generator[int]:
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        yield fd
    finally:
        os.close(fd)


def _found(folder: int, names: FileNames) -> dict[str, int]:
    """What is called so and is of that kind, and its size."""
    found: dict[str, int] = {}
    for name in os.listdir(folder):
        for pattern, kind in names:
            if pattern.fullmatch(name):
                with contextlib.suppress(OSError):
                    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                    if kind(status.st_mode):
                        found[name] = status.st_size
    return found


def _unlink(folder: int, name: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=folder)
