"""`actorrt list`, `stack`, `why`, `logs` and `memory` of the session of this program."""

from __future__ import annotations

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
from typing import Any, NamedTuple

import numpy as np
import pytest

import actorrt
from actorrt.util import state

pytestmark = pytest.mark.usefixtures("node")


def command(*args: str) -> list[str]:
    return [str(Path(sys.executable).with_name("actorrt")), *args]


def run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*args), capture_output=True, text=True, timeout=50, check=False)


def shown(*args: str) -> str:
    done = run(*args)
    assert done.returncode == 0, done.stderr
    return done.stdout


@actorrt.remote
class Office:
    def __init__(self) -> None:
        self.kept: list[Any] = []

    async def pid(self) -> int:
        return os.getpid()

    async def keep(self, box: list[Any]) -> None:
        self.kept = box

    async def ask(self, other: list[Any]) -> Any:
        return await other[0].wait.remote()

    async def wait(self) -> None:
        print("an office waits", flush=True)
        await asyncio.sleep(1000)

    async def block(self) -> None:
        time.sleep(5)  # noqa: ASYNC251  # that is what it is for


@actorrt.remote
def held() -> None:
    time.sleep(1000)


class Busy(NamedTuple):
    office: Any
    pid: int
    waits: Any
    asks: Any
    large: Any
    tasks: list[Any]
    after: Any


@pytest.fixture(scope="module")
def busy(node: None) -> Iterator[Busy]:
    """Two actors of which one asks the other, three tasks of which two run, and one that waits for an argument."""
    office, other = Office.options(name="the office", isolated=True).remote(), Office.remote()
    pid = actorrt.get(office.pid.remote())
    large = actorrt.put(np.zeros(100_000))
    actorrt.get(office.keep.remote([large]))
    waits, asks = office.wait.remote(), other.ask.remote([office])
    tasks = [held.remote() for _ in range(3)]
    after = other.keep.remote(tasks[0])
    end = time.monotonic() + 20
    while state.list_tasks(filters=[("state", "=", "RUNNING")]).total < 5:
        assert time.monotonic() < end, state.list_tasks()
    yield Busy(office, pid, waits, asks, large, tasks, after)
    for each in tasks:
        actorrt.cancel(each, force=True)
    actorrt.kill(office)
    actorrt.kill(other)


def short(ref: Any) -> str:
    return state.short_id(ref.hex())


def waiting(busy: Busy) -> Any:
    """The task that has no worker."""
    (found,) = state.list_tasks(filters=[("state", "=", "PENDING_NODE_ASSIGNMENT")])
    return next(each for each in busy.tasks if each.hex() == found.task_id)


def test_each_kind_is_listed(busy: Busy) -> None:
    assert re.search(r"^\w{8} +ALIVE +127.0.0.1 ", shown("list", "nodes"), re.MULTILINE)
    workers = shown("list", "workers")
    assert re.search(rf"^\w{{8}} +DRIVER +RUNNING +{os.getpid()} ", workers, re.MULTILINE)
    assert re.search(rf"^\w{{8}} +WORKER +LEASED +{busy.pid} .* Office\(the office\)", workers, re.MULTILINE)
    assert workers.count("DRIVER") == 1
    assert re.search(rf"ALIVE +Office\(the office\) +{busy.pid} ", shown("list", "actors"))
    tasks = shown("list", "tasks")
    assert re.search(rf"^{short(busy.waits)} +RUNNING +Office.wait +{busy.pid} +{os.getpid()}$", tasks, re.MULTILINE)
    waits = rf"^{short(busy.after)} +PENDING_ARGS_AVAIL .* waits for {short(busy.tasks[0])}$"
    assert re.search(waits, tasks, re.MULTILINE)
    assert re.search(rf"^{short(busy.large)} +SHARED +785.\d KiB +memory ", shown("list", "objects"), re.MULTILINE)
    assert shown("list", "placement-groups").split() == ["group", "state", "name", "strategy", "bundles", "why"]


