"""Calls to actors: their order, how many run at once, where they run, and what their errors say."""

from __future__ import annotations

import asyncio
import os
import threading
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

import actorrt
from actorrt import exceptions

pytestmark = pytest.mark.usefixtures("node")


@actorrt.remote
class Signal:
    """Something to wait for."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.waiting = 0

    async def wait(self, value: Any = None) -> Any:
        self.waiting += 1
        await self.event.wait()
        return value

    async def send(self) -> int:
        self.event.set()
        return self.waiting


@actorrt.remote
class Log:
    """A sync actor that notes what it was called with."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def add(self, value: Any) -> Any:
        self.seen.append(value)
        return value

    def all(self) -> list[Any]:
        return self.seen


@actorrt.remote
class AsyncLog:
    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def add(self, value: Any) -> Any:
        self.seen.append(value)
        return value

    async def all(self) -> list[Any]:
        return self.seen


# ---- order


@pytest.mark.parametrize("cls", [Log, AsyncLog])
def test_calls_start_in_the_order_in_which_they_were_made(cls: Any) -> None:
    log = cls.remote()
    # More than may lie at an actor at once, the first of them before it is known where the actor is.
    refs = [log.add.remote(i) for i in range(3000)]
    assert actorrt.get(refs) == list(range(3000))
    assert actorrt.get(log.all.remote()) == list(range(3000))


