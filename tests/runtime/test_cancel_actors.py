"""Cancelling calls to actors: wherever the call is, and down the tree of what it has called."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import warnings
from typing import Any

import pytest

import actorrt
from actorrt import exceptions

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
        while what not in self.told:
            self.changed.clear()
            await self.changed.wait()
        return self.told

    async def all(self) -> list[Any]:
        return self.told


def until_cancelled(note: Any) -> str:
    actorrt.get(note.tell.remote("started"))
    while not actorrt.get_runtime_context().is_canceled():
        threading.Event().wait(0.001)
    return str(actorrt.get(note.tell.remote("saw the flag")))


@actorrt.remote
class Async:
    def __init__(self) -> None:
        self.ran: list[Any] = []

    async def wait(self, note: Any, name: str = "call") -> None:
        try:
            await note.tell.remote(f"{name} started")
            await asyncio.Event().wait()
        finally:
            await note.tell.remote(f"{name} closed")

    async def call(self, other: Any, note: Any) -> None:
        await note.tell.remote("parent started")
        await other.wait.remote(note, "child")

    async def raises(self, note: Any) -> None:
        try:
            await note.tell.remote("started")
            await asyncio.Event().wait()
        finally:
            raise ValueError("in the end")

    async def cancels_itself(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    async def run(self, value: Any) -> Any:
        self.ran.append(value)
        return value

    async def yields(self, value: Any) -> Any:
        self.ran.append(value)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return value

    async def all(self) -> list[Any]:
        return self.ran

    @actorrt.method(thread=True)
    def in_thread(self, note: Any) -> str:
        return until_cancelled(note)


@actorrt.remote
class Sync:
    def __init__(self) -> None:
        self.ran: list[Any] = []

    def until_cancelled(self, note: Any) -> str:
        return until_cancelled(note)

    def run(self, value: Any) -> Any:
        self.ran.append(value)
        return value

    def all(self) -> list[Any]:
        return self.ran


def gone(ref: Any) -> bool:
    with pytest.raises(exceptions.TaskCancelledError):
        actorrt.get(ref)
    return True


def test_a_running_coroutine_ends_and_its_finally_runs() -> None:
    actor, note = Async.remote(), Note.remote()
    ref = actor.wait.remote(note)
    actorrt.get(note.wait_for.remote("call started"))
    actorrt.cancel(ref)
    assert gone(ref)
    assert "call closed" in actorrt.get(note.all.remote())
    assert actorrt.get(actor.run.remote(1)) == 1


def test_a_cancelled_parent_cancels_what_it_called_on_other_processes() -> None:
    actor, other, note = Async.remote(), Async.options(isolated=True).remote(), Note.remote()
    ref = actor.call.remote(other, note)
    actorrt.get(note.wait_for.remote("child started"))
    actorrt.cancel(ref)
    assert gone(ref)
    assert "child closed" in actorrt.get(note.wait_for.remote("child closed"))


def test_children_are_left_alone_where_that_was_asked_for() -> None:
    actor, other, note = Async.remote(), Async.options(isolated=True).remote(), Note.remote()
    ref = actor.call.remote(other, note)
    actorrt.get(note.wait_for.remote("child started"))
    actorrt.cancel(ref, recursive=False)
    assert gone(ref)
    assert "child closed" not in actorrt.get(note.all.remote())


def test_a_call_that_waits_for_its_turn_never_runs() -> None:
    note = Note.remote()
    actor = Async.options(max_concurrency=1).remote()
    first = actor.wait.remote(note)
    actorrt.get(note.wait_for.remote("call started"))
    waiting = [actor.run.remote(i) for i in range(10)]
    for ref in waiting[::2]:
        actorrt.cancel(ref)
    assert all(gone(ref) for ref in waiting[::2])
    actorrt.cancel(first)
    assert gone(first)
    assert actorrt.get(waiting[1::2]) == [1, 3, 5, 7, 9]
    assert actorrt.get(actor.all.remote()) == [1, 3, 5, 7, 9]


@pytest.mark.parametrize("cls", [Async, Sync])
def test_a_call_whose_arguments_are_not_there_never_runs(cls: Any) -> None:
    actor, note = cls.remote(), Note.remote()
    never = Async.remote().wait.remote(note)
    ref = actor.run.remote(never)
    actorrt.cancel(ref)
    assert gone(ref)
    assert actorrt.get(actor.run.remote("next")) == "next"
    assert actorrt.get(actor.all.remote()) == ["next"]
    # What it waited for goes on.
    assert not never.done()
    actorrt.cancel(never)


def test_calls_of_an_actor_that_is_not_made_yet_never_run() -> None:
    note = Note.remote()
    blocked = Async.remote().wait.remote(note)

    @actorrt.remote
    class Waits:
        def __init__(self, value: Any) -> None: ...
        async def run(self) -> None: ...

    waits = Waits.remote(blocked)
    refs = [waits.run.remote() for _ in range(3)]
    for ref in refs:
        actorrt.cancel(ref)
    assert all(gone(ref) for ref in refs)
    actorrt.cancel(blocked)


def test_a_sync_call_gets_a_flag_and_what_waits_behind_it_never_runs() -> None:
    actor, note = Sync.remote(), Note.remote()
    running, waiting = actor.until_cancelled.remote(note), actor.run.remote("waiting")
    actorrt.get(note.wait_for.remote("started"))
    actorrt.cancel(waiting)
    assert gone(waiting)
    actorrt.cancel(running)
    assert gone(running)
    assert actorrt.get(actor.all.remote()) == []


def test_a_method_in_a_thread_gets_a_flag_and_goes_on_to_its_end() -> None:
    actor, note = Async.remote(), Note.remote()
    ref = actor.in_thread.remote(note)
    actorrt.get(note.wait_for.remote("started"))
    actorrt.cancel(ref)
    assert gone(ref)
    assert "saw the flag" in actorrt.get(note.all.remote())


def test_an_error_that_comes_of_a_cancellation_is_seen() -> None:
    actor, note = Async.remote(), Note.remote()
    ref = actor.raises.remote(note)
    actorrt.get(note.wait_for.remote("started"))
    actorrt.cancel(ref)
    with pytest.raises(ValueError, match="in the end"):
        actorrt.get(ref)


@actorrt.remote
class Child:
    async def work(self, note: Any) -> None:
        try:
            await note.tell.remote("child started")
            await asyncio.Event().wait()
        finally:
            await note.tell.remote("child ended")


@actorrt.remote
class Swallows:
    """Methods that call a child, and answer their cancellation with a value."""

    async def by_except(self, child: Any, note: Any) -> str:
        try:
            await child.work.remote(note)
        except (asyncio.CancelledError, exceptions.TaskCancelledError):
            return "value"
        return "never"

    async def by_finally(self, child: Any, note: Any) -> str:
        try:
            await child.work.remote(note)
        finally:
            return "value"  # noqa: B012  what is tested

    async def by_going_on(self, child: Any, note: Any) -> str:
        """A child that nobody waits for, and an await after the one that was cancelled."""
        ref = child.work.remote(note)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        with contextlib.suppress(exceptions.TaskCancelledError):
            await ref
        return "value"

    @actorrt.method(num_returns=2)
    async def several(self, child: Any, note: Any) -> tuple[str, str]:
        return "a", await self.by_except(child, note)

    async def stream(self, child: Any, note: Any) -> Any:
        yield 1
        yield await self.by_except(child, note)

    @actorrt.method(thread=True)
    def in_thread(self, child: Any, note: Any) -> str:
        return swallow(child, note)

    def on_its_loop(self, child: Any, note: Any) -> str:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return swallow(child, note)


def swallow(child: Any, note: Any) -> str:
    ref = child.work.remote(note)
    while not actorrt.get_runtime_context().is_canceled():
        threading.Event().wait(0.001)
    with contextlib.suppress(exceptions.TaskCancelledError):
        actorrt.get(ref)
    return "value"


@actorrt.remote
class PlainSwallows:
    def plain(self, child: Any, note: Any) -> str:
        return swallow(child, note)


@pytest.mark.parametrize(
    "method", ["by_except", "by_finally", "by_going_on", "several", "stream", "in_thread", "on_its_loop", "plain"]
)
def test_code_that_answers_its_cancellation_with_a_value_is_cancelled_all_the_same(method: str) -> None:
    # Isolated: one of the methods holds up its loop.
    cls = PlainSwallows if method == "plain" else Swallows.options(isolated=True)
    actor, child, note = cls.remote(), Child.remote(), Note.remote()
    call = getattr(actor, method)
    ref = (call.options(num_returns="streaming") if method == "stream" else call).remote(child, note)
    actorrt.get(note.wait_for.remote("child started"))
    refs = ref if isinstance(ref, list) else [ref]
    actorrt.cancel(refs[0])
    if method == "stream":
        assert actorrt.get(next(ref)) == 1
        with pytest.raises(exceptions.TaskCancelledError):
            actorrt.get(list(ref))
    else:
        assert all(gone(one) for one in refs)
    assert "child ended" in actorrt.get(note.wait_for.remote("child ended"))


@actorrt.remote
def plain_task(child: Any, note: Any) -> str:
    try:
        actorrt.get(child.work.remote(note))
    except (KeyboardInterrupt, exceptions.TaskCancelledError):
        return "value"
    return "never"


@actorrt.remote
async def async_task(child: Any, note: Any) -> str:
    try:
        await child.work.remote(note)
    except (asyncio.CancelledError, exceptions.TaskCancelledError):
        return "value"
    return "never"


@pytest.mark.parametrize("kind", [plain_task, async_task, async_task.options(num_cpus=1)])
def test_a_task_that_answers_its_cancellation_with_a_value_is_cancelled_all_the_same(kind: Any) -> None:
    child, note = Child.remote(), Note.remote()
    ref = kind.remote(child, note)
    actorrt.get(note.wait_for.remote("child started"))
    actorrt.cancel(ref)
    assert gone(ref)
    assert "child ended" in actorrt.get(note.wait_for.remote("child ended"))


def test_a_coroutine_that_cancels_itself_fails() -> None:
    actor = Async.remote()
    with pytest.raises(exceptions.TaskError, match="CancelledError"):
        actorrt.get(actor.cancels_itself.remote())
    assert actorrt.get(actor.run.remote(1)) == 1


def test_a_call_may_cancel_one_that_came_with_it() -> None:
    @actorrt.remote
    class Latest:
        """Each call replaces the one before."""

        def __init__(self) -> None:
            self.task: asyncio.Task[Any] | None = None

        async def ask(self, value: int) -> int:
            if self.task is not None:
                self.task.cancel()
            self.task = asyncio.current_task()
            await asyncio.sleep(0.001)
            return value

    actor = Latest.remote()
    replaced = 0
    for _ in range(30):
        refs = [actor.ask.remote(i) for i in range(10)]
        assert actorrt.get(refs[-1]) == 9
        for i, ref in enumerate(refs[:-1]):
            try:
                # It may have ended before the next one came.
                assert actorrt.get(ref) == i
            except exceptions.TaskError as error:
                replaced += isinstance(error.cause, asyncio.CancelledError)
    assert replaced


def test_force_is_for_tasks() -> None:
    ref = Async.remote().wait.remote(Note.remote())
    with pytest.raises(ValueError, match=r"actorrt\.kill"):
        actorrt.cancel(ref, force=True)
    actorrt.cancel(ref)
    with pytest.raises(TypeError, match="takes a ref or a generator, not int"):
        actorrt.cancel(1)  # type: ignore[arg-type]


def test_cancelling_what_is_done_changes_nothing() -> None:
    ref = Async.remote().run.remote(1)
    assert actorrt.get(ref) == 1
    actorrt.cancel(ref)
    assert actorrt.get(ref) == 1


@pytest.mark.parametrize(("cls", "method"), [(Async, "run"), (Async, "yields"), (Sync, "run")])
def test_each_call_has_one_outcome_whenever_its_cancellation_comes(cls: Any, method: str) -> None:
    order = random.Random(7)
    actor = cls.options(max_concurrency=2).remote() if cls is Async else cls.remote()
    outcomes: list[Any] = []
    for _ in range(20):
        refs = [getattr(actor, method).remote(i) for i in range(50)]
        for ref in order.sample(refs, 25):
            actorrt.cancel(ref)
        for i, ref in enumerate(refs):
            try:
                assert actorrt.get(ref) == i
                outcomes.append("value")
            except exceptions.TaskCancelledError:
                outcomes.append("cancelled")
    assert len(outcomes) == 1000
    assert outcomes.count("value") >= 500
    # All places are free again.
    assert actorrt.get([actor.run.remote(i) for i in range(5)]) == list(range(5))


def test_a_caller_that_goes_away_cancels_what_it_called(run_program: Any) -> None:
    note = Note.options(name="note", namespace="callers").remote()
    actor = Async.options(name="actor", namespace="callers").remote()
    ran = run_program(
        f"""
