"""`init` and `shutdown` where other programs' calls run: tasks, actors, threads of theirs, modules that they import."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import actorrt

# By value, so that workers need not import this module, and pytest with it.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

RunProgram = Callable[..., Any]


@pytest.fixture(scope="module")
def session() -> Iterator[str]:
    with actorrt.init(num_cpus=2) as context:
        yield context["session_dir"]


def begin_and_end() -> list[Any]:
    """As library code does that knows nothing of workers; the session before, within and after."""
    seen = [actorrt.is_initialized()]
    with actorrt.init(num_cpus=1, namespace="its own") as context:
        seen.append(context["session_dir"])
    actorrt.init(ignore_reinit_error=True)
    actorrt.shutdown()
    actorrt.init("auto").disconnect()
    actorrt.init(local_mode=True)
    return [*seen, actorrt.get_runtime_context().get_temp_dir(), actorrt.get(one.remote())]


@actorrt.remote
def one() -> int:
    return 1


@actorrt.remote
def task() -> list[Any]:
    return begin_and_end()


@actorrt.remote
async def coroutine() -> list[Any]:
    async with actorrt.init():
        actorrt.shutdown()
    return [True, actorrt.init()["address"], actorrt.get_runtime_context().get_temp_dir(), await one.remote()]


@actorrt.remote
def thread() -> list[Any]:
    found: list[Any] = []
    started = threading.Thread(target=lambda: found.extend(begin_and_end()))
    started.start()
    started.join()
    return found


@actorrt.remote
class Plain:
    def __init__(self) -> None:
        self.first = begin_and_end()

    def again(self) -> list[Any]:
        assert self.first == begin_and_end()
        return self.first


@actorrt.remote
class Coroutines:
    async def again(self) -> list[Any]:
        return await asyncio.to_thread(begin_and_end)


def test_in_a_worker_init_gives_the_sessions_context_and_shutdown_leaves_it(session: str) -> None:
    refs = [
        task.remote(),
        coroutine.remote(),
        thread.remote(),
        Plain.remote().again.remote(),
        Coroutines.remote().again.remote(),
    ]
    for seen in actorrt.get([*refs, task.remote()], timeout=60):
        directory = seen[1]
        assert seen == [True, directory, directory, 1]
        assert directory == session


def test_in_a_worker_a_wrong_option_of_init_is_still_an_error(session: str) -> None:
    @actorrt.remote
    def wrong() -> str:
        try:
            actorrt.init(num_cpu=1)
        except ValueError as error:
            return str(error)
        return ""

    assert "num_cpu" in actorrt.get(wrong.remote())


def test_a_module_that_begins_a_session_as_it_is_imported_can_be_imported_by_workers(
    tmp_path: Path, run_program: RunProgram
) -> None:
    (tmp_path / "lib_with_init.py").write_text(
        """
import atexit
import actorrt
actorrt.init(num_cpus=2)
atexit.register(actorrt.shutdown)

@actorrt.remote
def task(x):
    return x + 1

@actorrt.remote
async def coroutine(x):
    return x + 1

@actorrt.remote
class Actor:
    def up(self, x):
        return x + 1
"""
    )
    ended = run_program(
        """
import actorrt
import lib_with_init as lib
print(actorrt.get([lib.task.remote(1), lib.coroutine.remote(2), lib.Actor.remote().up.remote(3)], timeout=30))
actorrt.shutdown()
"""
    )
    assert (ended.stdout, ended.returncode) == ("[2, 3, 4]\n", 0), ended.stderr


def test_the_warning_of_shutdown_in_a_task_says_who_ends_a_session(run_program: RunProgram) -> None:
    ended = run_program(
        """
import os, actorrt
@actorrt.remote
def careless():
    actorrt.shutdown()
    pid = os.fork()
    if pid == 0:
        # A program of its own: it may begin what it likes, and this is no worker any more.
        with actorrt.init(num_cpus=1) as context:
            same = context["session_dir"] == mine
        os._exit(same or actorrt.is_initialized())
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
with actorrt.init(num_cpus=1) as context:
    mine = context["session_dir"]
    print(actorrt.get(careless.remote(), timeout=40))
"""
    )
    assert ended.stdout == "0\n", ended.stderr
    assert "the program that began the session ends it" in ended.stderr
