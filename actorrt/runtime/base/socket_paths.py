"""Where the processes of a session listen. A path of any length can be bound and dialled.

The address of a Unix socket has room for 107 bytes. A longer path is reached by way of a descriptor of its folder.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from typing import Final

from actorrt.types import Address, ProcessId
from actorrt.wire.addresses import socket_name, unix_address

# sun_path, less the zero behind it.
MOST_BYTES: Final = 107


def socket_path(session: str, process: ProcessId) -> str:
    """Where a process of this session listens on this machine."""
    return path_of(session, unix_address(process))


def path_of(session: str, address: Address) -> str:
    """The path of an address on this machine. ValueError if it has none."""
    return os.path.join(session, socket_name(address))


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
