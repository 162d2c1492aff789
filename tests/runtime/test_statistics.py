"""What the parts of a process say of themselves."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import Any

import numpy as np
import pytest

import actorrt
from actorrt.runtime.owner import current

pytestmark = pytest.mark.usefixtures("node")


@actorrt.remote
class Keeper:
    def __init__(self) -> None:
        self.kept: list[Any] = []

    async def keep(self, ref: Any) -> None:
        self.kept.append(ref)

    async def drop(self) -> None:
        self.kept.clear()


@actorrt.remote
class Gate:
    def __init__(self) -> None:
        self.opened = asyncio.Event()

    async def passed(self) -> str:
        await self.opened.wait()
        return "passed"

    async def open(self) -> None:
        self.opened.set()

    async def pid(self) -> int:
        return os.getpid()


def statistics() -> Any:
    runtime: Any = current.runtime()

    async def ask() -> Any:
        return runtime.statistics()

    return runtime.thread.call_sync(ask())


def test_what_others_borrow_is_counted_until_they_drop_it() -> None:
    keeper = Keeper.remote()
    ref = actorrt.put("kept")
    before = statistics().objects
    actorrt.get(keeper.keep.remote([ref]))
    during = statistics().objects
    assert (during.lent, during.borrowers) == (before.lent + 1, before.borrowers + 1)
    actorrt.get(keeper.drop.remote())
    actorrt.get(keeper.drop.remote())
    assert statistics().objects.lent == before.lent


def test_what_is_in_shared_memory_is_counted() -> None:
    before = statistics().segments.own
    ref = actorrt.put(np.zeros(100_000))
    actorrt.get(ref)
    during = statistics().segments
    assert during.own == before + 1
    assert during.viewed >= 1
    assert during.writer.segments >= 1


def test_calls_and_the_threads_that_wait_for_them_are_counted() -> None:
    gate = Gate.remote()
    actorrt.get(gate.__ray_ready__.remote())
    ref = gate.passed.remote()
    waiting = threading.Thread(target=actorrt.get, args=(ref,))
    waiting.start()
    while statistics().waits.threads == 0:
        pass
    during = statistics()
    assert during.waits.threads == 1
    assert during.calls_away == 1
    actorrt.get(gate.open.remote())
    waiting.join()
    after = statistics()
    assert (after.waits.threads, after.calls_away) == (0, 0)


def test_a_worker_that_does_not_answer_is_named_however_short_the_time_is() -> None:
    gate = Gate.remote()
    pid = actorrt.get(gate.pid.remote())
    os.kill(pid, signal.SIGSTOP)
    try:
        processes = actorrt.statistics(timeout=0.2)["processes"]
    finally:
        os.kill(pid, signal.SIGCONT)
    (stopped,) = (each for each in processes if each["pid"] == pid)
    assert stopped["trouble"].startswith("it has not answered for 0.14 s")


def test_a_node_that_does_not_answer_is_not_waited_for_without_end() -> None:
    pid = current.runtime().node.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(TimeoutError, match=r"the node has not answered for 0\.2 s"):
            actorrt.statistics(timeout=0.2)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert actorrt.statistics()["node"]["workers"]["starts"] == 0
