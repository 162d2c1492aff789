"""Whose turn it is on a client's connection, how it is refused, and how long a client may take: case by case."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.serve.http.http_options import HTTPOptions
from actorrt.serve.proxy.answer import Answer
from actorrt.serve.proxy.arrival import Arrival
from actorrt.serve.proxy.connection_phase import Phase
from actorrt.serve.proxy.patience import Due, Look, Rate, Watch, due, pace, stalled_since
from actorrt.serve.proxy.turns import MOST_BEHIND, Refusal, Step, Turns

LIMIT_S = 8.0


class Request:
    """As turns see it."""

    def __init__(self, **known: Any) -> None:
        self.answer = Answer.WAITED_FOR
        self.arrival = Arrival.COMES
        self.streams = False
        self.length: int | None = 0
        self.held = 0
        self.keep_alive = True
        for name, value in known.items():
            setattr(self, name, value)


def read_in(turns: Turns[Request], is_slow: bool = False, **known: Any) -> tuple[Request, Step]:
    turns.begin(request := Request(arrival=Arrival.COMPLETE, **known))
    return request, turns.read(is_slow)


def follows(turns: Turns[Request], *, is_slow: bool = False, in_head: bool = False) -> Step:
    return turns.next(is_slow=is_slow, in_head=in_head, window=100)


def over(turns: Turns[Request], request: Request, closes: bool = False) -> Step:
    request.answer = Answer.OVER
    return turns.answered(request, closes)


def test_requests_enter_one_at_a_time_and_in_their_order() -> None:
    turns = Turns[Request]()
    first, step = read_in(turns)
    assert (step, turns.current) == (Step.ENTER, first)
    others = [read_in(turns) for _ in range(3)]
    assert [step for _, step in others] == [Step.HOLD] * 3
    for before, (request, _) in zip([first, *(each for each, _ in others)], others, strict=False):
        assert over(turns, before) is Step.ADVANCE
        assert follows(turns) is Step.ENTER
        assert turns.current is request
        assert follows(turns) is (Step.REST if request is others[-1][0] else Step.NOTHING)
    assert over(turns, others[-1][0]) is Step.REST
    assert turns.is_empty


def test_no_more_than_so_many_wait() -> None:
    turns = Turns[Request]()
    steps = [read_in(turns)[1] for _ in range(MOST_BEHIND + 2)]
    assert steps == [Step.ENTER, *[Step.HOLD] * MOST_BEHIND, Step.TOO_MANY]


def test_a_client_that_does_not_take_its_answers_gets_no_more_of_them_but_hears_that_it_is_wrong() -> None:
    turns = Turns[Request]()
    assert read_in(turns, is_slow=True)[1] is Step.HOLD
    assert follows(turns, is_slow=True) is Step.NOTHING
    turns.begin(Request())
    assert turns.refuse() == (Refusal.IN_TURN, None)
    assert follows(turns) is Step.ENTER
    assert turns.current is not None
    assert over(turns, turns.current) is Step.ADVANCE
    assert follows(turns, is_slow=True) is Step.SAY


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({"length": 500, "held": 99}, False),
        ({"length": 500, "held": 100}, True),
        ({"length": 50, "held": 50}, True),
        # One without a length may answer its answer, and what is not asked for does not come by itself.
        ({"length": None}, True),
        ({"length": 500, "arrival": Arrival.UNASKED}, True),
        ({"length": 500, "held": 100, "streams": False}, False),
    ],
)
def test_a_body_enters_before_its_end_once_it_is_worth_it(known: dict[str, Any], expected: bool) -> None:
    turns = Turns[Request]()
    turns.begin(Request(**{"streams": True, **known}))
    assert not turns.begins_early(100, is_slow=True)
    assert follows(turns, in_head=True) is Step.REST
    assert turns.begins_early(100, is_slow=False) is expected
    assert (turns.current is turns.reading) is expected
    # Once.
    assert not turns.begins_early(100, is_slow=False)


def test_of_a_body_no_more_is_read_than_the_backend_takes() -> None:
    turns = Turns[Request]()
    turns.begin(request := Request(streams=True, length=None))
    assert not turns.holds_up(is_slow=False)
    request.held = 5
    # It could be the backend's at once, which takes it.
    assert not turns.holds_up(is_slow=False)
    assert turns.holds_up(is_slow=True)
    assert turns.begins_early(100, is_slow=False)
    assert turns.holds_up(is_slow=False)
    assert turns.may_read(request, 5)
    assert not turns.may_read(request, 4)
    assert turns.read(False) is Step.NOTHING
    read_in(turns)
    assert not turns.may_read(request, 5)


@pytest.mark.parametrize("closes", [False, True])
@pytest.mark.parametrize("keep_alive", [False, True])
@pytest.mark.parametrize("complete", [False, True])
def test_what_the_end_of_an_answer_leads_to(closes: bool, keep_alive: bool, complete: bool) -> None:
    turns = Turns[Request]()
    turns.begin(request := Request(streams=True, length=None, keep_alive=keep_alive))
    assert turns.begins_early(1, is_slow=False)
    if complete:
        request.arrival = Arrival.COMPLETE
        assert turns.read(False) is Step.NOTHING
    step = over(turns, request, closes)
    if closes or not keep_alive:
        assert step is (Step.END if complete else Step.LINGER)
    elif complete:
        assert step is Step.REST
    else:
        # What still comes of it is nobody's; then it is the next one's turn.
        assert step is Step.DISCARD
        request.arrival = Arrival.COMPLETE
        assert turns.read(False) is Step.ADVANCE
        assert follows(turns) is Step.REST


@pytest.mark.parametrize("answer", Answer)
def test_a_refusal_is_said_where_its_answer_would_stand(answer: Answer) -> None:
    turns = Turns[Request]()
    turns.begin(request := Request(streams=True, length=None))
    assert turns.begins_early(1, is_slow=False)
    request.answer = answer
    expected = {Answer.WAITED_FOR: Refusal.NOW, Answer.OVER: Refusal.LINGER}.get(answer, Refusal.ABORT)
    assert turns.refuse() == (expected, request)
    assert turns.is_empty


@given(st.data())
def test_whatever_crosses_each_request_enters_once_in_its_order_and_a_refusal_comes_last(data: st.DataObject) -> None:
    turns = Turns[Request]()
    came: list[Request] = []
    entered: list[Request] = []
    said = False
    for _ in range(40):
        is_slow = data.draw(st.booleans())
        step = Step.NOTHING
        current, reading = turns.current, turns.reading
        moves = ["look"]
        if reading is None and not turns.is_refused:
            moves += ["begin", "begin"]
        if reading is not None:
            moves += ["part", "early", "complete", "wrong"]
        if current is not None and current.answer is Answer.WAITED_FOR:
            moves += ["answer", "answer"]
        match data.draw(st.sampled_from(moves)):
            case "begin":
                came.append(Request(streams=data.draw(st.booleans()), length=data.draw(st.sampled_from((None, 9)))))
                turns.begin(came[-1])
            case "part" if reading is not None:
                reading.held += 3
            case "early":
                if turns.begins_early(6, is_slow):
                    step = Step.ENTER
            case "complete" if reading is not None:
                reading.arrival = Arrival.COMPLETE
                step = turns.read(is_slow)
            case "wrong" if reading is not None:
                how, gone = turns.refuse()
                assert gone is (reading if reading is current else None)
                if how in (Refusal.ABORT, Refusal.LINGER, Refusal.NOW):
                    assert turns.is_empty
                    return
                if gone is None:
                    came.remove(reading)
            case "answer" if current is not None:
                step = over(turns, current)
            case _:
                step = Step.ADVANCE if current is None else Step.NOTHING
        while step in (Step.ADVANCE, Step.ENTER):
            if step is Step.ENTER:
                assert turns.current is not None
                entered.append(turns.current)
            in_head = turns.reading is not None and not turns.reading.held
            step = turns.next(is_slow=is_slow, in_head=in_head, window=6)
        said = said or step is Step.SAY
        assert entered == came[: len(entered)]
        assert len(set(map(id, entered))) == len(entered)
        # Nobody is forgotten.
        rest = [*turns.behind, *([turns.reading] if turns.reading not in (None, turns.current) else [])]
        assert came[len(entered) :] == rest
        if said:
            assert not rest
            return


def is_due(
    now: float = 100.0,
    deadline: float = 0.0,
    phase: Phase = Phase.BODIES,
    *,
    reads: bool = False,
    is_held_up: bool = False,
    is_answered: bool = False,
    streams: bool = False,
    idle_since: float | None = None,
) -> Due:
    answer = Answer.OVER if is_answered else Answer.WAITED_FOR
    reading = Request(streams=streams, answer=answer) if reads else None
    return due(Look(now, deadline, phase, reading, is_held_up, idle_since), keep_alive_s=5.0)


def test_what_lingers_is_cut_off_at_its_deadline_whatever_else_there_is() -> None:
    for reads, held_up in product((False, True), repeat=2):
        assert is_due(100, 100.5, Phase.LINGERING, reads=reads, is_held_up=held_up) is Due.NOTHING
        assert is_due(100, 100, Phase.LINGERING, reads=reads, is_held_up=held_up) is Due.CUT_OFF


def test_a_connection_on_which_nothing_is_under_way_is_closed_after_a_while() -> None:
    assert is_due(idle_since=95.1) is Due.NOTHING
    assert is_due(idle_since=95.0) is Due.CLOSE
    assert is_due(idle_since=None) is Due.NOTHING
    # One that reads is not idle, however long ago that began.
    assert is_due(idle_since=0.0, reads=True) is Due.MEASURE_ANEW


@pytest.mark.parametrize("phase", [Phase.HEAD, Phase.BODIES])
def test_a_request_that_is_not_complete_in_time_is_refused_or_if_it_is_answered_thrown_away(phase: Phase) -> None:
    assert is_due(99, 100, phase, reads=True) is Due.MEASURE_ANEW
    assert is_due(100, 100, phase, reads=True) is Due.REFUSE
    assert is_due(100, 100, phase, reads=True, is_answered=True) is Due.LINGER
    # 0 is no time but that there is none.
    assert is_due(100, 0, phase, reads=True) is Due.MEASURE_ANEW


def test_a_client_that_is_not_to_send_is_not_late_and_its_body_is_measured_anew() -> None:
    assert is_due(100, 50, reads=True, is_held_up=True) is Due.MEASURE_ANEW
    assert is_due(100, 50, reads=False, is_held_up=True) is Due.NOTHING


def test_only_a_body_that_streams_is_measured() -> None:
    assert is_due(reads=True, streams=True) is Due.MEASURE
    assert is_due(phase=Phase.HEAD, reads=True, streams=True) is Due.MEASURE_ANEW
    assert is_due(100, 100, reads=True, streams=True) is Due.REFUSE


def test_a_client_that_is_not_asked_for_its_body_or_that_is_being_answered_is_not_measured() -> None:
    unasked = Request(streams=True, arrival=Arrival.UNASKED)
    assert due(Look(100, 50, Phase.BODIES, unasked, False, None), 5.0) is Due.MEASURE_ANEW
    for answer in (Answer.BEGUN, Answer.LENT):
        converses = Request(streams=True, answer=answer)
        assert due(Look(100, 0, Phase.BODIES, converses, False, None), 5.0) is Due.MEASURE_ANEW


def test_each_body_is_measured_by_itself_and_anew_after_a_pause() -> None:
    watch = Watch(HTTPOptions(request_read_timeout_s=8, least_body_rate=10))
    first, second = Request(streams=True), Request(streams=True)

    def look(now: float, reading: Request, came: int, is_paused: bool = False) -> Due:
        return watch.due(Look(now, 0, Phase.BODIES, reading, is_paused, None, came))

    assert look(0, first, 0) is Due.NOTHING
    assert look(7, second, 0) is Due.NOTHING
    assert look(8, second, 0) is Due.NOTHING
    assert look(9, second, 0) is Due.ENTER
    assert look(15, second, 0) is Due.TOO_SLOW
    assert look(16, second, 0, is_paused=True) is Due.NOTHING
    assert look(24, second, 0) is Due.NOTHING
    assert look(32, second, 0) is Due.TOO_SLOW


def test_a_client_that_takes_nothing_for_too_long_has_stalled() -> None:
    watch = Watch(HTTPOptions(stalled_client_timeout_s=5))
    assert not watch.is_stalled(10, 7, never)
    assert not watch.is_stalled(14, 7, lambda: False)
    assert watch.is_stalled(15, 7, lambda: False)
    assert not watch.is_stalled(16, 7, lambda: True)
    assert not watch.is_stalled(22, 0, never)


def never() -> bool:
    raise AssertionError("it costs a look into the kernel")


def test_a_client_stalls_from_the_first_look_on_that_finds_something_left() -> None:
    assert stalled_since(0.0, 10.0, 0, never) == 0
    assert stalled_since(4.0, 10.0, 0, never) == 0
    assert stalled_since(0.0, 10.0, 7, never) == 10
    assert stalled_since(4.0, 10.0, 7, lambda: False) == 4
    assert stalled_since(4.0, 10.0, 7, lambda: True) == 10


def test_a_body_is_measured_over_the_time_that_it_has() -> None:
    rate, found = pace(None, 10.0, 500, LIMIT_S, 100.0)
    assert (rate, found) == (Rate(10.0, 500), Due.NOTHING)
    assert pace(rate, 11.9, 500, LIMIT_S, 100.0) == (rate, Due.NOTHING)
    # Nothing more has come for a quarter of it: perhaps it waits for its answer.
    assert pace(rate, 12.0, 500, LIMIT_S, 100.0) == (rate, Due.ENTER)
    assert pace(rate, 18.0, 1300, LIMIT_S, 100.0) == (Rate(18.0, 1300), Due.NOTHING)
    assert pace(rate, 18.0, 1299, LIMIT_S, 100.0)[1] is Due.TOO_SLOW
    # Where any rate will do it is never too slow.
    assert pace(rate, 1000.0, 500, LIMIT_S, 0) == (rate, Due.ENTER)


@given(st.lists(st.integers(0, 2000), min_size=1, max_size=60), st.integers(1, 1000))
def test_a_body_that_never_comes_more_slowly_than_it_has_to_is_never_refused(steps: list[int], least: int) -> None:
    rate, came = None, 0
    for now, step in enumerate(steps):
        came += least + step
        rate, found = pace(rate, float(now), came, LIMIT_S, float(least))
        assert found is not Due.TOO_SLOW
