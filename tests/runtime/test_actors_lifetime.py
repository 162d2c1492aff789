"""How actors end: with their last handle, by themselves, by `kill`, with their owner; and who has which name."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import actorrt
from actorrt import exceptions
from actorrt.runtime.base.loop_thread import LoopThread
from actorrt.runtime.base.process_watch import watch_pid
from actorrt.runtime.owner import current
from actorrt.runtime.owner.handles import client_of

pytestmark = pytest.mark.usefixtures("node")

# Later than any life of an actor: `where_is` answers it once the actor is dead.
NEVER = 10**9


@actorrt.remote
class Signal:
    def __init__(self) -> None:
        self.event = asyncio.Event()

    async def wait(self, value: Any = None) -> Any:
        await self.event.wait()
        return value

    async def send(self) -> None:
        self.event.set()


@actorrt.remote
class Coroutine:
    def __init__(self, *_: Any) -> None:
        self.kept: Any = None

    async def pid(self) -> int:
        return os.getpid()

    async def keep(self, value: Any) -> None:
        self.kept = value

    async def give(self) -> Any:
        return self.kept

    async def exit(self) -> None:
        actorrt.exit_actor()

    async def exit_after(self, signal: Any) -> None:
        await signal.wait.remote()
        actorrt.exit_actor()

    async def incarnation(self) -> bool:
        return actorrt.get_runtime_context().was_current_actor_reconstructed


@actorrt.remote
class Process:
    def __init__(self, *_: Any) -> None:
        self.kept: Any = None

    def pid(self) -> int:
        return os.getpid()

    def keep(self, value: Any) -> None:
        self.kept = value

    def give(self) -> Any:
        return self.kept

    def exit(self) -> None:
        actorrt.exit_actor()

    def incarnation(self) -> bool:
        return actorrt.get_runtime_context().was_current_actor_reconstructed


KINDS = pytest.mark.parametrize("cls", [Coroutine, Process])


def id_of(handle: Any) -> bytes:
    return client_of(handle).actor


def wait_for_death(actor: bytes) -> str:
    """Until its owner, this process, says that it is dead; and why."""
    runtime = current.runtime()
    return runtime.thread.call_sync(runtime.supervisor.where_is(actor, NEVER), 30).cause


def wait_for_end(pid: int) -> None:
    async def until_gone() -> None:
        await asyncio.wait_for(watch_pid(pid), 30)

    asyncio.run(until_gone())


# ---- handles


@KINDS
def test_an_actor_ends_with_its_last_handle(cls: Any) -> None:
    actor = cls.remote()
    pid = actorrt.get(actor.pid.remote())
    name = id_of(actor)
    del actor
    assert wait_for_death(name) in ("no process held a handle to it any more", "it has ended")
    if cls is Process:
        wait_for_end(pid)


def do_as_it_is_handed_over(work: Callable[[], object]) -> None:
    """Have `work` done in this thread as soon as it has next handed something over to the runtime's."""

    def look(frame: FrameType, event: str, _: Any) -> None:
        if event == "return" and frame.f_code is LoopThread.run_soon.__code__:
            sys.setprofile(None)
            work()

    sys.setprofile(look)


def test_an_actor_ends_with_its_last_handle_however_soon_the_runtime_looks_at_that() -> None:
    actor = Process.remote()
    name = id_of(actor)
    session = current.runtime()
    looked: list[bool] = []

    async def looks() -> None:
        looked.append(True)

    do_as_it_is_handed_over(lambda: session.thread.call_sync(looks()))
    del actor
    assert looked
    assert wait_for_death(name)


def test_a_handle_that_comes_just_as_the_last_one_goes_keeps_the_actor() -> None:
    @actorrt.remote
    class Maker:
        async def make(self) -> Any:
            self.made = Coroutine.remote()
            await self.made.pid.remote()
            return [self.made]

        async def leave_it(self) -> None:
            del self.made

    maker = Maker.remote()
    made = [maker.make.remote()]
    handles = actorrt.get(made[0])
    name = id_of(handles[0])
    come: list[Any] = []
    do_as_it_is_handed_over(lambda: come.extend(actorrt.get(made.pop())))
    handles.clear()
    assert id_of(come[0]) == name
    actorrt.get(maker.leave_it.remote())
    assert actorrt.get(come[0].pid.remote())


