"""The driver, the node, the zygote or the head is killed: who waits hears of it, and what has to go is gone."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import actorrt
from actorrt import exceptions
from actorrt.runtime.api import driver
from actorrt.runtime.api.api import list_named_actors
from actorrt.runtime.machine.process import children_of, process_state

# By value, so that workers need not import this module, and pytest with it.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

DEADLINE_S = 40.0


@actorrt.remote(max_retries=3)
def hold(fifo: str) -> None:
    """Tell this worker's process and two that it starts, one in a session of its own; then run until the end."""
    child = subprocess.Popen(["sleep", "1000"])
    daemon = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    Path(fifo).write_text(f"{os.getpid()} {child.pid} {daemon.pid}", encoding="utf-8")
    while True:
        time.sleep(0.001)


@actorrt.remote
def quick(value: Any = None) -> Any:
    return value


@actorrt.remote
class Steady:
    async def value(self) -> int:
        return 1


class Process:
    """A process, held by a descriptor, so that no later one of the same id is taken for it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._fd = os.pidfd_open(pid)

    def send(self, number: int) -> None:
        signal.pidfd_send_signal(self._fd, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)

    def wait_for_end(self) -> None:
        ended, _, _ = select.select([self._fd], [], [], DEADLINE_S)
        assert ended, f"process {self.pid} lives on"

    def close(self) -> None:
        os.close(self._fd)


class Family:
    """The processes of a session whose driver is `driver`."""

    def __init__(self, driver: int) -> None:
        self.node = self._named(driver, "actorrt-node")
        self.zygote = self._named(self.node.pid, "actorrt-zygote")
        self.head = self._named(self.node.pid, "actorrt-head")
        self.workers: list[Process] = []

    @staticmethod
    def _named(parent: int, name: str) -> Process:
        (found,) = [pid for pid in children_of(parent) if Path(f"/proc/{pid}/comm").read_text().strip() == name]
        return Process(found)

    def add_workers(self, *pids: str) -> None:
        self.workers += [Process(int(pid)) for pid in pids]

    @property
    def everybody(self) -> list[Process]:
        return [self.node, self.zygote, self.head, *self.workers]

    def wait_for_the_end_of(self, *processes: Process) -> None:
        for process in processes:
            process.wait_for_end()


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


@pytest.fixture
def family() -> Iterator[Family]:
    with actorrt.init(num_cpus=2):
        # Once zygote and head have answered, they have their names.
        assert (actorrt.get(quick.remote(1)), list_named_actors()) == (1, [])
        found = Family(os.getpid())
        yield found
    found.wait_for_the_end_of(*found.everybody)
    for process in found.everybody:
        process.close()


def test_when_the_node_is_killed_who_waits_hears_of_it_and_its_workers_end(family: Family, fifo: Path) -> None:
    actor = Steady.remote()
    assert actorrt.get(actor.value.remote()) == 1
    running, queued = hold.remote(str(fifo)), [hold.options(num_cpus=2).remote(str(fifo)) for _ in range(3)]
    family.add_workers(*fifo.read_text(encoding="utf-8").split())
    family.node.kill()
    for ref in (running, *queued):
        with pytest.raises(exceptions.NodeDiedError):
            actorrt.get(ref)
    with pytest.raises(exceptions.ActorDiedError):
        while True:
            actorrt.get(actor.value.remote())
    for late in (quick.remote(), quick.options(num_cpus=1.5).remote()):
        with pytest.raises(exceptions.NodeDiedError):
            actorrt.get(late)
    family.wait_for_the_end_of(family.zygote, *family.workers)


def test_when_zygote_or_head_is_killed_the_session_goes_on(family: Family, fifo: Path) -> None:
    named = Steady.options(name="known").remote()
    assert actorrt.get(named.value.remote()) == 1
    held = hold.remote(str(fifo))
    family.add_workers(*fifo.read_text(encoding="utf-8").split())
    family.head.kill()
    family.head.wait_for_end()
    assert actorrt.get([named.value.remote(), quick.remote(2), Steady.remote().value.remote()]) == [1, 2, 1]
    assert actorrt.get(actorrt.get_actor("known").value.remote()) == 1
    assert not held.done()
    family.zygote.kill()
    family.wait_for_the_end_of(*family.workers)
    # It is repeated.
    family.add_workers(*fifo.read_text(encoding="utf-8").split())
    assert actorrt.get([quick.remote(3), Steady.options(name="other").remote().value.remote()]) == [3, 1]
    assert process_state(family.node.pid) not in (None, "Z")
    assert all(process_state(pid) != "Z" for pid in children_of(family.node.pid))


def test_a_head_that_is_killed_before_it_was_asked_anything_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    wait_for_node = driver.wait_for_node

    def and_kill(launched: Any, limit_s: float) -> None:
        wait_for_node(launched, limit_s)
        for pid in children_of(launched.pid):
            if "head" in Path(f"/proc/{pid}/comm").read_text(encoding="utf-8"):
                os.kill(pid, signal.SIGKILL)

    monkeypatch.setattr(driver, "wait_for_node", and_kill)
    with actorrt.init(num_cpus=1):
        actor = Steady.options(name="first").remote()
        assert actorrt.get(actor.value.remote()) == 1
        assert list_named_actors() == ["first"]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Family:
    """A session that leaves alone what is stopped, and soon gives up waiting for it."""
    monkeypatch.setenv("ACTORRT_WORKER_STALL_TIMEOUT_S", "0")
    monkeypatch.setenv("ACTORRT_HEAD_TIMEOUT_S", "0.2")
    monkeypatch.setenv("ACTORRT_WORKER_START_TIMEOUT_S", "3")
    found: Family = request.getfixturevalue("family")
    return found


def test_who_asks_a_head_that_does_not_answer_is_told_so_and_holds_no_name(impatient: Family) -> None:
    head = impatient.head
    head.send(signal.SIGSTOP)
    silent = rf"has not answered who is named 'known' for 0.2 s: its process {head.pid} is stopped"
    with pytest.raises(exceptions.HeadUnavailableError, match=silent):
        actorrt.get_actor("known")
    for lifetime in (None, "detached"):
        with pytest.raises(exceptions.HeadUnavailableError, match="whether an actor may be named 'new'"):
            Steady.options(name="new", lifetime=lifetime).remote()
    assert actorrt.get(quick.remote(2)) == 2
    head.send(signal.SIGCONT)
    assert list_named_actors() == []
    actor = Steady.options(name="new").remote()
    assert actorrt.get(actor.value.remote()) == 1


def test_who_waits_for_a_worker_is_told_of_a_zygote_that_does_not_answer(impatient: Family) -> None:
    zygote = impatient.zygote
    zygote.send(signal.SIGSTOP)
    silent = rf"the zygote, which forks workers, has not answered for 3 s: its process {zygote.pid} is stopped"
    actor = Steady.options(num_cpus=0.5).remote()
    with pytest.raises(exceptions.ActorDiedError, match=silent):
        actorrt.get(actor.value.remote())
    zygote.send(signal.SIGCONT)
    assert actorrt.get(Steady.options(num_cpus=0.5).remote().value.remote()) == 1


def test_a_session_ends_with_its_head_and_zygote_stopped(impatient: Family) -> None:
    assert actorrt.get(Steady.remote().value.remote()) == 1
    impatient.head.send(signal.SIGSTOP)
    impatient.zygote.send(signal.SIGSTOP)


def test_a_session_ends_while_its_head_and_zygote_are_started_again(family: Family) -> None:
    assert actorrt.get(Steady.options(name="known").remote().value.remote()) == 1
    for process in (family.head, family.zygote):
        process.kill()
        process.wait_for_end()


@pytest.mark.parametrize("killed", ["head", "zygote"])
def test_a_node_that_is_killed_as_it_starts_another_leaves_nobody(family: Family, killed: str) -> None:
    assert actorrt.get(Steady.options(name="known").remote().value.remote()) == 1
    process: Process = getattr(family, killed)
    process.kill()
    process.wait_for_end()
    family.node.kill()


PROGRAM = """
import json, os, subprocess, sys, time
from pathlib import Path
import actorrt
from actorrt.runtime.api import driver
from actorrt.runtime.api.api import list_named_actors

