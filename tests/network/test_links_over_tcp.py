"""Links over TCP: two processes in one, each with a session of its own, as on two machines."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from pathlib import Path
from typing import Final

import msgspec
import pytest
from aiohttp import web

from actorrt.config import Settings
from actorrt.exceptions import LinkError
from actorrt.runtime.links import network
from actorrt.runtime.links.access import Access
from actorrt.runtime.links.connection import EncryptedConnection
from actorrt.runtime.links.peers import Peers
from actorrt.runtime.links.transport import NobodyListensError
from actorrt.types import NO_ACTOR_KEY, Address, ProcessId
from actorrt.wire.addresses import Endpoint, tcp_address, ways_of
from actorrt.wire.link import Ending
from actorrt.wire.messages import DropName, Ping, Query
from actorrt.wire.proof import NOT_ACTORRT, OTHER_TOKEN, SPEAKS_TLS

from .machines import (
    ENCRYPTED,
    KINDS,
    ME,
    MUTUAL,
    OTHER,
    PLAIN,
    Machines,
    Receiver,
    cut,
    endpoint_of,
    receiver_of,
    until_open,
)


@pytest.mark.parametrize("kind", KINDS)
async def test_two_machines_have_a_link_by_an_address(machines: Machines, kind: str) -> None:
    mine, theirs = await machines.pair(kind)
    link = await mine.link_to(OTHER, theirs.address)
    assert link.is_remote
    assert (await link.ask(Query("x"))).data == "x"
    assert link.address == theirs.address
    # And back over the same one.
    assert (await theirs.links[ME].ask(Query("y"))).data == "y"
    assert isinstance(link._connection, EncryptedConnection) is (kind != "plain")


@pytest.mark.parametrize("kind", KINDS)
async def test_much_goes_both_ways_at_once(machines: Machines, kind: str) -> None:
    mine, theirs = await machines.pair(kind)
    link = await mine.link_to(OTHER, theirs.address)
    texts = [chr(97 + number % 26) * (number * 997 % 200_000) for number in range(300)]
    asked = [link.ask(Query(text)) for text in texts] + [theirs.links[ME].ask(Query(text)) for text in texts]
    async with asyncio.timeout(60):
        assert [answer.data for answer in await asyncio.gather(*asked)] == texts * 2


@pytest.mark.parametrize("kind", KINDS)
async def test_threads_push_and_flush_what_comes_in_order(machines: Machines, kind: str) -> None:
    mine, theirs = await machines.pair(kind)
    link = await mine.link_to(OTHER, theirs.address)
    names = [f"{number}{'x' * (number % 5000)}" for number in range(3000)]

    def push() -> None:
        for name in names:
            link.push(DropName(name, "", NO_ACTOR_KEY))
            link.flush()

    await asyncio.to_thread(push)
    async with asyncio.timeout(60):
        while (await link.ask(Ping())).data < len(names):
            pass
    assert receiver_of(theirs).names == names


@pytest.mark.parametrize("kind", KINDS)
async def test_a_link_whose_connections_are_cut_goes_on_where_it_was(machines: Machines, kind: str) -> None:
    mine, theirs = await machines.pair(kind)
    link = await mine.link_to(OTHER, theirs.address)
    back = theirs.links.get(ME)
    count = 0
    async with asyncio.timeout(60):
        for turn in range(20):
            for _ in range(50):
                link.send(DropName(f"{count}", "", NO_ACTOR_KEY))
                count += 1
            asking = asyncio.create_task(link.ask(Query("z" * 300_000)))
            await asyncio.sleep(0.002 * (turn % 3))
            cut(link if turn % 2 or back is None else back)
            assert (await asking).data == "z" * 300_000
            await until_open(link)
            back = back or theirs.links[ME]
            await until_open(back)
    assert receiver_of(theirs).names == [f"{number}" for number in range(count)]
    assert theirs.links[ME] is back
    assert receiver_of(mine).lost == receiver_of(theirs).lost == []


@pytest.mark.parametrize("kind", KINDS)
async def test_a_goodbye_is_heard(machines: Machines, kind: str) -> None:
    mine, theirs = await machines.pair(kind)
    link = await mine.link_to(OTHER, theirs.address)
    await link.ask(Ping())
    back = theirs.links[ME]
    link.send(DropName("last", "", NO_ACTOR_KEY))
    link.close()
    await back.gone.wait()
    assert back.closed is Ending.GOODBYE
    assert receiver_of(theirs).names == ["last"]


@pytest.mark.parametrize("kind", KINDS)
async def test_who_listens_somewhere_is_found_out_by_dialling_there(machines: Machines, kind: str) -> None:
    mine, theirs = await machines.pair(kind)
    link = await mine.dial_at(tcp_address(endpoint_of(theirs)))
    assert link.peer == OTHER
    await link.ask(Ping())
    assert await mine.dial_at(tcp_address(endpoint_of(theirs))) is link


async def test_two_that_dial_each_other_have_one_link(machines: Machines) -> None:
    one, two = machines.process(PLAIN, ME), machines.process(PLAIN, OTHER)
    await one.listen()
    await two.listen()
    first, second = await asyncio.gather(one.link_to(OTHER, two.address), two.link_to(ME, one.address))
    await asyncio.gather(first.ask(Ping()), second.ask(Ping()))
    assert first.end.link == second.end.link
    assert len(one.links) == len(two.links) == 1


async def test_who_is_of_the_same_session_dials_the_unix_socket(machines: Machines, tmp_path: Path) -> None:
    theirs = machines.process(PLAIN, OTHER)
    await theirs.listen()
    mine = Peers(Receiver(), ME, "worker", theirs.session, "0", access=Access(PLAIN))
    link = await mine.link_to(OTHER, theirs.address)
    assert not link.is_remote
    assert link.path == os.path.join(theirs.session, ways_of(theirs.address).socket)
    await mine.close()


async def test_a_port_that_is_given_is_the_one(machines: Machines) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    theirs = machines.process(PLAIN, OTHER, port=port)
    await theirs.listen()
    assert endpoint_of(theirs) == Endpoint("127.0.0.1", port)
    with pytest.raises(LinkError, match=rf"127\.0\.0\.1:{port} is in use: another process listens there"):
        await machines.process(PLAIN, ME, port=port).listen()
    narrow = msgspec.structs.replace(PLAIN, ports=f"{port}")
    with pytest.raises(LinkError, match="is in use"):
        await machines.process(narrow, ME).listen()


# -- who is not there, or is another one


async def test_nobody_listens_is_told_apart_from_no_answer(machines: Machines) -> None:
    mine = machines.process(PLAIN, ME)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(NobodyListensError):
        await mine.dial_at(Address(f"tcp:127.0.0.1:{port}"))


async def test_another_process_at_the_port_is_not_taken_for_the_one_that_is_wanted(machines: Machines) -> None:
    mine, theirs = await machines.pair("plain")
    with pytest.raises(NobodyListensError, match=f"another process listens at tcp:.* by now.*: {OTHER.hex()}"):
        await mine.link_to(ProcessId(b"process3"), tcp_address(endpoint_of(theirs)))
    assert mine.links == {}


async def test_who_is_buried_is_dialled_no_more_and_its_link_has_ended(machines: Machines) -> None:
    mine, theirs = await machines.pair("plain")
    link = await mine.link_to(OTHER, theirs.address)
    await link.ask(Ping())
    mine.bury(OTHER, "its node is dead")
    assert link.closed is Ending.DIED
    assert receiver_of(mine).lost == [link]
    with pytest.raises(LinkError, match="has ended"):
        await mine.link_to(OTHER, theirs.address)


async def test_who_is_buried_while_it_is_dialled_is_waited_for_no_longer(machines: Machines) -> None:
    mine = machines.process(PLAIN, ME)
    asked = asyncio.Event()

    async def never(process: ProcessId) -> str:
        asked.set()
        return await asyncio.Event().wait() and ""

    mine.end_of = never
    # It listens and never says a word.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        waiting = asyncio.create_task(mine.link_to(OTHER, Address(f"tcp:127.0.0.1:{silent.getsockname()[1]}")))
        await asked.wait()
        mine.bury(OTHER, "its node is dead")
        with pytest.raises(LinkError, match="has ended: its node is dead"):
            await waiting


# -- who is not trusted: a sentence on both sides, and nothing has changed

REFUSED: Final = [
    (msgspec.structs.replace(PLAIN, token="the token of another one"), PLAIN, OTHER_TOKEN, OTHER_TOKEN),
    (msgspec.structs.replace(PLAIN, token="", token_file="/nowhere"), PLAIN, OTHER_TOKEN, OTHER_TOKEN),
    (ENCRYPTED, PLAIN, "does not speak TLS|speaks TLS and the other does not", SPEAKS_TLS),
    # Nobody knows the authority of the other one.
    (ENCRYPTED, MUTUAL, "certificate of the other side is not one to trust", "it may not trust the certificate"),
    (
        msgspec.structs.replace(MUTUAL, tls_cert="", tls_key="", host=""),
        MUTUAL,
        "it may want a certificate of this process, or not trust the one that it was shown",
        "shows no certificate",
    ),
    (
        # It trusts the authority, which has not signed what it shows.
        msgspec.structs.replace(MUTUAL, tls_cert=ENCRYPTED.tls_cert, tls_key=ENCRYPTED.tls_key),
        MUTUAL,
        "it may want a certificate of this process, or not trust the one that it was shown",
        "not one to trust",
    ),
    (msgspec.structs.replace(MUTUAL, token="the token of another one"), MUTUAL, OTHER_TOKEN, OTHER_TOKEN),
]


@pytest.mark.parametrize(("mine", "theirs", "said_here", "said_there"), REFUSED)
async def test_who_is_not_trusted_gets_one_sentence_and_so_does_the_other(
    machines: Machines,
    caplog: pytest.LogCaptureFixture,
    mine: Settings,
    theirs: Settings,
    said_here: str,
    said_there: str,
) -> None:
    dialler, listener = machines.process(mine, ME), machines.process(theirs, OTHER)
    await listener.listen()
    with pytest.raises(LinkError, match=said_here):
        await dialler.link_to(OTHER, tcp_address(endpoint_of(listener)))
    async with asyncio.timeout(10):
        while "was refused" not in caplog.text:  # noqa: ASYNC110  a log has no event
            await asyncio.sleep(0.005)
    assert said_there in caplog.text
    assert caplog.text.count("was refused") == 1
    assert listener.links == dialler.links == {}
    assert listener._opening == {}


async def test_a_dialler_without_tls_is_told_by_one_that_has_it(machines: Machines) -> None:
    dialler, listener = machines.process(PLAIN, ME), machines.process(ENCRYPTED, OTHER)
    await listener.listen()
    with pytest.raises(LinkError, match=r"speaks TLS|ConnectionResetError"):
        await dialler.link_to(OTHER, tcp_address(endpoint_of(listener)))
    assert listener.links == {}


async def test_off_loopback_a_token_is_a_must(machines: Machines, tmp_path: Path) -> None:
    open_to_all = Settings(host="0.0.0.0", token_file=str(tmp_path / "token"))
    with pytest.raises(LinkError, match=r"ACTORRT_HOST=0.0.0.0 lets other machines connect, and that takes a token"):
        await machines.process(open_to_all, ME).listen()
    made = Access(open_to_all).make_token()
    peers = machines.process(open_to_all, OTHER)
    await peers.listen()
    # The address that is told is none that means every one.
    assert endpoint_of(peers).host != "0.0.0.0"
    assert made == peers._access.token


# -- what is held of those who have proved nothing


async def test_many_that_say_nothing_do_not_keep_one_out_that_has_the_token(
    machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "MOST_UNPROVEN", 10)
    mine, theirs = await machines.pair("plain")
    host, port = endpoint_of(theirs)
    writers = [(await asyncio.open_connection(host, port))[1] for _ in range(40)]
    doors = theirs._acceptor._doors
    assert doors is not None
    link = await mine.link_to(OTHER, theirs.address)
    await link.ask(Ping())
    assert doors.unproven <= 10
    for writer in writers:
        writer.close()


@pytest.mark.parametrize("kind", ["plain", "encrypted"])
async def test_who_takes_too_long_is_closed(machines: Machines, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(network, "HELLO_TIMEOUT_S", 0.05)
    _, theirs = await machines.pair(kind)
    host, port = endpoint_of(theirs)
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"actor" if kind == "plain" else b"\x16\x03\x01")
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()


async def test_a_request_of_a_browser_is_refused_before_anything_reads_it(machines: Machines) -> None:
    _, theirs = await machines.pair("plain")
    host, port = endpoint_of(theirs)
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert await reader.read() == b"refused " + NOT_ACTORRT.encode() + b"\n"
    writer.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_requests_that_are_for_no_link_are_answered_at_the_same_port(machines: Machines, kind: str) -> None:
    mine, theirs = await machines.pair(kind)

    async def serve(request: web.Request) -> web.StreamResponse:
        return web.Response(body=request.path.encode() * 100_000)

    theirs.serve(serve)
    ended = asyncio.Event()
    came = bytearray()

    class Reading(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            came.extend(data)

        def connection_lost(self, exc: Exception | None) -> None:
            ended.set()

    transport, _ = await mine.connect(Reading, OTHER, theirs.address)
    transport.write(b"GET /objects/7 HTTP/1.1\r\nHost: actorrt\r\nConnection: close\r\n\r\n")
    async with asyncio.timeout(20):
        await ended.wait()
    head, _, body = bytes(came).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert body == b"/objects/7" * 100_000


def test_the_tests_certificates_are_those_of_tls_1_3() -> None:
    context = Access(MUTUAL).to_listen
    assert context is not None
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert context.verify_mode is ssl.CERT_REQUIRED