@KINDS
def test_what_was_called_before_the_last_handle_went_is_answered(cls: Any) -> None:
    actor, signal = cls.remote(), Signal.remote()
    name = id_of(actor)
    refs = [actor.keep.remote(i) for i in range(100)] + [actor.keep.remote(signal.wait.remote())]
    del actor
    signal.send.remote()
    assert actorrt.get(refs) == [None] * 101
    wait_for_death(name)


def test_a_handle_that_only_a_task_got_keeps_the_actor_as_long_as_the_task_runs() -> None:
    @actorrt.remote
    def use(handle: Any, times: int) -> list[int]:
        return [actorrt.get(handle.pid.remote()) for _ in range(times)]

    actor = Process.remote()
    name = id_of(actor)
    used = use.remote(actor, 3)
    del actor
    assert len(set(actorrt.get(used))) == 1
    wait_for_death(name)


def test_a_handle_that_another_actor_keeps_keeps_the_actor() -> None:
    keeper, actor = Coroutine.remote(), Coroutine.remote()
    name = id_of(actor)
    actorrt.get(keeper.keep.remote({"inside": actor}))
    del actor
    # It comes back, whoever owns it, and works.
    back = actorrt.get(keeper.give.remote())["inside"]
    assert actorrt.get(back.pid.remote()) > 0
    del back
    back = actorrt.get(keeper.give.remote())["inside"]
    assert actorrt.get(back.pid.remote()) > 0
    del back
    actorrt.get(keeper.keep.remote(None))
    wait_for_death(name)


def test_a_handle_inside_a_put_keeps_the_actor() -> None:
    actor = Coroutine.remote()
    name = id_of(actor)
    held = actorrt.put([actor])
    del actor
    assert actorrt.get(actorrt.get(held)[0].pid.remote()) > 0
    del held
    wait_for_death(name)


def test_a_handle_inside_a_result_that_nobody_looks_at_keeps_the_actor_as_long_as_the_ref() -> None:
    @actorrt.remote
    class Maker:
        async def make(self) -> Any:
            self.made = Coroutine.remote()
            return [self.made]

        async def forget(self) -> None:
            del self.made

    maker = Maker.remote()
    ref = maker.make.remote()
    actorrt.wait([ref])
    actorrt.get(maker.forget.remote())
    assert actorrt.get(actorrt.get(ref)[0].pid.remote()) > 0
    # Its owner is the worker: a handle that was there alone is unknown to it once it is gone.
    actor = actorrt.get(ref)[0]
    name = id_of(actor)
    del ref, actor
    assert where_is_elsewhere(name)


def where_is_elsewhere(actor: bytes) -> str:
    """As wait_for_death, of an actor that another process owns."""
    from actorrt.wire.messages import WhereIs

    runtime = current.runtime()

    async def ask() -> str:
        link = await runtime.peers.link_to(actor[:8])
        return (await link.ask(WhereIs(actor, NEVER))).cause

    return runtime.thread.call_sync(ask(), 30)


def test_an_actor_that_is_dropped_while_it_starts_is_made_and_ended() -> None:
    @actorrt.remote
    class Slow:
        def __init__(self, started: Any, signal: Any, witness: Any) -> None:
            actorrt.get(started.send.remote())
            actorrt.get(signal.wait.remote())
            actorrt.get(witness.keep.remote("made"))

        def work(self) -> None: ...

    started, signal, witness = Signal.remote(), Signal.remote(), Coroutine.remote()
    slow = Slow.remote(started, signal, witness)
    name = id_of(slow)
    actorrt.get(started.wait.remote())
    del slow
    actorrt.get(signal.send.remote())
    wait_for_death(name)
    assert actorrt.get(witness.give.remote()) == "made"


