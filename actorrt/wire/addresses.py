"""How a process is reached: by a Unix socket in the session's folder of its node, over TCP, or by both. No I/O.

An address is one short string. `unix:<name>` names a socket and holds no path of the machine, so that any path will do
for the folder; `unix:<name>@<host>:<port>` is reached over TCP too, and `tcp:<host>:<port>` over TCP alone. A process
that finds the socket in the folder of its own session is on the same machine and dials that; any other dials the host.
"""

from __future__ import annotations

import ipaddress
from typing import Final, NamedTuple

from actorrt.types import Address, Place, ProcessId

_UNIX: Final = "unix:"
_TCP: Final = "tcp:"
_MOST_PORTS: Final = 65_536


class Endpoint(NamedTuple):
    """A host and a port of TCP."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Ways(NamedTuple):
    """What an address names: a socket of the session's folder ("": none), and where it is reached over TCP."""

    socket: str
    endpoint: Endpoint | None


def unix_address(process: ProcessId) -> Address:
    """Where a process listens on the machine of its node."""
    return Address(f"{_UNIX}{process.hex()}.sock")


def open_address(process: ProcessId, endpoint: Endpoint) -> Address:
    """Where a process listens that other machines reach, too."""
    return Address(f"{unix_address(process)}@{endpoint}")


def tcp_address(endpoint: Endpoint) -> Address:
    """Where somebody listens, whichever process that is."""
    return Address(f"{_TCP}{endpoint}")


def endpoint_of(path: str) -> Endpoint | None:
    """The endpoint that `tcp_address` was made of; None if it is a path."""
    return endpoint_in(path.removeprefix(_TCP)) if path.startswith(_TCP) else None


def place_on(node: ProcessId, process: ProcessId, address: Address | None = None) -> Place:
    """The place of a process of this node; `address`: what it has said of itself, if it has."""
    return Place(process, node, address or unix_address(process))


def endpoint_in(text: str) -> Endpoint:
    """The endpoint that people write as host:port, or [host]:port. ValueError with a sentence if it is none."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not colon or not host or (":" in host) is not bracketed or not _is_name(host):
        raise ValueError(f"{text!r} is no address: write host:port, or [host]:port for IPv6")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < _MOST_PORTS):
        raise ValueError(f"the port in {text!r} is not a number from 1 to {_MOST_PORTS - 1}")
    return Endpoint(host, int(port))


def ways_of(address: Address) -> Ways:
    """By which ways an address is reached. ValueError if it is none."""
    if (endpoint := endpoint_of(address)) is not None:
        return Ways("", endpoint)
    name, at, host_and_port = address.removeprefix(_UNIX).partition("@")
    if not address.startswith(_UNIX) or not name or "/" in name or "\0" in name:
        raise ValueError(f"{address!r} is no address of a socket in a session's folder")
    return Ways(name, endpoint_in(host_and_port) if at else None)


def _is_name(host: str) -> bool:
    return host.isascii() and host.isprintable() and not set(host) & set(" /@[]")


def ports_in(text: str) -> range:
    """The ports that people write as first-last, or as one; of "", any (0). ValueError with a sentence."""
    if not text.strip():
        return range(1)
    first, dash, last = (part.strip() for part in text.partition("-"))
    last = last if dash else first
    if all(each.isascii() and each.isdigit() and 0 < int(each) < _MOST_PORTS for each in (first, last)):
        found = range(int(first), int(last) + 1)
        if found:
            return found
    raise ValueError(f"{text!r} is no range of ports: write 20000-20100")


def is_loopback(host: str) -> bool:
    """Whether only processes of the same machine reach this host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_wildcard(host: str) -> bool:
    """Whether this is every address of a machine, and so none that others can dial."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
