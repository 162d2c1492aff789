"""Calls whose first step runs without a task of their own behave as if each were a plain task from its beginning."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Final

import pytest
import uvloop

from actorrt.runtime.links.running import RunningCall
from actorrt.runtime.worker.eager import EagerRunner

# More turns of the loop than any program here takes.
TURNS: Final = 40

MESSAGE: Final = "no longer wanted"

Work = Coroutine[Any, Any, None]


class Trace:
    """What a program does, and what it and others see of its task."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.gate: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.child: asyncio.Task[Any] | None = None
        self.task: asyncio.Task[Any] | None = None

    def note(self, what: Any) -> None:
        self.log.append(what)

    async def run(self, program: Program) -> None:
        task = self.task = asyncio.current_task()
        assert task is not None
        try:
            self.note(("result", await program(self)))
        except BaseException as error:
            self.note((type(error).__name__, error.args if type(error) is asyncio.CancelledError else ()))
        self.note(("still its task", asyncio.current_task() is task, task.cancelling(), task.done()))


Program = Callable[[Trace], Awaitable[Any]]


async def ends_at_once(trace: Trace) -> str:
    return "done"


async def gives_way(trace: Trace) -> str:
    for turn in range(3):
        trace.note(turn)
        await asyncio.sleep(0)
    return "done"


async def waits(trace: Trace) -> str:
    return await trace.future


async def waits_shielded(trace: Trace) -> str:
    try:
        return await asyncio.shield(trace.future)
    finally:
        trace.note(("inner is cancelled", trace.future.cancelled()))


async def waits_for_what_is_done(trace: Trace) -> str:
    task = asyncio.current_task()
    assert task is not None
    task.cancel(MESSAGE)
    trace.gate.set_result("was open")
    return await trace.gate


async def goes_on_when_cancelled(trace: Trace) -> str:
    task = asyncio.current_task()
    assert task is not None
    try:
        await trace.future
    except asyncio.CancelledError as error:
        trace.note(("cancelled", error.args, task.uncancel(), trace.future.cancelled()))
    return await trace.gate


async def goes_on_when_its_turn_is_cancelled(trace: Trace) -> str:
    for turn in range(3):
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            trace.note(("cancelled", turn))
    return await trace.gate


async def times_out(trace: Trace) -> str:
    async with asyncio.timeout(0):
        return await trace.gate


async def is_in_time(trace: Trace) -> str:
    async with asyncio.timeout(1000):
        return await trace.gate


async def loses_a_child(trace: Trace) -> None:
    async def fails() -> None:
        raise ValueError

    async with asyncio.TaskGroup() as group:
        group.create_task(fails())
        try:
            await trace.future
        finally:
            trace.note("the group's block ends")


async def waits_in_a_group(trace: Trace) -> str:
    async def child() -> str:
        try:
            return await trace.future
        finally:
            trace.note("the child ends")

    async with asyncio.TaskGroup() as group:
        task = group.create_task(child())
    return task.result()


async def waits_for_a_child_that_cleans_up(trace: Trace) -> None:
    async def child() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(4):
                await asyncio.sleep(0)
            trace.note("the child has cleaned up")

    trace.child = asyncio.create_task(child())
    await trace.child


async def waits_for_a_child_that_declines(trace: Trace) -> str:
    async def child() -> str:
        try:
            return await trace.future
        except asyncio.CancelledError:
            return "declined"

    return await asyncio.create_task(child())


async def gathers(trace: Trace) -> list[str]:
    return await asyncio.gather(trace.future, trace.gate)


async def cancels_itself_and_ends(trace: Trace) -> str:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    return "done"


async def cancels_itself_and_waits(trace: Trace) -> str:
    task = asyncio.current_task()
    assert task is not None
    task.cancel(MESSAGE)
    try:
        return await trace.future
    finally:
        trace.note(("future", trace.future.cancelled()))


