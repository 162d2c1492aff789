import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actorrt.serve.routing import QueueFull, Routing, Slots


def routing(replicas: str, max_ongoing: int = 1, max_queued: int = -1, seed: int = 1) -> Routing[Any]:
    made: Routing[Any] = Routing(random.Random(seed).random, max_ongoing, max_queued)
    made.update(list(replicas))
    return made


def test_of_two_replicas_the_one_with_fewer_requests_gets_the_next() -> None:
    router = routing("ab", max_ongoing=100)
    for _ in range(100):
        assert router.choose() is not None
    assert router.statistics() == {"a": 50, "b": 50}


def test_requests_spread_nearly_evenly_over_many_replicas() -> None:
    router = routing("abcdefghij", max_ongoing=1000)
    for _ in range(1000):
        assert router.choose() is not None
    counts = router.statistics().values()
    assert max(counts) - min(counts) <= 8  # at random alone it would be about 40


def test_a_free_replica_is_found_even_if_both_that_were_drawn_are_taken() -> None:
    router = routing("abcdefgh", max_ongoing=1)
    assert {slots.id for _ in range(8) if (slots := router.choose())} == set("abcdefgh")
    assert router.choose() is None


def test_requests_wait_in_order_and_nobody_overtakes() -> None:
    router = routing("a")
    first = router.submit("r1")
    assert first is not None
    assert router.submit("r2") is None
    assert router.submit("r3") is None
    router.release(first)
    # There is room, but two others were here before.
    assert router.submit("r4") is None
    assert router.next_waiting() == ("r2", first)
    assert router.next_waiting() is None
    router.release(first)
    assert router.again("r2") is not None
    router.release(first)
    assert router.next_waiting() == ("r3", first)


def test_a_full_queue_refuses_at_once() -> None:
    router = routing("a", max_queued=1)
    router.submit("r1")
    router.submit("r2")
    with pytest.raises(QueueFull) as refused:
        router.submit("r3")
    assert (refused.value.queued, refused.value.limit) == (1, 1)
    none_waits = routing("a", max_queued=0)
    assert none_waits.submit("r1") is not None
    with pytest.raises(QueueFull):
        none_waits.submit("r2")


def test_a_request_that_did_not_start_goes_before_all_others_and_is_never_refused() -> None:
    router = routing("a", max_queued=1)
    slots = router.submit("r1")
    assert slots is not None
    router.submit("r2")
    router.filled("a")
    router.release(slots)
    assert router.again("r1") is None
    router.emptied("a")
    assert router.next_waiting() == ("r1", slots)


def test_a_dead_replica_is_never_chosen_even_if_an_older_list_still_has_it() -> None:
    router = routing("ab", max_ongoing=10)
    router.died("a")
    router.update("ab")
    for _ in range(10):
        chosen = router.choose()
        assert chosen is not None
        assert chosen.id == "b"
    assert router.choose() is None


def test_counts_survive_an_update_of_the_list() -> None:
    router = routing("ab", max_ongoing=2)
    for _ in range(4):
        router.choose()
    router.update("bc")
    assert router.statistics() == {"b": 2, "c": 0}


def test_a_withdrawn_request_waits_no_more() -> None:
    router = routing("a")
    slots = router.submit("r1")
    assert slots is not None
    router.submit("r2")
    assert router.withdraw("r2")
    assert not router.withdraw("r2")
    router.release(slots)
    assert router.next_waiting() is None
    router.submit("x")
    router.submit("y")
    assert router.drop_waiting() == ["y"]
    assert router.queued == 0


def test_those_that_came_last_are_dropped_where_too_many_wait() -> None:
    router: Routing[str] = Routing(lambda: 0.0, max_ongoing=1)
    for name in "abcd":
        assert router.submit(name) is None
    assert router.drop_excess() == []
    router.max_queued = 1
    assert router.drop_excess() == ["d", "c", "b"]
    assert router.queued == 1
    assert router.drop_excess() == []


class Model(RuleBasedStateMachine):
    """Whatever happens in whatever order, no limit is passed and no request is lost or given out twice."""

    def __init__(self) -> None:
        super().__init__()
        self.router: Routing[int] = Routing(random.Random(0).random, max_ongoing=2, max_queued=3)
        self.out: dict[int, Slots] = {}
        self.waiting: list[int] = []
        self.dead: set[str] = set()
        self.next = 0

    @rule(replicas=st.sets(st.sampled_from("abcdef")))
    def update(self, replicas: set[str]) -> None:
        self.router.update(sorted(replicas))
        self.dead &= replicas

    @rule(replica=st.sampled_from("abcdef"))
    def die(self, replica: str) -> None:
        known = replica in self.router._by_id
        self.router.died(replica)
        if known:
            self.dead.add(replica)

    @rule(replica=st.sampled_from("abcdef"), full=st.booleans())
    def fill(self, replica: str, full: bool) -> None:
        (self.router.filled if full else self.router.emptied)(replica)

    @rule()
    def submit(self) -> None:
        self.next += 1
        try:
            slots = self.router.submit(self.next)
        except QueueFull:
            assert len(self.waiting) >= 3
            return
        if slots is None:
            self.waiting.append(self.next)
        else:
            assert not self.waiting
            self.take(self.next, slots)

    def take(self, request: int, slots: Slots) -> None:
        assert slots.id not in self.dead
        assert not slots.full
        assert slots.ongoing <= 2
        assert request not in self.out
        self.out[request] = slots

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(sorted(self.out)))
        self.router.release(self.out.pop(request))
        while (found := self.router.next_waiting()) is not None:
            assert found[0] == self.waiting.pop(0)
            self.take(*found)

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(sorted(self.out)))
        slots = self.out.pop(request)
        self.router.release(slots)
        self.router.filled(slots.id)
        again = self.router.again(request)
        if again is None:
            self.waiting.insert(0, request)
        else:
            self.take(request, again)

    @invariant()
    def the_queue_is_as_long_as_it_should_be(self) -> None:
        assert self.router.queued == len(self.waiting)


TestModel = Model.TestCase


@given(seed=st.integers(0, 1000), count=st.integers(2, 20))
def test_two_different_replicas_are_drawn(seed: int, count: int) -> None:
    router = routing("".join(chr(97 + i) for i in range(count)), max_ongoing=1, seed=seed)
    assert len({slots.id for _ in range(count) if (slots := router.choose())}) == count
