"""Which scheme and client a request has behind servers that stand in front of this one: X-Forwarded-Proto and -For.

They are believed of those addresses alone that are trusted; who is not could write anything. The rules are uvicorn's.
"""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

EVERYBODY: Final = "*"
_SCHEMES: Final = ("http", "https", "ws", "wss")

Address = tuple[str, int]


class TrustedServers:
    """`names`: addresses and networks with commas between them, or "*" for every address.

    ValueError names what is neither.
    """

    def __init__(self, names: str) -> None:
        self._all = names.strip() == EVERYBODY
        self._networks: list[IPv4Network | IPv6Network] = []
        for name in () if self._all else filter(None, map(str.strip, names.split(","))):
            try:
                self._networks.append(ip_network(name))
            except ValueError as error:
                raise ValueError(
                    f"forwarded_allow_ips must be addresses and networks with commas between them, or '*': {error}"
                ) from None

    def trusts(self, host: str) -> bool:
        if self._all:
            return True
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._networks)

    def client(self, forwarded_for: str) -> Address | None:
        """The last one in the list of who passed the request on that is not trusted; the first if all of them are."""
        hosts = [_split(each.strip()) for each in forwarded_for.split(",")]
        found = (
            hosts[0] if self._all else next((each for each in reversed(hosts) if not self.trusts(each[0])), hosts[0])
        )
        return found if found[0] else None


def forwarded(
    servers: TrustedServers, scheme: str, client: Address | None, fields: Iterable[tuple[bytes, bytes]]
) -> tuple[str, Address | None]:
    """Scheme and client of a request with these fields that came from a trusted server."""
    proto: bytes | None = None
    hosts: list[bytes] = []
    for name, value in fields:
        if name == b"x-forwarded-proto":
            proto = value
        elif name == b"x-forwarded-for":
            hosts.append(value)
    if proto is not None and (said := proto.decode("latin-1").strip()) in _SCHEMES:
        scheme = said.replace("http", "ws") if scheme in ("ws", "wss") else said
    if hosts:
        # A tab separates in a packed head.
        client = servers.client(b", ".join(hosts).decode("latin-1").replace("\t", " ")) or client
    return scheme, client


def _split(host: str) -> Address:
    """A host and its port, 0 where it says none; what has no known form is all host."""
    if host.startswith("["):
        inner, bracket, rest = host[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return host, 0
        return inner, _port(rest[1:]) or 0
    name, colon, port = host.partition(":")
    if colon and ":" not in port:
        number = _port(port)
        return (host, 0) if number is None else (name, number)
    return host, 0


def _port(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else None
