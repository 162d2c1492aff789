"""The pipe of a call: bytes beside it, both ways, between real processes."""

import asyncio
import hashlib
import os
import socket
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

import actorrt
from actorrt import Pipe, call_pipe
from actorrt.exceptions import ActorDiedError, TaskCancelledError
from actorrt.runtime.links.connection import Connection
from actorrt.runtime.links.link import Link
from actorrt.runtime.links.pipes import FIRST_ROOM
from actorrt.runtime.links.running import running_call
from actorrt.runtime.owner import current
from actorrt.wire.frames import TO_CALLER
from actorrt.wire.link import End, State
from actorrt.wire.pipe_end import PIECE


class Caller:
    """What the caller's end brings: it takes each byte, and makes room as it is told."""

    def __init__(self, room: int = 1 << 40, data: bytes = b"") -> None:
        self.came = bytearray()
        self.ended = asyncio.Event()
        self.changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._room = room
        self._data = data
        self.pipe: Pipe | None = None
        self.most_written = 0

    def arrived(self, pipe: Pipe, data: memoryview, last: bool) -> None:
        self.pipe = pipe
        self.came += data
        if self._room >= len(self.came):
            pipe.grant(len(data))
        self._loop.call_soon_threadsafe(self.changed.set)
        if last:
            self._loop.call_soon_threadsafe(self.ended.set)

    def has_room(self, pipe: Pipe) -> None:
        while self._data and (room := pipe.room()) > 0:
            part, self._data = self._data[:room], self._data[room:]
            pipe.write(part, last=not self._data)


class Counted:
    """A socket whose writes are counted."""

    def __init__(self, sock: Any) -> None:
        self.sock, self.writes = sock, 0

    @classmethod
    def of(cls, sock: Any) -> "Counted":
        return sock if isinstance(sock, cls) else cls(sock)

    def sendmsg(self, buffers: Any) -> int:
        self.writes += 1
        return self.sock.sendmsg(buffers)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)


