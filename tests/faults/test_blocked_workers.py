"""A shared worker whose loop is blocked: nothing new goes there, and it is ended before it holds up others for ever."""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import actorrt
from actorrt import exceptions
from actorrt.runtime.owner import current

# By value, so that workers need not import this module, and pytest with it.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.usefixtures("session")


@pytest.fixture
def session() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACTORRT_WORKER_STALL_TIMEOUT_S", "1.5")
        with actorrt.init(num_cpus=2):
            yield


ENDED = r"blocked for 1\.5 s by Shares\.block|it did not answer for 1\.5 s"


def by_sleep() -> None:
    time.sleep(1000)


def by_a_loop() -> None:
    while True:
        pass


def by_the_gil() -> None:
    ctypes.PyDLL(None).sleep(1000)


class Shares:
    """A coroutine actor on a shared worker."""

    async def block(self, how: Any, told: str = "") -> None:
        if told:
            Path(told).write_text("now", encoding="ascii")
        how()

    async def pid(self) -> int:
        return os.getpid()

    async def wait(self) -> None:
        await asyncio.Event().wait()


def pipe_at(path: Path) -> str:
    os.mkfifo(path)
    return str(path)


@pytest.mark.parametrize("how", [by_sleep, by_a_loop, by_the_gil])
def test_a_blocked_loop_holds_up_no_new_actor_and_its_neighbours_only_for_a_while(how: Any, tmp_path: Path) -> None:
    shares = actorrt.remote(Shares)
    blocker, mortal, restarts = shares.remote(), shares.remote(), shares.options(max_restarts=1).remote()
    pid = actorrt.get([one.pid.remote() for one in (blocker, mortal, restarts)])
    assert len(set(pid)) == 1
    waiting = mortal.wait.remote()
    told = pipe_at(tmp_path / "told")
    blocked = blocker.block.remote(how, told)
    assert Path(told).read_text(encoding="ascii") == "now"
    # Made before anybody can know: it may be there, and goes elsewhere, or is where the others are made again.
    newer = [shares.options(max_restarts=1, max_task_retries=1).remote() for _ in range(3)]
    assert all(one != pid[0] for one in actorrt.get([one.pid.remote() for one in newer]))
    for ref in (blocked, waiting):
        with pytest.raises(exceptions.ActorDiedError, match=ENDED):
            actorrt.get(ref)
    assert actorrt.get(restarts.pid.remote()) != pid[0]


def test_what_is_made_as_a_loop_is_blocked_goes_elsewhere_without_a_restart(tmp_path: Path) -> None:
    @actorrt.remote
    async def where() -> int:
        return os.getpid()

    shares = actorrt.remote(Shares)
    blocker = shares.remote()
    pid = actorrt.get(blocker.pid.remote())
    pipe = pipe_at(tmp_path / "told")
    blocker.block.remote(by_sleep, pipe)
    assert Path(pipe).read_text(encoding="ascii") == "now"
    newer = [shares.remote() for _ in range(5)]
    refs = [one.pid.remote() for one in newer] + [where.options(max_retries=0).remote() for _ in range(5)]
    assert pid not in actorrt.get(refs)


def test_tasks_that_a_blocked_loop_holds_up_are_repeated_as_their_options_say(tmp_path: Path) -> None:
    @actorrt.remote
    async def held_up(path: str) -> str:
        if not os.path.exists(path):
            Path(path).write_text("once", encoding="ascii")
            Path(f"{path}.told").write_text("now", encoding="ascii")
            await asyncio.Event().wait()
        return "repeated"

    @actorrt.remote(max_retries=0)
    async def blocks() -> None:
        by_sleep()

    told = [pipe_at(tmp_path / f"{name}.told") for name in ("again", "once")]
    again = held_up.options(max_retries=1).remote(str(tmp_path / "again"))
    once = held_up.options(max_retries=0).remote(str(tmp_path / "once"))
    for path in told:
        Path(path).read_text(encoding="ascii")
    blocked = blocks.remote()
    assert actorrt.get(again) == "repeated"
    for ref in (once, blocked):
        with pytest.raises(exceptions.WorkerCrashedError, match=r"blocked for 1\.5 s by blocks"):
            actorrt.get(ref)