def test_lists_are_filtered_cut_and_there_for_programs(busy: Busy) -> None:
    done = json.loads(shown("list", "tasks", "--json", "--filter", "state=RUNNING", "--filter", "name!=held"))
    assert {each["name"] for each in done["rows"]} == {"Office.wait", "Office.ask"}
    assert (done["total"], done["missing"]) == (len(done["rows"]), [])
    cut = shown("list", "tasks", "--limit", "2")
    assert re.search(r"^the first 2 of \d+: --limit and --filter choose$", cut, re.MULTILINE)


def test_mistakes_of_a_list_are_sentences() -> None:
    for args, said in (
        (["actors", "--filter", "stat=ALIVE"], "actors have no column 'stat'; did you mean 'state'?"),
        (["actors", "--filter", "ALIVE"], "--filter 'ALIVE': write COLUMN=VALUE or COLUMN!=VALUE, as in state=ALIVE"),
        (["actors", "--limit", "0"], "limit is from 1 to 10000, not 0: filters choose among more"),
    ):
        done = run("list", *args)
        assert (done.returncode, done.stdout, done.stderr) == (2, "", f"actorrt: {said}\n")


def test_stacks_show_where_coroutines_and_threads_are_and_what_they_wait_for(busy: Busy) -> None:
    stacks = shown("stack")
    assert "2 coroutines: Office(the office).wait, Office(the office).wait, waits for asyncio.sleep(1000)" in stacks
    at = rf"Office.wait, which is at worker \w+ \(pid {busy.pid}\)"
    assert re.search(rf"coroutine Office.ask, waits for object [\w-]+: {at}", stacks)
    assert "return await other[0].wait.remote()" in stacks
    assert re.search(r"thread MainThread, in held\n.*\n      time.sleep\(1000\)", stacks)
    assert re.search(rf"^driver \w{{8}} \(pid {os.getpid()}\)", stacks, re.MULTILINE)
    assert stacks.count("driver ") == 1
    one = shown("stack", str(busy.pid))
    assert one.startswith("worker ")
    assert one.count("(pid ") == 1
    assert shown("stack", short(busy.waits)).splitlines()[0] == one.splitlines()[0]
    (found,) = json.loads(shown("stack", "--json", str(busy.pid)))
    assert found["coroutines"][0]["frames"][-2]["function"] == "Office.wait"


def test_the_stack_of_a_blocked_loop_shows_the_line_that_blocks_it() -> None:
    blocker = Office.options(isolated=True).remote()
    pid = actorrt.get(blocker.pid.remote())
    blocked = blocker.block.remote()
    while True:
        stacks = shown("stack", str(pid))
        if "block" in stacks:
            break
    assert not blocked.done()
    assert re.search(r"thread MainThread, in Office.block\n.*\n      time.sleep\(5\)", stacks)
    actorrt.kill(blocker)


def test_a_process_that_is_stopped_is_named_by_each_command(busy: Busy) -> None:
    os.kill(busy.pid, signal.SIGSTOP)
    try:
        stacks, listed, tasks = run("stack", str(busy.pid)), run("list", "actors"), run("list", "tasks")
    finally:
        os.kill(busy.pid, signal.SIGCONT)
    said = "it has not answered for 1 s: it is stopped (SIGSTOP)"
    assert (stacks.returncode, stacks.stderr) == (1, f"actorrt: the process does not answer: {said}\n")
    assert re.search(rf"^not asked: worker \w+ \(pid {busy.pid}\): {re.escape(said)}$", listed.stderr, re.MULTILINE)
    assert "Office(the office)" in listed.stdout
    assert short(busy.waits) in tasks.stdout


def test_why_says_what_a_task_waits_for(busy: Busy) -> None:
    said = shown("why", short(waiting(busy)))
    assert f"task held ({short(waiting(busy))}) waits for a worker with 1 CPU\n" in said
    assert re.search(r"^node \w{8} has 2 CPU, of which 0 are free, and 1 are asked for$", said, re.MULTILINE)
    assert len(re.findall(r"^  1 CPU: worker \w{8} \(pid \d+\), for tasks of process \w{8}$", said, re.MULTILINE)) == 2


