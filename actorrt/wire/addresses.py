"""How a process is reached: by the name of a Unix socket that lies in the session's folder of its node. No I/O.

An address begins with the way that it names; `unix:` is the only one. It holds no path of the machine, so that it is
short, and any path will do for the folder.
"""

from __future__ import annotations

from typing import Final

from actorrt.types import Address, Place, ProcessId

_UNIX: Final = "unix:"


def unix_address(process: ProcessId) -> Address:
    """Where a process listens on the machine of its node."""
    return Address(f"{_UNIX}{process.hex()}.sock")


def place_on(node: ProcessId, process: ProcessId) -> Place:
    """The place of a process of this node."""
    return Place(process, node, unix_address(process))


def socket_name(address: Address) -> str:
    """The name of the socket in the session's folder. ValueError if the address is of another kind."""
    name = address.removeprefix(_UNIX)
    if name == address or not name or "/" in name or "\0" in name:
        raise ValueError(f"{address!r} is no address of a socket in a session's folder")
    return name
