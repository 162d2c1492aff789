"""Connections that break under load, between processes that live: each call ends once, with the right value."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import cloudpickle
import numpy as np
import pytest

import actorrt
from actorrt import Pipe, call_pipe, exceptions
from actorrt.runtime.base.process_watch import watch_pid
from actorrt.runtime.links.link import Link
from actorrt.runtime.links.peers import RESTORE_S
from actorrt.runtime.owner import current
from actorrt.wire.link import Ending, State
from actorrt.wire.messages import Query

from .relay import Relay

cloudpickle.register_pickle_by_value(sys.modules[__name__])

DEADLINE_S: Final = 60.0


def cut_connections_here() -> int:
    """Break the connection of each link of this process, so that the next ones go through the relay."""
    runtime = current.runtime()

    async def cut() -> int:
        connections = [link._connection for link in runtime.peers.links.values() if link._connection is not None]
        for connection in connections:
            connection.transport.abort()
        return len(connections)

    return runtime.thread.call_sync(cut())


def links_here() -> list[Link]:
    return list(current.runtime().peers.links.values())


@actorrt.remote(max_restarts=0, max_task_retries=0)
class Counting:
    """Remembers each call, so that none can be lost or doubled."""

    def __init__(self) -> None:
        self.calls: dict[str, list[int]] = {}

    async def note(self, caller: str, number: int) -> int:
        self.calls.setdefault(caller, []).append(number)
        return number

    async def all(self) -> dict[str, list[int]]:
        return self.calls

    async def items(self, count: int) -> AsyncIterator[Any]:
        for number in range(count):
            yield number if number % 5 else bytes([number % 256]) * 150_000
            await asyncio.sleep(0)

    async def write(self, size: int) -> str:
        data = hashlib.shake_256(b"%d" % size).digest(size)
        pipe = call_pipe()
        # In memory that changes afterwards: what is sent again has to be what was written.
        changing = bytearray(data)
        pipe.write(memoryview(changing), last=True)
        changing[:] = bytes(size)
        await pipe.drained()
        return hashlib.sha256(data).hexdigest()

    async def read(self, size: int) -> str:
        loop, ended, seen = asyncio.get_running_loop(), asyncio.Event(), hashlib.sha256()

        class Reader:
            def arrived(self, pipe: Pipe, data: memoryview, last: bool) -> None:
                seen.update(data)
                pipe.grant(len(data))
                if last:
                    loop.call_soon_threadsafe(ended.set)

            def has_room(self, pipe: Pipe) -> None: ...

        call_pipe(Reader()).grant(size)
        await ended.wait()
        return seen.hexdigest()

    async def make(self, size: int) -> list[Any]:
        """A ref in a list: who gets it borrows from here."""
        return [actorrt.put(np.full(size, 7, dtype=np.uint8))]

    async def take(self, refs: list[Any]) -> int:
        return int((await refs[0]).sum())

    async def make_other(self) -> list[Any]:
        self.other = Counting.options(num_cpus=0.1, isolated=True).remote()
        return [self.other]

    async def wait(self) -> None:
        await asyncio.Event().wait()

    async def call_others(self, others: list[Any], caller: str, count: int) -> int:
        """Worker to worker."""
        done = 0
        for start in range(0, count, 20):
            refs = [other.note.remote(caller, start + step) for step in range(20) for other in others]
            done += len(await asyncio.gather(*refs))
        return done

    async def cut(self) -> int:
        return cut_connections_here()

    async def pid(self) -> int:
        return os.getpid()

    async def states(self) -> list[str]:
        return [link.end.state.value for link in links_here()]


@actorrt.remote(num_cpus=0.1, max_retries=0)
def square(number: int, array: Any = None) -> tuple[int, int]:
    return number * number, 0 if array is None else int(array.sum())


@actorrt.remote(num_cpus=0.1, max_retries=0)
def large(number: int) -> Any:
    return np.full(200_000, number % 256, dtype=np.uint8)


@pytest.fixture
def relay(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Relay]:
    """A session whose processes reach each other through a relay."""
    folder = tmp_path / "sockets"
    folder.mkdir()
    with actorrt.init(num_cpus=4, log_to_driver=False, preload_modules=["pytest", "numpy"]):
        with Relay(current.runtime().session, folder, seed=int(os.environ.get("SEED", "1"))) as relay:
            yield relay
        assert current.runtime().node.closed is None


class Caller:
    """What comes out of a pipe, and what goes into it."""

    def __init__(self, data: bytes = b"") -> None:
        self.came = bytearray()
        self.ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._data = data

    def arrived(self, pipe: Pipe, data: memoryview, last: bool) -> None:
        self.came += data
        pipe.grant(len(data))
        if last:
            self._loop.call_soon_threadsafe(self.ended.set)

    def has_room(self, pipe: Pipe) -> None:
        while self._data and (room := pipe.room()) > 0:
            part, self._data = self._data[:room], self._data[room:]
            pipe.write(part, last=not self._data)


async def call_actors(actors: list[Any], rounds: int) -> None:
    for start in range(0, rounds * 20, 20):
        refs = [actor.note.remote("driver", start + step) for step in range(20) for actor in actors]
        assert await asyncio.gather(*refs) == [start + step for step in range(20) for _ in actors]


async def run_tasks(rounds: int) -> None:
    array = np.ones(150_000, dtype=np.uint8)
    for turn in range(rounds):
        ref = actorrt.put(array)
        refs = [square.remote(number, ref if number % 7 == 0 else None) for number in range(20)]
        found = await asyncio.gather(*refs)
        assert found == [(number * number, 0 if number % 7 else 150_000) for number in range(20)]
        for number, value in enumerate(await asyncio.gather(*[large.remote(turn + step) for step in range(3)])):
            assert value.shape == (200_000,)
            assert (value == (turn + number) % 256).all()


async def read_streams(actors: list[Any], rounds: int) -> None:
    for _ in range(rounds):
        for actor in actors:
            number = 0
            async for ref in actor.items.options(num_returns="streaming").remote(20):
                item = await ref
                assert item == (number if number % 5 else bytes([number % 256]) * 150_000)
                number += 1
            assert number == 20


async def use_pipes(actor: Any, rounds: int) -> None:
    for turn in range(rounds):
        size = 700_000 + 37_321 * turn
        data = hashlib.shake_256(b"%d" % size).digest(size)
        caller, writer = Caller(), Caller(data)
        out = actor.write.remote_piped(caller, size)
        back = actor.read.remote_piped(writer, size)
        assert await out == hashlib.sha256(data).hexdigest() == await back
        await caller.ended.wait()
        assert bytes(caller.came) == data


async def pass_refs(actors: list[Any], rounds: int) -> None:
    first, second, *_ = actors
    for turn in range(rounds):
        size = 1000 if turn % 2 else 200_000
        [ref] = await first.make.remote(size)
        assert await second.take.remote([ref]) == 7 * size
        assert int((await ref).sum()) == 7 * size
        del ref


async def cancel_calls(actors: list[Any], rounds: int) -> None:
    for _ in range(rounds):
        refs = [actor.wait.remote() for actor in actors for _ in range(5)]
        await asyncio.sleep(0.005)
        for ref in refs:
            actorrt.cancel(ref)
        for ref in refs:
            with pytest.raises(exceptions.TaskCancelledError):
                await ref


async def between_workers(actors: list[Any], count: int) -> None:
    refs = [
        actor.call_others.remote([other for other in actors if other is not actor], f"actor {number}", count)
        for number, actor in enumerate(actors)
    ]
    assert await asyncio.gather(*refs) == [count * (len(actors) - 1)] * len(actors)


async def load(actors: list[Any], rounds: int) -> None:
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
        for work in (
            call_actors(actors, 2 * rounds),
            run_tasks(rounds),
            read_streams(actors, rounds),
            use_pipes(actors[0], rounds),
            use_pipes(actors[1], rounds),
            pass_refs(actors, 3 * rounds),
            cancel_calls(actors, 2 * rounds),
            between_workers(actors, 20 * rounds),
        ):
            group.create_task(work)


async def cut_everywhere(actors: list[Any]) -> None:
    """From now on everything goes through the relay."""
    await asyncio.gather(*[actor.cut.remote() for actor in actors])
    cut_connections_here()
    await asyncio.gather(*[actor.pid.remote() for actor in actors])


async def eventually(holds: Any) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not holds():  # noqa: ASYNC110  what other processes hold has no event here
            await asyncio.sleep(0.01)


def is_balanced() -> bool:
    """No call is under way, and neither this process nor the node holds what nobody wants."""
    gc.collect()
    runtime = current.runtime()
    node: dict[str, Any] = runtime.thread.call_sync(runtime.node.ask(Query("store"))).data
    return (
        not any(link.inflight for link in links_here())
        and not runtime.objects.is_lending
        and node["bytes"] == node["spilled_bytes"] == 0
    )


def is_acknowledged() -> bool:
    """The peers have all that was written: `is_balanced` asks the node, and so writes something each time."""
    return all(link.end.kept.size == 0 for link in links_here())


@pytest.mark.parametrize(
    ("mean_bytes", "longest_delay_s"), [(40_000, 0.0), (400_000, 0.0), (300_000, 0.01), (6_000, 0.0)]
)
async def test_calls_end_once_while_connections_are_cut(
    relay: Relay, mean_bytes: float, longest_delay_s: float
) -> None:
    actors: list[Any] = [Counting.options(num_cpus=0.1, isolated=number > 1).remote() for number in range(3)]
    pids = await asyncio.gather(*[actor.pid.remote() for actor in actors])
    await cut_everywhere(actors)
    relay.longest_delay_s = longest_delay_s
    relay.mean_bytes = mean_bytes
    relay.cut_all()
    await load(actors, 4)
    assert relay.cuts > 3
    relay.mean_bytes = relay.longest_delay_s = 0.0
    relay.cut_all()
    assert await asyncio.gather(*[actor.pid.remote() for actor in actors]) == pids
    for number, actor in enumerate(actors):
        calls: dict[str, list[int]] = await actor.all.remote()
        # In the order of each caller, once each.
        assert calls["driver"] == list(range(160))
        for other in {0, 1, 2} - {number}:
            assert calls[f"actor {other}"] == list(range(80))
    await eventually(is_balanced)
    await eventually(is_acknowledged)


@pytest.mark.parametrize("isolated", [False, True])
async def test_who_dies_while_its_connections_are_cut_is_found_dead_by_all(relay: Relay, isolated: bool) -> None:
    options = {"num_cpus": 0.1, "isolated": isolated}
    victim: Any = Counting.options(**options).remote()
    other: Any = Counting.options(num_cpus=0.1).remote()
    pid = await victim.pid.remote()
    await cut_everywhere([victim, other])
    calls = [victim.wait.remote() for _ in range(10)]
    calls.append(other.call_others.remote([victim], "other", 10**6))
    await asyncio.sleep(0)
    # None of its links has a connection when it ends, and nobody can open one to it.
    relay.refused = frozenset(os.path.basename(link.path) for link in links_here() if link.pid == pid)
    relay.cut_all()
    ended = watch_pid(pid)
    os.kill(pid, signal.SIGKILL)
    await ended
    async with asyncio.timeout(DEADLINE_S):
        for call in calls:
            with pytest.raises(exceptions.ActorDiedError):
                await call
    assert await other.note.remote("driver", 1) == 1


async def test_who_is_stopped_while_its_connections_are_cut_goes_on_where_it_was(
    relay: Relay,
) -> None:
    actor: Any = Counting.options(num_cpus=0.1, isolated=True).remote()
    pid = await actor.pid.remote()
    await cut_everywhere([actor])
    call = actor.wait.remote()
    assert await actor.note.remote("driver", 0) == 0
    os.kill(pid, signal.SIGSTOP)
    relay.cut_all()
    link = next(link for link in links_here() if link.pid == pid)
    await eventually(lambda: link.end.state is not State.OPEN)
    numbers = [actor.note.remote("driver", number) for number in range(1, 100)]
    # What is called meanwhile waits for the link.
    assert not (await asyncio.to_thread(actorrt.wait, [call, *numbers], num_returns=1, timeout=1))[0]
    os.kill(pid, signal.SIGCONT)
    async with asyncio.timeout(DEADLINE_S):
        assert await asyncio.gather(*numbers) == list(range(1, 100))
        assert (await actor.all.remote())["driver"] == list(range(100))
    assert link in links_here()
    actorrt.cancel(call)
    with pytest.raises(exceptions.TaskCancelledError):
        await call


async def test_a_link_that_cannot_be_dialled_again_in_time_is_lost_and_its_calls_may_have_run(relay: Relay) -> None:
    owner: Any = Counting.options(num_cpus=0.1).remote()
    [actor] = await owner.make_other.remote()
    pid = await actor.pid.remote()
    await cut_everywhere([owner, actor])
    link = next(link for link in links_here() if link.pid == pid)
    call = actor.wait.remote()
    assert await actor.note.remote("driver", 0) == 0
    relay.refused = frozenset({os.path.basename(link.path)})
    relay.cut_all()
    # The worker gives the link up, and ends what nobody can be told of any more.
    await asyncio.sleep(RESTORE_S)
    while not link.closed:
        relay.refused = frozenset()
        await asyncio.sleep(0.01)
    assert link.closed is Ending.LOST
    with pytest.raises(exceptions.ActorUnavailableError) as lost:
        await call
    assert lost.value.may_have_run
    # It is where it was, with what it has.
    assert (await actor.all.remote())["driver"] == [0]


GOES_WITHOUT_A_WORD: Final = """
import sys
import actorrt
from actorrt.runtime.links.link import Link
from actorrt.wire.link import Ending

