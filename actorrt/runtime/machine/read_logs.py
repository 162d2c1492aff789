"""Read what the processes of a session have printed, from the files in its folder; also of those that have ended."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from .session_folder import LOGS

# `worker-<process>-<pid>.out`, older parts of which are `.out.1` and so on; what the node and the head print.
_WORKER: Final = re.compile(r"worker-(?P<process>[0-9a-f]{16})-(?P<pid>\d+)\.(?P<suffix>out|err)")
NODE: Final = "node.err"
LOOK_AGAIN_S: Final = 0.2


def names(session: str, part: str | None = None) -> list[str]:
    """The log files of a session whose names have `part`; [] if it has none."""
    with contextlib.suppress(OSError):
        found = os.listdir(os.path.join(session, LOGS))
        return sorted(each for each in found if part is None or part in each)
    return []


def kinds(found: Iterable[str]) -> dict[str, list[str]]:
    """The same by what they are."""
    by_kind: dict[str, list[str]] = {}
    for name in found:
        match = _WORKER.match(name)
        by_kind.setdefault("node" if match is None else f"worker_{match['suffix']}", []).append(name)
    return by_kind


def name_of(process: str, pid: int, suffix: str) -> str:
    """The file of a worker, which is there once that has printed something."""
    return f"worker-{process}-{pid}.{suffix}"


def of_process(found: Sequence[str], text: str, suffix: str) -> str | None:
    """The file of the process whose pid, or the beginning of whose id, is `text`. Raises ValueError if there are
    several."""
    if text == "node":
        return NODE if NODE in found else None
    files = [match for name in found if (match := _WORKER.fullmatch(name)) is not None and match["suffix"] == suffix]
    with_pid = [match[0] for match in files if match["pid"] == text]
    chosen = with_pid or [match[0] for match in files if text and match["process"].startswith(text)]
    if len(chosen) > 1:
        raise ValueError(f"{text!r} begins the ids of {len(chosen)} workers: {', '.join(chosen[:3])}")
    return chosen[0] if chosen else None


def lines(session: str, name: str, *, follow: bool, tail: int) -> Iterator[str]:
    """The lines of a file, without their ends; the last `tail` of what is there, or, by -1, all. `follow`: wait for
    more until its process has ended. Raises ValueError if there is no such file, and no process that may make it."""
    path = os.path.join(session, LOGS, name)
    is_there = os.path.basename(name) == name and os.path.isfile(path)
    if not is_there and (_WORKER.fullmatch(name) is None or not _lives(name)):
        raise ValueError(f"there is no log {name!r} in this session: list_logs() names them")
    return _lines(path, name, follow, tail)


def _lines(path: str, name: str, follow: bool, tail: int) -> Iterator[str]:
    while not os.path.isfile(path):
        if not follow or not _lives(name):
            return
        time.sleep(LOOK_AGAIN_S)
    with open(path, encoding="utf-8", errors="replace") as file:
        rest = ""
        there = deque(file, maxlen=None if tail < 0 else tail)
        if follow and there and not there[-1].endswith("\n"):
            rest = there.pop()
        yield from (line.rstrip("\n") for line in there)
        while follow:
            # First: what it has printed last is there once it has ended.
            lives = _lives(name)
            for line in file:
                rest += line
                if rest.endswith("\n"):
                    yield rest.rstrip("\n")
                    rest = ""
            if not lives:
                break
            time.sleep(LOOK_AGAIN_S)
        if rest:
            yield rest


def _lives(name: str) -> bool:
    """Whether somebody may write on."""
    match = _WORKER.match(name)
    return match is None or os.path.exists(f"/proc/{match['pid']}")
