"""What every policy of Serve keeps, whatever happens in whatever order, and what is special to each."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from actorrt.serve.base.news import DeploymentNews, ReplicaNews
from actorrt.serve.policies.policy import METHODS, NOTHING, ONE_REQUEST, Cost, Grant, PolicyContext, QueueFull, Request
from actorrt.serve.policies.routing import (
    BUILT_IN,
    LONGEST_WAIT_S,
    MEMORY_S,
    LeastRequests,
    LocalPolicy,
    PowerOfTwo,
    RoundRobin,
    Slots,
)

from .queue_in_memory import QueueInMemory


class InOrder(LocalPolicy):
    """A user's: the first replica that has room."""

    def choose(self, request: Request) -> Slots | None:
        return next((slots for slots in self.live if self.has_room(slots)), None)


# The capacity queue has its own grants and refusals, but keeps what all of them keep.
POLICIES: list[type[LocalPolicy]] = [*BUILT_IN.values(), InOrder, cast("type[LocalPolicy]", QueueInMemory)]


@dataclass(eq=False)
class R:
    name: str
    cost: Cost = ONE_REQUEST


def news(replicas: str, max_ongoing: int = 1, max_queued: int = -1) -> DeploymentNews:
    return DeploymentNews("", max_ongoing, max_queued, tuple(ReplicaNews(id) for id in replicas))


def made(
    cls: type[LocalPolicy],
    replicas: str,
    max_ongoing: int = 1,
    max_queued: int = -1,
    seed: int = 1,
    clock: Callable[[], float] = lambda: 0.0,
) -> LocalPolicy:
    policy = cls(PolicyContext("app#d", random.Random(seed).random, clock, lambda: None))
    policy.update(news(replicas, max_ongoing, max_queued))
    return policy


def granted(policy: LocalPolicy, times: int) -> list[str]:
    """The replicas of so many requests, each of which gets one."""
    found: list[str] = []
    for number in range(times):
        grant = policy.submit(R(str(number)))
        assert grant is not None
        found.append(grant.replica)
    return found


every_policy = pytest.mark.parametrize("cls", POLICIES)
every_local_policy = pytest.mark.parametrize("cls", POLICIES[:-1])


def given_next(policy: LocalPolicy) -> tuple[Request, Slots]:
    found = policy.next()
    assert found is not None
    return found


@every_policy
def test_a_free_replica_is_found_whichever_are_taken(cls: type[LocalPolicy]) -> None:
    policy = made(cls, "abcdefgh")
    assert sorted(granted(policy, 8)) == list("abcdefgh")
    assert policy.submit(R("late")) is None
    assert policy.next() is None


@every_policy
def test_requests_wait_in_order_and_nobody_overtakes(cls: type[LocalPolicy]) -> None:
    policy = made(cls, "a")
    requests = [R(str(number)) for number in range(5)]
    first = policy.submit(requests[0])
    assert first is not None
    assert [policy.submit(each) for each in requests[1:4]] == [None] * 3
    policy.release(first, None)
    # There is room, but others were here before.
    assert policy.submit(requests[4]) is None
    request, second = given_next(policy)
    assert (request, second.replica) == (requests[1], "a")
    assert policy.next() is None
    policy.release(second, None)
    assert given_next(policy)[0] is requests[2]


@every_local_policy
def test_who_did_not_start_has_its_slot_again_before_others(cls: type[LocalPolicy]) -> None:
    policy = made(cls, "a")
    first = policy.submit(R("first"))
    assert first is not None
    second, third = R("second"), R("third")
    assert (policy.submit(second), policy.submit(third)) == (None, None)
    policy.release(first, None)
    assert policy.next() == (second, first)
    policy.release(first, NOTHING)
    assert policy.again(second) is first
    policy.release(first, None)
    assert policy.next() == (third, first)


@every_policy
def test_a_full_queue_refuses_at_once(cls: type[LocalPolicy]) -> None:
    policy = made(cls, "a", max_queued=1)
    granted(policy, 1)
    assert policy.submit(R("waits")) is None
    with pytest.raises(QueueFull) as refused:
        policy.submit(R("refused"))
    assert (refused.value.queued, refused.value.limit, refused.value.status) == (1, 1, 503)
    none_waits = made(cls, "a", max_queued=0)
    granted(none_waits, 1)
    with pytest.raises(QueueFull):
        none_waits.submit(R("refused"))


@every_policy
def test_a_request_that_did_not_start_goes_before_all_others_and_is_never_refused(cls: type[LocalPolicy]) -> None:
    policy = made(cls, "a", max_queued=1)
    first, second = R("first"), R("second")
    grant = policy.submit(first)
    assert grant is not None
    policy.submit(second)
    policy.filled("a")
    policy.release(grant, NOTHING)
    assert policy.again(first) is None
    assert policy.next() is None
    policy.emptied("a")
    request, again = given_next(policy)
    assert (request, again.replica) == (first, "a")