@pytest.mark.parametrize("cls", [Log, AsyncLog])
def test_the_calls_of_each_thread_keep_their_order(cls: Any) -> None:
    log = cls.remote()

    def call(name: int) -> None:
        for i in range(300):
            log.add.remote((name, i))

    threads = [threading.Thread(target=call, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = actorrt.get(log.all.remote())
    for name in range(4):
        assert [i for who, i in seen if who == name] == list(range(300))


def test_a_sync_actor_waits_for_the_arguments_of_the_first_call() -> None:
    log, signal = Log.remote(), Signal.remote()
    refs = [log.add.remote(signal.wait.remote("first"))]
    refs += [log.add.remote(i) for i in range(100)]
    refs += [log.add.remote(signal.wait.remote("last"))]
    signal.send.remote()
    assert actorrt.get(refs) == ["first", *range(100), "last"]
    assert actorrt.get(log.all.remote()) == ["first", *range(100), "last"]


def test_a_coroutine_actor_does_not_wait_for_the_arguments_of_others() -> None:
    log, signal = AsyncLog.remote(), Signal.remote()
    held = log.add.remote(signal.wait.remote("held"))
    assert actorrt.get(log.add.remote("free")) == "free"
    assert not held.done()
    signal.send.remote()
    assert actorrt.get(held) == "held"
    assert actorrt.get(log.all.remote()) == ["free", "held"]


def test_a_call_whose_argument_failed_fails_and_lets_later_ones_pass() -> None:
    @actorrt.remote
    def fails() -> None:
        raise ValueError("no argument")

    log = Log.remote()
    failed = log.add.remote(fails.remote())
    later = log.add.remote("later")
    with pytest.raises(ValueError, match="no argument"):
        actorrt.get(failed)
    assert actorrt.get(later) == "later"
    assert actorrt.get(log.all.remote()) == ["later"]


def test_a_call_that_was_cancelled_in_front_lets_later_ones_pass() -> None:
    log, signal = Log.remote(), Signal.remote()
    assert actorrt.get(log.add.remote(0)) == 0
    held = log.add.remote(signal.wait.remote("held"))
    later = log.add.remote("later")
    actorrt.cancel(held)
    with pytest.raises(exceptions.TaskCancelledError):
        actorrt.get(held)
    assert actorrt.get(later) == "later"
    signal.send.remote()


# ---- how many at once


def test_more_pending_calls_than_allowed_are_refused_at_once() -> None:
    signal = Signal.options(max_pending_calls=2).remote()
    first = [signal.wait.remote(i) for i in range(2)]
    with pytest.raises(exceptions.PendingCallsLimitExceeded, match="2 pending calls"):
        signal.wait.remote()
    actorrt.cancel(first[0])
    with pytest.raises(exceptions.TaskCancelledError):
        actorrt.get(first[0])
    actorrt.get(signal.send.remote())
    assert actorrt.get(first[1]) == 1
    assert actorrt.get([signal.wait.remote(i) for i in range(2)]) == [0, 1]


@pytest.mark.parametrize("cls", [Log, AsyncLog])
def test_a_call_that_was_accepted_is_not_refused_when_its_arguments_come(cls: Any) -> None:
    log, signal = cls.options(max_pending_calls=3).remote(), Signal.remote()
    accepted = [log.add.remote(signal.wait.remote(i)) for i in range(3)]
    with pytest.raises(exceptions.PendingCallsLimitExceeded):
        log.add.remote(signal.wait.remote(3))
    signal.send.remote()
    assert actorrt.get(accepted) == [0, 1, 2]


def test_a_coroutine_actor_runs_as_many_calls_at_once_as_asked_for() -> None:
    @actorrt.remote(max_concurrency=2)
    class Crowd:
        def __init__(self) -> None:
            self.now = self.most = 0
            self.met = asyncio.Event()

        async def enter(self) -> int:
            self.now += 1
            self.most = max(self.most, self.now)
            if self.now == 2:
                self.met.set()
            await self.met.wait()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            self.now -= 1
            return self.most

    crowd = Crowd.remote()
    assert max(actorrt.get([crowd.enter.remote() for _ in range(20)])) == 2


def test_groups_of_a_coroutine_actor_do_not_hold_each_other_up() -> None:
    @actorrt.remote(concurrency_groups={"io": 1, "compute": 2})
    class Grouped:
        def __init__(self) -> None:
            self.event = asyncio.Event()
            self.order: list[str] = []

        @actorrt.method(concurrency_group="io")
        async def read(self, name: str) -> str:
            self.order.append(name)
            await self.event.wait()
            return name

        @actorrt.method(concurrency_group="compute")
        async def open(self) -> list[str]:
            self.event.set()
            return list(self.order)

    actor = Grouped.remote()
    reads = [actor.read.remote("one"), actor.read.remote("two")]
    # One `io` call runs, the other waits for it; the other groups are free.
    assert actorrt.get(actor.open.remote()) == ["one"]
    assert actorrt.get(reads) == ["one", "two"]
    assert actorrt.get(actor.read.options(concurrency_group="compute").remote("three")) == "three"
    with pytest.raises(ValueError, match="no concurrency group 'compute_', did you mean 'compute'"):
        actor.read.options(concurrency_group="compute_")


def test_a_threaded_actor_runs_calls_in_threads() -> None:
    @actorrt.remote(max_concurrency=3)
    class Threaded:
        def __init__(self) -> None:
            self.together = threading.Barrier(3)

        def meet(self) -> str:
            self.together.wait()
            return threading.current_thread().name

    actor = Threaded.remote()
    assert len(set(actorrt.get([actor.meet.remote() for _ in range(3)]))) == 3


def test_groups_of_a_threaded_actor_have_threads_of_their_own() -> None:
    @actorrt.remote(concurrency_groups={"io": 2})
    class Grouped:
        def __init__(self) -> None:
            self.together = threading.Barrier(3)

        @actorrt.method(concurrency_group="io")
        def read(self) -> int:
            return self.together.wait()

        def write(self) -> int:
            return self.together.wait()

    actor = Grouped.remote()
    calls = [actor.read.remote(), actor.read.remote(), actor.write.remote()]
    assert sorted(actorrt.get(calls)) == [0, 1, 2]


def test_a_handle_that_an_actor_gives_of_itself_has_its_limits_and_groups() -> None:
    @actorrt.remote(max_pending_calls=2)
    class Limited:
        def __init__(self) -> None:
            self.event = asyncio.Event()

        async def wait(self) -> None:
            await self.event.wait()

        async def crowd(self) -> None:
            me = actorrt.get_runtime_context().current_actor
            waiting = [me.wait.remote() for _ in range(2)]
            try:
                me.wait.remote()
            finally:
                self.event.set()
                await asyncio.gather(*waiting)

    @actorrt.remote(concurrency_groups={"io": 1})
    class Grouped:
        def give_to(self, users: list[Any]) -> None:
            actorrt.get(users[0].take.remote([actorrt.get_runtime_context().current_actor]))

        def echo(self, value: Any) -> Any:
            return value

    @actorrt.remote
    class User:
        async def take(self, handles: list[Any]) -> None:
            self.handle = handles[0]

        async def overtake(self, signals: list[Any]) -> list[Any]:
            first = self.handle.echo.remote(signals[0].wait.remote("first"))
            # An actor with groups does not wait for the arguments of the first.
            second = await self.handle.echo.remote("second")
            await signals[0].send.remote()
            return [await first, second]

    with pytest.raises(exceptions.PendingCallsLimitExceeded, match="2 pending calls"):
        actorrt.get(Limited.remote().crowd.remote())
    grouped, user = Grouped.remote(), User.remote()
    actorrt.get(grouped.give_to.remote([user]))
    assert actorrt.get(user.overtake.remote([Signal.remote()])) == ["first", "second"]


# ---- where they run


@actorrt.remote
class Mixed:
    def __init__(self) -> None:
        self.opened = threading.Event()

    async def where(self) -> tuple[int, str]:
        return os.getpid(), threading.current_thread().name

    def plain(self) -> str:
        return threading.current_thread().name

    @actorrt.method(thread=True)
    def blocks(self) -> str:
        assert self.opened.wait(30)
        return threading.current_thread().name

    async def open(self) -> None:
        self.opened.set()

    @actorrt.method(thread=True)
    def stops(self) -> None:
        raise StopIteration("in a thread")

    @actorrt.method(thread=True)
    def counts(self, upto: int) -> Any:
        for i in range(upto):
            yield threading.current_thread().name, i

    @actorrt.method(thread=True, num_returns=2)
    def two(self) -> tuple[int, int]:
        return 1, 2

    async def itself(self) -> str:
        return await actorrt.get_runtime_context().current_actor.plain.remote()


def test_def_methods_run_on_the_loop_and_marked_ones_in_a_thread() -> None:
    actor = Mixed.remote()
    assert actorrt.get(actor.plain.remote()) == actorrt.get(actor.where.remote())[1] == "MainThread"
    blocked = actor.blocks.remote()
    # The loop goes on while the thread waits for it.
    actorrt.get(actor.open.remote())
    assert "method" in actorrt.get(blocked)
    assert actorrt.get(actor.two.remote()) == [1, 2]
    names, numbers = zip(*(actorrt.get(ref) for ref in actor.counts.remote(5)), strict=True)
    assert numbers == (0, 1, 2, 3, 4)
    assert all("method" in name for name in names)


def test_what_no_future_can_hold_still_comes_back_from_a_thread() -> None:
    with pytest.raises(exceptions.TaskError, match="StopIteration: in a thread"):
        actorrt.get(Mixed.remote().stops.remote())


def test_coroutine_actors_share_workers_and_others_have_their_own() -> None:
    shared = actorrt.get([Mixed.remote().where.remote() for _ in range(10)])
    # As many shared workers as there are CPUs, at most.
    assert len({pid for pid, _ in shared}) <= 2
    alone = [Mixed.options(isolated=True).remote() for _ in range(2)]
    alone_pids = {pid for pid, _ in actorrt.get([actor.where.remote() for actor in alone])}
    assert len(alone_pids | {pid for pid, _ in shared} | {os.getpid()}) >= 4

    @actorrt.remote
    class Sync:
        def pid(self) -> int:
            return os.getpid()

    pids = set(actorrt.get([Sync.remote().pid.remote() for _ in range(3)]))
    assert len(pids) == 3
    assert not pids & {pid for pid, _ in shared}


def test_an_actor_can_call_itself() -> None:
    assert actorrt.get(Mixed.remote().itself.remote()) == "MainThread"


def test_actors_on_one_worker_can_call_each_other() -> None:
    @actorrt.remote
    class Link:
        async def pass_on(self, others: list[Any]) -> int:
            return 0 if not others else 1 + await others[0].pass_on.remote(others[1:])

    chain = [Link.remote() for _ in range(20)]
    assert actorrt.get(chain[0].pass_on.remote(chain[1:])) == 19


def test_every_actor_answers_ready_and_runs_what_it_is_given() -> None:
    for cls in (Log, AsyncLog):
        actor = cls.remote()
        assert actorrt.get(actor.__ray_ready__.remote()) is True
        assert actorrt.get(actor.__ray_call__.remote(lambda self, n: len(self.seen) + n, 5)) == 5


# ---- results


@actorrt.remote
class Returns:
    async def many(self, n: int) -> list[int]:
        return list(range(n))

    def one(self) -> int:
        return 1


@actorrt.remote
class AsyncNamed:
    async def name(self) -> str | None:
        return actorrt.get_runtime_context().get_task_name()

    async def fail(self) -> None:
        raise ValueError

    async def stream(self) -> Any:
        yield actorrt.get_runtime_context().get_task_name()


@actorrt.remote
class SyncNamed:
    def name(self) -> str | None:
        return actorrt.get_runtime_context().get_task_name()

    def fail(self) -> None:
        raise ValueError

    def stream(self) -> Any:
        yield actorrt.get_runtime_context().get_task_name()


@pytest.mark.parametrize("cls", [AsyncNamed, SyncNamed])
def test_a_call_goes_by_the_name_that_it_was_given(cls: Any) -> None:
    actor = cls.remote()
    names = [actor.name.remote(), actor.name.options(name="mine").remote()]
    names += [next(actor.stream.options(name="its").remote()), actor.name.remote()]
    assert actorrt.get(names) == ["name", "mine", "its", "name"]
    with pytest.raises(exceptions.TaskError) as failed:
        actorrt.get(actor.fail.options(name="doomed").remote())
    assert failed.value.function == "doomed"


def test_returns_come_apart_as_asked_for() -> None:
    actor = Returns.remote()
    assert actorrt.get(actor.many.options(num_returns=3).remote(3)) == [0, 1, 2]
    assert actor.many.options(num_returns=0).remote(3) is None
    for refs in (actor.many.options(num_returns=3).remote(2), actor.one.options(num_returns=3).remote()):
        for ref in refs:
            with pytest.raises(ValueError, match=r"num_returns=3 and returned (2 values|int, not a sequence)"):
                actorrt.get(ref)


# ---- errors


@actorrt.remote
class Keeps:
    def __init__(self, value: Any) -> None:
        self.value = value

    async def get(self) -> Any:
        return self.value


class Unpicklable(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class Broken(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even its text")


@actorrt.remote
class Fails:
    async def with_key(self) -> None:
        self.deeper()

    def deeper(self) -> None:
        raise KeyError("k")

    def unpicklable(self) -> None:
        raise Unpicklable("has a lock")

    def broken(self) -> None:
        raise Broken

    async def group(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.with_key())
            group.create_task(asyncio.sleep(0))

    async def nested(self, other: Any) -> None:
        await other.with_key.remote()

    def lock(self) -> Any:
        return {"inner": [1, threading.Lock()]}

    async def exits(self) -> None:
        raise SystemExit(3)

    @actorrt.method(thread=True)
    def in_thread(self) -> None:
        self.deeper()


@pytest.mark.parametrize("method", ["with_key", "deeper", "in_thread"])
def test_an_error_is_the_users_own_and_its_traceback_starts_at_his_code(method: str) -> None:
    actor = Fails.remote()
    with pytest.raises(KeyError) as caught:
        actorrt.get(getattr(actor, method).remote())
    error = caught.value
    assert isinstance(error, exceptions.TaskError)
    assert (error.args, error.function, error.actor) == (("k",), method, "Fails")
    first_frame = error.traceback_text.splitlines()[1]
    assert f"in {method}" in first_frame
    assert __file__ in first_frame
    assert "/actorrt/runtime/" not in error.traceback_text
    shown = "".join(traceback.format_exception(error))
    assert f"remote traceback, {method} of Fails, process {error.pid}" in shown


def test_an_error_of_an_error_names_its_own_origin() -> None:
    inner = Fails.options(name="inner").remote()
    with pytest.raises(KeyError) as caught:
        actorrt.get(Fails.remote().nested.remote(inner))
    assert isinstance(caught.value, exceptions.TaskError)
    assert (caught.value.function, caught.value.actor) == ("with_key", "Fails(inner)")


def test_an_error_that_cannot_be_pickled_keeps_its_text_and_traceback() -> None:
    with pytest.raises(exceptions.TaskError) as caught:
        actorrt.get(Fails.remote().unpicklable.remote())
    assert isinstance(caught.value, Unpicklable)
    assert str(caught.value) == "has a lock"
    assert 'raise Unpicklable("has a lock")' in caught.value.traceback_text


def test_an_error_whose_text_cannot_be_had_still_arrives() -> None:
    with pytest.raises(exceptions.TaskError) as caught:
        actorrt.get(Fails.remote().broken.remote())
    assert type(caught.value.root_cause).__name__ == "Broken"


def test_a_group_of_errors_arrives_as_one() -> None:
    caught: list[BaseException] = []
    try:
        actorrt.get(Fails.remote().group.remote())
    except* KeyError as group:
        caught += group.exceptions
    assert [error.args for error in caught] == [("k",)]


def test_an_exit_of_the_interpreter_ends_its_actor_and_no_neighbour() -> None:
    actor, neighbour = Fails.remote(), Fails.remote()
    with pytest.raises(exceptions.ActorDiedError, match=r"left by sys\.exit\(3\)"):
        actorrt.get(actor.exits.remote())
    with pytest.raises(KeyError):
        actorrt.get(neighbour.deeper.remote())


def test_what_cannot_be_sent_is_named_with_its_member() -> None:
    log, lock = Log.remote(), threading.Lock()
    with pytest.raises(exceptions.NotSerializableError, match=r"argument 1 of add .*because of \['a'\]\[1\]"):
        log.add.remote({"a": [1, lock]})
    with pytest.raises(TypeError, match=r"argument 'value' of add .*cannot pickle '_thread.lock'"):
        log.add.remote(value=lock)
    with pytest.raises(exceptions.NotSerializableError, match=r"the result of lock .*because of \['inner'\]\[1\]"):
        actorrt.get(Fails.remote().lock.remote())
    with pytest.raises(exceptions.NotSerializableError, match=r"argument 1 of Keeps .*cannot pickle '_thread.lock'"):
        Keeps.remote(lock)
    with pytest.raises(exceptions.NotSerializableError, match=r"the value that was put .*because of \.lock"):
        actorrt.put(Unpicklable("x"))
    # Nothing of this has hurt the actor.
    assert actorrt.get(log.all.remote()) == []


def test_a_constructor_that_raises_is_what_calls_fail_with() -> None:
    @actorrt.remote
    class Bad:
        def __init__(self, kind: str) -> None:
            raise ValueError(f"no {kind} today")

        async def work(self) -> None: ...

    for options in ({}, {"isolated": True}):
        bad = Bad.options(**options).remote("actor")
        for _ in range(2):
            with pytest.raises(exceptions.ActorDiedError, match="no actor today") as caught:
                actorrt.get(bad.work.remote())
            assert "in __init__" in str(caught.value)
            assert not caught.value.may_have_run


def test_an_actor_that_fits_nowhere_says_what_is_missing() -> None:
    greedy = Log.options(num_cpus=100).remote()
    with pytest.raises(exceptions.ActorUnschedulableError, match="98 more CPU"):
        actorrt.get(greedy.all.remote())


def test_a_blocked_get_on_the_loop_that_would_have_to_answer_is_an_error() -> None:
    @actorrt.remote
    class Blocks:
        async def ask(self) -> Any:
            return actorrt.get(actorrt.get_runtime_context().current_actor.answer.remote())

        async def answer(self) -> None: ...

    with pytest.raises(RuntimeError, match="use `await` instead"):
        actorrt.get(Blocks.remote().ask.remote())


def test_awaiting_many_calls_in_a_program_is_concurrent() -> None:
    async def main() -> list[int]:
        signal, log = Signal.remote(), AsyncLog.remote()
        waits = asyncio.gather(*(signal.wait.remote(i) for i in range(50)))
        assert await log.add.remote("x") == "x"
        await signal.send.remote()
        return await waits

    assert asyncio.run(main()) == list(range(50))


# ---- repetitions and the order of calls


class _Repeats:
    """Its methods fail as often as they are told to, and then give what they are told."""

    def __init__(self) -> None:
        self.tries: dict[Any, int] = {}

    @actorrt.method(max_task_retries=3, retry_exceptions=[ValueError])
    def first(self, name: str, fails: int, *behind: int) -> int:
        return self._try(name, fails) + sum(behind)

    @actorrt.method(num_returns="streaming", max_task_retries=3, retry_exceptions=True)
    def count(self, name: str, fails: int, upto: int) -> Iterator[int]:
        for i in range(upto):
            if i == upto // 2:
                self._try(name, fails)
            yield i

    def second(self, one: Any) -> Any:
        return one + 1

    def inside(self, refs: list[Any]) -> Any:
        return actorrt.get(refs[0]) + 1

    def _try(self, name: str, fails: int) -> int:
        self.tries[name] = self.tries.get(name, 0) + 1
        if self.tries[name] <= fails:
            raise ValueError("not yet")
        return 1


Repeats = actorrt.remote(_Repeats)


@actorrt.remote
class AsyncRepeats(_Repeats):
    async def inside(self, refs: list[Any]) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return await refs[0] + 1


@actorrt.remote
async def plus_one(x: int) -> int:
    return x + 1


RETRYING = [
    pytest.param(Repeats, id="sync"),
    pytest.param(Repeats.options(max_concurrency=2), id="threads"),
    pytest.param(AsyncRepeats, id="async"),
    pytest.param(AsyncRepeats.options(max_concurrency=1), id="async-one"),
]


@pytest.mark.parametrize("cls", RETRYING)
def test_a_call_that_waits_for_one_that_is_repeated_is_behind_it(cls: Any) -> None:
    actor = cls.remote()
    first = actor.first.remote("a", 2)
    chain = actor.second.remote(first)
    others = [actor.second.remote(i) for i in range(5)]
    again = actor.first.remote("b", 3, chain)
    last = actor.second.remote(actor.second.remote(again))
    assert actorrt.get([first, chain, *others, again, last], timeout=30) == [1, 2, 1, 2, 3, 4, 5, 3, 5]


@pytest.mark.parametrize("cls", [RETRYING[0], RETRYING[3]])
def test_a_call_that_waits_in_its_method_for_one_that_is_repeated_is_behind_it(cls: Any) -> None:
    actor = cls.remote()
    first = actor.first.remote("a", 2)
    inside = actor.inside.remote([first])
    # Through another call, one after the other.
    step = plus_one.remote(actor.first.remote("b", 1))
    behind = actor.inside.remote([step])
    assert actorrt.get([inside, behind, actor.inside.remote([inside])], timeout=30) == [2, 3, 3]


def test_a_call_behind_one_that_fails_for_good_runs() -> None:
    actor = Repeats.remote()
    never = actor.first.remote("a", 100)
    inside = actor.inside.remote([never])
    assert actorrt.get(actor.second.remote(1), timeout=30) == 2
    for ref in (never, inside):
        with pytest.raises(ValueError, match="not yet"):
            actorrt.get(ref, timeout=30)


@pytest.mark.parametrize("cls", RETRYING)
def test_a_stream_that_fails_is_repeated_and_gives_each_item_once(cls: Any) -> None:
    actor = cls.remote()
    for window in (-1, 1, 3):
        stream = actor.count.options(generator_backpressure=window).remote(f"w{window}", 2, 9)
        assert [actorrt.get(ref, timeout=30) for ref in stream] == list(range(9))
    stream = actor.count.remote("never", 100, 4)
    assert [actorrt.get(next(stream), timeout=30) for _ in range(2)] == [0, 1]
    with pytest.raises(ValueError, match="not yet"):
        actorrt.get(next(stream), timeout=30)
    assert stream.is_finished()
