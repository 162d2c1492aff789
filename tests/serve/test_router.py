"""The router with policies that fail, make mistakes, grant later, or make way for others: no request is lost."""

import math
import random
import signal
import threading
from asyncio import CancelledError
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actorrt.serve.base.connection import Connection
from actorrt.serve.base.news import DeploymentNews, PolicyKind, ReplicaNews
from actorrt.serve.base.refusals import DRAINING, FULL
from actorrt.serve.declaration.shipping import pickle_value
from actorrt.serve.declaration.spec import DeploymentId
from actorrt.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RequestRefusedError,
    RequestRouterError,
)
from actorrt.serve.policies.policy import (
    METHODS,
    NOTHING,
    ONE_REQUEST,
    Cost,
    Grant,
    Policy,
    PolicyContext,
    Refused,
    Request,
)
from actorrt.serve.policies.routing import LocalPolicy, PowerOfTwo, Slots
from actorrt.serve.routing.router import Router
from actorrt.serve.routing.target import Target


class Handle:
    """Of a replica or a controller that never answers."""

    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self


class Pending:
    def __init__(self, name: str = "", cost: Cost = ONE_REQUEST) -> None:
        self.name = name
        self.cost = cost
        self.sent: list[tuple[Target, Grant]] = []
        self.failed: list[Exception] = []

    def send(self, target: Target, grant: Grant) -> None:
        self.sent.append((target, grant))

    def fail(self, error: Exception) -> None:
        self.failed.append(error)

    @property
    def ended(self) -> int:
        return len(self.sent) + len(self.failed)


def new_router() -> Router:
    controller: Any = Handle()
    return Router(Connection(controller, ""), DeploymentId("app", "d"))


def kind(cls: type, **kwargs: Any) -> PolicyKind:
    return PolicyKind(cls.__name__, pickle_value((cls, kwargs), "a policy"))


def tell(router: Router, replicas: str, policy: PolicyKind, max_ongoing: int = 1, max_queued: int = -1) -> None:
    listed = tuple(ReplicaNews(id, Handle()) for id in replicas)
    router._told(DeploymentNews("", max_ongoing, max_queued, listed, policy))


def submit(router: Router, *names: str) -> list[Pending]:
    """What the router raises is a failure of the request."""
    found: list[Pending] = []
    for name in names:
        request = Pending(name)
        found.append(request)
        try:
            router.submit(request)
        except Exception as error:
            request.fail(error)
    return found


P2 = PolicyKind("power_of_two")
ROUND_ROBIN = PolicyKind("round_robin")


def test_a_dead_replica_is_never_chosen_even_if_an_older_list_still_has_it() -> None:
    router = new_router()
    tell(router, "ab", P2, max_ongoing=10)
    router._died("a")
    tell(router, "ab", P2, max_ongoing=10)
    requests = submit(router, *"0123456789x")
    assert {each.sent[0][0].id for each in requests[:10]} == {"b"}
    assert not requests[10].ended
    # Another policy, which has not heard of the death, gets the same list.
    tell(router, "ab", ROUND_ROBIN, max_ongoing=20)
    assert requests[10].sent[0][0].id == "b"


def test_another_policy_gets_all_that_wait_in_their_order_and_refuses_none() -> None:
    router = new_router()
    tell(router, "a", P2, max_queued=8)
    requests = submit(router, *"012345678")
    again = requests[0]
    # One that had a replica and did not start there is before all others.
    router.refused(again, *again.sent[0], FULL)
    tell(router, "a", ROUND_ROBIN, max_queued=2)
    assert [len(each.sent) for each in requests] == [2] + 8 * [0]
    order = [again]
    while len(order) < len(requests):
        router.released(order[-1].sent[-1][1])
        (sent,) = [each for each in requests if each.sent and each not in order]
        order.append(sent)
    assert order == requests
    assert router.statistics() == {"queued": 0, "policy": "round_robin", "ongoing": {"a": 1}}
    # From now on the new limit counts.
    late = submit(router, *"abc")
    assert [type(error) for each in late for error in each.failed] == [BackPressureError]


def test_what_the_first_news_find_waiting_keeps_to_the_limit() -> None:
    router = new_router()
    requests = submit(router, *"01234")
    tell(router, "a", ROUND_ROBIN, max_queued=1)
    assert [each.ended for each in requests] == [1, 0, 1, 1, 1]
    assert [type(each.failed[0]) for each in requests[2:]] == 3 * [BackPressureError]