@KINDS
def test_an_actor_that_is_dropped_before_its_arguments_are_there_is_never_made(cls: Any) -> None:
    signal = Signal.remote()
    actor = cls.remote(signal.wait.remote())
    name = id_of(actor)
    del actor
    assert wait_for_death(name) == "it has ended"
    actorrt.get(signal.send.remote())
    assert name not in current.runtime().supervisor.records


def test_many_actors_come_and_go() -> None:
    for _ in range(3):
        actors = [Coroutine.remote() for _ in range(200)]
        actorrt.get([actor.pid.remote() for actor in actors])
        names = [id_of(actor) for actor in actors]
        del actors
        for name in names:
            wait_for_death(name)
    assert not [name for name in names if name in current.runtime().supervisor.records]


# ---- ends of their own


def test_actors_of_a_kind_have_one_set_of_traits_however_their_handles_came_here() -> None:
    first, second, other = Coroutine.remote(), Coroutine.remote(), Coroutine.options(max_task_retries=3).remote()
    back = actorrt.get(actorrt.put(second))

    def traits_of(handle: Any) -> Any:
        return client_of(handle).traits

    assert traits_of(first) is traits_of(second) is pickle.loads(pickle.dumps(traits_of(back)))
    assert traits_of(other) is not traits_of(first)
    assert traits_of(other).max_task_retries == 3


@KINDS
def test_who_exits_is_dead_for_its_callers(cls: Any) -> None:
    actor = cls.options(max_restarts=3).remote()
    with pytest.raises(exceptions.ActorDiedError, match="left by exit_actor") as caught:
        actorrt.get(actor.exit.remote())
    assert caught.value.may_have_run
    with pytest.raises(exceptions.ActorDiedError, match="left by exit_actor") as caught:
        actorrt.get(actor.pid.remote())
    assert not caught.value.may_have_run


def test_who_exits_takes_its_running_calls_along() -> None:
    @actorrt.remote
    class Two:
        def __init__(self) -> None:
            self.started = asyncio.Event()

        async def wait(self, witness: Any) -> None:
            try:
                self.started.set()
                await asyncio.Event().wait()
            finally:
                await witness.keep.remote("cleaned up")

        async def exit(self) -> None:
            await self.started.wait()
            actorrt.exit_actor()

    actor, witness = Two.remote(), Coroutine.remote()
    waiting = actor.wait.remote(witness)
    with pytest.raises(exceptions.ActorDiedError):
        actorrt.get(actor.exit.remote())
    with pytest.raises(exceptions.ActorDiedError) as caught:
        actorrt.get(waiting)
    assert caught.value.may_have_run
    assert actorrt.get(witness.give.remote()) == "cleaned up"


def test_exit_outside_of_an_actor_is_an_error() -> None:
    with pytest.raises(TypeError, match="code of an actor"):
        actorrt.exit_actor()


@KINDS
def test_terminate_ends_it_after_what_was_called_before(cls: Any) -> None:
    actor, signal = cls.remote(), Signal.remote()
    before = [actor.keep.remote(i) for i in range(50)]
    if cls is Coroutine:

        @actorrt.remote
        class Waits:
            async def wait(self, signal: Any) -> str:
                return await signal.wait.remote("waited")

        actor = Waits.remote()
        before = [actor.wait.remote(signal) for _ in range(3)]
    end = actor.__ray_terminate__.remote()
    signal.send.remote()
    assert len(actorrt.get(before)) == len(before)
    with pytest.raises(exceptions.ActorDiedError):
        actorrt.get(end)
    with pytest.raises(exceptions.ActorDiedError):
        actorrt.get(actor.__ray_ready__.remote())


def test_two_calls_that_are_to_end_an_actor_do_not_wait_for_each_other() -> None:
    signal = Signal.remote()
    actor = Coroutine.remote()
    # Both come in one frame, and begin before either of them runs.
    waiting = signal.wait.remote()
    ends = [actor.__ray_terminate__.remote() for _ in range(20)]
    signal.send.remote()
    actorrt.get(waiting)
    for end in ends:
        with pytest.raises(exceptions.ActorDiedError):
            actorrt.get(end, timeout=30)


