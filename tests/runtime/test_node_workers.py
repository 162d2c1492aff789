"""A node's workers as its shell carries them out, over a zygote, pipes and links on paper."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from actorrt import exceptions
from actorrt.config import Settings
from actorrt.core.leases import UNIT
from actorrt.runtime.base.worker_params import WorkerParams
from actorrt.runtime.machine.zygote_client import ForkError, ZygoteLostError
from actorrt.runtime.node.programs import Programs
from actorrt.runtime.node.worker_processes import Facts
from actorrt.runtime.node.workers import Workers
from actorrt.types import Employer, JobKey, ProcessId
from actorrt.wire.messages import JoinDriver, Lease, LeaseRequest

NODE, DRIVER = ProcessId(b"the node"), ProcessId(b"a driver")
EMPLOYER = Employer(JobKey(DRIVER))
TOTAL = {"CPU": 2 * UNIT}
PROGRAM = JoinDriver(1, "", [], b"/", b"", [], {}, False, False)
REQUEST = LeaseRequest({"CPU": UNIT}, "sync", None, "", EMPLOYER)


class Zygote:
    def __init__(self) -> None:
        self.pids = 100
        self.error: Exception | None = None
        self.killed: list[int] = []
        # The ids of the processes that it was asked for.
        self.asked: list[ProcessId] = []
        self.made = asyncio.Event()

    async def fork(self, params: bytes, **_: Any) -> int:
        await asyncio.sleep(0)
        self.asked.append(msgspec.msgpack.decode(params, type=WorkerParams).process)
        if (error := self.error) is not None:
            if isinstance(error, ZygoteLostError):
                # The next zygote is there.
                self.error = None
            raise error
        self.pids += 1
        self.made.set()
        return self.pids

    def kill(self, pid: int) -> None:
        self.killed.append(pid)


class Memory:
    """Short, if a test says so."""

    def __init__(self) -> None:
        self.kills = 0

    def observe(self, now: float) -> None: ...

    def claim(self, now: float) -> bool:
        self.kills -= 1
        return self.kills >= 0


class NoOutput:
    def open(self, worker: object) -> tuple[int, int]:
        return -1, -1

    def born(self, worker: object) -> None: ...
    def abandon(self, worker: object) -> None: ...
    def rename(self, worker: object, name: str) -> None: ...
    def flush(self, job: object) -> None: ...
    def ended(self, worker: object) -> None: ...
    async def close(self) -> None: ...


class NoGroups:
    def reserved(self, group: object, attempt: int) -> None: ...
    def refused(self, group: object, attempt: int) -> None: ...
    def freed(self) -> None: ...


class Driver:
    peer = DRIVER
    closed = False

    def send(self, message: object) -> None: ...


class Bench:
    """A node's workers, and what they are made of."""

    def __init__(self, folder: Path) -> None:
        self.zygote, self.memory = Zygote(), Memory()
        self.tasks: set[asyncio.Task[None]] = set()
        self.ended: list[ProcessId] = []
        programs = Programs()
        self.workers = Workers(
            Facts(NODE, str(folder), 2, 0, False),
            TOTAL,
            Settings(worker_stall_timeout_s=0),
            programs,
            self.zygote,
            NoOutput(),
            self.memory,
            lambda process: None,
            lambda process, blocked: None,
            self.ended.append,
            NoGroups(),
            self.spawn,
        )
        self.workers.employ(programs.join(PROGRAM, cast("Any", Driver())))

    def spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def ask(self) -> asyncio.Task[Lease]:
        return asyncio.get_running_loop().create_task(self.workers.lease(DRIVER, REQUEST))

    async def starting(self) -> ProcessId:
        """The process that is being started, once the zygote has made it."""
        await self.zygote.made.wait()
        await asyncio.sleep(0)
        self.zygote.made.clear()
        found = [worker for worker in self.workers.facts() if worker["state"] == "starting"]
        return ProcessId(bytes.fromhex(found[0]["worker_id"]))

    @property
    def leaves_nothing(self) -> bool:
        known = self.workers.statistics()
        return (known.leases, known.requests, known.free) == (0, 0, TOTAL)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    yield made
    for task in list(made.tasks):
        task.cancel()
    await asyncio.gather(*made.tasks, return_exceptions=True)
    await made.workers.close("the test ended", 0.0)


