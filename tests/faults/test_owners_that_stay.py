"""Processes whose work is done stay for what they own, without their lease, and end when nobody needs it any more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

import actorrt
from actorrt import exceptions
from actorrt.runtime.base.process_watch import watch_pid


@pytest.fixture(scope="module", autouse=True)
def _one_cpu() -> Iterator[None]:
    with actorrt.init(num_cpus=1, log_to_driver=False, preload_modules=["pytest"]):
        yield


async def end_of(pid: int) -> None:
    await watch_pid(pid)


def lives(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


@actorrt.remote
class Named:
    async def name(self) -> str:
        return "a child"


@actorrt.remote
def later(value: int) -> int:
    return value


@actorrt.remote(max_calls=1, max_retries=0)
def once() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "small": actorrt.put("small"),
        "large": actorrt.put(b"x" * 300_000),
        "called": later.remote(7),
        "actor": Named.remote(),
    }


async def test_a_worker_at_max_calls_stays_until_nobody_needs_what_it_owns() -> None:
    given = await once.remote()
    pid = given["pid"]
    # The one CPU is free: other workers run what it has called, and more.
    assert await given["called"] == 7
    assert await later.remote(8) == 8
    assert await given["small"] == "small"
    assert len(await given["large"]) == 300_000
    assert await given["actor"].name.remote() == "a child"
    again = await once.remote()
    assert again["pid"] != pid
    assert lives(pid)
    del given
    await end_of(pid)
    del again


@actorrt.remote(max_calls=1, max_retries=0)
def leave_a_call(path: str) -> int:
    write.remote(path)
    return os.getpid()


@actorrt.remote
def write(path: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write("written")


async def test_a_worker_at_max_calls_stays_until_what_its_task_has_called_has_ended(tmp_path: Any) -> None:
    path = tmp_path / "file"
    await end_of(await leave_a_call.remote(str(path)))
    assert path.read_text(encoding="utf-8") == "written"


class Owner:
    def __init__(self) -> None:
        self.mine = actorrt.put("mine")

    def give(self) -> dict[str, Any]:
        return {"pid": os.getpid(), "ref": actorrt.put("given"), "called": later.remote(7), "actor": Named.remote()}

    def exit(self) -> None:
        actorrt.exit_actor()


class AsyncOwner:
    async def give(self) -> dict[str, Any]:
        return {"pid": os.getpid(), "ref": actorrt.put("given"), "called": later.remote(7), "actor": Named.remote()}

    async def exit(self) -> None:
        actorrt.exit_actor()


KINDS: Any = {
    "sync": actorrt.remote(Owner).options(num_cpus=0),
    "threads": actorrt.remote(Owner).options(num_cpus=0, max_concurrency=2),
    "coroutine": actorrt.remote(AsyncOwner).options(isolated=True),
}


@pytest.mark.parametrize("how", ["exit_actor", "last handle"])
@pytest.mark.parametrize("kind", KINDS)
async def test_an_actor_that_leaves_stays_for_what_others_hold(kind: str, how: str) -> None:
    actor = KINDS[kind].remote()
    given = await actor.give.remote()
    if how == "exit_actor":
        with pytest.raises(exceptions.ActorDiedError):
            await actor.exit.remote()
        # It is dead, though its process is there.
        with pytest.raises(exceptions.ActorDiedError):
            await actor.give.remote()
    del actor
    assert await given["ref"] == "given"
    assert await given["called"] == 7
    assert await given["actor"].name.remote() == "a child"
    assert await later.remote(8) == 8
    pid = given["pid"]
    assert lives(pid)
    del given
    await end_of(pid)


async def test_an_actor_that_leaves_and_owns_nothing_ends_at_once() -> None:
    for kind in KINDS.values():
        actor = kind.remote()
        pid = (await actor.give.remote())["pid"]
        del actor
        await end_of(pid)


async def test_a_kill_waits_for_nothing_that_the_actor_owns() -> None:
    actor = KINDS["coroutine"].remote()
    given = await actor.give.remote()
    actorrt.kill(actor)
    await end_of(given["pid"])
    with pytest.raises(exceptions.OwnerDiedError):
        await given["ref"]


def test_the_end_of_the_program_ends_who_stays(run_program: Any) -> None:
    ended = run_program(
        """
import os, sys
import actorrt

@actorrt.remote(max_calls=1)
def once():
    return os.getpid(), actorrt.put(1)

with actorrt.init(num_cpus=1):
    pid, ref = actorrt.get(once.remote())
    assert actorrt.get(ref) == 1
    print(pid)
"""
    )
    assert ended.returncode == 0, ended.stderr
    assert not lives(int(ended.stdout))
