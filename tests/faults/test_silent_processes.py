"""Processes that are stopped while others dial them: they are dialled again, and taken for dead only when they are.

A process that keeps the GIL, or is swapped out, is the same to whoever dials it.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import actorrt
from actorrt import exceptions
from actorrt.runtime.machine.process import children_of, process_state
from actorrt.runtime.machine.stall_watch import STOPPED
from actorrt.runtime.owner import current
from actorrt.wire.link import Ending

RunProgram = Any


@pytest.fixture(scope="module", autouse=True)
def impatient_node() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACTORRT_DIAL_TIMEOUT_S", "0.1")
        with actorrt.init(num_cpus=2, log_to_driver=False) as context:
            yield context["address"]


@pytest.fixture
def dialled_again() -> Iterator[threading.Event]:
    """Set when a dial of this process was not answered in time."""
    seen = threading.Event()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "it is dialled again" in record.getMessage():
                seen.set()

    handler = Handler()
    logging.getLogger("actorrt").addHandler(handler)
    yield seen
    logging.getLogger("actorrt").removeHandler(handler)


def stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    while process_state(pid) != STOPPED:
        time.sleep(0.001)


@actorrt.remote(isolated=True, num_cpus=0)
class Child:
    def __init__(self) -> None:
        self.seen: list[int] = []

    async def pid(self) -> int:
        return os.getpid()

    async def add(self, value: int) -> int:
        self.seen.append(value)
        return value

    async def all(self) -> list[int]:
        return self.seen

    async def put(self, value: Any) -> list[actorrt.ObjectRef[Any]]:
        return [actorrt.put(value)]


@actorrt.remote(isolated=True, num_cpus=0)
class Parent:
    """Owns a child, so that the driver has no link to it yet."""

    def __init__(self) -> None:
        self.child: Any = Child.remote()

    async def pids(self) -> tuple[int, int]:
        return os.getpid(), await self.child.pid.remote()

    async def get_child(self) -> Any:
        return self.child

    async def put_by_child(self, value: Any) -> Any:
        return await self.child.put.remote(value)


def test_calls_to_a_stopped_actor_go_through_once_and_in_order_when_it_goes_on(dialled_again: threading.Event) -> None:
    parent: Any = Parent.remote()
    _, pid = actorrt.get(parent.pids.remote())
    child = actorrt.get(parent.get_child.remote())
    stop(pid)
    calls = [child.add.remote(value) for value in range(20)]
    assert dialled_again.wait(20)
    calls += [child.add.remote(value) for value in range(20, 40)]
    with pytest.raises(exceptions.GetTimeoutError):
        actorrt.get(calls[0], timeout=0)
    os.kill(pid, signal.SIGCONT)
    assert actorrt.get(calls) == list(range(40))
    assert actorrt.get(child.all.remote()) == list(range(40))


def test_a_value_of_a_stopped_owner_is_not_lost(dialled_again: threading.Event) -> None:
    parent: Any = Parent.remote()
    _, pid = actorrt.get(parent.pids.remote())
    [small], [large] = actorrt.get([parent.put_by_child.remote(7), parent.put_by_child.remote(b"x" * 300_000)])
    # What a borrow is told over was opened as the refs came.
    actorrt.get(parent.pids.remote())
    stop(pid)
    other = use.remote([small, large])
    with pytest.raises(exceptions.GetTimeoutError):
        actorrt.get(other, timeout=0.5)
    os.kill(pid, signal.SIGCONT)
    assert actorrt.get(other) == (7, 300_000)
    assert actorrt.get(small) == 7


@actorrt.remote(num_cpus=0)
def use(refs: list[Any]) -> tuple[int, int]:
    small, large = actorrt.get(refs)
    return small, len(large)


def test_the_death_of_a_process_that_does_not_answer_is_told_at_once(dialled_again: threading.Event) -> None:
    parent: Any = Parent.remote()
    _, pid = actorrt.get(parent.pids.remote())
    child = actorrt.get(parent.get_child.remote())
    stop(pid)
    call = child.add.remote(1)
    assert dialled_again.wait(20)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(exceptions.ActorDiedError):
        actorrt.get(call)


def test_an_actor_that_is_restarted_while_it_is_dialled_is_found(dialled_again: threading.Event) -> None:
    parent: Any = Parent.remote()
    child: Any = actorrt.get(make_restartable.remote(parent))
    pid = actorrt.get(parent_call.remote(child))
    stop(pid)
    call = child.pid.remote()
    assert dialled_again.wait(20)
    os.kill(pid, signal.SIGKILL)
    assert actorrt.get(call) != pid


@actorrt.remote(num_cpus=0)
def parent_call(child: Any) -> int:
    return actorrt.get(child.pid.remote())


@actorrt.remote(num_cpus=0)
def make_restartable(_: Any) -> Any:
    # Detached: its owner is the node, and the driver has no link to its worker.
    return Child.options(name="restartable", lifetime="detached", max_restarts=-1).remote()


def test_an_actor_whose_link_is_lost_while_its_process_lives_is_found_where_it_was() -> None:
    parent: Any = Parent.remote()
    _, pid = actorrt.get(parent.pids.remote())
    child = actorrt.get(parent.get_child.remote())
    assert actorrt.get(child.pid.remote()) == pid
    runtime = current.runtime()
    [link] = [link for link in runtime.peers.links.values() if link.pid == pid]

    async def give_up() -> None:
        link.finish(Ending.LOST)

    runtime.thread.call_sync(give_up())
    assert actorrt.get(child.pid.remote()) == pid


BUSY_DRIVER = """
import os, signal, sys
import actorrt

