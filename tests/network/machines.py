"""Processes with links over TCP: each has a session of its own, as on a machine of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

import msgspec

from actorrt.config import Settings
from actorrt.runtime.links.access import Access
from actorrt.runtime.links.link import Link
from actorrt.runtime.links.peers import Peers
from actorrt.types import ProcessId
from actorrt.wire.addresses import Endpoint, ways_of
from actorrt.wire.link import State
from actorrt.wire.messages import AnyMessage, DropName, Facts, Query, Unreadable

ME: Final = ProcessId(b"process1")
OTHER: Final = ProcessId(b"process2")
TOKEN: Final = "the token of this cluster"
TLS: Final = Path(__file__).parent / "tls"
PLAIN: Final = Settings(host="127.0.0.1", token=TOKEN)
# One certificate for all machines; and an authority that has signed one for each.
ENCRYPTED: Final = msgspec.structs.replace(PLAIN, tls_cert=str(TLS / "other.pem"), tls_key=str(TLS / "other-key.pem"))
SIGNED: Final = {"tls_ca": str(TLS / "ca.pem")}
MUTUAL: Final = msgspec.structs.replace(
    PLAIN, tls_cert=str(TLS / "node.pem"), tls_key=str(TLS / "node-key.pem"), **SIGNED
)
DRIVER: Final = msgspec.structs.replace(
    PLAIN, host="", tls_cert=str(TLS / "driver.pem"), tls_key=str(TLS / "driver-key.pem"), **SIGNED
)
KINDS: Final = {"plain": (PLAIN, PLAIN), "encrypted": (ENCRYPTED, ENCRYPTED), "mutual": (DRIVER, MUTUAL)}


class Receiver:
    """Remembers what its links bring."""

    def __init__(self) -> None:
        self.lost: list[Link] = []
        self.names: list[str] = []

    def receive(self, link: Link, messages: list[AnyMessage]) -> None:
        self.names += [message.name for message in messages if isinstance(message, DropName)]

    async def answer(self, link: Link, question: Any) -> Any:
        return Facts(question.what) if isinstance(question, Query) else Facts(len(self.names))

    def unwanted(self, link: Link, body: Any) -> None: ...

    def unsendable(self, link: Link, message: AnyMessage, why: str) -> None: ...

    def unreadable(self, link: Link, message: Unreadable) -> None: ...

    def link_lost(self, link: Link) -> None:
        self.lost.append(link)


class Machines:
    """Processes on machines of their own, and what ends with the test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._peers: list[Peers] = []

    def process(self, settings: Settings, process: ProcessId, **options: Any) -> Peers:
        session = self._folder / f"{len(self._peers)}"
        session.mkdir()
        peers = Peers(Receiver(), process, "worker", str(session), "0", access=Access(settings), **options)
        self._peers.append(peers)
        return peers

    async def pair(self, kind: str) -> tuple[Peers, Peers]:
        """One that dials, and one that listens."""
        mine, theirs = KINDS[kind]
        pair = self.process(mine, ME), self.process(theirs, OTHER)
        await pair[1].listen()
        return pair

    async def close(self) -> None:
        for peers in self._peers:
            await peers.close()


def endpoint_of(peers: Peers) -> Endpoint:
    endpoint = ways_of(peers.address).endpoint
    assert endpoint is not None
    return endpoint


def receiver_of(peers: Peers) -> Receiver:
    receiver: Any = peers._receiver
    return receiver


def cut(link: Link) -> None:
    """Break its connection, if it has one at the moment."""
    if link._connection is not None:
        link._connection.transport.abort()


async def until_open(link: Link) -> None:
    while link.end.state is not State.OPEN:  # noqa: ASYNC110  no event says that a link goes on
        await asyncio.sleep(0.005)