async def cancels_itself_and_gives_way(trace: Trace) -> str:
    await cancels_itself_and_ends(trace)
    await asyncio.sleep(0)
    return "done"


async def thinks_better_of_it(trace: Trace) -> str:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    trace.note(task.uncancel())
    await asyncio.sleep(0)
    return "done"


async def awaits_junk(trace: Trace) -> None:
    class Junk:
        def __await__(self) -> Generator[Any, None, None]:
            yield "junk"

    await Junk()


PROGRAMS: Final = [
    ends_at_once,
    gives_way,
    waits,
    waits_shielded,
    waits_for_what_is_done,
    goes_on_when_cancelled,
    goes_on_when_its_turn_is_cancelled,
    times_out,
    is_in_time,
    loses_a_child,
    waits_in_a_group,
    waits_for_a_child_that_cleans_up,
    waits_for_a_child_that_declines,
    gathers,
    cancels_itself_and_ends,
    cancels_itself_and_waits,
    cancels_itself_and_gives_way,
    thinks_better_of_it,
    awaits_junk,
]


def cancel(trace: Trace) -> None:
    if trace.task is not None:
        trace.note(("cancel", trace.task.cancel(MESSAGE), trace.task.cancelling()))


def finish(trace: Trace) -> None:
    if not trace.future.done():
        trace.future.set_result("finished")


def rest(trace: Trace) -> None:
    pass


# What happens to the program in the batch that starts it, and in the turns after that.
Disturbances = tuple[Callable[[Trace], None], ...]

DISTURBANCES: Final[list[Disturbances]] = [
    (),
    (cancel,),
    (cancel, cancel),
    (*[rest] * TURNS, cancel),
    (*[rest] * TURNS, finish, cancel),
    (cancel, *[rest] * TURNS, cancel),
]
# Only a call whose task has begun keeps in step with a plain task; others may be a turn behind.
MORE_DISTURBANCES: Final[list[Disturbances]] = [
    (finish,),
    (cancel, finish),
    (finish, cancel),
    (rest, cancel),
    (rest, rest, cancel),
    (rest, rest, rest, cancel),
    (cancel, rest, rest, rest, rest, cancel),
    (rest, rest, finish, cancel),
]


async def run_plainly(works: list[Work]) -> None:
    for work in works:
        asyncio.create_task(work)
    await asyncio.sleep(0)


async def nothing() -> None:
    pass


async def run_eagerly(works: list[Work], *, first: Work | None) -> None:
    """`first` runs in the same batch; if it suspends, the others find no task that has begun."""
    loop = asyncio.get_running_loop()
    runner = EagerRunner(loop, lambda run: None, lambda: None)
    runner.start_soon(running(), nothing())
    # So that the task that is parked first has begun.
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    def run() -> None:
        for work in works if first is None else [first, *works]:
            runner.start(running(), work)
        runner.run_queued()

    loop.call_soon(run)
    await asyncio.sleep(0)


def running() -> RunningCall:
    link: Any = None
    return RunningCall(link, 0, "test")


async def trace_of(program: Program, disturbances: Disturbances, how: str) -> list[Any]:
    trace = Trace()
    rest_of_it = list(disturbances)

    async def disturb() -> None:
        if rest_of_it:
            rest_of_it.pop(0)(trace)

    works = [trace.run(program), disturb()]
    if how == "plain":
        await run_plainly(works)
    else:
        await run_eagerly(works, first=None if how == "begun" else gives_way(Trace()))
    for disturbance in rest_of_it:
        disturbance(trace)
        await asyncio.sleep(0)
    for _ in range(TURNS):
        await asyncio.sleep(0)
    if not trace.gate.done():
        trace.gate.set_result("opened")
    finish(trace)
    for _ in range(TURNS):
        await asyncio.sleep(0)
    if trace.child is not None and not trace.child.done():
        trace.child.cancel()
        for _ in range(TURNS):
            await asyncio.sleep(0)
    return trace.log


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def loop_runner(request: pytest.FixtureRequest) -> Generator[asyncio.Runner, None, None]:
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner


@pytest.mark.parametrize("how", ["begun", "not begun"])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_a_call_cannot_tell_itself_from_a_plain_task(loop_runner: asyncio.Runner, program: Program, how: str) -> None:
    for disturbances in DISTURBANCES + (MORE_DISTURBANCES if how == "begun" else []):
        plain = loop_runner.run(trace_of(program, disturbances, "plain"))
        eager = loop_runner.run(trace_of(program, disturbances, how))
        assert eager == plain, [disturbance.__name__ for disturbance in disturbances]


def test_calls_of_one_batch_wait_for_the_same_future(loop_runner: asyncio.Runner) -> None:
    async def main() -> list[Any]:
        traces = [Trace() for _ in range(4)]

        async def wait(trace: Trace) -> Any:
            return await traces[0].future

        await run_eagerly([trace.run(wait) for trace in traces], first=None)
        finish(traces[0])
        for _ in range(TURNS):
            await asyncio.sleep(0)
        return list(itertools.chain.from_iterable(trace.log for trace in traces))

    assert loop_runner.run(main()) == [("result", "finished"), ("still its task", True, 0, False)] * 4


def test_the_coroutine_of_its_task_can_be_looked_at(loop_runner: asyncio.Runner) -> None:
    async def looks(trace: Trace) -> str:
        task = asyncio.current_task()
        assert task is not None
        for _ in range(2):
            coroutine: Any = task.get_coro()
            trace.note(inspect.getcoroutinestate(coroutine))
            await trace.gate
        return repr(task)

    async def main(how: str) -> list[Any]:
        trace = Trace()
        await run_eagerly([trace.run(looks)], first=None if how == "begun" else gives_way(Trace()))
        await asyncio.sleep(0)
        assert trace.task is not None
        coroutine: Any = trace.task.get_coro()
        trace.note(inspect.getcoroutinestate(coroutine))
        trace.note([frame.f_code.co_name for frame in trace.task.get_stack()])
        trace.gate.set_result("opened")
        for _ in range(TURNS):
            await asyncio.sleep(0)
        trace.note(inspect.getcoroutinestate(coroutine))
        return trace.log

    for how in ("begun", "not begun"):
        first, suspended, stack, second, (_, shown), _, ended = loop_runner.run(main(how))
        assert [first, suspended, second, ended] == [
            inspect.CORO_RUNNING,
            inspect.CORO_SUSPENDED,
            inspect.CORO_RUNNING,
            inspect.CORO_CLOSED,
        ]
        assert stack == ["run"]
        assert "Trace.run" in shown


@pytest.mark.parametrize("turns", [0, 1, 2])
def test_a_task_that_waits_for_a_call_can_be_cancelled(loop_runner: asyncio.Runner, turns: int) -> None:
    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        before = asyncio.all_tasks()
        runner = EagerRunner(loop, lambda run: None, lambda: None)
        runner.start(running(), nothing())
        loop.call_soon(runner.run_queued)
        await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        idle = asyncio.all_tasks() - before
        for task in idle:
            task.cancel()
        traces = [Trace(), Trace()]
        runner.start_soon(running(), traces[0].run(waits))
        assert await asyncio.gather(*idle, return_exceptions=True) != []
        runner.start_soon(running(), traces[1].run(waits))
        for _ in range(TURNS):
            await asyncio.sleep(0)
        for trace in traces:
            assert trace.task not in idle
            finish(trace)
        for _ in range(TURNS):
            await asyncio.sleep(0)
        return [trace.log for trace in traces]

    assert loop_runner.run(main()) == [[("result", "finished"), ("still its task", True, 0, False)]] * 2


