"""A cancelled call is interrupted before what it has called, and once: its `finally` blocks are left in peace."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

import actorrt
from actorrt import exceptions


@pytest.fixture(scope="module", params=["processes", "local"], autouse=True)
def session(request: pytest.FixtureRequest) -> Iterator[str]:
    with (
        actorrt.init(local_mode=True)
        if request.param == "local"
        else actorrt.init(num_cpus=2, preload_modules=["pytest"])
    ):
        yield request.param


@actorrt.remote
class Note:
    """What others tell it, and calls that go on until they are let go."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.changed = asyncio.Condition()
        self.open = asyncio.Event()

    async def tell(self, what: str) -> None:
        async with self.changed:
            self.told.append(what)
            self.changed.notify_all()

    async def never(self) -> str:
        await asyncio.Event().wait()
        return "never"

    async def let_go(self) -> None:
        self.open.set()

    async def tell_when_let_go(self, what: str) -> None:
        await self.open.wait()
        await self.tell(what)

    async def stays(self) -> None:
        await self.tell("child begun")
        try:
            await asyncio.Event().wait()
        finally:
            await self.tell("child ended")

    async def wait_for(self, what: str) -> list[str]:
        async with self.changed:
            await self.changed.wait_for(lambda: what in self.told)
        return self.told


async def awaits(note: Any) -> None:
    # The cancellation of a call whose arguments are not there is known at once, without a word from anybody.
    child = note.tell.remote(note.never.remote())
    met = "nothing"
    try:
        await note.tell.remote("begun")
        await child
    except BaseException as error:
        met = type(error).__name__
        raise
    finally:
        await note.tell.remote(f"met {met}")
        await note.tell_when_let_go.remote("closed")


def gets(note: Any) -> None:
    child = note.tell.remote(note.never.remote())
    met = "nothing"
    try:
        actorrt.get(note.tell.remote("begun"))
        actorrt.get(child)
    except BaseException as error:
        met = type(error).__name__
        raise
    finally:
        actorrt.get(note.tell.remote(f"met {met}"))
        actorrt.get(note.tell_when_let_go.remote("closed"))


class Async:
    async def run(self, note: Any) -> None:
        await awaits(note)


def begin(kind: str, note: Any) -> Any:
    if kind == "actor":
        return actorrt.remote(Async).remote().run.remote(note)
    if kind == "process actor":
        return actorrt.remote(num_cpus=0.1)(Async).remote().run.remote(note)
    return actorrt.remote(gets if kind == "def task" else awaits).remote(note)


@pytest.mark.parametrize(
    ("kind", "interruption"),
    [
        ("actor", "CancelledError"),
        ("process actor", "CancelledError"),
        ("async task", "CancelledError"),
        ("def task", "KeyboardInterrupt"),
    ],
)
async def test_a_call_is_interrupted_before_what_it_waits_for(session: str, kind: str, interruption: str) -> None:
    if session == "local" and kind == "def task":
        pytest.skip("plain code is not interrupted in local mode")
    note = Note.remote()
    ref = begin(kind, note)
    await note.wait_for.remote("begun")
    actorrt.cancel(ref)
    assert await note.wait_for.remote(f"met {interruption}") == ["begun", f"met {interruption}"]
    # Its caller, its group and a user may all do so: by now it is in its `finally`.
    for _ in range(3):
        actorrt.cancel(ref)
    await note.let_go.remote()
    await note.wait_for.remote("closed")
    with pytest.raises(exceptions.TaskCancelledError):
        await ref


async def test_who_is_in_its_finally_is_left_in_peace_by_the_end_of_its_caller(session: str, run_program: Any) -> None:
    if session == "local":
        pytest.skip("there are no processes in local mode")
    note = Note.options(name="note", namespace="order").remote()
    actor = actorrt.remote(Async).options(name="actor", namespace="order").remote()
    ran = await asyncio.to_thread(
        run_program,
        f"""
import actorrt, os
actorrt.init({actorrt.get_runtime_context().get_temp_dir()!r}, namespace="order")
note, actor = actorrt.get_actor("note"), actorrt.get_actor("actor")
ref = actor.run.remote(note)
actorrt.get(note.wait_for.remote("begun"))
actorrt.cancel(ref)
actorrt.get(note.wait_for.remote("met CancelledError"))
os._exit(0)
""",
    )
    assert ran.returncode == 0, ran.stderr
    await note.let_go.remote()
    await note.wait_for.remote("closed")
    del actor


@actorrt.remote
class Blocks:
    def block(self, note: Any) -> None:
        actorrt.get(note.stays.remote())

    async def loop_is_free(self) -> bool:
        return True


async def test_what_code_that_cannot_be_interrupted_waits_for_is_cancelled_all_the_same(session: str) -> None:
    if session == "local":
        pytest.skip("there are no processes in local mode")
    note = Note.options(num_cpus=0.1).remote()  # which that code does not hold up
    ref = Blocks.remote().block.remote(note)
    await note.wait_for.remote("child begun")
    actorrt.cancel(ref)
    await note.wait_for.remote("child ended")
    with pytest.raises(exceptions.TaskCancelledError):
        await ref
