"""What is done with messages that come over a link: sorted once, in order, and counted once a frame."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest

from actorrt.core.calls import Action, State
from actorrt.core.object_state import PRESENT
from actorrt.runtime.owner.calls import Call
from actorrt.runtime.owner.cancellation import Cancellation
from actorrt.runtime.owner.dispatch import FOR_WORKERS, Dispatch
from actorrt.runtime.owner.entries import Entry
from actorrt.runtime.owner.program import Incoming
from actorrt.types import ActorKey, ProcessId
from actorrt.wire import codec
from actorrt.wire.messages import (
    CANCELLED,
    ERROR,
    FAILED,
    GIVEN_BACK,
    NO_ACTOR,
    VALUES,
    ActorCall,
    AnyMessage,
    Borrow,
    Cancel,
    CancelObject,
    Define,
    GetObject,
    Item,
    Outcome,
    Reply,
    Retire,
    Unborrow,
    Value,
)

HERE = ProcessId(b"process1")


class Home:
    """Notes what it is told of its calls."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def replied(self, link: Any, call: Call, data: bytes, batch: Any) -> None:
        self.heard.append(("replied", call, data))
        batch.by_actor[call.target] = batch.by_actor.get(call.target, 0) + 1

    def ended(self, link: Any, call: Call, batch: Any) -> None:
        self.heard.append(("ended", call))
        batch.by_lease[7] = batch.by_lease.get(7, 0) + 1

    def again(self, link: Any, call: Call, batch: Any) -> None:
        self.heard.append(("again", call, call.state))

    def came_back(self, link: Any, call: Call, outcome: Outcome, batch: Any) -> None:
        self.heard.append(("came back", call, outcome.kind))

    def cancel(self, call: Call, force: bool) -> Action:
        self.heard.append(("cancel", call, force))
        return Action.SEND_CANCEL


class Process:
    """A process whose parts note what they are asked."""

    def __init__(self, worker: bool = True) -> None:
        self.role = "test"
        self.told: list[Any] = []
        self.home = Home()
        note = self._note
        self.actors = SimpleNamespace(answered=note("answered"))
        self.tasks = SimpleNamespace(after_batch=note("after_batch"))
        self.objects = SimpleNamespace(borrowed_by=note("borrowed_by"))
        self.supervisor = SimpleNamespace(started=note("started"))
        self.segments = SimpleNamespace(free=note("free"))
        handlers = {Define: self._take, Cancel: self._take}
        runner = SimpleNamespace(incoming=Incoming(frozenset({ActorCall}), self._enqueue, handlers))
        self.program = SimpleNamespace(runner=runner if worker else None, retire=note("retire"))
        self.dispatch = Dispatch(cast(Any, self))
        self.link = SimpleNamespace(inflight={}, peer=ProcessId(b"process2"), closed=False, send=note("send"))

    def _note(self, name: str) -> Any:
        return lambda *given: self.told.append((name, *given))

    def _take(self, link: Any, message: Any) -> None:
        self.told.append(message)

    def _enqueue(self, link: Any, work: list[Any]) -> None:
        self.told.append(list(work))

    def calls(self, seq: int, target: str = "actor") -> Call:
        message = ActorCall(seq, ActorKey(b"actor"), "method", b"")
        caller: Any = SimpleNamespace(process=HERE)
        call = Call(caller, message, target, "method", home=cast(Any, self.home))
        self.link.inflight[seq] = call
        return call

    def receive(self, *messages: AnyMessage) -> list[Any]:
        self.dispatch.receive(cast(Any, self.link), list(messages))
        return self.told


def work(seq: int) -> ActorCall:
    return ActorCall(seq, ActorKey(b"actor"), "method", b"")


def test_the_calls_of_a_frame_are_handed_over_at_once() -> None:
    assert Process().receive(work(1), work(2)) == [[work(1), work(2)]]


def test_what_concerns_a_call_comes_behind_it() -> None:
    cancel = Cancel(1)
    assert Process().receive(work(1), cancel, work(2)) == [[work(1)], cancel, [work(2)]]


def test_results_do_not_part_the_calls_of_a_frame() -> None:
    process = Process()
    process.calls(5)
    process.receive(work(1), Reply(5, b"data"), work(2))
    assert process.told == [[work(1), work(2)], ("answered", "actor", 1)]


def test_replies_find_the_home_of_their_calls_and_are_counted_once_a_frame() -> None:
    process = Process()
    calls = [process.calls(seq) for seq in (1, 2, 3)]
    process.receive(*(Reply(seq, b"data") for seq in (1, 2, 3)))
    assert process.home.heard == [("replied", call, b"data") for call in calls]
    assert process.told == [("answered", "actor", 3)]
    assert process.link.inflight == {}


def test_other_outcomes_find_it_too() -> None:
    process = Process()
    call = process.calls(1)
    call.sent()
    process.receive(Outcome(1, VALUES))
    assert call.done
    assert process.home.heard == [("ended", call)]
    assert process.told == [("after_batch", process.link, {7: 1}, [])]


def test_a_call_that_fails_and_may_be_repeated_goes_to_its_home_again() -> None:
    process = Process()
    call = process.calls(1)
    call.attempts_left, call.terms = 1, True
    for _ in range(2):
        call.sent()
        process.link.inflight[1] = call
        process.receive(Outcome(1, FAILED, [Value(ERROR, b"error")]))
    assert process.home.heard == [("again", call, State.HERE), ("ended", call)]


