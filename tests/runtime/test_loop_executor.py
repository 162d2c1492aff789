"""A loop executor without a process around it: which thread does what, and in what order."""

from __future__ import annotations

import asyncio
import pickle
import sys
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest
import uvloop

from actorrt.config import Settings
from actorrt.core.outcome import ActorExit
from actorrt.runtime.links.running import running_call
from actorrt.runtime.owner.program import Program
from actorrt.runtime.owner.runtime import Runtime
from actorrt.runtime.worker.code import CodeStatistics
from actorrt.runtime.worker.executor import ExecutorStatistics
from actorrt.runtime.worker.loop_executor import LoopExecutor
from actorrt.types import ActorKey, FunctionKey, ProcessId
from actorrt.wire import codec
from actorrt.wire.messages import (
    CANCELLED,
    ActorCall,
    AnyMessage,
    Cancel,
    Define,
    Outcome,
    Reply,
    StartActor,
)

ACTOR, CLS = ActorKey(b"a" * 16), FunctionKey(b"k" * 16)
EMPTY = codec.dumps_call((), {}, 10_000)


class CountingLoop(uvloop.Loop):
    """The user's loop; how often others hand something over to it."""

    crossings = 0

    def call_soon_threadsafe(self, callback: Callable[..., Any], *args: Any, context: Any = None) -> asyncio.Handle:
        self.crossings += 1
        return super().call_soon_threadsafe(callback, *args, context=context)


class Caller:
    """A link to a caller, which notes what comes back."""

    peer = ProcessId(b"caller--")
    closed = False

    def __init__(self) -> None:
        self.inflight: dict[int, Any] = {}
        self.serving: dict[int, Any] = {}
        self.waiting: dict[int, Any] = {}
        self.answers: list[AnyMessage] = []

    def push(self, message: AnyMessage) -> None:
        self.answers.append(message)

    def flush(self) -> None: ...


class Child:
    """A call that the method has made."""

    done = False

    def __init__(self) -> None:
        self.cancelled: list[bool] = []

    def cancel(self, force: bool) -> None:
        self.cancelled.append(force)

    async def settled(self) -> None: ...


children: list[Child] = []
told: list[str] = []
# What `receives` has happen in the midst of its first step.
meanwhile: list[Callable[[], None]] = []


variable: ContextVar[str] = ContextVar("variable", default="unset")


class Sets:
    def __init__(self) -> None:
        told.append(variable.get())
        variable.set("set")
        told.append(variable.get())

    async def look(self) -> None:
        told.append(variable.get())


class SetsLater(Sets):
    async def __init__(self) -> None:  # type: ignore[misc]
        super().__init__()


class Actor:
    async def receives(self) -> None:
        meanwhile.pop()()

    async def leaves(self) -> None:
        raise ActorExit

    async def tells(self) -> None:
        told.append("ran")

    async def interrupts_itself(self) -> None:
        async def interrupt() -> None:
            raise KeyboardInterrupt

        await asyncio.gather(interrupt())

    async def exits_in_a_task(self) -> None:
        async def leave() -> None:
            sys.exit(3)

        self.task = asyncio.create_task(leave())

    async def exits_in_a_callback(self) -> None:
        asyncio.get_running_loop().call_soon(sys.exit, 3)

    async def interrupts_in_a_callback(self) -> None:
        def interrupt() -> None:
            raise KeyboardInterrupt

        asyncio.get_running_loop().call_soon(interrupt)

    async def waits(self) -> None:
        run = running_call.get()
        assert run is not None
        child = Child()
        children.append(child)
        run.add_child(child)
        told.append("begun")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            told.append("interrupted")
            raise
        finally:
            told.append(f"child cancelled {len(child.cancelled)} times")


