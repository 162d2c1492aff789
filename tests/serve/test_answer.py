"""How far an answer has come and what a connection is read as: rows, and a request against its table."""

import itertools
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.serve.proxy import arrival, connection_phase, place
from actorrt.serve.proxy.answer import TABLE, Answer, AnswerError, AnswerEvent, after
from actorrt.serve.proxy.arrival import Arrival, ArrivalError, ArrivalEvent
from actorrt.serve.proxy.connection_phase import Phase, PhaseError, PhaseEvent
from actorrt.serve.proxy.http_request import CONTENT_LENGTH, EXPECT, HTTP_1_1, HttpRequest
from actorrt.serve.proxy.place import Place, PlaceError, PlaceEvent
from actorrt.serve.routing import lending
from actorrt.serve.routing.lending import Lending, LendingError, LendingEvent

IMPOSSIBLE = {
    (Answer.WAITED_FOR, AnswerEvent.TAKE_BACK),
    (Answer.BEGUN, AnswerEvent.LEND),
    (Answer.BEGUN, AnswerEvent.TAKE_BACK),
    (Answer.LENT, AnswerEvent.LEND),
    *((Answer.OVER, event) for event in AnswerEvent),
}


@pytest.mark.parametrize(("answer", "event"), list(itertools.product(Answer, AnswerEvent)))
def test_every_pair_of_an_answer_has_a_row_or_is_refused_by_name(answer: Answer, event: AnswerEvent) -> None:
    if (answer, event) in IMPOSSIBLE:
        with pytest.raises(AnswerError, match=f"is {answer.value} cannot have {event.value}"):
            after(answer, event)
        return
    assert after(answer, event) is TABLE[answer, event]
    assert (after(answer, event) is Answer.OVER) == (event is AnswerEvent.END)


@pytest.mark.parametrize(("phase", "event"), list(itertools.product(Phase, PhaseEvent)))
def test_every_pair_of_a_connection_has_a_row_or_is_refused_by_name(phase: Phase, event: PhaseEvent) -> None:
    if (phase, event) not in connection_phase.TABLE:
        with pytest.raises(PhaseError, match=f"in {phase.value} cannot have {event.value}"):
            connection_phase.after(phase, event)
        return
    then = connection_phase.after(phase, event)
    # Nothing leads out of lingering, and nothing is read of a head that was refused.
    assert (then is Phase.LINGERING) == (event is PhaseEvent.LINGER)
    assert (then is Phase.HEAD) == (event is PhaseEvent.MESSAGE)


@pytest.mark.parametrize(("state", "event"), list(itertools.product(Arrival, ArrivalEvent)))
def test_every_pair_of_a_body_has_a_row_or_is_refused_by_name(state: Arrival, event: ArrivalEvent) -> None:
    if state is Arrival.COMPLETE:
        with pytest.raises(ArrivalError, match=f"is {state.value} cannot have {event.value}"):
            arrival.after(state, event)
        return
    then = arrival.after(state, event)
    assert (then is Arrival.COMPLETE) == (event is ArrivalEvent.END)
    assert (then is Arrival.UNASKED) == (event is ArrivalEvent.EXPECT)


@pytest.mark.parametrize(("state", "event"), list(itertools.product(Place, PlaceEvent)))
def test_every_pair_of_a_place_has_a_row_or_is_refused_by_name(state: Place, event: PlaceEvent) -> None:
    rows = {(Place.HELD, PlaceEvent.CLIENT_SLOW): Place.ASKED, (Place.ASKED, PlaceEvent.CODE_ENDED): Place.FREED}
    if event is PlaceEvent.REPEATED:
        assert place.after(state, event) is Place.HELD
    elif (state, event) in rows:
        assert place.after(state, event) is rows[state, event]
    else:
        with pytest.raises(PlaceError, match=f"is {state.value} cannot have {event.value}"):
            place.after(state, event)