async def test_a_lease_says_where_its_worker_is_and_comes_back(bench: Bench) -> None:
    asked = bench.ask()
    process = await bench.starting()
    bench.workers.ready(process)
    lease = await asked
    assert (lease.lease.node, lease.worker.process, lease.worker.node, lease.pid) == (NODE, process, NODE, 101)
    bench.workers.give_back(lease.lease, False)
    assert bench.leaves_nothing


def _before(bench: Bench, asked: asyncio.Task[Lease], process: ProcessId) -> None:
    asked.cancel()
    bench.workers.ready(process)


def _behind(bench: Bench, asked: asyncio.Task[Lease], process: ProcessId) -> None:
    bench.workers.ready(process)
    asked.cancel()


@pytest.mark.parametrize("cross", [_before, _behind])
async def test_a_lease_that_crosses_the_end_of_who_asked_for_it_is_given_back(
    bench: Bench, cross: Callable[[Bench, asyncio.Task[Lease], ProcessId], None]
) -> None:
    asked = bench.ask()
    cross(bench, asked, await bench.starting())
    with pytest.raises(asyncio.CancelledError):
        await asked
    await asyncio.sleep(0)
    assert bench.leaves_nothing
    assert [worker["state"] for worker in bench.workers.facts()] == ["idle"]


async def test_what_a_process_has_asked_for_is_refused_when_it_has_ended(bench: Bench) -> None:
    asked = bench.ask()
    await bench.starting()
    bench.workers.owner_ended(DRIVER)
    with pytest.raises(exceptions.LinkError, match="the process that asked is gone"):
        await asked
    assert bench.leaves_nothing


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (ForkError("no more processes"), exceptions.WorkerCrashedError, "it could not be forked: .*no more processes"),
        (ValueError("too long"), exceptions.WorkerCrashedError, "it could not be forked: too long"),
    ],
)
async def test_what_keeps_a_worker_from_being_made_is_said(
    bench: Bench, error: Exception, kind: type[Exception], words: str
) -> None:
    bench.zygote.error = error
    with pytest.raises(kind, match=words):
        await bench.ask()
    assert bench.leaves_nothing


async def test_a_process_that_a_zygote_may_have_taken_along_is_another_one_than_that_of_the_next_zygote(
    bench: Bench,
) -> None:
    bench.zygote.error = ZygoteLostError("it has ended")
    asked = bench.ask()
    process = await bench.starting()
    # The first may have said that it is ready, and its link may be lost only now.
    first, second = bench.zygote.asked
    assert first != second == process
    bench.workers.ready(first)
    assert not asked.done()
    assert bench.ended == [first]
    assert (await bench.workers.exit_of(first)).known
    bench.workers.ready(process)
    lease = await asked
    assert lease.worker.process == second
    bench.workers.give_back(lease.lease, False)
    assert bench.leaves_nothing


async def test_who_waits_for_a_worker_as_the_zygote_ends_with_its_node_is_told_so(bench: Bench) -> None:
    bench.zygote.error = ZygoteLostError("it has ended")
    asked = bench.ask()
    await asyncio.sleep(0)
    closing = asyncio.get_running_loop().create_task(bench.workers.close("the session ended", 0.0))
    with pytest.raises(exceptions.ActorrtError, match="the session ended"):
        await asked
    await closing


async def test_a_kill_of_the_kernels_for_want_of_memory_is_told_from_one_of_the_nodes(bench: Bench) -> None:
    for ours in (False, True):
        bench.memory.kills = 1
        asked = bench.ask()
        process = await bench.starting()
        bench.workers.ready(process)
        await asked
        if ours:
            bench.workers.kill(process, "it was killed by actorrt.kill")
            assert bench.zygote.killed == [bench.zygote.pids]
        end = asyncio.get_running_loop().create_task(bench.workers.exit_of(process))
        await asyncio.sleep(0)
        bench.workers.reaped(bench.zygote.pids, signal.SIGKILL, "")
        known = await end
        assert known.oom is not ours
        assert known.cause == (
            "it was killed by actorrt.kill" if ours else "out of memory: killed by signal 9 (SIGKILL)"
        )
        assert bench.ended[-1] == process
    assert bench.leaves_nothing