@actorrt.remote(num_cpus=0)
class Counter:
    async def up(self, value):
        return value + 1

actorrt.init(sys.argv[1], namespace="shared", log_to_driver=False)
counter = Counter.options(name="counter").remote()
ref = actorrt.put("its value")
holder = Counter.options(name="holder").remote()
actorrt.get(counter.up.remote(1))
print("ready", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
sys.stdin.readline()
actorrt.shutdown()
"""


def test_the_actors_of_a_busy_program_are_not_buried(
    impatient_node: str, dialled_again: threading.Event, tmp_path: Any
) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", BUSY_DRIVER, impatient_node],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    os.waitid(os.P_PID, program.pid, os.WSTOPPED | os.WNOWAIT)
    counter = actorrt.get_actor("counter", namespace="shared")
    call = counter.up.remote(1)
    assert dialled_again.wait(20)
    os.kill(program.pid, signal.SIGCONT)
    assert actorrt.get(call) == 2
    program.communicate("\n")
    with pytest.raises(exceptions.ActorDiedError):
        actorrt.get(counter.up.remote(1))


ENDS_WHILE_DIALLING = """
import os, signal, sys, time
import actorrt

@actorrt.remote(isolated=True, num_cpus=0)
class Child:
    async def pid(self):
        return os.getpid()

@actorrt.remote(num_cpus=0)
def make():
    child = Child.options(name="child", lifetime="detached").remote()
    return child, actorrt.get(child.pid.remote())

actorrt.init(num_cpus=1, log_to_driver=False)
child, pid = actorrt.get(make.remote())
os.kill(pid, signal.SIGSTOP)
call = child.pid.remote()
try:
    actorrt.get(call, timeout=0.5)
except actorrt.exceptions.GetTimeoutError:
    print("not yet")
actorrt.shutdown()
try:
    actorrt.get(call)
except actorrt.exceptions.ActorrtError as error:
    print(error)
"""


def test_a_shutdown_waits_for_no_process_that_does_not_answer(run_program: RunProgram) -> None:
    ended = run_program(ENDS_WHILE_DIALLING)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[0] == "not yet"
    assert "shut down" in ended.stdout


@pytest.fixture
def stopped_node() -> Iterator[int]:
    node = next(pid for pid in children_of(os.getpid()) if "node" in Path(f"/proc/{pid}/comm").read_text())
    stop(node)
    yield node
    os.kill(node, signal.SIGCONT)


JOINS = "import actorrt, sys; actorrt.init(sys.argv[1]); print(actorrt.get(actorrt.put(1)))"


def test_a_program_that_joins_waits_for_a_node_that_does_not_answer(impatient_node: str, stopped_node: int) -> None:
    command = [sys.executable, "-c", JOINS, impatient_node]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        assert re.fullmatch(
            r"the node \(process .*\) has not answered .*; it is dialled again\n", program.stderr.readline()
        )
        os.kill(stopped_node, signal.SIGCONT)
        assert program.stdout.read() == "1\n"


@pytest.mark.usefixtures("stopped_node")
@pytest.mark.parametrize("dial_timeout_s", ["0.1", "100"])
def test_a_program_whose_node_does_not_answer_in_time_says_so_and_what_to_set(
    impatient_node: str, dial_timeout_s: str
) -> None:
    limits = {"ACTORRT_START_TIMEOUT_S": "0.3", "ACTORRT_DIAL_TIMEOUT_S": dial_timeout_s}
    command = [sys.executable, "-c", JOINS, impatient_node]
    ended = subprocess.run(command, env={**os.environ, **limits}, capture_output=True, text=True, check=False)
    assert ended.stderr.splitlines()[-1] == (
        f"ConnectionError: the node of {impatient_node} has not answered for 0.3 s: it is stopped, or the machine is "
        "too busy; ACTORRT_START_TIMEOUT_S is how long it is waited for"
    )


def test_a_session_that_does_not_start_in_time_says_so_and_what_to_set(run_program: RunProgram) -> None:
    ended = run_program("import actorrt; actorrt.init(num_cpus=1)", ACTORRT_START_TIMEOUT_S="0.001")
    assert "was not ready after 0.001 s (ACTORRT_START_TIMEOUT_S sets how long it may take)" in ended.stderr