@actorrt.remote
class Piped:
    """Reads and writes the pipes of its calls."""

    def __init__(self) -> None:
        self.read = 0
        self.together = asyncio.Event()

    async def write(self, size: int, last: bool) -> str:
        data = hashlib.shake_256(b"%d" % size).digest(size)
        pipe = call_pipe()
        pipe.write(data[: size // 3], data[size // 3 :], last=last)
        await pipe.drained()
        return hashlib.sha256(data).hexdigest()

    async def write_with_result(self, size: int, way: str) -> Any:
        """Whether the last bytes of the pipe go with the result."""
        pipe = call_pipe()
        if way == "after others":
            pipe.write(bytes(4 * FIRST_ROOM))
        with_result = pipe.write_with_reply(b"head", hashlib.shake_256(b"%d" % size).digest(size))
        if way == "raise":
            raise ValueError("no result")
        return with_result

    async def read_all(self, window: int) -> str:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        seen = hashlib.sha256()

        class Reader:
            def arrived(self, pipe: Pipe, data: memoryview, last: bool) -> None:
                seen.update(data)
                pipe.grant(len(data))
                if last:
                    loop.call_soon_threadsafe(ended.set)

            def has_room(self, pipe: Pipe) -> None: ...

        call_pipe(Reader()).grant(window)
        await ended.wait()
        return seen.hexdigest()

    async def write_often(self, parts: int, together: int) -> list[int]:
        """Write a part in each turn, with so many calls, then the last with the result: writes of the link, in each."""
        self.read += 1
        if self.read == together:
            self.together.set()
        await self.together.wait()
        run: Any = running_call.get()
        counted = run.link._out = Counted.of(run.link._out)
        pipe, writes = call_pipe(), list[int]()
        for at in range(parts):
            before = counted.writes
            pipe.write_with_turn(b"%d," % at)
            await asyncio.sleep(0)
            writes.append(counted.writes - before)
        pipe.write_with_turn(b"last")
        assert pipe.held >= 4
        assert pipe.write_with_reply()
        return writes

    async def write_and_block(self, parts: int, path: str) -> None:
        """Write a part in each turn, then keep the loop until somebody opens `path`."""
        for at in range(parts):
            await asyncio.sleep(0)
            call_pipe().write_with_turn(b"%d," % at)
        with open(path, "rb"):
            pass

    async def write_and_say(self, size: int) -> int:
        call_pipe().write(bytes(size))
        return size

    async def pipes(self) -> int:
        return sum(len(link.pipes) for link in current.runtime().peers.links.values())


@pytest.fixture(scope="module")
def actor(node: None) -> Any:
    return Piped.options(num_cpus=1).remote()


@pytest.mark.parametrize("process", [False, True])
async def test_what_a_method_writes_comes_whole_before_its_result(node: None, process: bool) -> None:
    actor: Any = Piped.options(num_cpus=1).remote() if process else Piped.remote()
    for size in (0, 1, PIECE - 1, PIECE, PIECE + 1, FIRST_ROOM, FIRST_ROOM + 4096, FIRST_ROOM + 4097, 5_000_000):
        caller = Caller()
        digest = await actor.write.remote_piped(caller, size, True)
        await caller.ended.wait()
        assert len(caller.came) == size
        assert hashlib.sha256(caller.came).hexdigest() == digest


@pytest.mark.parametrize("process", [False, True])
async def test_what_fits_in_a_piece_leaves_with_the_result_and_comes_before_it(node: None, process: bool) -> None:
    actor: Any = Piped.options(num_cpus=1).remote() if process else Piped.remote()
    for size in (0, 1, 100_000, PIECE - 5, PIECE - 4):
        caller = Caller()
        assert await actor.write_with_result.remote_piped(caller, size, "") is True
        assert caller.ended.is_set() or await asyncio.wait_for(caller.ended.wait(), 10)
        assert caller.came == b"head" + hashlib.shake_256(b"%d" % size).digest(size)


async def test_what_is_more_than_a_piece_or_comes_behind_others_does_not_go_with_the_result(actor: Any) -> None:
    for size, way in ((PIECE - 3, ""), (10, "after others")):
        caller = Caller(room=0)
        assert await actor.write_with_result.remote_piped(caller, size, way) is False
        assert not caller.came.endswith(hashlib.shake_256(b"%d" % size).digest(size))


async def test_bytes_that_go_with_a_result_are_lost_with_it(actor: Any) -> None:
    caller = Caller()
    with pytest.raises(ValueError, match="no result"):
        await actor.write_with_result.remote_piped(caller, 1000, "raise")
    assert await actor.write_with_result.remote(1000, "") is True  # nobody takes its bytes
    assert await actor.pipes.remote() == 0
    assert not caller.came


async def test_results_of_many_calls_that_take_bytes_along_come_each_with_its_own(actor: Any) -> None:
    sizes = [(at * 37_321) % (PIECE - 4) for at in range(60)]
    callers = [Caller() for _ in sizes]
    results = [
        actor.write_with_result.remote_piped(caller, size, "") for caller, size in zip(callers, sizes, strict=True)
    ]
    # Small results of others are between them.
    small = [actor.pipes.remote() for _ in range(60)]
    await asyncio.gather(*small)
    for caller, size, result in zip(callers, sizes, results, strict=True):
        assert await result is True
        assert caller.came == b"head" + hashlib.shake_256(b"%d" % size).digest(size)


@pytest.mark.parametrize("options", [{"isolated": True}, {"on_runtime_loop": True}])
async def test_what_many_calls_write_in_a_turn_leaves_in_one_write_and_each_gets_its_own(
    node: None, options: dict[str, Any]
) -> None:
    actor: Any = Piped.options(**options).remote()
    callers = [Caller() for _ in range(50)]
    refs = [actor.write_often.remote_piped(caller, 20, 50) for caller in callers]
    writes = await asyncio.gather(*refs)
    for caller in callers:
        assert caller.came == b"".join(b"%d," % at for at in range(20)) + b"last"
    assert max(map(max, writes)) <= 2


async def test_what_was_written_before_a_loop_is_blocked_comes_meanwhile(actor: Any, tmp_path: Path) -> None:
    os.mkfifo(path := tmp_path / "fifo")
    caller = Caller()
    ref = actor.write_and_block.remote_piped(caller, 10, str(path))
    while not caller.came.endswith(b"9,"):
        caller.changed.clear()
        await caller.changed.wait()
    os.close(os.open(path, os.O_WRONLY))
    await ref


async def test_calls_at_once_have_their_own_bytes(actor: Any) -> None:
    callers = [Caller() for _ in range(20)]
    digests = await asyncio.gather(
        *(actor.write.remote_piped(caller, 300_000 + at, True) for at, caller in enumerate(callers))
    )
    for caller, digest in zip(callers, digests, strict=True):
        await caller.ended.wait()
        assert hashlib.sha256(caller.came).hexdigest() == digest


async def test_a_method_gets_no_further_than_its_caller_has_room_for(actor: Any) -> None:
    caller = Caller(room=0)
    ref = actor.write.remote_piped(caller, 4 * FIRST_ROOM, True)
    while len(caller.came) < FIRST_ROOM:
        caller.changed.clear()
        await caller.changed.wait()
    # Other calls of the same link are not held up.
    assert await actor.write.remote_piped(Caller(), 10, True)
    assert len(caller.came) == FIRST_ROOM
    assert caller.pipe is not None
    caller.pipe.grant(4 * FIRST_ROOM)
    await ref
    await caller.ended.wait()
    assert len(caller.came) == 4 * FIRST_ROOM


@pytest.mark.parametrize("window", [1, 1000, PIECE, 1 << 30])
async def test_a_method_reads_what_its_caller_writes(actor: Any, window: int) -> None:
    data = hashlib.shake_256(b"x").digest(3 * PIECE + 17 if window > 1 else 50)
    digest = await actor.read_all.remote_piped(Caller(data=data), window)
    assert digest == hashlib.sha256(data).hexdigest()


async def test_a_call_that_is_cancelled_while_it_writes_leaves_no_pipe(actor: Any) -> None:
    caller = Caller(room=0)
    ref = actor.write.remote_piped(caller, 10 * FIRST_ROOM, True)
    await caller.changed.wait()
    actorrt.cancel(ref)
    with pytest.raises(TaskCancelledError):
        await ref
    assert await actor.pipes.remote() == 0


async def test_a_caller_that_takes_no_bytes_gets_its_result(actor: Any) -> None:
    assert await actor.write_and_say.remote(100) == 100


async def test_who_dies_while_it_writes_fails_its_call_once_and_it_is_not_repeated(node: None) -> None:
    actor: Any = Piped.options(num_cpus=1, max_restarts=1, max_task_retries=3).remote()
    caller = Caller(room=0)
    ref = actor.write.remote_piped(caller, 10 * FIRST_ROOM, True)
    await caller.changed.wait()
    came = len(caller.came)
    actorrt.kill(actor, no_restart=True)
    with pytest.raises(ActorDiedError):
        await ref
    assert came <= len(caller.came) <= FIRST_ROOM


def test_there_is_no_pipe_outside_of_a_call() -> None:
    with pytest.raises(RuntimeError, match="no call here"):
        call_pipe()


class Lost(deque[Pipe]):
    """The pipes whose turn comes, of a link that is found lost while a thread looks at the next one."""

    def __getitem__(self, at: Any) -> Any:
        self.clear()
        return super().__getitem__(at)


async def test_a_link_that_is_lost_while_another_thread_writes_to_it_does_the_writer_no_harm() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
        nobody: Any = Mock()
        hello: Any = SimpleNamespace(process=b"", role="worker", pid=0, address="")
        loop, end = asyncio.get_running_loop(), End(b"its id", State.OPENING)
        link = Link(loop, nobody, nobody, hello, end, Connection(loop, transport))
        pipes = [Pipe(link, seq, None, TO_CALLER, FIRST_ROOM) for seq in range(2)]
        for pipe in pipes:
            pipe.write(b"part")
        link._piped, link._outlet.obstacle = Lost(link._piped), None
        link.flush()
        # What it had taken is sent.
        assert b"part" in theirs.recv(1024)
        link._out.close()
        transport.close()
