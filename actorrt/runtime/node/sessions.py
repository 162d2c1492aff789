"""The sessions of this user that run on this machine: who began each, and where it can be joined."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from actorrt.config import Settings

from ..machine.session_folder import INFO, facts_of, opened
from .node_launch import live_sessions


@dataclass(frozen=True, slots=True)
class Session:
    """`address` is what `init` takes. The rest is of the program that began it: "" and 0 where that is not known."""

    address: str
    pid: int
    program: str
    began: str
    """Local time, as 2026-11-30 12:00:00."""


def sessions() -> list[Session]:
    """Those that run, newest first. Nothing is joined or started.

    OSError if the folder of sessions cannot be used, with what to set.
    """
    return list(_running(Settings.from_environment()))


def _running(settings: Settings) -> Iterator[Session]:
    for address in live_sessions(settings):
        pid = _pid_in(address)
        day, clock = os.path.basename(address).split("-")[:2]
        began = f"{day[:4]}-{day[4:6]}-{day[6:]} {clock[:2]}:{clock[2:4]}:{clock[4:]}"
        yield Session(address, pid, _program(pid), began)


def _pid_in(session: str) -> int:
    with contextlib.suppress(OSError, ValueError), opened(session) as folder:
        mark = os.open(INFO, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        try:
            facts: Any = json.loads(facts_of(mark))
        finally:
            os.close(mark)
        pid = cast("dict[str, Any]", facts).get("driver_pid") if isinstance(facts, dict) else 0
        return pid if isinstance(pid, int) else 0
    return 0


def _program(pid: int) -> str:
    """Its command line."""
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        return shlex.join(word.decode(errors="replace") for word in words)
    return ""
