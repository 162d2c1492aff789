"""The main thread of a worker that runs `def` tasks: what comes in the moments between two of them."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import cloudpickle
import pytest

import actorrt
from actorrt.core.pipeline import AHEAD_S
from actorrt.core.work_queue import WorkQueue
from actorrt.runtime.owner import current
from actorrt.runtime.worker.sync_executor import SyncExecutor
from actorrt.wire.messages import Ping

# By value, so that workers need not import this module, and pytest with it.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    # A worker that has nothing to do for a moment stays with its caller.
    monkeypatch.setenv("ACTORRT_IDLE_LEASE_S", "600")
    with actorrt.init(num_cpus=2):
        yield current.runtime()


@actorrt.remote
def read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


@actorrt.remote
def write(path: str, text: str) -> None:
    Path(path).write_text(text, encoding="utf-8")


@actorrt.remote
def echo(value: int) -> int:
    return value


@actorrt.remote
def stop_as_the_next_task_is_taken_up(taken: str, go_on: str) -> None:
    """Have this worker's main thread stand still in that moment, before it does anything for that task."""

    def look(frame: FrameType, event: str, returned: Any) -> None:
        if event == "return" and frame.f_code is SyncExecutor._take.__code__ and returned is not None:
            sys.setprofile(None)
            Path(taken).write_text("now", encoding="utf-8")
            Path(go_on).read_text(encoding="utf-8")

    sys.setprofile(look)


def test_a_task_that_comes_just_as_another_is_taken_up_does_not_wait_behind_it(session: Any, tmp_path: Path) -> None:
    # Whoever opens a FIFO first waits for the other end.
    taken, go_on, ran = (tmp_path / name for name in ("taken", "go_on", "ran"))
    for path in (taken, go_on, ran):
        os.mkfifo(path)
    actorrt.get(stop_as_the_next_task_is_taken_up.remote(str(taken), str(go_on)))
    (held,) = session.tasks.held.values()
    # What follows an answer here has been done when a later question is answered.
    session.thread.call_sync(held.link.ask(Ping()))
    # Tasks are so short that several are handed over at once.
    held.pool._pool.pace.mean_s = AHEAD_S / 10
    first = read.remote(str(ran))
    taken.read_text(encoding="utf-8")
    second = write.remote(str(ran), "by the second")
    # Its worker answers behind what it was sent before.
    session.thread.call_sync(held.link.ask(Ping()))
    assert len(held.calls) == 2
    go_on.write_text("", encoding="utf-8")
    assert actorrt.get([first, second]) == ["by the second", None]


@actorrt.remote
def give_back_as_the_second_task_is_handed_over() -> None:
    """As the main thread does that blocks in `get`, between the runtime's look at what waits and its change of it."""
    runtime: Any = current.runtime()
    handed_over = iter(range(2))

    def look(frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call" and frame.f_code is WorkQueue.add.__code__ and called.__name__ == "append":
            if next(handed_over) == 0:
                return
            sys.setprofile(None)
            other = threading.Thread(target=runtime.program.runner._give_back)
            other.start()
            other.join()

    async def install() -> None:
        sys.setprofile(look)

    runtime.thread.call_sync(install())


def test_a_task_that_is_handed_over_while_others_are_given_back_is_not_lost(session: Any) -> None:
    actorrt.get(give_back_as_the_second_task_is_handed_over.remote())
    (held,) = session.tasks.held.values()
    session.thread.call_sync(held.link.ask(Ping()))
    held.pool._pool.pace.mean_s = AHEAD_S / 10
    with held.link._lock:
        # So that both leave in one frame.
        first, second = echo.remote(1), echo.remote(2)
        session.thread.call_sync(asyncio.sleep(0))
        assert len(held.calls) == 2
    held.link.wake()
    assert actorrt.get([first, second], timeout=30) == [1, 2]
