"""Where the processes of a session listen. A path of any length can be bound and dialled.

The address of a Unix socket has room for 107 bytes. A longer path is reached by way of a descriptor of its folder.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator
from typing import Final

from actorrt.types import ProcessId
from actorrt.wire.addresses import Ways, tcp_address, unix_address, ways_of

# sun_path, less the zero behind it.
MOST_BYTES: Final = 107


def socket_path(session: str, process: ProcessId) -> str:
    """Where a process of this session listens on this machine."""
    return os.path.join(session, ways_of(unix_address(process)).socket)


def path_by(session: str, ways: Ways, is_socket: Callable[[str], bool]) -> str:
    """Where to dial: a socket of this session if it is there, else over TCP if that is a way."""
    path = os.path.join(session, ways.socket) if ways.socket else ""
    if ways.endpoint is None or (path and is_socket(path)):
        return path
    return tcp_address(ways.endpoint)


def remove_socket(session: str, process: ProcessId) -> None:
    """After the end of a process: nobody can dial it any more. Nothing happens if it never listened."""
    with contextlib.suppress(OSError):
        os.unlink(socket_path(session, process))


@contextlib.contextmanager
def reachable(path: str) -> Generator[str]:
    """The path, or another one that leads there and fits an address; it holds inside of the `with`. Raises OSError."""
    if len(os.fsencode(path)) <= MOST_BYTES:
        yield path
        return
    folder, name = os.path.split(path)
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)
