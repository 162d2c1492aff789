"""How calls are made: their numbers, what they have from the start, and who notes them. No process is started."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import pytest

from actorrt.config import Settings
from actorrt.core.actor_calls import traits_of
from actorrt.core.object_state import PRESENT
from actorrt.core.options import MethodOptions, TaskOptions
from actorrt.runtime.links.running import RunningCall, running_call
from actorrt.runtime.owner.actor_client import ActorClient
from actorrt.runtime.owner.call_maker import CallMaker
from actorrt.runtime.owner.calls import BEHIND, Arguments, Call, behind_retries
from actorrt.runtime.owner.generators import DEFAULT_WINDOW, ObjectRefGenerator
from actorrt.runtime.owner.objects import Objects
from actorrt.runtime.owner.references import ObjectRef
from actorrt.runtime.owner.waiting import entry_of
from actorrt.types import ActorKey, FunctionKey, ProcessId
from actorrt.wire import codec
from actorrt.wire.messages import ActorCall

PROCESS = ProcessId(b"process1")


class Caller:
    """A process that has objects and sends nothing."""

    def __init__(self) -> None:
        self.process = PROCESS
        self.settings = Settings()
        self.thread = SimpleNamespace(on_own_thread=lambda: False)
        self.objects = Objects(cast(Any, self), lambda actor: None)
        self.sent: list[tuple[ActorClient, Call]] = []
        none = cast(Any, None)
        self.actors: Any = SimpleNamespace(call=lambda *call: self.sent.append(call))
        self.maker = CallMaker(cast(Any, self), self.objects, self.actors, none, none, none)
        traits = traits_of(False, 1, 2, -1)
        self.actor = ActorClient(cast(Any, self), ActorKey(PROCESS + b"\0" * 8), "Actor", traits)

    def call(self, *args: Any, **options: Any) -> Any:
        return self.maker.call_method(self.actor, "method", args, {}, MethodOptions(**options))

    @property
    def last(self) -> Call:
        return self.sent[-1][1]

    def check_mine(self, awaited: Any) -> None: ...


@pytest.fixture
def caller() -> Caller:
    return Caller()


@pytest.fixture
def switching() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("switching")
def test_the_values_of_a_call_have_numbers_in_a_row_whatever_other_threads_take(caller: Caller) -> None:
    begin = threading.Barrier(4)
    firsts: list[int] = []

    def take() -> None:
        begin.wait()
        firsts.extend([caller.objects.next_seqs(50) for _ in range(2000)])

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    firsts.sort()
    assert all(after - before >= 50 for before, after in pairwise(firsts))


def test_the_values_of_a_call_have_numbers_from_its_own_on(caller: Caller) -> None:
    refs = caller.call(num_returns=3)
    first = caller.last.message.seq
    assert [entry_of(ref).seq for ref in refs] == [first, first + 1, first + 2]


def test_a_call_is_whole_when_it_is_handed_over(caller: Caller) -> None:
    ref = caller.call(1, "two", max_task_retries=7, name="named", concurrency_group="io")
    call = caller.last
    message = cast(ActorCall, call.message)
    assert (message.method, message.name, message.group, message.returns) == ("method", "named", "io", 1)
    assert codec.deserialize(message.args) == (1, "two")
    assert call.home is caller.actors
    assert (call.name, call.attempts_left, call.waiting, call.pins) == ("named", 7, None, None)
    assert entry_of(ref) is call.entry
    assert call.entry.call is call
    assert (call.entry.owner, call.entry.seq) == (PROCESS, message.seq)


def test_a_plain_call_has_its_actors_attempts(caller: Caller) -> None:
    caller.call()
    assert (caller.last.attempts_left, caller.last.terms, caller.actor.repeats) == (2, False, False)


def test_a_call_without_values_gives_no_ref(caller: Caller) -> None:
    assert caller.call(num_returns=0) is None
    assert len(caller.last.all_entries()) == 1


@pytest.mark.parametrize(("asked", "window"), [(None, DEFAULT_WINDOW), (-1, DEFAULT_WINDOW), (3, 3)])
def test_a_streaming_call_begins_with_its_window(caller: Caller, asked: int | None, window: int) -> None:
    generator = caller.call(num_returns="streaming", generator_backpressure=asked)
    assert isinstance(generator, ObjectRefGenerator)
    assert caller.last.stream is generator.stream
    assert generator.stream.window == cast(ActorCall, caller.last.message).credits == window


def test_a_ref_among_the_arguments_is_waited_for_and_kept(caller: Caller) -> None:
    ref = caller.call()
    caller.call(1, ref)
    call = caller.last
    assert call.waiting == [(1, entry_of(ref))]
    assert call.pins == [entry_of(ref)]


def test_a_task_that_waits_for_its_arguments_is_one_that_the_process_waits_for() -> None:
    caller = Caller()
    caller.thread.run_soon = lambda work: work()
    submitted: list[Call] = []
    tasks: Any = SimpleNamespace(
        learn=lambda *_: None,
        pool_for=lambda *_: SimpleNamespace(shares=False),
        submit=lambda calls: submitted.extend(call for call, _ in calls),
    )
    maker = CallMaker(cast(Any, caller), caller.objects, caller.actors, tasks, cast(Any, None), cast(Any, None))
    function: Any = SimpleNamespace(name="task", is_async=False, function_id=FunctionKey(b"function"))
    awaited = [caller.call() for _ in range(3)]
    sent = maker.call_task(function, (*awaited[:2],), {}, TaskOptions(1, 1))
    dropped = maker.call_task(function, (awaited[2],), {}, TaskOptions(1, 1))
    entry_of(awaited[0]).settle(PRESENT, b"")
    assert maker.busy
    entry_of(awaited[1]).settle(PRESENT, b"")
    assert [call.entry for call in submitted] == [entry_of(sent)]
    # What is cancelled is awaited no more.
    assert maker.busy
    call = entry_of(dropped).call
    assert call is not None
    call.cancelled()
    assert not maker.busy


def test_a_call_waits_behind_one_that_may_be_repeated_and_whose_ref_it_brings(caller: Caller) -> None:
    first: ObjectRef[Any] = caller.call(retry_exceptions=True)
    inside = Arguments(b"", pins=[first])
    assert behind_retries(inside, caller.actor).waiting == [(BEHIND, entry_of(first))]
    assert behind_retries(inside, "another actor").waiting is None


def test_bytes_beside_a_call_cannot_be_taken_back_so_it_is_not_repeated(caller: Caller) -> None:
    receiver = cast(Any, object())
    options = MethodOptions(max_task_retries=5, retry_exceptions=True)
    caller.maker.call_method(caller.actor, "method", (), {}, options, receiver)
    assert (caller.last.pipe, caller.last.attempts_left, caller.last.terms) == (receiver, 0, False)


def test_a_call_is_a_child_of_the_call_that_makes_it(caller: Caller) -> None:
    run = RunningCall(cast(Any, None), 1, "parent")
    token = running_call.set(run)
    ref = caller.call()
    running_call.reset(token)
    assert run.living_children() == [caller.last]
    assert entry_of(ref).call is caller.last


def test_the_calls_of_a_process_that_ends_are_noted_before_they_leave(caller: Caller) -> None:
    caller.call()
    noted: list[Any] = []
    caller.maker.note_calls(noted.append)
    caller.call()
    assert noted == [caller.last]
