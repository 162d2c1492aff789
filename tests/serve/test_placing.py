"""Where requests go, whatever replicas answer and news say: a model in which all of that crosses, without a process."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actorrt.exceptions import ActorDiedError, ActorUnavailableError, NotSentError
from actorrt.serve.base.news import DeploymentNews, PolicyKind, ReplicaNews
from actorrt.serve.base.refusals import DRAINING, FULL, OUTDATED, ReplicaRefusedError
from actorrt.serve.exceptions import DeploymentUnavailableError, ReplicaUnavailableError, RequestRefusedError
from actorrt.serve.policies.policy import NOTHING, ONE_REQUEST, Cost, Grant, Policy, PolicyContext, Refused
from actorrt.serve.policies.routing import LeastRequests, PowerOfTwo
from actorrt.serve.routing.placing import MOST_MISTAKES, Meaning, NotFollowed, Placing, meaning_of
from actorrt.serve.routing.unusable import Unusable

IDS = "abc"
NAMES = st.sampled_from(["power_of_two", "least_requests"])
ERRORS: dict[str, Callable[[], Exception]] = {
    "full": lambda: ReplicaRefusedError(FULL),
    "draining": lambda: ReplicaRefusedError(DRAINING),
    "outdated": lambda: ReplicaRefusedError(OUTDATED),
    "died before it": lambda: ActorDiedError("r", "while it ran", "it was killed", may_have_run=False),
    "died with it": lambda: ActorDiedError("r", "while it ran", "it was killed", may_have_run=True),
    "its link broke": lambda: ActorUnavailableError("r", "its link broke", may_have_run=True),
    "code": lambda: ValueError("user code"),
    "not sent": lambda: NotSentError("the call", "too large"),
}


class Request:
    cost: Cost = ONE_REQUEST

    def __init__(self, number: int) -> None:
        self.number = number
        self.at: tuple[str, Grant] | None = None
        self.ended = 0
        self.sent = 0

    def __repr__(self) -> str:
        return f"<request {self.number}>"


class Said:
    """No policy here fails."""

    def is_interrupt(self, error: BaseException) -> bool:
        return False

    def in_a_line(self, error: BaseException) -> str:
        return repr(error)

    def log(self, policy: str, error: BaseException) -> None:
        raise AssertionError(error)


class Crossing(RuleBasedStateMachine):
    """Requests come and are withdrawn; replicas answer, refuse, die and come; policies follow one another."""

    def __init__(self) -> None:
        super().__init__()
        self.placing: Placing[Request, str] = Placing("a#d", Said(), lambda news: news.id)
        self.context = PolicyContext("a#d", lambda: 0.5, lambda: 0.0, lambda: None)
        self.placing.follow(PowerOfTwo(self.context))
        # Whether one was named since news are followed: the first one may find too many that wait.
        self.has_policy = False
        self.requests: list[Request] = []
        # Whose death this process knows.
        self.dead: set[str] = set()
        self.there: set[str] = set()
        self.max_ongoing = 1
        self.full: set[str] = set()
        self.is_gone = False

    # What the router does with what is decided.

    def act(self, request: Request, place: Any) -> None:
        if isinstance(place, Exception):
            request.ended += 1
        elif place is not None:
            target, grant = place
            assert request.at is None, "a request that is at a replica was sent to another one"
            assert not request.ended
            assert target in self.there, "what is dead, or was taken away, gets nothing"
            assert grant.replica == target
            request.at = (target, grant)
            request.sent += 1

    def look(self) -> None:
        while (step := self.placing.next()) is not None:
            request, place, stop, asks_on = step
            assert (stop, asks_on) == (None, False) or self.is_gone
            self.act(request, place)
            if not (asks_on or self.placing.waiting):
                return

    # Requests.

    @rule()
    def submit(self) -> None:
        request = Request(len(self.requests))
        place = self.placing.submit(request)
        self.requests.append(request)
        if isinstance(place, NotFollowed):
            assert self.is_gone
            self.is_gone = self.has_policy = False
            self.placing.follow(PowerOfTwo(self.context))
            place = self.placing.place(request)
            assert place is None
        self.act(request, place)

    def at_a_replica(self) -> list[Request]:
        return [each for each in self.requests if each.at is not None]

    @precondition(lambda self: self.at_a_replica())
    @rule(data=st.data(), used=st.sampled_from([None, NOTHING, Cost(requests=1)]))
    def reply(self, data: Any, used: Cost | None) -> None:
        request = data.draw(st.sampled_from(self.at_a_replica()))
        grant = request.at[1]
        request.at = None
        request.ended += 1
        if self.placing.released(grant, used):
            self.look()

    @precondition(lambda self: self.at_a_replica())
    @rule(data=st.data(), kind=st.sampled_from(sorted(ERRORS)), repeatable=st.booleans())
    def fail(self, data: Any, kind: str, repeatable: bool) -> None:
        request = data.draw(st.sampled_from(self.at_a_replica()))
        (target, grant), error = request.at, ERRORS[kind]()
        request.at = None
        if kind in ("draining", "died before it", "died with it"):
            self.dies(target)
        if kind == "full" and target in self.there:
            self.full.add(target)
        verdict = self.placing.failed(request, target, grant, error, repeatable)
        goes_on = kind in ("full", "draining", "outdated", "died before it") or (
            repeatable and kind in ("died with it", "its link broke")
        )
        assert (verdict.error is None) == goes_on
        assert verdict.asks_when_free == (kind == "full")
        if verdict.error is None:
            # Who did not start there is not refused for want of room.
            assert not isinstance(verdict.place, RequestRefusedError)
            assert self.is_gone or not isinstance(verdict.place, Exception)
            self.act(request, verdict.place)
            if verdict.place is None:
                assert next(iter(self.placing.waiting)) is request
        else:
            request.ended += 1
            lost = kind in ("died with it", "its link broke")
            assert isinstance(verdict.error, ReplicaUnavailableError) if lost else verdict.error is error
            if verdict.look:
                self.look()

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def withdraw(self, data: Any) -> None:
        request = data.draw(st.sampled_from(self.requests))
        waits = request in self.placing.waiting
        waited, look = self.placing.withdraw(request)
        assert waited == waits
        request.ended += waited
        if look:
            self.look()

    # Replicas.

    def dies(self, id: str) -> None:
        if id in self.there:
            self.there.discard(id)
            self.dead.add(id)
        self.full.discard(id)

    @rule(id=st.sampled_from(IDS))
    def die(self, id: str) -> None:
        self.dies(id)
        self.placing.died(id)

    @rule(id=st.sampled_from(IDS))
    def empty(self, id: str) -> None:
        self.full.discard(id)
        self.placing.emptied(id)
        self.look()

    @rule(ids=st.sets(st.sampled_from(IDS)), max_ongoing=st.integers(1, 2), max_queued=st.integers(-1, 2), name=NAMES)
    def told(self, ids: set[str], max_ongoing: int, max_queued: int, name: str) -> None:
        # It may be an older list, with those that have died since.
        news = DeploymentNews(
            "", max_ongoing, max_queued, tuple(map(ReplicaNews, sorted(ids))), PolicyKind(name, b""), None
        )
        self.dead &= ids
        self.there = ids - self.dead
        self.max_ongoing = max_ongoing
        if self.is_gone:
            # Deployed again: some request, or who looks at its replicas, has begun to follow the news.
            self.placing.follow(PowerOfTwo(self.context))
            self.is_gone = self.has_policy = False
        other: Policy | None = None
        if self.placing.wants_policy(news):
            other = (PowerOfTwo if name == "power_of_two" else LeastRequests)(self.context)
            self.full.clear()
        self.full &= self.there
        waiting = list(self.placing.waiting)
        told = self.placing.told(news, other)
        for request, place in told.placed:
            assert not (self.has_policy and isinstance(place, Exception)), "it was taken by the policy before"
            self.act(request, place)
        assert not told.placed or [request for request, _ in told.placed] == waiting
        self.has_policy = True
        self.look()

    @rule()
    def gone(self) -> None:
        told = self.placing.told(DeploymentNews("it was deleted"), None)
        for request, place in told.placed:
            assert isinstance(place, DeploymentUnavailableError)
            self.act(request, place)
        self.placing.left()
        self.dead.clear()
        self.there.clear()
        self.full.clear()
        self.is_gone = True
        assert isinstance(self.placing.policy, Unusable)

    # What holds always.

    @invariant()
    def each_request_waits_or_is_at_one_replica_or_has_ended_once(self) -> None:
        for each in self.requests:
            assert (each.at is not None) + (each in self.placing.waiting) + each.ended == 1, each

    @invariant()
    def only_replicas_that_are_there_are_sent_to(self) -> None:
        assert set(self.placing.targets) == self.there

    @invariant()
    def the_policy_counts_what_is_at_each_replica_by_its_grants(self) -> None:
        policy: Any = self.placing.policy
        if isinstance(policy, Unusable):
            return
        for id, ongoing in policy.statistics().items():
            own = [each for each in self.at_a_replica() if each.at and each.at[1].policy is policy]
            assert ongoing == sum(each.at is not None and each.at[0] == id for each in own)
            assert ongoing >= 0

    @invariant()
    def nobody_waits_for_a_replica_that_has_room(self) -> None:
        policy: Any = self.placing.policy
        if self.placing.waiting and not isinstance(policy, Unusable):
            assert not [each for each in policy.live if policy.has_room(each)]


TestCrossing = Crossing.TestCase


@pytest.mark.parametrize("dies", [False, True])
def test_a_replica_that_comes_back_into_the_list_has_the_requests_that_it_had(dies: bool) -> None:
    state = Crossing()
    state.told({"a"}, 1, -1, "power_of_two")
    state.submit()
    if dies:
        state.die("a")
    state.told(set(), 1, -1, "power_of_two")
    state.told({"a"}, 1, -1, "power_of_two")
    state.the_policy_counts_what_is_at_each_replica_by_its_grants()
    state.submit()
    assert [each.at is not None for each in state.requests] == [True, False]


@pytest.mark.parametrize("repeatable", [False, True])
def test_what_an_error_means_for_the_replica_and_for_the_request(repeatable: bool) -> None:
    def means(kind: str) -> Meaning:
        return meaning_of(ERRORS[kind](), repeatable)

    assert means("full") == Meaning(filled=True, again=True, used=NOTHING)
    assert means("draining") == Meaning(died=True, again=True, used=NOTHING)
    assert means("outdated") == Meaning(again=True, used=NOTHING)
    assert means("died before it") == Meaning(died=True, lost=True, again=True, used=NOTHING)
    assert means("died with it") == Meaning(died=True, lost=True, again=repeatable)
    assert means("its link broke") == Meaning(lost=True, again=repeatable)
    assert means("code") == means("not sent") == Meaning()


class Forever:
    """A policy that always has something of no use."""

    def __init__(self) -> None:
        self.asked = 0

    def next(self) -> Any:
        self.asked += 1
        return "rubbish"

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def test_mistakes_are_counted_until_the_policy_has_nothing_more() -> None:
    placing: Placing[Request, str] = Placing("a#d", Said(), lambda news: news.id)
    policy: Any = Forever()
    placing.follow(policy)
    waits = [Request(number) for number in range(3)]
    for request in waits:
        assert placing.submit(request) is None
    quiet: Any = placing
    quiet._failures = Quiet()
    for request in waits:
        step = placing.next()
        assert step is not None
        assert step[0] is request
        assert isinstance(step[1], Exception)
    assert placing.next() is None
    assert policy.asked == 4 < MOST_MISTAKES


def test_mistakes_between_grants_that_are_good_are_none_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actorrt.serve.routing.placing.MOST_MISTAKES", 3)
    placing: Placing[Request, str] = Placing("a#d", Said(), lambda news: news.id)
    placing.targets["r"] = "r"
    policy: Any = MakesWay()
    placing.follow(policy)
    for number in range(20):
        request = Request(number)
        assert placing.submit(request) is None
        grant = Grant(policy, "r")
        policy.gives = [(Request(-1), Refused("another needs its place")), (request, grant)]
        stopped, sent = placing.next(), placing.next()
        assert stopped is not None
        assert stopped[2] is not None
        assert sent is not None
        assert sent[1] == ("r", grant)
        # Nobody waits, so that the policy is not asked on.
        assert not placing.waiting


class MakesWay:
    """A policy that stops a request for each one that it grants."""

    def __init__(self) -> None:
        self.gives: list[Any] = []

    def next(self) -> Any:
        return self.gives.pop(0)

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


class Quiet(Said):
    def log(self, policy: str, error: BaseException) -> None: ...