@pytest.mark.parametrize("kind", [GIVEN_BACK, NO_ACTOR])
def test_what_was_not_begun_comes_back_to_its_home(kind: int) -> None:
    process = Process()
    call = process.calls(1)
    call.sent()
    process.receive(Outcome(1, kind))
    assert process.home.heard == [("came back", call, kind)]


def test_a_call_that_was_stopped_and_that_nobody_has_cancelled_is_awaited_on() -> None:
    process = Process()
    call = process.calls(1)
    call.sent()
    process.receive(Outcome(1, CANCELLED))
    assert (process.home.heard, process.link.inflight) == ([], {1: call})


def test_a_reply_to_a_call_that_is_not_awaited_changes_nothing() -> None:
    process = Process()
    assert process.receive(Reply(9, b"data"), Outcome(9, VALUES)) == []


def test_what_comes_of_an_actors_start_goes_to_its_supervisor() -> None:
    process = Process()
    record = object()
    process.link.inflight.update({1: record, 2: record})
    outcome = Outcome(2, VALUES)
    process.receive(Reply(1, b""), outcome)
    assert process.told == [("started", record, 1, None), ("started", record, 2, outcome)]


def test_an_item_of_a_call_that_has_ended_is_dropped() -> None:
    process = Process()
    process.receive(Item(4, 0, b"data"))
    assert process.told == []


def test_the_owners_messages_reach_its_parts() -> None:
    process = Process()
    process.receive(Borrow(3), Unborrow(3), Retire(True))
    peer = process.link.peer
    assert process.told == [("borrowed_by", peer, 3, 1), ("borrowed_by", peer, 3, -1), ("retire", True)]


def test_a_message_that_goes_wrong_takes_none_along(caplog: pytest.LogCaptureFixture) -> None:
    process = Process()
    process.calls(1)
    # This process has no host.
    cancel_object = CancelObject(1, False, False)
    process.receive(cancel_object, Reply(1, b"data"), work(2))
    assert "a CancelObject that could not be handled" in caplog.text
    assert process.told == [[work(2)], ("answered", "actor", 1)]


def test_what_no_process_handles_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    Process().receive(cast(AnyMessage, GetObject(1)))
    assert "which is not for this process" in caplog.text


@pytest.mark.parametrize("message", [work(1), Cancel(1)])
def test_a_process_that_runs_no_calls_drops_them(message: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    assert type(message) in FOR_WORKERS
    assert Process(worker=False).receive(message) == []
    assert caplog.text == ""


# ---- cancelling


class Cancelling(Process):
    def __init__(self, own_thread: bool = False) -> None:
        super().__init__()
        self.posted: list[AnyMessage] = []
        self.soon: list[Any] = []
        self.link.post = self.posted.append
        thread: Any = SimpleNamespace(on_own_thread=lambda: own_thread, run_soon=self.soon.append)
        self.cancellation = Cancellation(HERE, thread, cast(Any, self.home), self._note("tell"))

    def run(self) -> None:
        while self.soon:
            self.soon.pop(0)()

    def away(self, seq: int) -> Call:
        call = self.calls(seq)
        self.link.push = lambda message: None
        call.push(cast(Any, self.link))
        return call


def test_a_call_that_is_away_is_cancelled_from_the_thread_that_wants_it() -> None:
    process = Cancelling()
    process.cancellation.call(process.away(1), False, True)
    assert process.posted == [Cancel(1, False, True)]
    process.run()
    assert process.home.heard == []


def test_a_call_that_came_back_meanwhile_is_cancelled_where_it_is() -> None:
    process = Cancelling()
    call = process.away(1)
    process.cancellation.call(call, False, True)
    call.link = SimpleNamespace(closed=False, send=process._note("send"))
    process.run()
    assert process.home.heard == [("cancel", call, False)]
    assert process.told == [("send", Cancel(1, False, True))]


def test_a_call_that_is_here_is_cancelled_by_its_home() -> None:
    process = Cancelling()
    call = process.calls(1)
    call.link = SimpleNamespace(closed=True)
    process.cancellation.call(call, False, False)
    process.run()
    assert process.home.heard == [("cancel", call, False)]


def test_an_actors_call_is_not_cancelled_with_force() -> None:
    process = Cancelling()
    with pytest.raises(ValueError, match="force=True"):
        process.cancellation.call(process.away(1), True, True)
    assert process.posted == []


def test_what_the_runtime_cancels_with_a_parent_may_come_with_force() -> None:
    process = Cancelling(own_thread=True)
    process.cancellation.call(process.away(1), True, True)
    assert process.posted == [Cancel(1, True, True)]


def test_arguments_that_are_waited_for_end_where_they_wait() -> None:
    process = Cancelling()
    caller: Any = SimpleNamespace(process=HERE)
    call = Call(caller, work(1), None, "Actor.__init__")
    process.cancellation.call(call, False, True)
    process.run()
    assert call.done


def test_the_owner_of_an_object_is_told_unless_the_value_is_known() -> None:
    process = Cancelling()
    entry = Entry(ProcessId(b"process3"), 6)
    process.cancellation.object(entry, False, True)
    process.run()
    assert process.told == [("tell", b"process3", CancelObject(6, False, True))]
    entry.settle(PRESENT, codec.serialize(1).data)
    process.cancellation.object(entry, False, True)
    assert process.soon == []
