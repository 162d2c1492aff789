"""One link over connections that break: real sockets in one process, no other process and no node."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import pytest

from actorrt.exceptions import LinkError
from actorrt.runtime.base.socket_paths import socket_path
from actorrt.runtime.links.connection import Connection
from actorrt.runtime.links.link import Link
from actorrt.runtime.links.peers import Opened, Peers
from actorrt.runtime.links.pipes import Pipe
from actorrt.types import ProcessId
from actorrt.wire.frames import GOODBYE, TO_CALLER, FrameParser, acknowledgement, encode_frame
from actorrt.wire.link import End, Ending, Parting, State, greeting
from actorrt.wire.messages import (
    PROTOCOL_VERSION,
    AnyMessage,
    Borrow,
    Done,
    Hello,
    Ping,
    Unreadable,
    encode_batch,
)

ME: Final = ProcessId(b"process1")
OTHER: Final = ProcessId(b"process2")
LARGE: Final = 3_000_000


class Receiver:
    """Remembers what its links bring."""

    def __init__(self) -> None:
        self.came: list[Any] = []
        self.lost: list[Link] = []
        self.changed = asyncio.Event()

    def receive(self, link: Link, messages: list[AnyMessage]) -> None:
        self.came += messages
        self.changed.set()

    async def answer(self, link: Link, question: Any) -> Done:
        return Done()

    def unwanted(self, link: Link, body: Any) -> None: ...

    def unsendable(self, link: Link, message: AnyMessage, why: str) -> None: ...

    def unreadable(self, link: Link, message: Unreadable) -> None: ...

    def link_lost(self, link: Link) -> None:
        self.lost.append(link)
        self.changed.set()

    async def until(self, holds: Callable[[], Any]) -> None:
        async with asyncio.timeout(20):
            while not holds():
                self.changed.clear()
                await self.changed.wait()


class Keeper:
    """Notes what a link asks of it."""

    def __init__(self) -> None:
        self.broken: list[Link] = []
        # As the kernel has it.
        self.peer_ends = False
        self.noticed = asyncio.Event()

    def opened(self, link: Link) -> None: ...

    def restore(self, link: Link) -> None:
        self.broken.append(link)
        self.noticed.set()

    def is_ending(self, link: Link) -> bool:
        return self.peer_ends

    def part(self, link: Link, parting: Parting) -> None: ...

    def closed(self, link: Link) -> None: ...


class Reading(asyncio.Protocol):
    """Hands the bytes of one connection to a link."""

    def __init__(self) -> None:
        self.link: Link | None = None
        self.connection: Connection | None = None

    def data_received(self, data: bytes) -> None:
        if self.link is not None:
            self.link.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.link is not None and self.connection is not None:
            self.link.broke(self.connection)


class OneEnd:
    """A link of which the other end of each connection is a plain socket."""

    def __init__(self, window_bytes: int = 4 * 1024 * 1024) -> None:
        self.receiver, self.keeper = Receiver(), Keeper()
        self.end = End(b"the link", State.OPEN, window_bytes=window_bytes)
        self.theirs: socket.socket
        self._opened: list[socket.socket] = []
        self.link: Link

    async def connect(self) -> Connection:
        ours, self.theirs = socket.socketpair()
        self._opened.append(self.theirs)
        self.theirs.setblocking(False)
        loop = asyncio.get_running_loop()
        transport, reading = await loop.create_connection(Reading, sock=ours)
        connection = Connection(loop, transport)
        reading.connection = connection
        if not hasattr(self, "link"):
            hello = Hello(OTHER, "worker", os.getpid(), PROTOCOL_VERSION, "3.11", "0")
            self.link = Link(loop, self.receiver, self.keeper, hello, self.end, connection, "its path")
        reading.link = self.link
        return connection

    async def go_on(self, peer_received: int) -> None:
        """Over another connection, as after a dial."""
        self.link.resume(await self.connect(), peer_received)

    async def read(self, count: int) -> bytes:
        data = b""
        async with asyncio.timeout(20):
            while len(data) < count:
                data += await asyncio.get_running_loop().sock_recv(self.theirs, count - len(data))
        return data

    def close(self) -> None:
        self.link.finish(Ending.LOST)
        for one in self._opened:
            one.close()


@pytest.fixture
async def one() -> AsyncIterator[OneEnd]:
    end = OneEnd()
    await end.connect()
    yield end
    end.close()


def frame(*messages: AnyMessage) -> bytes:
    return encode_frame(encode_batch(list(messages)))


async def test_what_was_written_and_not_acknowledged_is_written_again_behind_what_has_come(one: OneEnd) -> None:
    first, second = frame(Borrow(1)), frame(Borrow(2))
    for seq in (1, 2):
        one.link.push(Borrow(seq))
        one.link.flush()
    assert await one.read(len(first + second)) == first + second
    one.theirs.close()
    await one.keeper.noticed.wait()
    one.link.push(Borrow(3))
    one.link.flush()
    assert one.link.queued == 1
    # The peer has the first one.
    await one.go_on(len(first))
    third = frame(Borrow(3))
    assert await one.read(22 + len(second + third)) == acknowledgement(0) + second + third


async def test_a_frame_that_the_socket_took_in_part_is_written_whole_over_the_next_connection(one: OneEnd) -> None:
    pipe = Pipe(one.link, 7, None, TO_CALLER, LARGE)
    data = os.urandom(LARGE)
    pipe.write(data, last=True)
    assert one.link.congested
    before = await one.read(300_000)
    one.theirs.close()
    await one.keeper.noticed.wait()
    # It has of the stream what its parser has given out: a raw frame counts as far as it has come.
    parser = FrameParser()
    came = b"".join(bytes(part.data) for part in parser.feed(before) if not isinstance(part, bytes))  # type: ignore[union-attr]
    parser.break_off()
    await one.go_on(parser.position)
    last = False
    while not last:
        for part in parser.feed(await asyncio.get_running_loop().sock_recv(one.theirs, 65_536)):
            if hasattr(part, "data"):
                came += bytes(part.data)
                last = part.last
    assert came == data
    assert parser.position == one.link.statistics().written


async def test_bytes_in_memory_that_changes_are_written_again_as_they_were(one: OneEnd) -> None:
    data = bytearray(b"as it was")
    Pipe(one.link, 7, None, TO_CALLER, 100).write(memoryview(data), last=True)
    written = one.link.statistics().written
    data[:] = b"different"
    one.theirs.close()
    await one.keeper.noticed.wait()
    await one.go_on(0)
    assert b"as it was" in await one.read(22 + written)


async def test_a_writer_waits_for_acknowledgements_and_goes_on_with_them() -> None:
    one = OneEnd(window_bytes=200)
    await one.connect()
    sent = 0
    while not one.link.congested:
        one.link.push(Borrow(sent))
        one.link.flush()
        sent += 1
    one.link.push(Borrow(sent))
    one.link.flush()
    written = one.link.statistics().written
    assert one.link.queued == 1
    await one.read(written)
    await asyncio.get_running_loop().sock_sendall(one.theirs, acknowledgement(written))
    last = frame(Borrow(sent))
    assert await one.read(len(last)) == last
    assert not one.link.congested
    assert one.link.statistics().kept == len(last)
    one.close()


async def test_what_has_come_is_acknowledged_after_256_kib_at_once_and_else_in_a_while(
    one: OneEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    monkeypatch.setattr("actorrt.runtime.links.link.ACKNOWLEDGE_S", 0.01)
    little = frame(Borrow(1))
    await loop.sock_sendall(one.theirs, little)
    assert await one.read(22) == acknowledgement(len(little))
    monkeypatch.setattr("actorrt.runtime.links.link.ACKNOWLEDGE_S", 3600.0)
    much = frame(*map(Borrow, range(256))) * 800
    await loop.sock_sendall(one.theirs, much)
    found = FrameParser().feed(await one.read(22))
    assert 256 * 1024 <= found[0].position <= len(little + much)  # type: ignore[union-attr]


async def test_a_message_of_a_thread_that_finds_the_link_acknowledging_is_written(
    one: OneEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile() -> bytes:
        def write() -> None:
            one.link.push(Borrow(1))
            one.link.flush()

        other = threading.Thread(target=write)
        other.start()
        other.join()
        return b""

    monkeypatch.setattr(one.end, "acknowledge", meanwhile)
    one.link._acknowledge()
    expected = frame(Borrow(1))
    assert await one.read(len(expected)) == expected


async def test_a_goodbye_behind_a_write_that_failed_is_read(one: OneEnd) -> None:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(one.theirs, frame(Borrow(1)) + b"00000000\r\n\r\n")
    one.theirs.close()
    # Before this loop reads.
    one.link.push(Borrow(2))
    one.link.flush()
    await one.link.gone.wait()
    assert one.receiver.came == [Borrow(1)]
    assert one.link.closed is Ending.GOODBYE
    assert one.keeper.broken == []


async def test_a_connection_that_takes_nothing_and_does_not_end_is_let_go_of(
    one: OneEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actorrt.runtime.links.link.READ_ON_S", 0.01)
    one.theirs.shutdown(socket.SHUT_RD)
    one.link.push(Borrow(1))
    one.link.flush()
    await one.keeper.noticed.wait()
    assert one.link.end.state is State.DOWN
    await one.go_on(0)
    lost = frame(Borrow(1))
    assert await one.read(22 + len(lost)) == acknowledgement(0) + lost


class Interrupted:
    """A socket under whose writes a Ctrl-C comes, before or behind the system call."""

    def __init__(self, sock: socket.socket, behind: bool) -> None:
        self._sock = sock
        self._behind = behind

    def send(self, data: Any) -> int:
        if self._behind:
            self._sock.send(data)
        raise KeyboardInterrupt

    sendmsg = send

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


async def test_an_interrupt_before_a_write_loses_and_doubles_nothing(one: OneEnd) -> None:
    real: Any = one.link._out
    one.link._out = Interrupted(real, behind=False)  # type: ignore[assignment]
    one.link.push(Borrow(1))
    with pytest.raises(KeyboardInterrupt):
        one.link.flush()
    one.link._out = real
    one.link.push(Borrow(2))
    expected = frame(Borrow(1), Borrow(2))
    assert await one.read(len(expected)) == expected


async def test_an_interrupt_under_a_piece_of_a_pipe_loses_nothing(one: OneEnd) -> None:
    real: Any = one.link._out
    one.link._out = Interrupted(real, behind=False)  # type: ignore[assignment]
    pipe = Pipe(one.link, 7, None, TO_CALLER, 100)
    with pytest.raises(KeyboardInterrupt):
        pipe.write(b"a piece", last=True)
    one.link._out = real
    assert b"a piece" in await one.read(one.link.statistics().written)


async def test_bytes_that_are_no_frame_end_the_link_and_say_so(one: OneEnd) -> None:
    said: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context["message"]))
    await asyncio.get_running_loop().sock_sendall(one.theirs, b"this is no frame at all")
    await one.link.gone.wait()
    assert one.link.closed is Ending.LOST
    assert one.receiver.lost == [one.link]
    assert "make no sense" in said[0]


async def test_an_acknowledgement_of_what_never_was_ends_the_link(one: OneEnd) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    await asyncio.get_running_loop().sock_sendall(one.theirs, acknowledgement(1))
    await one.link.gone.wait()
    assert one.link.closed is Ending.LOST


# -- with those who dial again


@pytest.fixture
async def session(tmp_path: Path) -> AsyncIterator[Path]:
    # The path of a Unix socket has 107 bytes, and a test's own folder is deep.
    short = Path(f"/proc/self/fd/{os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)}")
    yield short
    os.close(int(short.name))


class Two:
    """Two processes in one: `mine` dials `other`."""

    def __init__(self, session: Path, restore_s: float) -> None:
        self.session = session
        self.receivers = Receiver(), Receiver()
        self.mine, self.other = (
            Peers(receiver, process, "worker", str(session), "0", restore_s=restore_s)
            for receiver, process in zip(self.receivers, (ME, OTHER), strict=True)
        )
        self.link: Link

    async def open(self) -> None:
        await self.other.listen()
        self.link = await self.mine.link_to(OTHER)
        await self.link.ask(Ping())

    @property
    def back(self) -> Link:
        return self.other.links[ME]

    @staticmethod
    def cut(link: Link) -> None:
        assert link._connection is not None
        link._connection.transport.abort()

    async def close(self) -> None:
        await self.mine.close()
        await self.other.close()


@pytest.fixture
async def two(session: Path) -> AsyncIterator[Two]:
    made = Two(session, restore_s=0.05)
    await made.open()
    yield made
    await made.close()


async def test_a_connection_that_breaks_under_its_hello_is_dialled_again_without_a_word(
    session: Path, caplog: pytest.LogCaptureFixture
) -> None:
    two = Two(session, restore_s=20)
    await two.open()
    acceptor: Any = two.other._acceptor
    welcome = acceptor._welcome
    broke: list[Connection] = []

    def welcome_once(hello: Hello, connection: Connection) -> Any:
        welcomed = welcome(hello, connection)
        if not broke:
            broke.append(connection)
            connection.transport.abort()
        return welcomed

    acceptor._welcome = welcome_once
    two.cut(two.link)
    async with asyncio.timeout(20):
        await two.link.ask(Ping())
    assert broke
    assert caplog.text == ""
    await two.close()


@pytest.mark.parametrize("by_dialler", [False, True])
async def test_a_link_that_is_cut_goes_on_and_nobody_above_it_notices(two: Two, by_dialler: bool) -> None:
    back = two.back
    for turn in range(20):
        two.link.send(Borrow(turn))
        back.send(Borrow(-turn))
        two.cut(two.link if by_dialler else back)
        await two.link.ask(Ping())
    for receiver, sign in zip(two.receivers, (-1, 1), strict=True):
        await receiver.until(lambda receiver=receiver: len(receiver.came) == 20)
        assert receiver.came == [Borrow(sign * turn) for turn in range(20)]
        assert receiver.lost == []
    assert two.mine.get(OTHER) is two.link
    assert two.back is back
    assert two.link.statistics().connections > 10
    assert two.mine.statistics().links == 1


async def test_a_link_goes_on_though_no_descriptor_is_left_to_watch_its_process_with(
    two: Two, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[int] = []

    def none_left(pid: int) -> asyncio.Future[None]:
        tried.append(pid)
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr("actorrt.runtime.links.peers.watch_pid", none_left)
    monkeypatch.setattr("actorrt.runtime.links.peers.allow_more_after", lambda error: True)
    two.cut(two.link)
    assert isinstance(await asyncio.wait_for(two.link.ask(Ping()), 10), Done)
    # Each end has tried once more.
    assert len(tried) == 4
    assert "the end of process" in caplog.text


async def test_questions_under_way_are_answered_over_the_next_connection(two: Two) -> None:
    asked = [asyncio.ensure_future(two.link.ask(Ping())) for _ in range(20)]
    await asyncio.sleep(0)
    two.cut(two.back)
    assert all(isinstance(answer, Done) for answer in await asyncio.gather(*asked))


async def test_who_has_given_a_link_up_does_not_know_it_any_more(two: Two) -> None:
    two.back.finish(Ending.LOST)
    await two.link.gone.wait()
    assert two.link.closed is Ending.LOST
    assert two.receivers[0].lost == [two.link]
    assert two.mine.get(OTHER) is None
    # The next one is another link.
    assert (await two.mine.link_to(OTHER)).closed is None


async def test_where_nobody_listens_for_a_second_a_link_is_lost(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actorrt.wire.dialling.NOBODY_LISTENS_S", 0.06)
    os.unlink(socket_path(str(two.session), OTHER))
    two.cut(two.link)
    await two.link.gone.wait()
    assert two.link.closed is Ending.LOST
    # Who was dialled has waited for as long as it was told to.
    await two.receivers[1].until(lambda: two.receivers[1].lost)
    assert two.other.statistics().links == 0


async def test_a_process_that_has_ended_is_not_dialled_again(two: Two) -> None:
    ended = await asyncio.create_subprocess_exec("true")
    await ended.wait()
    two.link.pid = two.back.pid = ended.pid
    two.cut(two.link)
    await two.link.gone.wait()
    assert two.link.closed is Ending.DIED
    await two.receivers[1].until(lambda: two.receivers[1].lost)


async def test_a_link_that_is_closed_while_it_has_no_connection_says_goodbye_over_another_one(session: Path) -> None:
    two = Two(session, restore_s=3600.0)
    await two.open()
    back = two.back
    two.link.push(Borrow(1))
    two.cut(two.link)
    two.link.flush()
    await asyncio.sleep(0)
    await two.mine.close()
    assert two.link.closed is Ending.GOODBYE
    with pytest.raises(LinkError):
        await two.link.ask(Ping())
    await two.receivers[1].until(lambda: two.receivers[1].lost)
    assert back.closed is Ending.GOODBYE
    # What was written before has come.
    assert two.receivers[1].came == ([Borrow(1)] if two.link.statistics().written else [])
    await two.other.close()


async def test_a_link_that_is_closed_while_its_socket_is_full_says_the_rest_and_goodbye(session: Path) -> None:
    two = Two(session, restore_s=3600.0)
    await two.open()
    back = two.back
    pipe = Pipe(two.link, 7, None, TO_CALLER, LARGE)
    pipe.write(bytes(LARGE), last=True)
    assert two.link.congested
    written = two.link.statistics().written
    await two.mine.close()
    await two.receivers[1].until(lambda: two.receivers[1].lost)
    assert back.closed is Ending.GOODBYE
    assert back.statistics().received == written + len(GOODBYE)
    await two.other.close()


async def test_who_closes_a_link_to_a_process_that_says_nothing_does_not_wait_for_long(
    session: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actorrt.runtime.links.peers.PART_S", 0.01)
    two = Two(session, restore_s=0.01)
    await two.open()

    class Silent:
        async def dial(self, path: str, hello: Hello) -> Opened:
            await asyncio.Event().wait()
            raise AssertionError

    monkeypatch.setattr(two.mine, "_dialler", Silent())
    two.cut(two.link)
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await two.mine.close()
    await two.other.close()


@pytest.mark.parametrize("dials", [(0, 1), (1, 0)])
async def test_dials_that_cross_a_cut_end_no_link_that_both_want(
    session: Path, monkeypatch: pytest.MonkeyPatch, dials: tuple[int, int]
) -> None:
    monkeypatch.setattr("actorrt.runtime.links.peers.LONGEST_PAUSE_S", 0.05)
    receivers = Receiver(), Receiver()
    peers = [
        Peers(receiver, process, "worker", str(session), "0", restore_s=3600.0)
        for receiver, process in zip(receivers, (ME, OTHER), strict=True)
    ]
    first, second = peers[dials[0]], peers[dials[1]]
    for each in peers:
        await each.listen()
    # The dialler has its answer, and the connection is cut before its first frame has left.
    monkeypatch.setattr(Link, "greet", Two.cut)
    link = await first.link_to(second.process)
    monkeypatch.undo()
    monkeypatch.setattr("actorrt.runtime.links.peers.LONGEST_PAUSE_S", 0.05)
    dialler, may_dial, refused = first._dialler, asyncio.Event(), asyncio.Event()

    class Later:
        async def dial(self, path: str, hello: Hello) -> Opened:
            await may_dial.wait()
            return await dialler.dial(path, hello)

    monkeypatch.setattr(first, "_dialler", Later())
    while link.end.state is not State.DOWN:  # noqa: ASYNC110  a link has no event for it
        await asyncio.sleep(0.001)
    wanted = asyncio.create_task(second._other_link(first.process))
    with pytest.raises(LinkError):
        # It dials, since the link that has come is not heard of.
        await second.link_to(first.process)
    refused.set()
    with pytest.raises(LinkError):
        await wanted
    may_dial.set()
    await link.ask(Ping())
    back = second.get(first.process)
    assert back is not None
    assert back.end.link == link.end.link
    assert receivers[0].lost == receivers[1].lost == []
    for each in peers:
        await each.close()


# -- what may not have been heard


async def test_what_a_process_said_before_its_connection_was_cut_may_be_lost(one: OneEnd) -> None:
    assert not one.link.unheard
    one.theirs.close()
    await one.keeper.noticed.wait()
    assert one.link.unheard
    await one.go_on(0)
    # It answers, and has not said again what was lost.
    assert one.link.unheard
    await asyncio.get_running_loop().sock_sendall(one.theirs, acknowledgement(0) + frame(Borrow(1)))
    await one.receiver.until(lambda: one.receiver.came)
    assert not one.link.unheard


async def test_what_a_process_said_before_it_ended_was_heard(one: OneEnd) -> None:
    one.keeper.peer_ends = True
    await asyncio.get_running_loop().sock_sendall(one.theirs, frame(Borrow(1)))
    one.theirs.close()
    await one.keeper.noticed.wait()
    one.link.finish(Ending.DIED)
    assert one.receiver.came == [Borrow(1)]
    assert not one.link.unheard


async def test_a_process_that_ends_while_its_link_is_down_may_have_said_more(one: OneEnd) -> None:
    one.theirs.close()
    await one.keeper.noticed.wait()
    one.keeper.peer_ends = True
    one.link.finish(Ending.DIED)
    assert one.link.unheard


async def test_a_link_that_is_given_up_with_its_connection_may_have_brought_more(one: OneEnd) -> None:
    one.link.finish(Ending.LOST)
    assert one.link.unheard


async def test_a_new_link_takes_the_place_of_one_that_is_down(session: Path) -> None:
    two = Two(session, restore_s=3600.0)
    await two.open()
    old = two.back
    two.link.finish(Ending.LOST)
    while old.end.state is not State.DOWN:  # noqa: ASYNC110  a link has no event for it
        await asyncio.sleep(0.001)
    link = await two.mine.link_to(OTHER)
    await link.ask(Ping())
    assert old.closed is Ending.LOST
    assert two.back is not old
    assert two.receivers[1].lost == [old]
    await two.close()


async def test_a_hello_of_a_dial_that_was_given_up_ends_no_link_that_is_down(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, dialler, may_dial = two.back, two.mine._dialler, asyncio.Event()

    class Later:
        async def dial(self, path: str, hello: Hello) -> Opened:
            await may_dial.wait()
            return await dialler.dial(path, hello)

    monkeypatch.setattr(two.mine, "_dialler", Later())
    monkeypatch.setattr(two.other, "_restore_s", 3600.0)
    two.cut(old)
    while old.end.state is not State.DOWN:  # noqa: ASYNC110  a link has no event for it
        await asyncio.sleep(0.001)
    late = greeting(two.mine._hello, b"given up")
    dialled = await dialler.dial(socket_path(str(two.session), OTHER), late)
    dialled.connection.close()
    may_dial.set()
    await two.link.ask(Ping())
    assert two.back is old
    assert two.receivers[0].lost == two.receivers[1].lost == []


async def test_a_link_whose_dial_fails_as_nobody_has_foreseen_is_lost(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        async def dial(self, path: str, hello: Hello) -> Opened:
            raise RuntimeError("no LinkError")

    monkeypatch.setattr(two.mine, "_dialler", Broken())
    two.cut(two.link)
    async with asyncio.timeout(5):
        await two.link.gone.wait()
    assert two.link.closed is Ending.LOST


async def test_a_process_that_calls_itself_has_both_ends_of_its_link(session: Path) -> None:
    receiver = Receiver()
    mine = Peers(receiver, ME, "worker", str(session), "0")
    await mine.listen()
    link = await mine.link_to(ME)
    for _ in range(5):
        with contextlib.suppress(AssertionError):
            Two.cut(link)
        assert isinstance(await link.ask(Ping()), Done)
    assert receiver.lost == []
    await mine.close()