def test_what_waits_behind_a_call_that_is_to_end_its_actor_is_refused() -> None:
    signal = Signal.remote()

    @actorrt.remote(max_concurrency=1)
    class OneAtATime:
        async def wait(self, signal: Any) -> str:
            return await signal.wait.remote("waited")

    actor = OneAtATime.remote()
    first, end, behind = actor.wait.remote(signal), actor.__ray_terminate__.remote(), actor.wait.remote(signal)
    signal.send.remote()
    assert actorrt.get(first, timeout=30) == "waited"
    with pytest.raises(exceptions.ActorDiedError):
        actorrt.get(end, timeout=30)
    with pytest.raises(exceptions.ActorDiedError) as caught:
        actorrt.get(behind, timeout=30)
    assert not caught.value.may_have_run


def test_an_actor_stays_if_the_call_that_was_to_end_it_is_cancelled_while_it_waits() -> None:
    signal = Signal.remote()

    @actorrt.remote
    class Waits:
        async def wait(self, signal: Any) -> str:
            return await signal.wait.remote("waited")

        async def number(self) -> int:
            return 7

    actor = Waits.remote()
    waiting = actor.wait.remote(signal)
    assert actorrt.get(actor.number.remote()) == 7
    end = actor.__ray_terminate__.remote()
    actorrt.cancel(end)
    with pytest.raises(exceptions.TaskCancelledError):
        actorrt.get(end)
    signal.send.remote()
    assert actorrt.get(waiting) == "waited"
    assert actorrt.get(actor.number.remote()) == 7


def test_tasks_of_a_constructor_that_fails_end_with_it() -> None:
    signal = Signal.remote()

    @actorrt.remote
    class Fails:
        def __init__(self, signal: Any) -> None:
            self.task = asyncio.get_running_loop().create_task(self.goes_on(signal))
            raise ValueError("not today")

        async def goes_on(self, signal: Any) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await signal.send.remote()

        async def number(self) -> int:
            return 7

    actor = Fails.remote(signal)
    with pytest.raises(exceptions.ActorError):
        actorrt.get(actor.number.remote())
    actorrt.get(signal.wait.remote(), timeout=30)


# ---- kill


@KINDS
def test_a_killed_actor_takes_no_further_call(cls: Any) -> None:
    for _ in range(5):
        actor = cls.remote()
        actorrt.get(actor.pid.remote())
        actorrt.kill(actor)
        with pytest.raises(exceptions.ActorDiedError, match=r"killed by actorrt\.kill"):
            actorrt.get(actor.pid.remote())


@KINDS
def test_a_killed_actor_drops_what_it_was_doing(cls: Any) -> None:
    @actorrt.remote
    class Sync:
        def wait(self, started: Any) -> None:
            actorrt.get(started.send.remote())
            threading.Event().wait()

    @actorrt.remote
    class Async:
        async def wait(self, started: Any) -> None:
            await started.send.remote()
            await asyncio.Event().wait()

    actor, started = (Sync if cls is Process else Async).remote(), Signal.remote()
    waiting = actor.wait.remote(started)
    actorrt.get(started.wait.remote())
    actorrt.kill(actor)
    with pytest.raises(exceptions.ActorDiedError, match=r"killed by actorrt\.kill"):
        actorrt.get(waiting)


@KINDS
def test_an_actor_is_killed_before_its_arguments_are_there(cls: Any) -> None:
    signal = Signal.remote()
    actor = cls.remote(signal.wait.remote())
    call = actor.pid.remote()
    actorrt.kill(actor)
    with pytest.raises(exceptions.ActorDiedError, match=r"killed by actorrt\.kill"):
        actorrt.get(call)
    actorrt.get(signal.send.remote())