@every_policy
def test_who_waits_is_not_refused_for_those_that_come_back_while_there_is_no_replica(cls: type[LocalPolicy]) -> None:
    policy = made(cls, "ab", max_queued=2)
    back, waits = [R("first"), R("second")], [R("third"), R("fourth")]
    grants = [policy.submit(each) for each in back]
    policy.update(news("", max_queued=2))
    assert [policy.submit(each) for each in waits] == [None, None]
    for request, grant in zip(back, grants, strict=True):
        assert grant is not None
        policy.release(grant, NOTHING)
        assert policy.again(request) is None
    found: list[tuple[Request, str]] = []
    for replicas in ("c", "cd", "cde", "cdef"):
        policy.update(news(replicas, max_queued=2))
        request, grant = given_next(policy)
        found.append((request, grant.replica))
    assert {*found[:2]} in ({(back[0], "c"), (back[1], "d")}, {(back[1], "c"), (back[0], "d")})
    assert found[2:] == [(waits[0], "e"), (waits[1], "f")]


@every_policy
def test_counts_survive_an_update_of_the_list(cls: type[LocalPolicy]) -> None:
    policy = made(cls, "ab", max_ongoing=2)
    granted(policy, 4)
    policy.update(news("bc", max_ongoing=2))
    assert policy.statistics() == {"b": 2, "c": 0}


@every_policy
def test_a_withdrawn_request_waits_no_more(cls: type[LocalPolicy]) -> None:
    policy = made(cls, "a", max_queued=1)
    grant = policy.submit(R("runs"))
    assert grant is not None
    waits = R("waits")
    policy.submit(waits)
    policy.withdraw(waits)
    policy.withdraw(waits)
    # Its place in the queue is free, and so is the slot.
    assert policy.submit(R("next")) is None
    policy.release(grant, None)
    found = policy.next()
    assert found is not None
    assert isinstance(found[0], R)
    assert found[0].name == "next"
    assert policy.next() is None


@every_local_policy
def test_when_to_ask_again_follows_from_how_fast_the_queue_moves(cls: type[LocalPolicy]) -> None:
    now = 0.0
    policy = made(cls, "a", max_queued=4, clock=lambda: now)
    grant = policy.submit(R("runs"))
    assert grant is not None
    for number in range(4):
        policy.submit(R(str(number)))

    def wait_s() -> float | None:
        with pytest.raises(QueueFull) as refused:
            policy.submit(R("refused"))
        return refused.value.retry_after_s

    def served(every_s: float) -> None:
        nonlocal now
        now += every_s
        policy.release(grant, None)
        assert policy.next() is not None
        policy.submit(R("more"))

    assert wait_s() == 1.0  # nothing is known
    served(every_s=2.0)
    assert wait_s() == pytest.approx(4 * 2.0)
    for _ in range(40):
        served(every_s=0.5)
        wait_s()
    # What was slow is long ago.
    assert wait_s() == pytest.approx(4 * 0.5, rel=0.1)
    # Nothing is known of a queue that nobody was refused by for long.
    now += MEMORY_S + 1
    assert wait_s() == 1.0
    served(every_s=MEMORY_S - 1)
    assert wait_s() == LONGEST_WAIT_S


@every_policy
def test_a_policy_says_nothing_of_a_replica_that_has_gone(cls: type[LocalPolicy]) -> None:
    policy = made(cls, "ab", max_ongoing=4)
    granted(policy, 4)
    policy.died("a")
    assert set(policy.statistics()) == {"b"}
    policy.died("a")
    for told in (policy.filled, policy.emptied, policy.died):
        told("never heard of")


def test_every_policy_has_all_methods() -> None:
    assert len(METHODS) == 11
    for cls in POLICIES:
        for name in METHODS:
            assert callable(getattr(cls, name))