@pytest.mark.parametrize(("state", "event"), list(itertools.product(Lending, LendingEvent)))
def test_every_pair_of_a_channel_has_a_row_or_is_refused_by_name(state: Lending, event: LendingEvent) -> None:
    if list(Lending).index(state) != list(LendingEvent).index(event):
        with pytest.raises(LendingError, match=f"is {state.value} cannot have {event.value}"):
            lending.after(state, event)
        return
    # A round: what has ended may be tried again.
    assert list(Lending).index(lending.after(state, event)) == (list(Lending).index(state) + 1) % len(Lending)


@given(parts=st.lists(st.sampled_from((b"", b"100-continue", b"other")), max_size=3), sent=st.integers(0, 2))
def test_a_body_goes_by_the_table_whatever_its_head_says(parts: list[bytes], sent: int) -> None:
    request, state = HttpRequest(cast(Any, Connection())), Arrival.COMES
    request.note(CONTENT_LENGTH, b"2", 64)
    for value in parts:
        request.note(EXPECT, value, 64)
        state = Arrival.UNASKED if value == b"100-continue" else Arrival.COMES
        assert request.arrival is state
    request.begins(b"POST", b"/", b"", HTTP_1_1, True, b"")
    assert request.arrival is state
    for _ in range(sent):
        request.fed(b"x")
        state = arrival.after(state, ArrivalEvent.PART)
        assert request.arrival is state
    request.ended()
    assert request.arrival is arrival.after(state, ArrivalEvent.END)


class Connection:
    """Counts what is written; lends, and finds what it lent untouched, as the test says."""

    line = b""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.ends = 0
        self.lends = self.untouched = True

    def write(self, data: bytes) -> None:
        self.parts.append(data)

    def pass_on(self, data: memoryview) -> bool:
        self.parts.append(bytes(data))
        return True

    def lend(self) -> int:
        return 7 if self.lends else -1

    def is_as_lent(self) -> bool:
        return self.untouched

    def finished(self, request: HttpRequest, close: bool) -> None:
        self.ends += 1

    def abort(self) -> None:
        self.ends += 1


MOVES = st.sampled_from(("pass_on", "lend", "take_back", "respond", "abort", "complete"))


@given(moves=st.lists(st.tuples(MOVES, st.booleans(), st.booleans()), max_size=12))
def test_a_request_goes_by_the_table_whatever_is_asked_of_it(moves: list[tuple[str, bool, bool]]) -> None:
    connection: Any = Connection()
    request = HttpRequest(connection)
    gone_at: list[Answer] = []
    request.on_gone = gone_at.append
    for move, lends, untouched in moves:
        connection.lends, connection.untouched = lends, untouched
        before, parts, complete = request.answer, len(connection.parts), request.arrival is Arrival.COMPLETE
        event: AnswerEvent | None = None
        match move:
            case "pass_on":
                request.pass_on(memoryview(b"HTTP/1.1 200 OK"))
                event = AnswerEvent.PART
            case "lend":
                if request.lend(b"200") >= 0:
                    event = AnswerEvent.LEND
                assert (event is not None) == (before is Answer.WAITED_FOR and complete and lends)
            case "take_back":
                if request.take_back():
                    event = AnswerEvent.TAKE_BACK
                assert (event is not None) == (before is Answer.LENT and untouched)
            case "respond":
                request.respond(b"HTTP/1.1 200 OK")
                event = AnswerEvent.END
            case "abort":
                request.abort()
                event = AnswerEvent.END
            case _:
                request.ended()
        # What is over does nothing more.
        if before is Answer.OVER:
            assert request.answer is Answer.OVER
            assert len(connection.parts) == parts
        else:
            assert request.answer is (before if event is None else after(before, event))
        assert connection.ends == (request.answer is Answer.OVER)
    before = request.answer
    request.gone()
    # Its client is missed by who still works for it, and by nobody else; what they do then is written nowhere.
    assert gone_at == ([] if before is Answer.OVER else [before])
    assert request.answer is Answer.OVER
