"""What ends a request, its call or its client: every pair of state and event, and what errors are to a client."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt import exceptions
from actorrt.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
    RequestRouterError,
)
from actorrt.serve.proxy.answer import Answer
from actorrt.serve.proxy.request_life import (
    REPEATS,
    TABLE,
    Action,
    Event,
    RequestLifeError,
    State,
    actions,
    failure,
    may_repeat,
    page,
    page_after,
    state_of,
)

ENDS = (Event.CLIENT_GONE, Event.TOO_LATE, Event.STOPPED)
OF_CALL = (Event.CANCELLED, Event.FAILED)
OF_LOAN = (Event.UNTOUCHED, Event.TOUCHED)
OF_GRACE = (Event.HEARD, Event.NOT_HEARD, Event.GRACE_OVER)
WANTED = (State.WAITS, State.RUNS, State.ANSWERS, State.LENT)
POSSIBLE = {
    *itertools.product(WANTED, ENDS),
    # Its router may want the place back at any time.
    *itertools.product((State.LEFT, State.ENDED), (Event.STOPPED,)),
    *itertools.product((State.RUNS, State.ANSWERS, State.LENT, State.LEFT), OF_CALL),
    *itertools.product((State.LENT,), OF_LOAN),
    *itertools.product((State.LEFT, State.ENDED), OF_GRACE),
}


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_every_pair_has_a_row_or_is_refused_by_name(state: State, event: Event) -> None:
    if (state, event) not in POSSIBLE:
        with pytest.raises(RequestLifeError, match=f"in {state.value} cannot have {event.value}"):
            actions(state, event)
        return
    assert actions(state, event) is TABLE[state, event]


@pytest.mark.parametrize(("state", "event"), sorted(POSSIBLE, key=str))
def test_a_client_gets_one_answer_and_a_call_one_end(state: State, event: Event) -> None:
    found = actions(state, event)
    # A page where nothing was written, a cut where something was.
    if Action.REFUSE in found:
        assert state in (State.WAITS, State.RUNS)
    if Action.CUT in found:
        assert state in (State.ANSWERS, State.LENT)
    if event in (Event.TOO_LATE, Event.CANCELLED) and state in WANTED:
        assert Action.REFUSE in found or Action.CUT in found
    # Nobody who has left hears anything.
    if state in (State.LEFT, State.ENDED) or event is Event.CLIENT_GONE:
        assert not {Action.REFUSE, Action.CUT, Action.JUDGE}.intersection(found)
    # A call that runs is told, or cancelled; one that is over gives its place back, or its router does as it judges.
    over = bool({Action.RELEASE, Action.JUDGE, Action.TAKE_BACK}.intersection(found))
    assert over == (event in OF_CALL + OF_LOAN)
    if event in ENDS and state in (State.RUNS, State.ANSWERS, State.LENT):
        assert {Action.TELL, Action.CANCEL_ALONE}.intersection(found)
    # Another replica answers only who has nothing of an answer.
    if Action.JUDGE in found:
        assert state is State.RUNS or event is Event.UNTOUCHED


@pytest.mark.parametrize("runs", [False, True])
@pytest.mark.parametrize("answer", Answer)
def test_a_request_is_left_once_its_answer_is_over(runs: bool, answer: Answer) -> None:
    state = state_of(runs, answer)
    assert (state in (State.LEFT, State.ENDED)) == (answer is Answer.OVER)
    assert (state in (State.WAITS, State.ENDED)) == (not runs)


@given(
    method=st.sampled_from((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"POST", b"PUT", b"get")),
    streams=st.booleans(),
    failures=st.integers(1, 5),
)
def test_only_what_changes_nothing_is_repeated_and_that_not_for_ever(
    method: bytes, streams: bool, failures: int
) -> None:
    safe = method in (b"GET", b"HEAD", b"OPTIONS", b"TRACE")
    assert may_repeat(method, streams, failures) == (safe and not streams and failures <= REPEATS)


@pytest.mark.parametrize(
    ("error", "status", "text", "retry_after_s"),
    [
        (BackPressureError("app/d", 3, 3, 2.5), 503, "deployment 'app/d' is full: 3 requests wait, max", 2.5),
        (DeploymentUnavailableError("app/d", "secret"), 503, "the application is not available", 1),
        (ReplicaUnavailableError("app/d", "d#1", "secret"), 503, "the application is not available; the", 1),
        (exceptions.ActorrtError("secret"), 503, "the application is not available", 1),
        (exceptions.TaskError("f", 1, None, "secret", ValueError("secret")), 500, "Internal Server Error", None),
        (RequestRouterError("app/d", "r", "secret"), 500, "Internal Server Error", None),
        (ValueError("secret"), 500, "Internal Server Error", None),
        (KeyboardInterrupt(), 500, "Internal Server Error", None),
    ],
)
def test_what_an_error_is_to_a_client(
    error: BaseException, status: int, text: str, retry_after_s: float | None
) -> None:
    found = page(error)
    assert (found.status, found.retry_after_s) == (status, retry_after_s)
    assert found.text.startswith(text)
    assert "secret" not in found.text
    assert page_after(Event.STOPPED, error) == found


def test_what_is_cancelled_or_too_late_has_a_page_of_its_own() -> None:
    error = exceptions.TaskCancelledError("http")
    assert failure(error) is Event.CANCELLED
    assert failure(ValueError()) is Event.FAILED
    assert page_after(Event.CANCELLED, error)[:2] == (503, "the request was cancelled")
    assert page_after(Event.TOO_LATE, None)[:2] == (408, "the request took too long")
