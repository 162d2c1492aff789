"""`actorrt status` and `actorrt --version`."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import actorrt


def _run(*args: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("actorrt")), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)


def test_the_version_is_printed() -> None:
    assert actorrt.__version__ in _run("--version").stdout


def test_python_runs_the_package_as_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "actorrt", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == _run("--version").stdout


def test_the_status_without_a_node_is_an_error_that_says_so() -> None:
    done = _run("status")
    assert done.returncode == 1
    assert "no cluster runs on this machine" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.usefixtures("node")
def test_the_status_shows_the_node_and_its_resources() -> None:
    done = _run("status")
    assert done.returncode == 0, done.stderr
    assert "alive" in done.stdout
    assert "CPU                           2 of            2" in done.stdout


@pytest.mark.usefixtures("node")
def test_the_status_is_there_for_programs_too() -> None:
    facts = json.loads(_run("status", "--json").stdout)
    assert facts["total"]["CPU"] == 2
    assert facts["nodes"][0]["Alive"] is True


def test_an_unknown_command_is_refused() -> None:
    done = _run("severe")
    assert done.returncode == 2
    assert "severe" in done.stderr


@actorrt.remote
class Busy:
    def __init__(self) -> None:
        self.kept: list[Any] = []

    async def keep(self, box: list[Any]) -> int:
        self.kept += box
        return os.getpid()

    async def sleep(self) -> None:
        await asyncio.sleep(1000)


def _statistics() -> dict[str, Any]:
    done = _run("status", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["statistics"]


@pytest.fixture
def busy() -> Iterator[int]:
    """The pid of a worker with an actor that keeps a large object and runs a call."""
    actor = Busy.remote()
    ref = actorrt.put(b"x" * 2**20)
    pid = actorrt.get(actor.keep.remote([ref]))
    asleep = actor.sleep.remote()
    actorrt.wait([asleep], timeout=0)
    yield pid
    actorrt.kill(actor)


@pytest.mark.usefixtures("node")
def test_the_status_shows_what_each_process_has_under_way(busy: int) -> None:
    known = _statistics()
    node = known["node"]
    assert node["workers"]["workers"]["shared"] >= 1
    assert node["store"]["segments"] >= 1
    assert node["store"]["memory"] >= 2**20
    assert node["peers"]["links"] >= 3
    by_pid = {each["pid"]: each for each in known["processes"]}
    assert [each["trouble"] for each in by_pid.values()] == [""] * len(by_pid)
    driver, worker = by_pid[os.getpid()], by_pid[busy]
    assert driver["role"] == "driver"
    assert driver["calls_away"] == 1
    assert (driver["actors"]["known"], driver["owned_actors"]["alive"]) == (1, 1)
    assert (driver["objects"]["lent"], driver["segments"]["own"]) == (1, 1)
    assert driver["shared_tasks"]["pools"][0]["load"] == 1
    assert worker["role"] == "worker"
    assert (worker["runner"]["actors"], worker["runner"]["running"]) == (1, 1)
    assert worker["objects"]["borrowed"] == 1
    assert worker["peers"]["down"] == 0
    assert worker["peers"]["unacknowledged"] >= 0
    (head,) = (each for each in by_pid.values() if each["role"] == "head")
    assert head["directory"]["nodes"] == 1
    shown = _run("status").stdout
    assert re.search(r"^workers +.*1 shared", shown, re.MULTILINE)
    assert re.search(rf"^worker .* {busy} +0/1/0 +1/0/0 +0/0 +0/1 ", shown, re.MULTILINE)
    # An actor is none of the tasks.
    assert re.search(rf"^driver .* {os.getpid()} +1/0/0 +0/1/0 +0/0 +1/0 +1/0 ", shown, re.MULTILINE)
    assert "unacknowledged" in shown


@pytest.mark.usefixtures("node")
def test_a_process_that_does_not_answer_is_named_and_holds_up_nobody(busy: int) -> None:
    os.kill(busy, signal.SIGSTOP)
    try:
        known = _statistics()
        shown = _run("status")
    finally:
        os.kill(busy, signal.SIGCONT)
    troubles = {each["pid"]: each["trouble"] for each in known["processes"]}
    assert troubles.pop(busy).startswith("it has not answered for 1 s")
    assert set(troubles.values()) == {""}
    assert shown.returncode == 0
    assert re.search(rf"^worker .* {busy}  it has not answered for 1 s: it is stopped", shown.stdout, re.MULTILINE)


@pytest.mark.usefixtures("node")
def test_a_stopped_head_is_named_and_not_waited_for(busy: int) -> None:
    (head,) = (each["pid"] for each in actorrt.statistics()["processes"] if each["role"] == "head")
    os.kill(head, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        shown = _run("status")
        took_s = time.monotonic() - begun
    finally:
        os.kill(head, signal.SIGCONT)
    assert shown.returncode == 0, shown.stderr
    assert took_s < 15
    assert "what is served is not known: the head, which knows Serve's controller, does not answer" in shown.stdout


@pytest.mark.usefixtures("node")
def test_the_status_can_be_watched() -> None:
    command = [str(Path(sys.executable).with_name("actorrt")), "status", "--watch", "--json", "--every", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        looks = [json.loads(watching.stdout.readline()) for _ in range(2)]
        watching.send_signal(signal.SIGINT)
        watching.stdout.read()
    assert [look["total"]["CPU"] for look in looks] == [2, 2]


@actorrt.remote
def held() -> None:
    time.sleep(1000)


@pytest.mark.usefixtures("node")
def test_tasks_are_shown_by_pool() -> None:
    refs = [held.remote() for _ in range(4)]
    actorrt.wait(refs, timeout=0)
    known, shown = _statistics(), _run("status").stdout
    for ref in refs:
        actorrt.cancel(ref)
    (driver,) = (each for each in known["processes"] if each["pid"] == os.getpid())
    (pool,) = (pool for (shape, *_), pool in driver["tasks"]["pools"] if shape == [["CPU", 10_000]])
    assert pool["waiting"] + pool["under_way"] == 4
    assert re.search(r"^ +tasks \(sync\) for 1 CPU: \d waiting, \d under way, leases: ", shown, re.MULTILINE)
    for ref in refs:
        with pytest.raises(actorrt.exceptions.TaskCancelledError):
            actorrt.get(ref)


@actorrt.remote
async def asleep() -> None:
    await asyncio.sleep(1000)


@pytest.mark.usefixtures("node")
def test_async_tasks_are_counted_beside_actors(busy: int) -> None:
    refs = [asleep.remote() for _ in range(3)]
    actorrt.wait(refs, timeout=0)
    known, shown = _statistics(), _run("status").stdout
    for ref in refs:
        actorrt.cancel(ref)
    (driver,) = (each for each in known["processes"] if each["pid"] == os.getpid())
    tasks = driver["shared_tasks"]
    assert (tasks["waiting"] + tasks["under_way"], tasks["pools"][0]["load"] - tasks["under_way"]) == (3, 1)
    assert re.search(rf"^driver .* {os.getpid()} +[14]/0/0 +0/1/0 +(0/3|3/0) ", shown, re.MULTILINE)
    for ref in refs:
        with pytest.raises(actorrt.exceptions.TaskCancelledError):
            actorrt.get(ref)