def test_why_follows_an_argument_to_the_call_that_makes_it(busy: Busy) -> None:
    said = shown("why", busy.after.hex())
    assert f"waits for 1 argument\n  object {short(busy.tasks[0])}, which held makes: `actorrt why" in said
    assert re.search(r"^task held \([\w-]+\) runs in worker ", shown("why", short(busy.tasks[0])))


@actorrt.remote(num_returns=2)
def two() -> tuple[int, int]:
    return 1, 2


def test_why_of_a_second_result_tells_of_the_call_that_makes_it(busy: Busy) -> None:
    first, second = two.remote()
    end = time.monotonic() + 20
    while state.list_tasks(filters=[("name", "=", "two"), ("state", "=", "PENDING_NODE_ASSIGNMENT")]).total < 1:
        assert time.monotonic() < end
    assert shown("why", short(second)).startswith(f"task two ({short(first)}) waits for a worker with 1 CPU\n")
    actorrt.cancel(first)


def test_why_says_what_an_actor_waits_for(busy: Busy) -> None:
    large = Office.options(num_cpus=2, name="large").remote()
    call = large.pid.remote()
    end = time.monotonic() + 20
    while state.list_actors(filters=[("name", "=", "large"), ("worker_id", "=", "")]).total < 1:
        assert time.monotonic() < end
    (found,) = state.list_actors(filters=[("name", "=", "large")])
    said = shown("why", state.short_id(found.actor_id))
    assert said.startswith(f"actor Office(large) ({state.short_id(found.actor_id)}) waits for a worker with 2 CPU\n")
    assert re.search(r"^before it \d requests? waits?: 1 CPU for a task of process \w{8}", said, re.MULTILINE)
    assert f"call Office.pid ({short(call)}) waits for its actor\nactor Office(large)" in shown("why", short(call))
    actorrt.kill(large)


def test_why_of_nothing_is_a_sentence() -> None:
    done = run("why", "ffff-1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("actorrt: there is no call, actor or object ffff-1, and no capacity queue knows of")


def test_logs_are_found_by_the_id_of_what_has_printed(busy: Busy) -> None:
    for id in (str(busy.pid), short(busy.waits), state.list_actors(filters=[("name", "=", "the office")])[0].actor_id):
        assert "an office waits" in shown("logs", id).splitlines()
    assert f"-{busy.pid}.out" in shown("logs")
    assert shown("logs", str(busy.pid), "--tail", "0") == ""
    done = run("logs", "999999999")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("actorrt: there is no log of '999999999'")


def test_logs_are_followed_until_their_process_ends() -> None:
    office = Office.options(isolated=True).remote()
    pid = actorrt.get(office.pid.remote())
    office.wait.remote()
    end = time.monotonic() + 20
    while run("logs", str(pid)).stdout.strip() != "an office waits":
        assert time.monotonic() < end
    with subprocess.Popen(command("logs", "--follow", str(pid)), stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        assert following.stdout.readline() == "an office waits\n"
        office.wait.remote()
        assert following.stdout.readline() == "an office waits\n"
        actorrt.kill(office)
        assert following.wait(20) == 0
    assert shown("logs", str(pid)).splitlines() == ["an office waits"] * 2


def test_memory_shows_the_largest_objects_and_who_keeps_them(busy: Busy) -> None:
    known = shown("memory", "--limit", "1")
    (worker,) = state.list_workers(filters=[("pid", "=", busy.pid)])
    first = known.splitlines()[1]
    assert re.match(rf"{short(busy.large)} +785.\d KiB +SHARED +memory +\w{{8}} \(pid {os.getpid()}\) +1 ", first)
    assert first.endswith(f"1 ref, {state.short_id(worker.worker_id)} borrows it")
    assert re.search(r"^\d+ in memory: \d+.\d KiB; .*shared memory may take ", known, re.MULTILINE)
    assert json.loads(shown("memory", "--json", "--limit", "1"))["rows"][0]["object_id"] == busy.large.hex()