def test_an_import_however_long_ends_no_worker(tmp_path: Path) -> None:
    """One import waits at a pipe for longer than code may block: until another worker has been ended for that."""
    go = pipe_at(tmp_path / "go")
    (tmp_path / "slow_to_import.py").write_text(f"open({go!r}).read()\n", encoding="ascii")

    class Imports:
        def __init__(self, folder: str) -> None:
            sys.path.insert(0, folder)

        async def load(self, told: str) -> int:
            Path(told).write_text("now", encoding="ascii")
            importlib.import_module("slow_to_import")

            return os.getpid()

        async def pid(self) -> int:
            return os.getpid()

    imports, neighbour = actorrt.remote(Imports).remote(str(tmp_path)), actorrt.remote(Shares).remote()
    pid = actorrt.get(neighbour.pid.remote())
    told = pipe_at(tmp_path / "told")
    loading = imports.load.remote(told)
    assert Path(told).read_text(encoding="ascii") == "now"
    later = neighbour.pid.remote()

    end_another_worker()
    Path(go).write_text("go", encoding="ascii")
    assert actorrt.get([loading, later]) == [pid, pid]


def test_a_loop_that_holds_up_nobody_is_left_alone(tmp_path: Path) -> None:
    class Alone:
        async def work(self, told: str, go: str) -> int:
            Path(told).write_text("now", encoding="ascii")
            Path(go).read_text(encoding="ascii")
            return os.getpid()

        async def pid(self) -> int:
            return os.getpid()

    alone = actorrt.remote(Alone).remote()
    pid = actorrt.get(alone.pid.remote())
    told, go = pipe_at(tmp_path / "told"), pipe_at(tmp_path / "go")
    working = alone.work.remote(told, go)
    assert Path(told).read_text(encoding="ascii") == "now"
    end_another_worker()
    Path(go).write_text("go", encoding="ascii")
    assert actorrt.get(working) == pid


def end_another_worker() -> None:
    """Longer than code that holds up others may block: as long as it takes until one is ended for that."""
    # Beside the one that is blocked already.
    others = [actorrt.remote(Shares).remote() for _ in range(2)]
    actorrt.get([one.pid.remote() for one in others])
    with pytest.raises(exceptions.ActorDiedError, match=ENDED):
        actorrt.get([others[0].block.remote(by_sleep), others[1].wait.remote()])


@actorrt.remote
async def process() -> int:
    return os.getpid()


@actorrt.remote(num_cpus=1)
def process_as_another_program_finds_it() -> int:
    return actorrt.get(process.remote())


@pytest.mark.parametrize("which", [0, 1])
def test_a_worker_that_does_not_answer_keeps_nobody_from_the_others(which: int, tmp_path: Path) -> None:
    # The fixture's session has another limit.
    actorrt.shutdown()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACTORRT_WORKER_STALL_TIMEOUT_S", "600")
        actorrt.init(num_cpus=2)
    runtime: Any = current.runtime()
    shares = actorrt.remote(Shares)
    first = shares.remote()
    told, go_on = pipe_at(tmp_path / "told"), pipe_at(tmp_path / "go_on")
    blocked = first.block.remote(lambda: Path(go_on).read_text(encoding="ascii"), told)
    assert Path(told).read_text(encoding="ascii") == "now"
    second = shares.remote()
    pids = [0, actorrt.get(second.pid.remote())]
    Path(go_on).write_text("", encoding="ascii")
    actorrt.get(blocked)
    pids[0] = actorrt.get(first.pid.remote())
    # Its node has heard that the first one goes on.
    while len(runtime.thread.call_sync(runtime.host.ask_shared(1, {})).workers) < 2:
        pass
    os.kill(pids[which], signal.SIGSTOP)
    assert actorrt.get(process_as_another_program_finds_it.remote(), timeout=30) == pids[1 - which]
