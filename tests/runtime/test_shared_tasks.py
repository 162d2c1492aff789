"""Async tasks on shared workers that are played: who waits, and what a worker is counted as having to do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from actorrt.runtime.links.link import Link
from actorrt.runtime.owner.calls import Call
from actorrt.runtime.owner.shared import SharedPool
from actorrt.runtime.owner.shared_tasks import SharedTasks
from actorrt.types import Address, FunctionKey, Place, ProcessId
from actorrt.wire.messages import TaskCall, WorkerList

OWNER, WORKER, NODE = ProcessId(b"owner..."), ProcessId(b"worker01"), ProcessId(b"node....")


@dataclass(eq=False)
class Wire:
    """A link, and what was pushed over it."""

    peer: ProcessId = WORKER
    closed: bool = False
    pushed: list[Any] = field(default_factory=list[Any])
    inflight: dict[int, Any] = field(default_factory=dict[int, Any])
    defined: set[FunctionKey] = field(default_factory=set[FunctionKey])

    def push(self, message: Any) -> None:
        self.pushed.append(message)

    send = push

    def flush_at_end_of_turn(self) -> None: ...


class Process:
    """One that uses shared workers: `links` are those that a dial gives, one after the other."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *links: Wire) -> None:
        self.loop = loop
        self.links = list(links)
        self.peers = cast(Any, SimpleNamespace(dead=set(), link_to=self._link_to))
        self.thread = SimpleNamespace(spawn_here=loop.create_task, closing=False)
        self.pool = SharedPool(self, {})
        host = SimpleNamespace(shared_pool=self._pool_of, shared_pools=lambda: [self.pool])
        self.tasks = SharedTasks(
            cast(Any, SimpleNamespace(thread=self.thread, exits=None, pause_call=None)), cast(Any, host)
        )

    def _pool_of(self, env: dict[str, str]) -> SharedPool:
        return self.pool

    async def ask_shared(self, want: int, env: dict[str, str]) -> WorkerList:
        return WorkerList([Place(WORKER, NODE, Address("unix:worker"))], 1)

    async def _link_to(self, process: ProcessId, address: Any) -> Wire:
        return self.links.pop(0)

    def load(self) -> int:
        return self.pool.statistics().load

    def task(self, seq: int) -> Call:
        process = SimpleNamespace(process=OWNER)
        code = SimpleNamespace(blob=b"")
        message = TaskCall(seq, FunctionKey(b"function"), b"")
        return Call(cast(Any, process), message, None, "task", code=code, home=self.tasks)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def test_a_task_without_a_worker_is_one_that_the_process_waits_for(loop: asyncio.AbstractEventLoop) -> None:
    wire = Wire()
    process = Process(loop, wire)

    async def story() -> None:
        assert not process.tasks.busy
        process.tasks.submit(process.task(1), {})
        assert process.tasks.busy
        await process.pool.ready()
        await asyncio.sleep(0)
        assert not process.tasks.busy
        assert list(wire.inflight) == [1]

    loop.run_until_complete(story())


def test_what_was_sent_over_a_link_that_has_ended_does_not_count_for_the_next_one(
    loop: asyncio.AbstractEventLoop,
) -> None:
    first, second = Wire(), Wire()
    process = Process(loop, first, second)

    async def story() -> None:
        pool = process.pool
        await pool.ready()
        assert cast(Any, pool.pick()) is first
        first.closed = True
        await pool.ready()
        assert cast(Any, pool.pick()) is second
        pool.done(cast(Link, first))
        assert process.load() == 1
        pool.done(cast(Link, second))
        assert process.load() == 0

    loop.run_until_complete(story())
