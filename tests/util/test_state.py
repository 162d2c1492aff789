"""What there is in a cluster, as it says itself."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import actorrt
from actorrt.util import state

pytestmark = pytest.mark.usefixtures("node")


@actorrt.remote
class Gate:
    def __init__(self) -> None:
        self.opened = asyncio.Event()

    async def passed(self) -> str:
        await self.opened.wait()
        return "passed"

    async def after(self, value: str) -> str:
        return value

    async def keep(self, box: list[Any]) -> int:
        self.box = box
        return os.getpid()

    async def open(self) -> None:
        self.opened.set()

    async def block(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251  # that is what it is for


@actorrt.remote(num_cpus=2)
class Large:
    def here(self) -> int:
        return os.getpid()


@actorrt.remote
def held(seconds: float) -> None:
    time.sleep(seconds)


@pytest.fixture
def gate() -> Iterator[Any]:
    actor = Gate.options(name="the gate").remote()
    actorrt.get(actor.keep.remote([]))
    yield actor
    actorrt.kill(actor)


def until(found: Any) -> None:
    """Wait until `found()` is true of the cluster, which is asked again and again."""
    end = time.monotonic() + 20
    while not found():
        assert time.monotonic() < end, "it did not come to that"


def test_the_node_and_its_processes_are_listed(gate: Any) -> None:
    (node,) = state.list_nodes()
    assert (node.state, node.resources_total["CPU"]) == ("ALIVE", 2)
    workers = state.list_workers()
    assert workers.missing == []
    by_pid = {each.pid: each for each in workers}
    assert by_pid[os.getpid()].worker_type == "DRIVER"
    assert by_pid[actorrt.get(gate.keep.remote([]))].state == "SHARED"
    assert {each.node_id for each in workers} == {node.node_id}
    assert {each.worker_type for each in workers} == {"DRIVER", "WORKER", "HEAD"}
    assert state.get_node(node.node_id[:6]) == node
    assert state.get_worker(by_pid[os.getpid()].worker_id) == by_pid[os.getpid()]


def test_an_actor_is_listed_with_where_it_is_and_by_its_id(gate: Any) -> None:
    (found,) = state.list_actors(filters=[("name", "=", "the gate")])
    assert (found.class_name, found.state, found.pid) == ("Gate", "ALIVE", actorrt.get(gate.keep.remote([])))
    assert found.worker_id == state.get_worker(found.worker_id).worker_id  # pyright: ignore[reportOptionalMemberAccess]
    assert state.get_actor(found.actor_id) == found
    assert state.summarize_actors()["summary"]["Gate"]["ALIVE"] >= 1
    assert state.list_actors(filters=[("name", "=", "the gate"), ("state", "!=", "alive")]) == []


def test_an_actor_that_waits_for_resources_is_pending_and_then_dead() -> None:
    first = Large.remote()
    actorrt.get(first.here.remote())
    second = Large.remote()
    until(lambda: len(state.list_actors(filters=[("class_name", "=", "Large"), ("state", "=", "PENDING_CREATION")])))
    (pending,) = state.list_actors(filters=[("class_name", "=", "Large"), ("state", "=", "PENDING_CREATION")])
    assert (pending.required_resources, pending.worker_id) == ({"CPU": 2.0}, "")
    actorrt.kill(second)
    (dead,) = state.list_actors(filters=[("actor_id", "=", pending.actor_id)])
    assert (dead.state, bool(dead.death_cause)) == ("DEAD", True)
    actorrt.kill(first)


def test_a_detached_actor_is_told_of_by_the_node() -> None:
    actor = Gate.options(name="stays", lifetime="detached").remote()
    actorrt.get(actor.keep.remote([]))
    (found,) = state.list_actors(filters=[("name", "=", "stays")])
    assert (found.is_detached, found.state, found.owner_id) == (True, "ALIVE", found.node_id)
    actorrt.kill(actor)


def test_calls_are_in_the_state_that_they_are_in(gate: Any) -> None:
    passed = gate.passed.remote()
    after = gate.after.remote(passed)
    held_up = [held.remote(1000) for _ in range(3)]
    until(lambda: state.list_tasks(filters=[("name", "=", "held"), ("state", "=", "RUNNING")]).total == 2)
    until(lambda: state.list_tasks(filters=[("state", "=", "PENDING_ARGS_AVAIL")]).total == 1)
    by_id = {each.task_id: each for each in state.list_tasks()}
    assert by_id[passed.hex()].state == "RUNNING"
    assert by_id[passed.hex()].name == "Gate.passed"
    assert by_id[after.hex()].state == "PENDING_ARGS_AVAIL"
    assert by_id[after.hex()].waits_for == [passed.hex()]
    states = sorted(by_id[each.hex()].state for each in held_up)
    assert states == ["PENDING_NODE_ASSIGNMENT", "RUNNING", "RUNNING"]
    assert state.summarize_tasks()["summary"]["held"]["PENDING_NODE_ASSIGNMENT"] == 1
    assert state.get_task(passed.hex()) == by_id[passed.hex()]
    for each in held_up:
        actorrt.cancel(each, force=True)
    actorrt.get(gate.open.remote())
    assert actorrt.get(after) == "passed"
    assert state.get_task(after.hex()) is None


def test_objects_are_listed_with_their_sizes_and_who_holds_them(gate: Any) -> None:
    large, small = actorrt.put(np.zeros(100_000)), actorrt.put("small")
    worker = actorrt.get(gate.keep.remote([large]))
    by_id = {each.object_id: each for each in state.list_objects()}
    lies, here = by_id[large.hex()], by_id[small.hex()]
    assert (lies.state, lies.where, lies.local_refs) == ("SHARED", "memory", 1)
    assert lies.object_size >= 800_000
    (borrower,) = lies.borrowers
    assert state.get_worker(borrower).pid == worker  # pyright: ignore[reportOptionalMemberAccess]
    assert (here.state, here.owner_pid, here.borrowers) == ("INLINE", os.getpid(), {})
    assert state.get_objects(large.hex()) == [lies]
    assert large.hex() in {each.object_id for each in state.list_objects(filters=[("where", "=", "memory")])}
    del large
    until(lambda: state.get_objects(lies.object_id)[0].local_refs == 0)
    actorrt.get(gate.keep.remote([]))
    until(lambda: state.get_objects(lies.object_id) == [])


def test_a_process_that_is_stopped_is_named_and_the_others_answer(gate: Any) -> None:
    pid = actorrt.get(gate.keep.remote([]))
    os.kill(pid, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        actors = state.list_actors(timeout=1.0)
        took_s = time.monotonic() - begun
    finally:
        os.kill(pid, signal.SIGCONT)
    assert [each.pid for each in actors.missing] == [pid]
    assert actors.missing[0].trouble.startswith("it has not answered for 0.7 s")
    assert "Gate" in {each.class_name for each in actors}
    assert took_s < 5


def test_a_process_whose_loop_is_blocked_answers(gate: Any) -> None:
    blocked = gate.block.remote(2.0)
    until(lambda: state.get_task(blocked.hex()).state == "RUNNING")  # pyright: ignore[reportOptionalMemberAccess]
    assert state.list_tasks().missing == []
    assert not blocked.done()
    actorrt.get(blocked)


def test_the_limit_cuts_the_list_and_the_total_is_told() -> None:
    gates = [Gate.remote() for _ in range(20)]
    found = state.list_actors(filters=[("class_name", "=", "Gate")], limit=5)
    assert (len(found), found.total >= 20) == (5, True)
    del gates


def test_mistakes_are_sentences() -> None:
    with pytest.raises(ValueError, match="actors have no column 'stat'; did you mean 'state'"):
        state.list_actors(filters=[("stat", "=", "ALIVE")])
    with pytest.raises(ValueError, match="limit is from 1 to 10000"):
        state.list_tasks(limit=0)
    with pytest.raises(ValueError, match="'zz' is no id"):
        state.get_actor("zz")
    assert state.list_placement_groups() == []
    assert state.get_placement_group("5f") is None


def test_any_thread_may_ask() -> None:
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(len(state.list_nodes()))) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert found == [1] * 4
