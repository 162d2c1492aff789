"""A TaskGroup is left only when its children have ended, wherever they ran; one that fails takes the others along."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import pytest

import actorrt
from actorrt import TaskGroup, exceptions

pytestmark = pytest.mark.usefixtures("node")


@actorrt.remote
class Note:
    def __init__(self) -> None:
        self.told: list[Any] = []
        self.changed = asyncio.Event()

    async def tell(self, what: Any) -> Any:
        self.told.append(what)
        self.changed.set()
        return what

    async def wait_for(self, what: Any) -> list[Any]:
        while self.told.count(what) == 0:
            self.changed.clear()
            await self.changed.wait()
        return self.told

    async def all(self) -> list[Any]:
        return self.told


@actorrt.remote
class Worker:
    async def wait(self, note: Any, name: str) -> None:
        try:
            await note.tell.remote(f"{name} started")
            await asyncio.Event().wait()
        finally:
            # Leaving the group waits for this too.
            await note.tell.remote(f"{name} closing")
            await note.tell.remote(f"{name} closed")

    async def fail(self, note: Any, after: list[str]) -> None:
        for what in after:
            await note.wait_for.remote(what)
        raise ValueError("one failed")

    async def give(self, value: Any) -> Any:
        return value


@actorrt.remote
async def async_task(note: Any, name: str) -> None:
    try:
        await note.tell.remote(f"{name} started")
        await asyncio.Event().wait()
    finally:
        await note.tell.remote(f"{name} closed")


@actorrt.remote
def sync_task(note: Any, name: str) -> None:
    try:
        actorrt.get(note.tell.remote(f"{name} started"))
        while True:
            time.sleep(0.01)
    finally:
        actorrt.get(note.tell.remote(f"{name} closed"))


STARTED = ["actor started", "isolated started", "async task started", "task started"]
CLOSED = ["actor closed", "isolated closed", "async task closed", "task closed"]


def start_all(group: TaskGroup, note: Any) -> list[Any]:
    """A child of each kind, each in another process."""
    return [
        group.start(Worker.remote().wait.remote(note, "actor")),
        group.start(Worker.options(isolated=True).remote().wait.remote(note, "isolated")),
        group.start(async_task.remote(note, "async task")),
        group.start(sync_task.remote(note, "task")),
    ]


async def all_closed(note: Any) -> bool:
    return set(CLOSED) <= set(await note.all.remote())


async def test_leaving_waits_for_all_children() -> None:
    note = Note.remote()
    async with TaskGroup() as group:
        refs = [group.start(note.tell.remote(i)) for i in range(50)]
    assert all(ref.done() for ref in refs)
    assert [ref.peek() for ref in refs] == list(range(50))
    async with TaskGroup():
        pass


async def test_a_child_that_fails_cancels_the_others_wherever_they_run() -> None:
    note = Note.remote()
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup() as group:
            refs = start_all(group, note)
            group.start(Worker.remote().fail.remote(note, STARTED))
            await asyncio.Event().wait()
    assert caught.group_contains(ValueError, match="one failed")
    assert len(caught.value.exceptions) == 1
    assert await all_closed(note)
    for ref in refs:
        with pytest.raises(exceptions.TaskCancelledError):
            ref.peek()
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def test_a_body_that_fails_cancels_the_children() -> None:
    note = Note.remote()
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup() as group:
            start_all(group, note)
            for what in STARTED:
                await note.wait_for.remote(what)
            raise KeyError("the body")
    assert [type(error) for error in caught.value.exceptions] == [KeyError]
    assert await all_closed(note)


async def test_a_cancelled_body_cancels_the_children_and_stays_cancelled() -> None:
    note = Note.remote()

    async def body() -> None:
        async with TaskGroup() as group:
            start_all(group, note)
            await asyncio.Event().wait()

    task = asyncio.create_task(body())
    for what in STARTED:
        await note.wait_for.remote(what)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await all_closed(note)


async def test_cancelled_while_it_waits_for_its_children() -> None:
    note = Note.remote()

    async def body() -> None:
        async with TaskGroup() as group:
            start_all(group, note)

    task = asyncio.create_task(body())
    for what in STARTED:
        await note.wait_for.remote(what)
    task.cancel()
    # Impatience does not help: what is below has to end.
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await all_closed(note)


async def test_a_timeout_around_a_group() -> None:
    note = Note.remote()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as timeout:
            async with TaskGroup() as group:
                start_all(group, note)
                for what in STARTED:
                    await note.wait_for.remote(what)
                timeout.reschedule(asyncio.get_running_loop().time())
    assert await all_closed(note)


async def test_every_error_is_there_and_cancellations_are_none() -> None:
    worker, note = Worker.remote(), Note.remote()
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup() as group:
            cancelled = group.start(worker.wait.remote(note, "x"))
            actorrt.cancel(cancelled)
            for _ in range(2):
                group.start(worker.fail.remote(note, []))
    assert 1 <= len(caught.value.exceptions) <= 2
    assert all(isinstance(error, ValueError) for error in caught.value.exceptions)


async def test_a_child_that_was_cancelled_elsewhere_fails_nobody() -> None:
    worker, note = Worker.remote(), Note.remote()
    async with TaskGroup() as group:
        one = group.start(worker.wait.remote(note, "one"))
        two = group.start(worker.give.remote(2))
        await note.wait_for.remote("one started")
        actorrt.cancel(one)
    assert two.peek() == 2


async def test_groups_nest_across_processes() -> None:
    @actorrt.remote
    class Parent:
        async def run(self, note: Any) -> None:
            async with TaskGroup() as group:
                group.start(Worker.options(isolated=True).remote().wait.remote(note, "grandchild"))
                group.start(async_task.remote(note, "grandchild's sister"))

    note = Note.remote()
    with pytest.raises(ExceptionGroup):
        async with TaskGroup() as group:
            group.start(Parent.remote().run.remote(note))
            group.start(Worker.remote().fail.remote(note, ["grandchild started", "grandchild's sister started"]))
    assert {"grandchild closed", "grandchild's sister closed"} <= set(await note.all.remote())


async def test_a_child_process_that_dies_cancels_the_others() -> None:
    @actorrt.remote(max_retries=0)
    def dies(note: Any) -> None:
        actorrt.get(note.wait_for.remote("async task started"))
        os._exit(7)

    note = Note.remote()
    with pytest.raises(ExceptionGroup) as caught:
        async with TaskGroup() as group:
            group.start(async_task.remote(note, "async task"))
            group.start(dies.remote(note))
    assert caught.group_contains(exceptions.WorkerCrashedError, match="exit code 7")
    assert "async task closed" in await note.all.remote()


async def test_what_is_started_too_late_is_cancelled() -> None:
    note = Note.remote()
    async with TaskGroup() as group:
        pass
    late = Worker.remote().wait.remote(note, "late")
    with pytest.raises(RuntimeError, match="not open"):
        group.start(late)
    with pytest.raises(exceptions.TaskCancelledError):
        await late
    with pytest.raises(RuntimeError, match="entered once"):
        async with group:
            pass
    with pytest.raises(TypeError, match="takes the ref of a call, not int"):
        group.start(1)  # type: ignore[arg-type]