async def in_turn(*programs: Program, together: bool) -> list[Trace]:
    """Run them by one runner: in one batch, or in batches of their own whose tasks have begun."""
    loop = asyncio.get_running_loop()
    runner = EagerRunner(loop, lambda run: None, lambda: None)
    traces = [Trace() for _ in programs]
    for trace, program in zip(traces, programs, strict=True):
        runner.start(running(), trace.run(program))
        if not together:
            loop.call_soon(runner.run_queued)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
    loop.call_soon(runner.run_queued)
    await asyncio.sleep(0)
    return traces


def keeps_it(kept: list[Any]) -> Program:
    async def keeps(trace: Trace) -> None:
        kept.append(asyncio.current_task())

    return keeps


def hangs_on(how: Callable[[asyncio.Task[Any], Trace], Any]) -> Program:
    async def hangs(trace: Trace) -> None:
        task = asyncio.current_task()
        assert task is not None
        how(task, trace)

    return hangs


@pytest.mark.parametrize("together", [True, False])
def test_a_task_that_was_kept_is_nobody_elses(loop_runner: asyncio.Runner, together: bool) -> None:
    async def main() -> None:
        kept: list[asyncio.Task[Any]] = []
        program = keeps_it(kept)
        _, _, waiting = await in_turn(program, program, waits, together=together)
        assert len({*kept, waiting.task}) == 3
        # They have ended; if another call of their batch suspended meanwhile, they are done in the next turn.
        assert [task.cancel() for task in kept] == [False, False]
        assert await asyncio.gather(*kept) == [None, None]
        finish(waiting)
        assert waiting.task is not None
        await waiting.task
        assert waiting.log[0] == ("result", "finished")

    loop_runner.run(main())


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(
    "how",
    [
        lambda task, trace: task.set_name("its own"),
        lambda task, trace: setattr(task, "its_own", 1),
        lambda task, trace: trace.note(weakref.ref(task)),
        lambda task, trace: task.cancel(),
        lambda task, trace: asyncio.ensure_future(_outcome(task)),
    ],
    ids=["name", "attribute", "weak reference", "cancel", "awaited"],
)
def test_what_a_call_does_to_its_task_is_not_seen_by_the_next(
    loop_runner: asyncio.Runner, how: Callable[[asyncio.Task[Any], Trace], Any], together: bool
) -> None:
    async def looks(trace: Trace) -> tuple[Any, ...]:
        task = asyncio.current_task()
        assert task is not None
        references = weakref.getweakrefcount(task)
        await asyncio.sleep(0)
        return task.get_name() == "its own", hasattr(task, "its_own"), references

    async def main() -> Any:
        _, seen = await in_turn(hangs_on(how), looks, together=together)
        assert seen.task is not None
        await seen.task
        own = asyncio.current_task()
        assert own is not None
        assert seen.log[0] == ("result", (False, False, weakref.getweakrefcount(own)))

    loop_runner.run(main())


async def _outcome(task: asyncio.Task[Any]) -> None:
    await task


@pytest.mark.parametrize("together", [True, False])
def test_done_callbacks_of_a_call_that_ended_at_once_run(loop_runner: asyncio.Runner, together: bool) -> None:
    async def main() -> None:
        done = asyncio.Queue[int]()
        programs = [
            hangs_on(lambda task, trace, index=index: task.add_done_callback(lambda _: done.put_nowait(index)))
            for index in range(3)
        ]
        await in_turn(*programs, together=together)
        assert [await done.get() for _ in programs] == [0, 1, 2]
        assert done.empty()

    loop_runner.run(main())


def test_calls_that_left_no_trace_share_a_task(loop_runner: asyncio.Runner) -> None:
    async def looks(trace: Trace) -> str:
        task = asyncio.current_task()
        assert task is not None
        return task.get_name()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        runner = EagerRunner(loop, lambda run: None, lambda: None)
        names: list[str] = []

        async def call() -> None:
            names.append(await looks(Trace()))

        for _ in range(4):
            for _ in range(3):
                runner.start(running(), call())
            loop.call_soon(runner.run_queued)
            await asyncio.sleep(0)
        assert len(names) == 12
        assert len(set(names)) == 1

    loop_runner.run(main())
