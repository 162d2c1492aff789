"""Where a request goes for what lies there: its session, and the adapter that it needs."""

from __future__ import annotations

import pytest

from actorrt.serve.capacity.adapters import MOST_LOOKS, Adapters
from actorrt.serve.capacity.ledger import Lease
from actorrt.serve.capacity.need import Limits, LineFacts, LineId
from actorrt.serve.capacity.queue import Ask, CapacityQueue
from actorrt.serve.capacity.sessions import Sessions


def queue_of(lines: int, slots: int = 8) -> CapacityQueue:
    queue = CapacityQueue(1, 0.0)
    for number in range(lines):
        queue.set_line(LineId(str(number)), LineFacts(10_000, slots, 100.0), 1)
    return queue


def submit(queue: CapacityQueue, ask: Ask, is_read: bool = True) -> Lease:
    lease = queue.submit(ask, 0.0)
    assert lease is not None
    if is_read:
        queue.progress(lease.id.number, 1)
    return lease


def test_a_session_stays_at_its_line_until_that_has_too_much_to_read() -> None:
    queue = queue_of(4)
    line = submit(queue, Ask("m", 10, 0, session="s")).line
    # Busier than all others, it is kept to.
    for _ in range(3):
        assert submit(queue, Ask("m", 10, 0, session="s")).line is line
    assert submit(queue, Ask("m", 100, 0, session="s"), is_read=False).line is line
    # A second's worth of prompts may wait there, and not more.
    assert submit(queue, Ask("m", 10, 0, session="s"), is_read=False).line is line
    moved = submit(queue, Ask("m", 10, 0, session="s"))
    assert moved.line is not line
    # From then on its prefix lies there.
    assert submit(queue, Ask("m", 10, 0, session="s")).line is moved.line


def test_a_session_whose_line_is_full_or_has_ended_goes_elsewhere() -> None:
    queue = queue_of(2, slots=1)
    first = submit(queue, Ask("m", 10, 0, session="s"))
    second = submit(queue, Ask("m", 10, 0, session="s"))
    assert first.line is not second.line
    queue.drop_line(second.line.id)
    queue.release(first.id.number)
    assert submit(queue, Ask("m", 10, 0, session="s")).line is first.line


def test_turns_of_a_session_that_runs_go_before_new_ones_of_their_tenant() -> None:
    queue = queue_of(1, slots=1)
    lease = submit(queue, Ask("m", 10, 0, session="s"))
    new, turn = Ask("m", 10, 0, session="new"), Ask("m", 10, 0, session="s", arrived=1.0)
    for ask in (new, turn):
        assert queue.submit(ask, 1.0) is None
    queue.release(lease.id.number)
    assert [ask for ask, _ in queue.next(1.0, lambda: 0.0)] == [turn]


def test_sessions_are_forgotten_by_their_last_turns() -> None:
    sessions = Sessions(2)
    for name in ("a", "b", "a", "c"):
        sessions.note(name, LineId(name))
    assert [sessions.line_of(name) for name in "abc"] == [LineId("a"), None, LineId("c")]
    assert len(sessions) == 2


def test_an_adapter_is_gone_to_where_it_is_loaded_until_that_costs_more_than_to_load_it() -> None:
    queue = queue_of(2)
    line = submit(queue, Ask("m", 10, 0, adapter="x", load=50)).line
    # (0 + 10 + 1) x (1 + running) against (0 + 10 + 50 + 1) x 1.
    lines = [submit(queue, Ask("m", 10, 0, adapter="x", load=50)).line for _ in range(5)]
    assert [each is line for each in lines] == [True, True, True, True, False]


def test_what_loading_costs_is_to_be_done_first_and_is_charged_to_nobody() -> None:
    queue = queue_of(1)
    lease = submit(queue, Ask("m", 10, 0, tenant="t", adapter="x", load=50), is_read=False)
    assert lease.line.backlog == 60
    assert queue.order.served(1, "t") == 10
    queue.progress(lease.id.number, 1)
    assert lease.line.backlog == 0
    again = submit(queue, Ask("m", 10, 0, tenant="t", adapter="x", load=50), is_read=False)
    assert again.line.backlog == 10
    queue.set_line(again.line.id, LineFacts(10_000, 8, 100.0), 2)
    assert submit(queue, Ask("m", 10, 0, adapter="x", load=50), is_read=False).line.backlog == 60


def test_a_line_that_has_the_adapter_may_have_as_much_more_to_read_as_that_saves() -> None:
    queue = queue_of(1)
    submit(queue, Ask("m", 190, 0, adapter="x", load=50), is_read=False)
    assert submit(queue, Ask("m", 10, 0, adapter="x", load=50), is_read=False).line.backlog == 250
    assert queue.submit(Ask("m", 10, 0, adapter="x", load=50), 0.0) is not None
    assert queue.submit(Ask("m", 10, 0, adapter="y", load=50), 0.0) is None


def test_a_beginning_that_is_held_saves_no_more_than_the_prompt_has() -> None:
    queue = queue_of(1)
    submit(queue, Ask("m", 201, 0, chain=(1, 2)), is_read=False)
    assert queue.submit(Ask("m", 0, 0, chain=(1, 2)), 0.0) is None


def test_a_line_keeps_the_adapters_that_were_used_last_and_an_engine_is_believed() -> None:
    adapters = Adapters(2)
    line, other = LineId("a"), LineId("b")
    for name in ("x", "y", "x", "z"):
        adapters.note(line, name)
    adapters.note(other, "x")
    assert [list(adapters.lines(name)) for name in "xyz"] == [[other, line], [], [line]]
    adapters.said(line, ["y"])
    assert [list(adapters.lines(name)) for name in "xyz"] == [[other], [line], []]
    adapters.drop(line)
    adapters.drop(line)
    assert list(adapters.lines("y")) == []
    for number in range(2 * MOST_LOOKS):
        adapters.note(LineId(str(number)), "x")
    assert len(list(adapters.lines("x"))) == MOST_LOOKS


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="zero or more tokens, not -1"):
        Ask("m", 1, adapter="x", load=-1)
    with pytest.raises(ValueError, match="session_s must be zero or more"):
        Limits(session_s=float("nan"))