class Tickets:
    """A user's policy that decides elsewhere: grants come later, one each, and know what they are."""

    def __init__(self, context: PolicyContext, refuses_above: int = 1000) -> None:
        self.context = context
        self.refuses_above = refuses_above
        self.waiting: list[Request] = []
        self.given: list[tuple[Request, Grant | Refused]] = []
        self.released: list[tuple[Grant, Cost | None]] = []
        self.dead: list[str] = []
        self.closed = False

    def update(self, news: DeploymentNews) -> None:
        self.news = news

    def submit(self, request: Request) -> None:
        if request.cost.tokens > self.refuses_above:
            raise Refused(f"{request.cost.tokens} tokens never fit", None, 413)
        self.waiting.append(request)

    def again(self, request: Request) -> None:
        self.waiting.insert(0, request)

    def withdraw(self, request: Request) -> None:
        if request in self.waiting:
            self.waiting.remove(request)

    def next(self) -> tuple[Request, Grant | Refused] | None:
        return self.given.pop(0) if self.given else None

    def release(self, grant: Grant, used: Cost | None) -> None:
        self.released.append((grant, used))

    def died(self, replica: str) -> None:
        self.dead.append(replica)

    def filled(self, replica: str) -> None: ...
    def emptied(self, replica: str) -> None: ...

    def close(self) -> None:
        self.closed = True

    def statistics(self) -> dict[str, Any]:
        return {"waiting": len(self.waiting)}

    # What its other half does, on a thread of its own.

    def grant(self, replica: str) -> None:
        self.given.append((self.waiting.pop(0), Grant(self, replica)))
        self.elsewhere(self.context.ready)

    def refuse(self, refusal: Refused) -> None:
        self.given.append((self.waiting.pop(0), refusal))
        self.elsewhere(self.context.ready)

    @staticmethod
    def elsewhere(work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()


def with_tickets(replicas: str = "ab", **kwargs: Any) -> tuple[Router, Any]:
    router = new_router()
    tell(router, replicas, kind(Tickets, **kwargs))
    return router, router._placing.policy


def test_a_grant_may_come_later_on_any_thread_and_says_what_it_is() -> None:
    router, tickets = with_tickets()
    first, second = submit(router, "first", "second")
    assert not first.ended
    tickets.grant("b")
    target, grant = first.sent[0]
    assert (target.id, grant.policy, second.ended) == ("b", tickets, 0)
    router.released(grant, Cost(tokens=57))
    assert tickets.released == [(grant, Cost(tokens=57))]
    tickets.grant("a")
    assert second.sent[0][0].id == "a"
    router.released(second.sent[0][1])
    assert tickets.released[1][1] is None


def test_a_refusal_may_come_at_once_or_later_and_says_when_to_ask_again() -> None:
    router, tickets = with_tickets(refuses_above=100)
    with pytest.raises(RequestRefusedError) as refused:
        router.submit(Pending(cost=Cost(tokens=101)))
    assert (refused.value.status, refused.value.retry_after_s) == (413, None)
    (waits,) = submit(router, "waits")
    tickets.refuse(Refused("too many wait", 7.5, 429))
    (error,) = waits.failed
    assert isinstance(error, RequestRefusedError)
    assert (error.status, error.retry_after_s) == (429, 7.5)
    assert str(error) == "deployment 'app#d' does not take the request: too many wait"


def test_a_grant_for_a_request_that_was_withdrawn_meanwhile_is_given_back() -> None:
    router, tickets = with_tickets()
    (gone,) = submit(router, "gone")
    grant = Grant(tickets, "a")
    tickets.given.append((gone, grant))
    assert router.withdraw(gone)
    assert not router.withdraw(gone)
    tickets.elsewhere(tickets.context.ready)
    assert gone.ended == 0
    assert tickets.released == [(grant, NOTHING)]


def test_a_grant_of_a_replica_that_has_died_meanwhile_is_given_back_and_the_request_goes_first() -> None:
    router, tickets = with_tickets()
    first, second = submit(router, "first", "second")
    router._died("a")
    assert tickets.dead == ["a"]
    tickets.grant("a")
    assert (first.ended, tickets.waiting) == (0, [first, second])
    assert [used for _, used in tickets.released] == [NOTHING]
    tickets.grant("b")
    assert first.sent[0][0].id == "b"


def test_what_a_replica_did_not_start_is_released_as_nothing() -> None:
    router, tickets = with_tickets()
    (request,) = submit(router, "r")
    for reason in (FULL, DRAINING):
        tickets.grant("a" if reason == FULL else "b")
        target, grant = request.sent[-1]
        router.refused(request, target, grant, reason)
        assert tickets.released[-1] == (grant, NOTHING)
        assert tickets.waiting == [request]
    assert tickets.dead == ["b"]


def test_a_grant_goes_back_to_the_policy_that_gave_it_though_another_is_in_its_place() -> None:
    router, tickets = with_tickets()
    runs, waits = submit(router, "runs", "waits")
    tickets.grant("a")
    tell(router, "ab", P2)
    assert tickets.closed
    assert waits.sent
    router.released(runs.sent[0][1])
    assert len(tickets.released) == 1
    assert router.statistics()["ongoing"] in ({"a": 1, "b": 0}, {"a": 0, "b": 1})


def test_news_of_the_same_policy_leave_it_in_its_place() -> None:
    router, tickets = with_tickets()
    tell(router, "abc", kind(Tickets))
    assert router._placing.policy is tickets
    assert [each.id for each in tickets.news.replicas] == ["a", "b", "c"]


def test_all_that_there_is_room_for_are_sent_at_once() -> None:
    router = new_router()
    requests = submit(router, *"0123")
    tell(router, "a", ROUND_ROBIN, max_ongoing=3)
    later = submit(router, *"45")
    assert [len(each.sent) for each in (*requests, *later)] == [1, 1, 1, 0, 0, 0]
    tell(router, "ab", ROUND_ROBIN, max_ongoing=3)
    assert [len(each.sent) for each in (*requests, *later)] == 6 * [1]


class Picky(LocalPolicy):
    """Sends nothing that costs much, refuses what costs more, and fails at what costs most, as long as it is closed."""

    def choose(self, request: Request) -> Slots | None:
        match request.cost.tokens:
            case 1:
                return None
            case 2 if self.live:
                raise Refused("too much", 3.0, 429)
            case 3 if self.live:
                raise ValueError("told to")
            case _:
                return next(filter(self.has_room, self.live), None)


def test_who_waited_behind_one_that_is_withdrawn_is_sent() -> None:
    router = new_router()
    tell(router, "a", kind(Picky))
    costly, other = Pending(cost=Cost(tokens=1)), Pending()
    router.submit(costly)
    router.submit(other)
    assert not other.ended
    assert router.withdraw(costly)
    assert other.sent


def test_what_is_refused_or_fails_only_when_its_turn_comes_fails_alone() -> None:
    router = new_router()
    tell(router, "", kind(Picky))
    requests = [Pending(cost=Cost(tokens=tokens)) for tokens in (0, 2, 3, 0, 2, 0)]
    for request in requests:
        router.submit(request)
    tell(router, "a", kind(Picky), max_ongoing=10)
    assert [type(each.failed[0]).__name__ if each.failed else len(each.sent) for each in requests] == [
        1, "RequestRefusedError", "RequestRouterError", 1, "RequestRefusedError", 1
    ]  # fmt: skip


def test_a_policy_that_has_kept_what_it_raised_for_is_told_to_let_it_go() -> None:
    class Keeps(Tickets):
        def submit(self, request: Request) -> None:
            super().submit(request)
            raise ValueError("too late")

    router = new_router()
    tell(router, "a", kind(Keeps))
    policy: Any = router._placing.policy
    (request,) = submit(router, "r")
    assert isinstance(request.failed[0], RequestRouterError)
    assert policy.waiting == []


def test_who_asks_a_deployment_that_is_still_gone_is_told_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    controller: Any = Handle()
    connection = Connection(controller, "")
    monkeypatch.setattr("actorrt.serve.routing.router.connect", lambda: connection)
    router = Router(connection, DeploymentId("app", "gone"))
    # These news are known here when the router listens again.
    connection._tell(("deployment", "app", "gone"), DeploymentNews("it was deleted"))
    with pytest.raises(DeploymentUnavailableError, match="it was deleted"):
        router.submit(Pending())


class Eager(Tickets):
    """Says that there are grants within the very methods that are called with the router's lock."""

    def submit(self, request: Request) -> None:
        self.given.append((request, Grant(self, "a")))
        self.context.ready()


def test_a_policy_may_say_that_it_is_ready_within_its_own_methods() -> None:
    router = new_router()
    tell(router, "a", kind(Eager))
    sent = threading.Event()

    class Waits(Pending):
        def send(self, target: Target, grant: Grant) -> None:
            super().send(target, grant)
            sent.set()

    router.submit(Waits())
    assert sent.wait(10)


def test_grants_that_come_later_are_sent_where_the_connection_says() -> None:
    controller: Any = Handle()
    connection = Connection(controller, "")
    there: list[Callable[[], None]] = []
    connection.deliver = there.append
    router = Router(connection, DeploymentId("app", "d"))
    tell(router, "a", kind(Tickets))
    tickets: Any = router._placing.policy
    (request,) = submit(router, "r")
    tickets.grant("a")
    assert (request.ended, len(there)) == (0, 1)
    there.pop()()
    assert request.sent


def raises(name: str, error: type[BaseException]) -> type:
    """A policy of which one method raises, and which is else one of Serve's."""

    def method(self: Any, *args: Any) -> Any:
        raise error(f"told to in {name}")

    return type("Raises", (PowerOfTwo,), {name: method})


@pytest.mark.parametrize("error", [ValueError, CancelledError, GeneratorExit, KeyboardInterrupt, BaseException])
@pytest.mark.parametrize("name", [*METHODS, "choose", "__init__"])
def test_a_policy_that_raises_fails_what_it_was_asked_about_and_nothing_else(
    name: str, error: type[BaseException]
) -> None:
    router = new_router()
    tell(router, "ab", P2)
    running = submit(router, "0", "1")
    waiting = submit(router, "2", "3")
    router.withdraw(waiting.pop())
    tell(router, "ab", kind(raises(name, error)))
    later = submit(router, "4", "5")
    router.withdraw(later[1])
    for request in running:
        router.released(request.sent[0][1])
    for request in later[:1]:
        if request.sent:
            router.refused(request, *request.sent[0], FULL)
    router._emptied("a")
    router._died("b")
    router.statistics()
    for request in (*waiting, *later):
        for failure in request.failed:
            assert isinstance(failure, RequestRouterError)
            assert str(failure).startswith("the request router Raises of deployment 'app#d' failed: ")
            assert f"{error.__name__}: told to in {name}" in str(failure)
    # With one that works all goes on.
    tell(router, "cd", P2, max_ongoing=100)
    assert all(request.ended or request is later[1] for request in (*waiting, *later))
    assert submit(router, "last")[0].sent


def test_ctrl_c_while_a_policy_is_asked_reaches_the_program_and_leaves_no_request() -> None:
    class Interrupted(PowerOfTwo):
        def submit(self, request: Request) -> Slots | None:
            signal.raise_signal(signal.SIGINT)
            return super().submit(request)

    router = new_router()
    tell(router, "ab", kind(Interrupted))
    with pytest.raises(KeyboardInterrupt):
        submit(router, "0")
    assert router.statistics()["queued"] == 0


class Rubbish:
    """A policy that gives what it likes, of what a test has chosen for it."""

    def __init__(self, context: PolicyContext, seed: int) -> None:
        self.dice = random.Random(seed)
        self.seen: list[Any] = [None]

    def anything(self, *args: Any) -> Any:
        self.seen += args
        grant = Grant(self, self.dice.choice(["a", "b", "nowhere"]))  # type: ignore[arg-type]
        what = self.dice.choice(
            ["none", "none", "grant", "grant", "raise", "exit", "refuse", "refusal", "text", "pair", "pair", "odd"]
        )
        match what:
            case "none":
                return None
            case "grant":
                return grant
            case "raise":
                raise KeyError("told to")
            case "exit":
                raise self.dice.choice([SystemExit, CancelledError, GeneratorExit, KeyboardInterrupt])
            case "refuse":
                raise Refused("told to")
            case "refusal":
                return self.dice.choice(self.seen), Refused("told to")
            case "pair":
                return self.dice.choice(self.seen), grant
            case "odd":
                return [], grant
            case _:
                return "text"

    def __getattr__(self, name: str) -> Any:
        if name not in METHODS:
            raise AttributeError(name)
        return self.anything


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(), steps=st.lists(st.sampled_from(["submit", "withdraw", "end", "refuse", "look", "news"])))
def test_no_request_is_lost_or_sent_twice_whatever_a_policy_does(seed: int, steps: list[str]) -> None:
    dice = random.Random(seed)
    router = new_router()
    tell(router, "ab", kind(Rubbish, seed=seed))
    requests: list[Pending] = []
    running: dict[Pending, tuple[Target, Grant]] = {}
    withdrawn: list[Pending] = []
    allowed: dict[Pending, int] = {}
    for step in steps:
        open_ = [each for each in requests if each not in withdrawn and not each.failed]
        running = {each: each.sent[-1] for each in open_ if len(each.sent) == allowed[each]}
        if step == "submit":
            request = Pending(str(len(requests)))
            requests.append(request)
            allowed[request] = 1
            try:
                router.submit(request)
            except (RequestRouterError, RequestRefusedError) as error:
                request.fail(error)
        elif step == "withdraw" and open_:
            request = dice.choice(open_)
            if router.withdraw(request):
                withdrawn.append(request)
        elif step in ("end", "refuse") and running:
            request = dice.choice(list(running))
            target, grant = running[request]
            if step == "end":
                router.released(grant)
                allowed[request] = 0
            else:
                allowed[request] += 1
                router.refused(request, target, grant, FULL)
        elif step == "look":
            router._send_waiting()
        elif step == "news":
            tell(router, dice.choice(["ab", "a", ""]), kind(Rubbish, seed=seed + dice.randrange(2)))
    tell(router, "cd", P2, max_ongoing=10_000)
    for request in requests:
        assert len(request.failed) <= 1
        if request in withdrawn:
            assert not request.failed
            continue
        if allowed[request]:
            # It ran as often as it was allowed to, or has failed, and waits no more.
            assert len(request.sent) <= allowed[request]
            assert request.failed or len(request.sent) == allowed[request]
    assert router.statistics()["queued"] == 0