@actorrt.remote
def hold(fifo):
    child = subprocess.Popen(["sleep", "1000"])
    daemon = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    Path(fifo).write_text(f"{os.getpid()} {child.pid} {daemon.pid}")
    while True:
        time.sleep(0.001)

@actorrt.remote
class Holds:
    def __init__(self, data):
        self.data = data
    async def pid(self):
        return os.getpid()

context = actorrt.init(sys.argv[1], num_cpus=2) if sys.argv[1] == "local" else actorrt.init(sys.argv[1])
ref = hold.remote(sys.argv[2])
large = actorrt.put(bytes(1_000_000))
actor = Holds.remote(large)
forked = os.fork()
if forked == 0:
    # It holds copies of all sockets, for as long as it lives.
    os.close(1)
    time.sleep(1000)
pid = actorrt.get(actor.pid.remote())
list_named_actors()
print(json.dumps({"session": context["session_dir"], "pid": pid, "forked": forked}), flush=True)
sys.stdin.read()
"""


class Program:
    """A driver in a process of its own."""

    def __init__(self, folder: Path, address: str) -> None:
        source, fifo = folder / "program.py", folder / "fifo"
        source.write_text(PROGRAM, encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, str(source), address, str(fifo)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        held = fifo.read_text(encoding="utf-8").split()
        assert self.process.stdout is not None
        self.facts: dict[str, Any] = json.loads(self.process.stdout.readline())
        self.workers = [Process(int(pid)) for pid in (*held, self.facts["pid"])]

    def end(self, *, kill: bool) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if kill:
            self.process.kill()
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

    def wait_for_the_end_of_its_workers(self) -> None:
        for worker in self.workers:
            worker.wait_for_end()
            worker.close()


def test_nothing_is_left_of_a_program_that_is_killed(tmp_path: Path, fifo: Path) -> None:
    program = Program(tmp_path, "local")
    family = Family(program.process.pid)
    forked = Process(program.facts["forked"])
    program.end(kill=True)
    family.wait_for_the_end_of(*family.everybody)
    program.wait_for_the_end_of_its_workers()
    forked.kill()
    session = Path(program.facts["session"])
    assert not session.exists() or os.listdir(session) == ["logs"]
    for process in (*family.everybody, forked):
        process.close()


@pytest.mark.parametrize("kill", [False, True])
def test_a_second_program_has_workers_of_its_own_and_its_end_disturbs_nobody(
    tmp_path: Path, fifo: Path, family: Family, kill: bool
) -> None:
    actor = Steady.remote()
    ours = actorrt.get([quick.remote(1), actor.value.remote()])
    program = Program(tmp_path, "auto")
    forked = Process(program.facts["forked"])
    assert program.facts["session"] == actorrt.init(ignore_reinit_error=True)["session_dir"]
    assert ours == actorrt.get([quick.remote(1), actor.value.remote()])
    program.end(kill=kill)
    program.wait_for_the_end_of_its_workers()
    assert actorrt.get([quick.remote(2), actor.value.remote()]) == [2, 1]
    forked.kill()
    forked.close()
