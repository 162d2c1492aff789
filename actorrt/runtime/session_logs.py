"""What is left of sessions that have ended: their logs, for whoever asks why; the oldest go when there are too many.

A session is a folder. While it runs it holds sockets and more; ended, it holds `logs` alone, and only if something was
written. Functions here may be called by the node and by its driver, in any order and twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable
from typing import Final

LOGS: Final = "logs"
INFO: Final = "session.json"
KEPT_SESSIONS: Final = 5
KEPT_BYTES: Final = 200 * 1024 * 1024
# A session that is younger may not have come up yet.
YOUNG_S: Final = 60.0


def retire(session: str) -> None:
    """Remove an ended session except for its logs, and what is too much of the logs of earlier ones."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(session):
            if name != LOGS:
                _remove(os.path.join(session, name))
    if not _size(os.path.join(session, LOGS)):
        _remove(session)
    _prune(os.path.dirname(session))


def sweep(folder: str, is_alive: Callable[[str], bool]) -> None:
    """Retire the sessions whose processes were all killed, so that nobody was left to do it."""
    for name in os.listdir(folder):
        session = os.path.join(folder, name)
        with contextlib.suppress(FileNotFoundError):
            young = time.time() - os.stat(session).st_mtime < YOUNG_S
            if not young and not _is_retired(session) and not _driver_lives(session) and not is_alive(session):
                retire(session)


def _prune(folder: str) -> None:
    room = KEPT_BYTES
    kept = 0
    # Their names begin with the time of their start.
    try:
        names = sorted(os.listdir(folder), reverse=True)
    except FileNotFoundError:
        return
    for name in names:
        session = os.path.join(folder, name)
        if not _is_retired(session):
            continue
        kept += 1
        room -= _size(os.path.join(session, LOGS))
        if kept > KEPT_SESSIONS or (room < 0 and kept > 1):
            _remove(session)


def _is_retired(session: str) -> bool:
    with contextlib.suppress(OSError):
        return os.listdir(session) == [LOGS]
    return False


def _driver_lives(session: str) -> bool:
    try:
        with open(os.path.join(session, INFO), encoding="utf-8") as file:
            os.kill(json.load(file)["pid"], 0)
    except PermissionError:
        return True
    except (OSError, ValueError, KeyError):
        return False
    return True


def _size(folder: str) -> int:
    total = 0
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):
                total += os.stat(os.path.join(folder, name)).st_size
    return total


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            os.unlink(path)