class Bench:
    """The two threads of a worker, done in turns by the test."""

    def __init__(self) -> None:
        def make_program(runtime: Runtime) -> Program:
            return Program(LoopExecutor(runtime))

        settings = Settings.from_environment()
        self.runtime = Runtime(ProcessId(b"worker--"), "worker", "session", "0", settings, make_program)
        executor = self.runtime.program.runner
        assert isinstance(executor, LoopExecutor)
        self.executor = executor
        self.loop: Any = executor.loop
        self.link: Any = Caller()
        self.take([Define(CLS, pickle.dumps(Actor)), StartActor(1, ACTOR, CLS, EMPTY or b"")])
        self.turn()
        self.instance = executor.actors.instances[ACTOR]

    def take(self, messages: list[AnyMessage]) -> None:
        """A frame of the caller's."""
        self.runtime.dispatch.receive(self.link, messages)

    def turn(self, times: int = 5) -> None:
        """Let the user's loop turn."""
        for _ in range(times):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    def run(self, turns: int = 10) -> None:
        """Let the worker's main thread run for so many turns of its loop."""

        def count(left: int) -> None:
            if left:
                self.loop.call_soon(count, left - 1)
            else:
                self.loop.stop()

        count(turns)
        self.executor.run()

    def turn_of_the_runtime(self) -> int:
        """Let the runtime's loop turn; how often it was woken."""
        thread = self.runtime.thread
        woken = len(thread._inbox)
        for _ in range(3):
            thread.loop.call_soon(thread.loop.stop)
            thread.loop.run_forever()
        return woken

    def call(self, seq: int, method: str = "waits", actor: ActorKey = ACTOR) -> ActorCall:
        return ActorCall(seq, actor, method, EMPTY or b"")

    @property
    def outcomes(self) -> dict[int, Any]:
        return {
            answer.seq: answer.kind if isinstance(answer, Outcome) else "value"
            for answer in self.link.answers
            if isinstance(answer, Outcome | Reply)
        }


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(uvloop, "new_event_loop", CountingLoop)
    children.clear()
    told.clear()
    made = Bench()
    yield made
    made.executor.actors.end(made.instance)
    made.turn()
    made.loop.close()
    made.runtime.thread.loop.close()


def test_a_cancellation_crosses_to_the_users_thread_once_and_what_was_called_back_once(bench: Bench) -> None:
    bench.take([bench.call(2)])
    bench.turn()
    bench.turn_of_the_runtime()
    crossings = bench.loop.crossings
    bench.take([Cancel(2, False, True)])
    bench.turn()
    assert bench.loop.crossings == crossings + 1
    assert told == ["begun", "interrupted", "child cancelled 0 times"]
    assert bench.outcomes[2] == CANCELLED
    assert bench.turn_of_the_runtime() == 1
    assert [child.cancelled for child in children] == [[False]]


def test_a_frame_that_comes_while_another_is_taken_up_follows_it_without_a_wake_up(bench: Bench) -> None:
    crossings = bench.loop.crossings
    meanwhile.append(lambda: bench.take([bench.call(3)]))
    bench.take([ActorCall(2, ACTOR, "receives", EMPTY or b"")])
    bench.turn()
    assert (bench.outcomes[2], told) == ("value", ["begun"])
    assert bench.loop.crossings == crossings + 1
    # And one that comes later wakes the loop again.
    bench.take([Cancel(3, False, True)])
    bench.turn()
    assert bench.outcomes[3] == CANCELLED
    assert bench.loop.crossings == crossings + 2


def test_a_call_and_its_cancellation_in_one_frame_keep_their_order(bench: Bench) -> None:
    bench.take([bench.call(2), Cancel(2, False, True)])
    bench.turn()
    assert told == ["begun", "interrupted", "child cancelled 0 times"]
    assert bench.outcomes[2] == CANCELLED


def test_a_call_is_interrupted_once_however_often_it_is_cancelled(bench: Bench) -> None:
    bench.take([bench.call(2)])
    bench.turn()
    bench.take([Cancel(2, False, False), Cancel(2, False, True), Cancel(2, False, True)])
    bench.executor.link_lost(bench.link)
    bench.turn()
    bench.turn_of_the_runtime()
    assert told.count("interrupted") == 1
    # What it has called hears of it as soon as one of them wants that.
    assert children[0].cancelled
    assert not any(children[0].cancelled)


def test_what_was_called_is_left_alone_where_nobody_wants_it_cancelled(bench: Bench) -> None:
    bench.take([bench.call(2)])
    bench.turn()
    bench.take([Cancel(2, False, False)])
    bench.turn()
    bench.turn_of_the_runtime()
    assert told[1] == "interrupted"
    assert children[0].cancelled == []


