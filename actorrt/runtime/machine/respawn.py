"""Start a head or a zygote again, in the place of one that has ended.

The first ones are forked before there are threads and loops. A node that runs has both and cannot fork, so these are
programs of their own: they import what the launcher imports, and then do the same as the first.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from actorrt.types import ProcessId

# On the launcher's command line, before one of the configurations below and the session's folder.
AGAIN: Final = "again"


class HeadAgain(msgspec.Struct, frozen=True, tag="head"):
    """What a later head is told, with the descriptors that it inherits."""

    head: str
    node_pid: int
    node_fd: int
    driver_pidfd: int | None


class ZygoteAgain(msgspec.Struct, frozen=True, tag="zygote"):
    """What a later zygote is told."""

    node_fd: int
    preload_modules: list[str]


Again = HeadAgain | ZygoteAgain


class Respawned:
    """A process just started, and the node's end of the socket to it."""

    def __init__(self, pid: int, sock: socket.socket) -> None:
        self.pid = pid
        self.sock = sock


def spawn_head(head: ProcessId, session: str, driver_pidfd: int | None) -> Respawned:
    """Start a head that lives at the same address as the one before. Raises OSError."""
    ours, theirs = socket.socketpair()
    fds = [theirs.fileno()] if driver_pidfd is None else [theirs.fileno(), driver_pidfd]
    return _spawn(
        ours,
        theirs,
        fds,
        session,
        lambda copies: HeadAgain(head.hex(), os.getpid(), copies[0], copies[1] if len(copies) > 1 else None),
    )


def spawn_zygote(session: str, preload_modules: list[str]) -> Respawned:
    """Start a zygote; it may be sent requests at once. Raises OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return _spawn(ours, theirs, [theirs.fileno()], session, lambda copies: ZygoteAgain(copies[0], preload_modules))


def _spawn(
    ours: socket.socket, theirs: socket.socket, fds: Sequence[int], session: str, config: Callable[[list[int]], Again]
) -> Respawned:
    copies: list[int] = []
    try:
        for fd in fds:
            # Every other descriptor of this process is closed by exec.
            copies.append(os.dup(fd))
            os.set_inheritable(copies[-1], True)
        # As this process was started itself, with whatever options of Python.
        command = [sys.executable, *sys.orig_argv[1:-1], AGAIN, msgspec.json.encode(config(copies)).decode(), session]
        return Respawned(os.posix_spawn(sys.executable, command, os.environ), ours)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
        for fd in copies:
            os.close(fd)