actorrt.init(sys.argv[1], log_to_driver=False)
Link.close = lambda link: link.finish(Ending.GOODBYE)
actorrt.shutdown()
print("bye", flush=True)
sys.stdin.readline()
"""


def test_a_program_that_closes_its_link_without_a_word_has_ended_when_its_process_has(
    relay: Relay, tmp_path: Path
) -> None:
    before = table_of_node("Peers.links")
    with program_that(GOES_WITHOUT_A_WORD, tmp_path) as process:
        deadline = time.monotonic() + RESTORE_S + DEADLINE_S
        while table_of_node("Peers.links") > before:
            assert time.monotonic() < deadline
        # Its link is lost, and it lives.
        assert process.poll() is None
        assert programs() == 2
        assert process.stdin is not None
        process.stdin.close()
        while programs() > 1:
            assert time.monotonic() < deadline


SAYS_GOODBYE_AFTER_A_CUT: Final = """
import sys
import actorrt
from actorrt.runtime.owner import current

actorrt.init(sys.argv[1], log_to_driver=False)
runtime = current.runtime()

async def cut():
    for link in runtime.peers.links.values():
        link._connection.transport.abort()

runtime.thread.call_sync(cut())
actorrt.shutdown()
print("bye", flush=True)
sys.stdin.readline()
"""


LOSES_ITS_NODE: Final = """
import sys
import actorrt
from actorrt.runtime.owner import current
from actorrt.wire.link import Ending

actorrt.init(sys.argv[1], log_to_driver=False)
runtime = current.runtime()

async def lose():
    runtime.node.finish(Ending.LOST)

runtime.thread.call_sync(lose())
actorrt.shutdown()
print("bye", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("program", [SAYS_GOODBYE_AFTER_A_CUT, LOSES_ITS_NODE], ids=["down", "lost"])
def test_a_program_that_leaves_without_its_link_has_ended_at_once(relay: Relay, tmp_path: Path, program: str) -> None:
    with program_that(program, tmp_path) as process:
        deadline = time.monotonic() + RESTORE_S / 2
        while programs() > 1:
            assert time.monotonic() < deadline
        assert process.poll() is None
        assert process.stdin is not None
        process.stdin.close()


@contextlib.contextmanager
def program_that(code: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A program that has said bye, and lives until its input ends."""
    program = folder / "program.py"
    program.write_text(code, encoding="utf-8")
    command = [sys.executable, str(program), current.runtime().session]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "bye\n"
        yield process


def table_of_node(name: str) -> int:
    runtime = current.runtime()
    return runtime.thread.call_sync(runtime.node.ask(Query("tables"))).data[name]


def programs() -> int:
    """How many the node knows."""
    return table_of_node("Programs._joined")