import actorrt, os
actorrt.init({actorrt.get_runtime_context().get_temp_dir()!r}, namespace="callers")
note, actor = actorrt.get_actor("note"), actorrt.get_actor("actor")
ref = actor.wait.remote(note, "orphan")
actorrt.get(note.wait_for.remote("orphan started"))
os._exit(0)
"""
    )
    assert ran.returncode == 0, ran.stderr
    assert "orphan closed" in actorrt.get(note.wait_for.remote("orphan closed"))
    assert actorrt.get(actor.run.remote(1)) == 1


def test_many_threads_cancel_at_once() -> None:
    actor, note = Async.remote(), Note.remote()
    refs = [actor.wait.remote(note, str(i)) for i in range(40)]
    together = threading.Barrier(4)

    def cancel(some: list[Any]) -> None:
        together.wait()
        for ref in some:
            actorrt.cancel(ref)

    threads = [threading.Thread(target=cancel, args=(refs[i::4],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(gone(ref) for ref in refs)


@actorrt.remote
class Spawner:
    async def spawn(self, crowd: Any) -> None:
        while True:
            crowd.stay.remote()
            await asyncio.sleep(0)


@actorrt.remote(max_concurrency=1_000_000)
class Crowd:
    def __init__(self) -> None:
        self.here = 0
        self.changed = asyncio.Event()

    async def stay(self) -> None:
        self.here += 1
        self.changed.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.here -= 1
            self.changed.set()

    async def grows_to(self, count: int) -> None:
        while self.here < count:
            self.changed.clear()
            await self.changed.wait()

    async def is_gone(self) -> None:
        while self.here:
            self.changed.clear()
            await self.changed.wait()


def test_what_a_call_has_called_until_it_was_interrupted_is_cancelled_too() -> None:
    spawner = Spawner.remote()
    for _ in range(10):
        crowd = Crowd.remote()
        call = spawner.spawn.remote(crowd)
        actorrt.get(crowd.grows_to.remote(20))
        actorrt.cancel(call)
        with pytest.raises(exceptions.TaskCancelledError):
            actorrt.get(call)
        actorrt.get(crowd.is_gone.remote(), timeout=20)


@actorrt.remote(max_concurrency=1_000)
class Grower:
    async def grow(self, growers: list[Any], crowd: Any, depth: int) -> None:
        refs = [crowd.stay.remote()]
        if depth:
            refs += [other.grow.remote(growers, crowd, depth - 1) for other in growers]
        await asyncio.gather(*refs)


@pytest.mark.parametrize("isolated", [False, True])
def test_a_cancelled_tree_ends_to_its_last_leaf_however_far_it_has_grown(isolated: bool) -> None:
    # On one worker, and with a process each.
    growers = [Grower.options(isolated=isolated).remote() for _ in range(2)]
    dice = random.Random(7)
    for _ in range(6):
        crowd = Crowd.remote()
        call = growers[0].grow.remote(growers, crowd, 5)
        actorrt.get(crowd.grows_to.remote(dice.randrange(1, 63)))
        actorrt.cancel(call)
        with pytest.raises(exceptions.TaskCancelledError):
            actorrt.get(call)
        actorrt.get(crowd.is_gone.remote(), timeout=20)


@actorrt.remote
class Hears:
    async def swallow(self, note: Any) -> str:
        told: list[str] = []
        context = actorrt.get_runtime_context()
        context.on_cancel(lambda: told.append("replaced"))
        context.on_cancel(lambda: told.append("told"))
        await note.tell.remote("started")
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await note.tell.remote(tuple(told))
        return "value"


async def test_a_call_is_told_of_its_cancellation_whether_or_not_its_code_lets_it_pass() -> None:
    note: Any = Note.remote()
    ref = Hears.remote().swallow.remote(note)
    await note.wait_for.remote("started")
    actorrt.cancel(ref)
    with pytest.raises(exceptions.TaskCancelledError):
        await ref
    assert await note.wait_for.remote(("told",)) == ["started", ("told",)]
    # Outside of a call there is nothing that could be cancelled.
    actorrt.get_runtime_context().on_cancel(lambda: None)