@KINDS
def test_a_kill_that_allows_it_lets_the_actor_come_back_without_its_state(cls: Any) -> None:
    actor = cls.options(max_restarts=1).remote()
    actorrt.get(actor.keep.remote("state"))
    assert actorrt.get(actor.incarnation.remote()) is False
    actorrt.kill(actor, no_restart=False)
    assert actorrt.get(actor.give.remote()) is None
    assert actorrt.get(actor.incarnation.remote()) is True
    actorrt.kill(actor, no_restart=False)
    with pytest.raises(exceptions.ActorDiedError):
        actorrt.get(actor.give.remote())


@KINDS
def test_every_kill_counts_also_one_that_comes_before_the_actor_is_back(cls: Any) -> None:
    actor = cls.options(max_restarts=2).remote()
    actorrt.get(actor.keep.remote("state"))
    for _ in range(3):
        actorrt.kill(actor, no_restart=False)
    with pytest.raises(exceptions.ActorDiedError, match=r"actorrt\.kill"):
        actorrt.get(actor.give.remote())
    others = cls.options(max_restarts=3).remote()
    actorrt.get(others.keep.remote("state"))
    for _ in range(3):
        actorrt.kill(others, no_restart=False)
    assert actorrt.get(others.give.remote()) is None


@KINDS
def test_who_borrowed_a_handle_finds_the_actor_after_its_restart(cls: Any) -> None:
    @actorrt.remote
    class Borrower:
        def __init__(self, handle: Any) -> None:
            self.handle = handle

        async def ask(self) -> Any:
            return await self.handle.incarnation.remote()

        async def kill(self) -> None:
            await asyncio.to_thread(actorrt.kill, self.handle)

        async def kill_and_ask(self) -> Any:
            await asyncio.to_thread(actorrt.kill, self.handle, no_restart=False)
            return await self.handle.incarnation.remote()

    # What was on its way to the old one is repeated.
    actor = cls.options(max_restarts=2, max_task_retries=1).remote()
    borrower = Borrower.options(isolated=True).remote(actor)
    assert actorrt.get(borrower.ask.remote()) is False
    actorrt.kill(actor, no_restart=False)
    assert actorrt.get(borrower.ask.remote()) is True
    assert actorrt.get(borrower.kill_and_ask.remote()) is True
    assert actorrt.get(actor.incarnation.remote()) is True
    actorrt.get(borrower.kill.remote())
    for call in (borrower.ask.remote(), actor.incarnation.remote()):
        with pytest.raises(exceptions.ActorDiedError):
            actorrt.get(call)


@pytest.mark.parametrize("how", ["kill", "drop", "exit", "terminate"])
@pytest.mark.parametrize("isolated", [False, True])
def test_what_an_actor_has_begun_in_the_background_ends_with_it(how: str, isolated: bool, tmp_path: Path) -> None:
    @actorrt.remote
    class Background:
        async def begin(self, path: str) -> None:
            self.task = asyncio.create_task(self.work(path))
            await asyncio.sleep(0)

        async def work(self, path: str) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                Path(path).write_text("ended", encoding="utf-8")

        async def exit(self) -> None:
            actorrt.exit_actor()

    if isolated and how == "kill":
        pytest.skip("a process that is killed runs nothing any more")
    ended = tmp_path / "ended"
    other = Background.remote()
    actorrt.get(other.begin.remote(str(tmp_path / "other")))
    actor = Background.options(isolated=isolated).remote()
    actorrt.get(actor.begin.remote(str(ended)))
    if how == "kill":
        actorrt.kill(actor)
    elif how != "drop":
        with contextlib.suppress(exceptions.ActorDiedError):
            actorrt.get(actor.exit.remote() if how == "exit" else actor.__ray_terminate__.remote())
    del actor
    while not ended.exists():
        threading.Event().wait(0.01)
    # Its neighbour's goes on.
    assert not (tmp_path / "other").exists()