def test_a_call_that_waits_for_its_turn_is_cancelled_and_never_runs(bench: Bench) -> None:
    bench.instance.limiter.limit = 1
    bench.take([bench.call(2), bench.call(3), bench.call(4)])
    bench.turn()
    bench.take([Cancel(3, False, True)])
    bench.turn()
    assert bench.outcomes == {1: "value", 3: CANCELLED}
    bench.take([Cancel(2, False, True)])
    bench.turn()
    assert told == ["begun", "interrupted", "child cancelled 0 times", "begun"]
    assert bench.outcomes == {1: "value", 2: CANCELLED, 3: CANCELLED}


def test_statistics_count_what_is_under_way(bench: Bench) -> None:
    bench.runtime.peers.links[bench.link.peer] = bench.link
    bench.instance.limiter.limit = 2
    code = CodeStatistics(defined=1, loaded=1, packed=0)
    assert bench.executor.statistics() == ExecutorStatistics(1, 0, 0, 0, code)
    bench.take([bench.call(seq) for seq in range(2, 7)])
    assert bench.executor.statistics() == ExecutorStatistics(1, 0, 0, 1, code)
    bench.turn()
    assert bench.executor.statistics() == ExecutorStatistics(1, 2, 3, 0, code)
    assert bench.executor.holds_up
    for seq in range(2, 7):
        bench.take([Cancel(seq, False, True)])
    bench.turn(10)
    assert bench.executor.statistics() == ExecutorStatistics(1, 0, 0, 0, code)
    assert not bench.executor.holds_up


def test_a_call_that_is_over_keeps_nothing_that_it_has_called(bench: Bench) -> None:
    bench.take([bench.call(2), Cancel(2, False, True)])
    bench.turn()
    bench.turn_of_the_runtime()
    child = weakref.ref(children.pop())
    assert child() is None
    assert bench.link.serving == {}


@pytest.mark.parametrize("cls", [Sets, SetsLater])
def test_what_a_constructor_sets_in_its_context_is_not_for_its_neighbours(bench: Bench, cls: type) -> None:
    key, actors = FunctionKey(b"s" * 16), [ActorKey(bytes([each]) * 16) for each in range(3)]
    frame: list[AnyMessage] = [Define(key, pickle.dumps(cls))]
    for each, actor in enumerate(actors):
        frame += [StartActor(10 + each, actor, key, EMPTY or b""), bench.call(20 + each, "look", actor)]
    bench.take(frame)
    bench.turn()
    assert sorted(told) == ["set"] * 3 + ["unset"] * 6
    for actor in actors:
        bench.executor.actors.end(bench.executor.actors.instances[actor])


def test_a_call_that_was_to_begin_in_the_turn_in_which_its_actor_leaves_does_not(bench: Bench) -> None:
    bench.take([bench.call(2, "tells"), bench.call(3, "leaves"), bench.call(4, "tells"), bench.call(5, "tells")])
    bench.turn()
    assert told == ["ran"]
    kinds = {answer.seq: answer for answer in bench.link.answers}
    assert bench.outcomes[2] == "value"
    assert kinds[4] == bench.executor.outcomes.no_actor(4)
    assert kinds[5] == bench.executor.outcomes.no_actor(5)


@pytest.mark.parametrize("method", ["interrupts_itself", "interrupts_in_a_callback"])
def test_a_keyboard_interrupt_of_one_call_ends_no_neighbour(
    bench: Bench, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    bench.take([bench.call(2), bench.call(3, method)])
    bench.run()
    bench.take([bench.call(4, "tells")])
    bench.run()
    assert told == ["begun", "ran"]
    assert 2 in bench.link.serving
    assert {3, 4} <= bench.outcomes.keys()
    assert "KeyboardInterrupt on a shared loop" in caplog.text


def test_a_keyboard_interrupt_ends_the_process_that_one_actor_has_for_itself(bench: Bench) -> None:
    bench.instance.has_process = True
    bench.take([bench.call(3, "interrupts_itself")])
    with pytest.raises(KeyboardInterrupt):
        bench.run()
    bench.instance.has_process = False


@pytest.mark.parametrize(("method", "lives"), [("exits_in_a_task", False), ("exits_in_a_callback", True)])
def test_a_system_exit_that_ends_no_actor_is_printed(
    bench: Bench, method: str, lives: bool, caplog: pytest.LogCaptureFixture
) -> None:
    bench.take([bench.call(3, method)])
    bench.run()
    assert (ACTOR in bench.executor.actors.instances) is lives
    assert ("SystemExit on a shared loop" in caplog.text) is lives