def test_a_policy_that_makes_one_mistake_after_the_other_is_asked_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actorrt.serve.routing.placing.MOST_MISTAKES", 200)
    asked = 0

    class Stubborn(LocalPolicy):
        def choose(self, request: Request) -> Slots | None:
            return None

        def next(self) -> Any:
            nonlocal asked
            asked += 1
            return Pending("nobody's"), Grant(self, "a")

    router = new_router()
    tell(router, "a", P2)
    context = PolicyContext("", lambda: 0.0, lambda: 0.0, lambda: None)
    router._placing.policy = Stubborn(context)
    (waits,) = submit(router, "waits")
    router._send_waiting()
    assert asked == 201
    assert isinstance(waits.failed[0], RequestRouterError)
    tell(router, "a", P2)
    assert submit(router, "later")[0].sent


def test_a_class_that_cannot_be_loaded_fails_requests_and_says_why() -> None:
    router = new_router()
    router._told(DeploymentNews("", 1, -1, (ReplicaNews("a", Handle()),), PolicyKind("Mine", b"no pickle")))
    with pytest.raises(RequestRouterError, match="the request router Mine of deployment 'app#d' failed: it could not"):
        router.submit(Pending())


def test_requests_of_a_deployment_that_goes_fail_and_its_policy_is_closed() -> None:
    router, tickets = with_tickets()
    (waits,) = submit(router, "waits")
    router._told(DeploymentNews("it was deleted"))
    assert [type(error) for error in waits.failed] == [DeploymentUnavailableError]
    assert tickets.closed


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"tokens": 1.5}, TypeError, "tokens of a cost must be an int, not float"),
        ({"requests": True}, TypeError, "requests of a cost must be an int, not bool"),
        ({"tokens": -1}, ValueError, "tokens of a cost must be zero or more, not -1"),
    ],
)
def test_a_cost_counts_whole_requests_and_tokens(wrong: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        Cost(**wrong)


@pytest.mark.parametrize(
    ("retry_after_s", "status", "said"),
    [(-1.0, 503, "retry_after_s must be zero or more"), (math.nan, 503, "retry_after_s"), (1.0, 500, "must be one of")],
)
def test_a_refusal_says_what_clients_understand(retry_after_s: float, status: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Refused("no", retry_after_s, status)


def test_what_policies_are_fits_the_protocol() -> None:
    context = PolicyContext("", lambda: 0.0, lambda: 0.0, lambda: None)
    made: list[Policy] = [Tickets(context), PowerOfTwo(context)]
    assert all(each.statistics() is not None for each in made)