@KINDS
@pytest.mark.parametrize("how", ["drop", "exit", "terminate"])
def test_a_process_that_its_actor_leaves_in_order_ends_as_a_program_does(cls: Any, how: str, tmp_path: Path) -> None:
    @actorrt.remote
    class Writes(cls.__wrapped__):  # type: ignore[misc,name-defined]
        def open(self, path: str, said: str) -> int:
            atexit.register(Path(said).write_text, "said at the end", encoding="utf-8")
            self.kept = open(path, "w", encoding="utf-8")  # noqa: SIM115  it is never closed
            self.kept.write("buffered")
            return os.getpid()

    actor = Writes.options(isolated=True).remote()
    pid = actorrt.get(actor.open.remote(str(tmp_path / "file"), str(tmp_path / "said")))
    if how != "drop":
        with contextlib.suppress(exceptions.ActorDiedError):
            actorrt.get(actor.exit.remote() if how == "exit" else actor.__ray_terminate__.remote())
    del actor
    wait_for_end(pid)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "buffered"
    assert (tmp_path / "said").read_text(encoding="utf-8") == "said at the end"


# ---- names


def test_a_name_is_one_actors_in_its_namespace_until_that_is_dead() -> None:
    one = Coroutine.options(name="one").remote()
    other = Coroutine.options(name="one", namespace="elsewhere").remote()
    assert actorrt.get_actor("one") == one
    assert actorrt.get_actor("one", namespace="elsewhere") == other != one
    with pytest.raises(exceptions.ActorAlreadyExistsError, match="'one'"):
        Coroutine.options(name="one").remote()
    with pytest.raises(ValueError, match="no actor named 'two'"):
        actorrt.get_actor("two")
    actorrt.kill(one)
    with pytest.raises(ValueError, match="no actor named 'one'"):
        actorrt.get_actor("one")
    again = Coroutine.options(name="one").remote()
    assert actorrt.get_actor("one") == again
    name = id_of(again)
    del again
    wait_for_death(name)
    with pytest.raises(ValueError, match="no actor named 'one'"):
        actorrt.get_actor("one")
    assert actorrt.get(other.pid.remote()) > 0


@pytest.mark.parametrize("owned_by_a_worker", [False, True])
def test_a_name_is_free_when_the_kill_of_a_borrower_returns(owned_by_a_worker: bool) -> None:
    @actorrt.remote
    class Owner:
        def __init__(self) -> None:
            self.actor: Any = None

        def make(self) -> Any:
            self.actor = Coroutine.options(name="borrowed").remote()
            return self.actor

        def end(self, actors: list[Any]) -> None:
            actorrt.kill(actors[0])
            # At once its own.
            Coroutine.options(name="borrowed").remote()

    owner = Owner.remote()
    for _ in range(20):
        if owned_by_a_worker:
            actorrt.kill(actorrt.get(owner.make.remote()))
            actor = Coroutine.options(name="borrowed").remote()
            name = id_of(actor)
            del actor
            wait_for_death(name)
        else:
            actor = Coroutine.options(name="borrowed").remote()
            actorrt.get(owner.end.remote([actor]))
            with contextlib.suppress(ValueError):
                actorrt.kill(actorrt.get_actor("borrowed"))


def test_an_actor_that_is_killed_while_it_waits_for_a_worker_leaves_its_place_to_others() -> None:
    @actorrt.remote(num_cpus=2)
    class Whole:
        def pid(self) -> int:
            return os.getpid()

    first = Whole.remote()
    actorrt.get(first.pid.remote())
    waiting = [Whole.remote() for _ in range(3)]
    calls = [actor.pid.remote() for actor in waiting]
    last = Whole.remote()
    for actor in waiting:
        actorrt.kill(actor)
    for call in calls:
        with pytest.raises(exceptions.ActorDiedError, match="killed"):
            actorrt.get(call)
    actorrt.kill(first)
    assert actorrt.get(last.pid.remote()) > 0
    actorrt.kill(last)
    deadline = time.monotonic() + 10
    while actorrt.available_resources()["CPU"] != 2:
        assert time.monotonic() < deadline, actorrt.available_resources()


