"""How Serve comes to its end, and what a restarted controller believes: pure, without a process."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.exceptions import ActorDiedError, ActorNotFoundError, LinkError
from actorrt.serve.control.ending import TABLE, End, EndError, EndEvent, Ending
from actorrt.serve.control.recovery import (
    RECOVERY_RETRIES_S,
    Belief,
    Recovery,
    adoptable,
    unknown_actors,
)
from actorrt.serve.control.statuses import Draining
from actorrt.serve.declaration.options import DeploymentOptions
from actorrt.serve.declaration.spec import DeploymentId, make_spec


def test_only_a_shutdown_that_was_asked_for_is_left_or_spared() -> None:
    missing = set(itertools.product(End, EndEvent)) - set(TABLE)
    left = (EndEvent.LEFT, EndEvent.LEFT_BY_ONE)
    assert missing == {
        *itertools.product((End.SERVING, End.ENDED), left),
        *itertools.product((End.SERVING, End.ENDING), (EndEvent.SPARED,)),
    }
    ending = Ending()
    with pytest.raises(EndError, match="that is SERVING cannot have LEFT"):
        ending.left()


@given(events=st.lists(st.sampled_from(["asked", "left", "rings"])))
def test_nothing_is_begun_from_the_first_question_until_nobody_has_ended_the_controller(events: list[str]) -> None:
    ending, asking, timers, last = Ending(), 0, list[int](), 0
    for event in events:
        match event:
            case "asked":
                ending.asked()
                asking, last = asking + 1, 0
                ending.drained_by = 1.0
            case "left" if asking:
                asking -= 1
                end = ending.left()
                assert bool(end) == (not asking)
                if end:
                    timers.append(end)
                    last = end
            case "rings" if timers:
                # A time is set for each end; the one for an earlier end may come as another is under way, or just over.
                end = timers.pop(0)
                assert ending.spared(end) == (end == last)
                last = 0 if end == last else last
            case _:
                pass
        assert ending.takes_more == (not asking and not last)
        assert not ending.takes_more or ending.drained_by is None


def test_the_time_of_an_earlier_end_spares_no_later_one() -> None:
    ending = Ending()
    ending.asked()
    first = ending.left()
    ending.asked()
    second = ending.left()
    assert not ending.spared(first)
    assert not ending.takes_more
    assert ending.spared(second)
    assert ending.takes_more


def test_what_is_left_of_a_shutdown_is_told() -> None:
    ending = Ending()
    assert ending.draining(0.0, 1, 1, 20.0) is None
    ending.drained_by = 10.0
    assert ending.draining(4.0, 2, 3, 20.0) == Draining(2, 3, 6.0)
    # Its requests are answered, and it is about to go.
    assert ending.draining(4.0, 0, 3, 20.0) == Draining(0, 3, 20.0)
    assert ending.draining(4.0, None, 3, 20.0) == Draining(0, 3, 6.0)


def test_nothing_is_believed_lost_but_by_who_knows() -> None:
    recovery = Recovery()
    assert recovery.failed(LinkError("the head is gone")) is Belief.UNKNOWN
    assert recovery.why == "the head is gone" or "the head is gone" in recovery.why
    assert recovery.failed(TimeoutError()) is Belief.UNKNOWN
    assert recovery.why == "the proxy does not answer"
    assert recovery.failed(ActorNotFoundError("proxy", "ns")) is Belief.LOST
    assert recovery.failed(ActorDiedError("proxy", "while it ran", "it was killed")) is Belief.LOST
    assert recovery.answered("") is Belief.ABORTED
    assert recovery.answered("http://x:1") is Belief.KNOWN
    asked = [recovery.wait_s() for _ in range(8)]
    assert asked == [*RECOVERY_RETRIES_S, RECOVERY_RETRIES_S[-1], RECOVERY_RETRIES_S[-1]]


class Left:
    def __init__(self, version: str) -> None:
        self.deployment = DeploymentId("a", "d")
        self.version = version


def test_a_replica_whose_code_was_not_kept_is_not_adopted() -> None:
    spec = make_spec("a", "d", DeploymentOptions("d"), b"code", b"config")
    known, unknown = Left("1"), Left("2")
    assert adoptable([known, unknown], {(spec.id, "1"): spec}) == [(spec, known)]


def test_actors_of_serve_that_nobody_knows_are_found() -> None:
    listed = [{"name": "a#d-1", "namespace": "ns"}, {"name": "proxy", "namespace": "ns"}]
    listed += [{"name": "users", "namespace": "other"}]
    assert unknown_actors(listed, "ns", {"proxy"}) == {"a#d-1"}