class Model(RuleBasedStateMachine):
    """Whatever happens in whatever order, no limit is passed, no request is lost or given out twice, those that wait go
    in their order, and none waits while there is room."""

    cls: type[LocalPolicy]

    def __init__(self) -> None:
        super().__init__()
        self.limit = 2
        self.present: set[str] = set()
        self.policy = made(self.cls, "", max_ongoing=self.limit, max_queued=3)
        self.out: dict[R, Grant] = {}
        self.waiting: list[R] = []
        # Whether one that did not start goes before all others, or before those that came after it.
        self.to_the_front = issubclass(self.cls, LocalPolicy)
        self.full: set[str] = set()
        self.count = 0

    # As the router does: it tells no list with a replica that has died, and looks after each release and all news.

    @rule(replicas=st.sets(st.sampled_from("abcdef")), limit=st.integers(1, 3))
    def update(self, replicas: set[str], limit: int) -> None:
        self.present, self.limit = replicas, limit
        self.full &= replicas
        self.policy.update(news("".join(sorted(replicas)), limit, 3))
        self.look()

    @rule(replica=st.sampled_from("abcdef"))
    def die(self, replica: str) -> None:
        self.policy.died(replica)
        self.present.discard(replica)
        self.full.discard(replica)

    @rule(replica=st.sampled_from("abcdef"), full=st.booleans())
    def fill(self, replica: str, full: bool) -> None:
        (self.policy.filled if full else self.policy.emptied)(replica)
        if replica in self.present:
            (self.full.add if full else self.full.discard)(replica)
        if not full:
            self.look()

    @rule()
    def submit(self) -> None:
        self.count += 1
        request = R(str(self.count))
        try:
            grant = self.policy.submit(request)
        except QueueFull:
            assert len(self.waiting) >= 3
            return
        if grant is None:
            self.waiting.append(request)
        else:
            assert not self.waiting
            self.take(request, grant)

    def take(self, request: R, grant: Grant) -> None:
        assert grant.replica in self.present - self.full
        assert request not in self.out
        assert grant.policy is self.policy
        self.out[request] = grant
        at = Counter(each.replica for each in self.out.values())
        assert at[grant.replica] <= self.limit or self.before_it_went(grant)

    def before_it_went(self, grant: Grant) -> bool:
        """Some are of a replica of the same name that is not this one any more."""
        return any(each.replica == grant.replica and each is not grant for each in self.out.values())

    def look(self) -> None:
        while (found := self.policy.next()) is not None:
            assert found[0] is self.waiting.pop(0)
            self.take(found[0], found[1])  # type: ignore[arg-type]

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(sorted(self.out, key=lambda each: each.name)))
        self.policy.release(self.out.pop(request), None)
        self.look()

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(sorted(self.out, key=lambda each: each.name)))
        grant = self.out.pop(request)
        self.policy.filled(grant.replica)
        if grant.replica in self.present:
            self.full.add(grant.replica)
        self.policy.release(grant, NOTHING)
        again = self.policy.again(request)
        if again is None:
            self.waiting.insert(0, request)
            if not self.to_the_front:
                self.waiting.sort(key=lambda each: int(each.name))
        else:
            self.take(request, again)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.waiting))
        self.waiting.remove(request)
        self.policy.withdraw(request)

    @invariant()
    def nobody_waits_while_there_is_room(self) -> None:
        ongoing = self.policy.statistics()
        assert set(ongoing) == self.present
        if self.waiting:
            assert not [id for id in self.present - self.full if ongoing[id] < self.limit]


@every_policy
def test_whatever_happens_no_request_is_lost_no_limit_passed_and_no_order_broken(cls: type[LocalPolicy]) -> None:
    run_state_machine_as_test(type(f"Model{cls.__name__}", (Model,), {"cls": cls}))


# Power of two.


def test_of_two_replicas_the_one_with_fewer_requests_gets_the_next() -> None:
    policy = made(PowerOfTwo, "ab", max_ongoing=100)
    granted(policy, 100)
    assert policy.statistics() == {"a": 50, "b": 50}


def test_requests_spread_nearly_evenly_over_many_replicas() -> None:
    policy = made(PowerOfTwo, "abcdefghij", max_ongoing=1000)
    granted(policy, 1000)
    counts = policy.statistics().values()
    assert max(counts) - min(counts) <= 8  # at random alone it would be about 40


@given(seed=st.integers(0, 1000), count=st.integers(2, 20))
def test_two_different_replicas_are_drawn(seed: int, count: int) -> None:
    names = "".join(chr(97 + number) for number in range(count))
    assert len(set(granted(made(PowerOfTwo, names, seed=seed), count))) == count


# Least requests.


@given(seed=st.integers(0, 1000), count=st.integers(1, 10), requests=st.integers(1, 60))
def test_no_replica_has_two_requests_more_than_another_where_the_least_busy_gets_each(
    seed: int, count: int, requests: int
) -> None:
    policy = made(LeastRequests, "".join(chr(97 + number) for number in range(count)), max_ongoing=100, seed=seed)
    granted(policy, requests)
    counts = policy.statistics().values()
    assert max(counts) - min(counts) <= 1


def test_each_of_the_least_busy_is_as_likely_as_the_others() -> None:
    first = Counter(granted(made(LeastRequests, "abcd", seed=seed), 1)[0] for seed in range(4000))
    assert set(first) == set("abcd")
    assert all(850 < count < 1150 for count in first.values())


# Round robin.


@settings(max_examples=50)
@given(seed=st.integers(0, 1000), count=st.integers(1, 10))
def test_one_replica_comes_after_the_other(seed: int, count: int) -> None:
    names = [chr(97 + number) for number in range(count)]
    found = granted(made(RoundRobin, "".join(names), max_ongoing=3, seed=seed), 3 * count)
    start = names.index(found[0])
    assert found == 3 * (names[start:] + names[:start])


def test_processes_begin_with_different_replicas() -> None:
    assert {granted(made(RoundRobin, "abcd", seed=seed), 1)[0] for seed in range(50)} == set("abcd")


def test_who_is_full_is_left_out_and_has_its_turn_again_later() -> None:
    policy = made(RoundRobin, "abc", max_ongoing=10)
    while granted(policy, 1) != ["c"]:
        pass
    policy.filled("b")
    assert granted(policy, 4) == ["a", "c", "a", "c"]
    policy.emptied("b")
    assert granted(policy, 3) == ["a", "b", "c"]