def test_a_named_actor_is_found_before_it_runs_and_by_others() -> None:
    @actorrt.remote
    def found(name: str) -> int:
        return actorrt.get(actorrt.get_actor(name).pid.remote())

    @actorrt.remote
    class Slow:
        def __init__(self, signal: Any) -> None:
            actorrt.get(signal.wait.remote())

        def pid(self) -> int:
            return os.getpid()

    signal = Signal.remote()
    slow = Slow.options(name="slow").remote(signal)
    seen = found.remote("slow")
    actorrt.get(signal.send.remote())
    assert actorrt.get(seen) == actorrt.get(slow.pid.remote())


def test_whoever_asks_for_a_name_at_once_gets_the_same_actor() -> None:
    together = threading.Barrier(8)

    def ask(number: int) -> Any:
        together.wait()
        return Coroutine.options(name="shared", get_if_exists=True).remote(number)

    for _ in range(5):
        with ThreadPoolExecutor(8) as threads:
            handles = list(threads.map(ask, range(8)))
        assert len(set(handles)) == 1
        assert len(set(actorrt.get([handle.pid.remote() for handle in handles]))) == 1
        name = id_of(handles[0])
        del handles
        wait_for_death(name)


@KINDS
def test_a_detached_actor_lives_without_a_handle(cls: Any) -> None:
    actor = cls.options(name="apart", lifetime="detached").remote()
    actorrt.get(actor.keep.remote("kept"))
    with pytest.raises(exceptions.ActorAlreadyExistsError):
        cls.options(name="apart", lifetime="detached").remote()
    assert cls.options(name="apart", lifetime="detached", get_if_exists=True).remote() == actor
    del actor
    actor = actorrt.get_actor("apart")
    assert actorrt.get(actor.give.remote()) == "kept"
    actorrt.kill(actor)
    with pytest.raises(exceptions.ActorDiedError):
        actorrt.get(actor.give.remote())


def test_a_detached_actor_may_take_refs_that_its_maker_drops() -> None:
    @actorrt.remote
    class Apart:
        def __init__(self, first: str, nested: list[Any]) -> None:
            self.values = [first, *actorrt.get(nested)]

        def all(self) -> list[str]:
            return self.values

    signal = Signal.remote()
    actor = Apart.options(lifetime="detached", name="args").remote(
        actorrt.put("first"), [actorrt.put("nested"), signal.wait.remote("late")]
    )
    signal.send.remote()
    assert actorrt.get(actor.all.remote()) == ["first", "nested", "late"]
    actorrt.kill(actor)


PROGRAM = """
import actorrt, sys
@actorrt.remote
class Counter:
    def __init__(self): self.n = 0
    async def add(self): self.n += 1; return self.n
@actorrt.remote
class Alone:
    def __init__(self): self.n = 0
    def add(self): self.n += 1; return self.n
@actorrt.remote
class Maker:
    async def make(self):
        inner = Alone.options(name="detached Inner", lifetime="detached").remote()
        return await inner.add.remote()
with actorrt.init(sys.argv[1], namespace="programs"):
    actorrt.get(Maker.options(name="detached Maker", lifetime="detached").remote().make.remote())
    for cls in (Counter, Alone):
        detached = cls.options(name=f"detached {cls.__name__}", lifetime="detached").remote()
        attached = cls.options(name=f"attached {cls.__name__}").remote()
        actorrt.get([detached.add.remote(), attached.add.remote()])
"""


def test_a_detached_actor_survives_its_program_and_others_end_with_it(
    run_program: Callable[..., Any], tmp_path: Path
) -> None:
    address = current.runtime().session
    ran = run_program(PROGRAM, address)
    assert ran.returncode == 0, ran.stderr
    actorrt.kill(actorrt.get_actor("detached Maker", namespace="programs"))
    # What a detached actor has made is as detached as itself.
    inner = actorrt.get_actor("detached Inner", namespace="programs")
    assert actorrt.get(inner.add.remote()) == 2
    actorrt.kill(inner)
    for cls in ("Counter", "Alone"):
        detached = actorrt.get_actor(f"detached {cls}", namespace="programs")
        assert actorrt.get(detached.add.remote()) == 2
        with pytest.raises(ValueError, match="no actor named"):
            actorrt.get_actor(f"attached {cls}", namespace="programs")
        actorrt.kill(detached)
