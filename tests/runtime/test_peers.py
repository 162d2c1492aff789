"""Links between processes that answer late, or never: real sockets, but no other process and no node."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from actorrt.exceptions import LinkError
from actorrt.runtime.base.socket_paths import socket_path
from actorrt.runtime.links.link import Link
from actorrt.runtime.links.peers import Peers
from actorrt.runtime.links.transport import NoAnswerError, make_hello
from actorrt.types import ProcessId
from actorrt.wire.link import Ending
from actorrt.wire.messages import AnyMessage, Done, Ping, Unreadable, encode_hello

ME = ProcessId(b"process1")
OTHER = ProcessId(b"process2")


class Receiver:
    """Remembers what its links bring."""

    def __init__(self) -> None:
        self.lost: list[Link] = []

    def receive(self, link: Link, messages: list[AnyMessage]) -> None: ...

    async def answer(self, link: Link, question: Any) -> Done:
        return Done()

    def unwanted(self, link: Link, body: Any) -> None: ...

    def unsendable(self, link: Link, message: AnyMessage, why: str) -> None: ...

    def unreadable(self, link: Link, message: Unreadable) -> None: ...

    def link_lost(self, link: Link) -> None:
        self.lost.append(link)


def peers_of(process: bytes, session: Path, dial_timeout_s: float = 0.05) -> Peers:
    return Peers(Receiver(), process, "worker", str(session), "0", dial_timeout_s)


class Silent:
    """A process that listens and answers nobody, as one that is stopped; until it is `woken`."""

    def __init__(self, session: Path) -> None:
        self._session = session
        self._path = socket_path(str(session), OTHER)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(self._path)
        self._socket.listen()
        self.peers = peers_of(OTHER, session)

    async def wake(self) -> None:
        self.end()
        await self.peers.listen()

    def end(self) -> None:
        self._socket.close()
        os.unlink(self._path)


@pytest.fixture
async def session(tmp_path: Path) -> AsyncIterator[Path]:
    # The path of a Unix socket has 107 bytes, and a test's own folder is deep.
    short = Path(f"/proc/self/fd/{os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)}")
    yield short
    os.close(int(short.name))


@pytest.fixture
async def mine(session: Path) -> AsyncIterator[Peers]:
    peers = peers_of(ME, session)
    yield peers
    await peers.close()


class Ends:
    """What the node knows of ends."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.known: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def of(self, process: bytes) -> str:
        self.asked.set()
        return await asyncio.shield(self.known)


async def test_who_does_not_answer_is_dialled_until_it_does(
    session: Path, mine: Peers, caplog: pytest.LogCaptureFixture
) -> None:
    silent = Silent(session)
    ends = Ends()
    mine.end_of = ends.of
    waiting = asyncio.create_task(mine.link_to(OTHER))
    while "has not answered" not in caplog.text:  # noqa: ASYNC110  a log has no event
        await asyncio.sleep(0.01)
    assert not waiting.done()
    await silent.wake()
    link = await waiting
    assert link.peer == OTHER
    assert isinstance(await mine.ask(OTHER, Ping()), Done)
    await silent.peers.close()


async def test_a_dial_ends_when_the_node_says_that_the_process_has_ended(session: Path, mine: Peers) -> None:
    silent = Silent(session)
    ends = Ends()
    mine.end_of = ends.of
    waiting = asyncio.create_task(mine.link_to(OTHER))
    await ends.asked.wait()
    ends.known.set_result("it was killed by SIGKILL")
    with pytest.raises(LinkError, match="has ended: it was killed by SIGKILL"):
        await waiting
    silent.end()


async def test_a_dial_of_a_process_that_the_node_does_not_know_fails_and_nobody_calls_it_dead(mine: Peers) -> None:
    async def unknown(process: ProcessId) -> str:
        raise LinkError(f"process {process.hex()} cannot be reached: its process is not known to the node")

    mine.end_of = unknown
    with pytest.raises(LinkError, match="cannot be reached: its process is not known"):
        await mine.link_to(OTHER)
    assert OTHER not in mine.dead


async def test_who_is_cancelled_while_dialling_leaves_the_others_their_link(session: Path, mine: Peers) -> None:
    silent = Silent(session)
    ends = Ends()
    mine.end_of = ends.of
    first, second = asyncio.create_task(mine.link_to(OTHER)), asyncio.create_task(mine.link_to(OTHER))
    await ends.asked.wait()
    first.cancel()
    await silent.wake()
    assert (await second).peer == OTHER
    assert first.cancelled()
    await silent.peers.close()


async def test_without_a_node_a_dial_that_is_not_answered_is_an_error(session: Path, mine: Peers) -> None:
    silent = Silent(session)
    with pytest.raises(NoAnswerError):
        await mine.link_to(OTHER)
    silent.end()


async def test_a_question_is_asked_again_where_the_link_ends_under_it(session: Path, mine: Peers) -> None:
    ends = Ends()
    mine.end_of = ends.of
    other = peers_of(OTHER, session)
    await other.listen()
    link = await mine.link_to(OTHER)
    asking = asyncio.create_task(mine.ask(OTHER, Ping()))
    await asyncio.sleep(0)
    link.finish(Ending.LOST)
    assert isinstance(await asking, Done)
    assert mine.get(OTHER) is not link
    await other.close()


async def test_a_dialler_that_has_given_up_is_no_link_and_no_loss(session: Path) -> None:
    receiver = Receiver()
    other = Peers(receiver, OTHER, "worker", str(session), "0")
    await other.listen()
    reader, writer = await asyncio.open_unix_connection(socket_path(str(session), OTHER))
    hello = encode_hello(make_hello(ME, "worker", "0"))
    head = b"POST /link HTTP/1.1\r\nHost: actorrt\r\nTransfer-Encoding: chunked\r\n\r\n"
    writer.write(head + b"%x\r\n%b\r\n" % (len(hello), hello))
    # Its hello comes; then the dialler, whose time is over, goes without a frame.
    assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    mine = peers_of(ME, session)
    link = await mine.link_to(OTHER)
    await link.ask(Ping())
    assert [link.peer for link in other.links.values()] == [ME]
    assert receiver.lost == []
    await mine.close()
    await other.close()


async def test_a_dial_of_what_says_something_else_is_an_error_at_once(session: Path, mine: Peers) -> None:
    async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    path = socket_path(str(session), OTHER)
    async with await asyncio.start_unix_server(say, path):
        with pytest.raises(LinkError, match=r"the peer answered 'HTTP/1\.1 404 Not Found'"):
            await mine.dial(OTHER, path)
    assert not mine.links


async def test_a_dial_of_what_hangs_up_is_an_error_at_once(session: Path, mine: Peers) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    path = socket_path(str(session), OTHER)
    async with await asyncio.start_unix_server(hang_up, path):
        with pytest.raises(LinkError, match=r"could not open a link to .*: ConnectionResetError: "):
            await mine.dial(OTHER, path)


async def test_a_dial_that_ends_without_a_link_leaves_no_connection(session: Path) -> None:
    mine, ended = peers_of(ME, session, dial_timeout_s=0.01), asyncio.Event()

    async def read_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
        ended.set()

    path = socket_path(str(session), OTHER)
    async with await asyncio.start_unix_server(read_on, path):
        with pytest.raises(NoAnswerError):
            await mine.dial(OTHER, path)
        await ended.wait()
    await mine.close()
