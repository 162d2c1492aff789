"""Credits between a router's policy and the hub, in virtual time: who gets by without asking, and who must ask."""

from dataclasses import replace
from typing import Any

import pytest

from actorrt.serve.base.news import DeploymentNews, ReplicaNews
from actorrt.serve.capacity.need import LineId
from actorrt.serve.capacity.queue import TenantLimits
from actorrt.serve.capacity_queue.by_credit import LocalLease
from actorrt.serve.capacity_queue.config import DEFAULT, CapacityQueueConfig
from actorrt.serve.capacity_queue.messages import Offer, QueueCost, QueueUse, Snapshot, Tag, incarnation_of
from actorrt.serve.capacity_queue.running import RunningLeases
from actorrt.serve.policies.policy import ONE_REQUEST, Cost, PolicyContext

from .queue_in_memory import QueueInMemory

LIMIT = 8
CHAT = QueueCost(tokens=100, max_tokens=50)


class R:
    def __init__(self, cost: Cost = ONE_REQUEST) -> None:
        self.cost = cost


class World:
    """A router, its queue and replicas, in one process, whose clock goes when it is told to."""

    def __init__(self, replicas: int = 1, config: CapacityQueueConfig = DEFAULT, offer: Offer | None = None) -> None:
        self.now = 0.0
        self.ids = [f"r{number}" for number in range(replicas)]
        self.router = QueueInMemory(PolicyContext("a#d", lambda: 0.5, lambda: self.now, lambda: None), config)
        self.router._credits.configure(config)
        self.router.update(DeploymentNews("", LIMIT, -1, tuple(ReplicaNews(id) for id in self.ids)))
        for id in self.ids:
            self.router.hub.replica_said(id, Snapshot(1, incarnation_of(id), offer, ()), self.now)
        self.tick()

    @property
    def ledger(self) -> Any:
        return self.router.hub.queue.ledger

    def tick(self, seconds: float = 0.1) -> None:
        for _ in range(round(seconds / 0.1)):
            self.now += 0.1
            self.router.hub.tick(self.now)
            self.router._deliver()

    def ask(self, cost: Cost = ONE_REQUEST) -> Any:
        return self.router.submit(R(cost))

    def warm(self, cost: Cost = ONE_REQUEST) -> None:
        """One that asks the queue, after which the router has credits."""
        grant = self.ask(cost)
        self.tick(0.2)
        self.router.release(grant, None)
        self.tick(0.2)

    def slots(self) -> int:
        return sum(line.running for line in self.ledger.lines.values())


def test_a_router_that_asks_while_nothing_waits_needs_not_ask_again() -> None:
    world = World(2)
    assert not isinstance(world.ask(), LocalLease)
    world = World(2)
    world.warm()
    grants = [world.ask() for _ in range(LIMIT)]
    assert all(isinstance(grant, LocalLease) for grant in grants)
    # Half of each replica, and no more.
    assert sorted(grant.replica for grant in grants) == ["r0"] * 4 + ["r1"] * 4
    assert not isinstance(world.ask(), LocalLease)
    for grant in grants:
        assert grant.tag.credit
        world.router.release(grant, None)
        world.router.release(grant, None)
    assert isinstance(world.ask(), LocalLease)


def test_a_copy_of_the_plain_cost_is_plain_too() -> None:
    world = World()
    world.warm()
    plain, copied, two = world.ask(ONE_REQUEST), world.ask(Cost()), world.ask(Cost(2))
    assert plain.terms is copied.terms
    assert two.terms.tokens == 2 * plain.terms.tokens


def test_where_credits_are_none_each_request_asks() -> None:
    world = World(config=replace(DEFAULT, credit_share=0.0))
    world.warm()
    assert not isinstance(world.ask(), LocalLease)


@pytest.mark.parametrize(("share", "has_credits"), [(None, False), (0.5, True)])
def test_of_tokens_routers_have_credits_only_where_the_deployment_says_so(
    share: float | None, has_credits: bool
) -> None:
    world = World(config=replace(TOKENS, credit_share=share), offer=ENGINE)
    world.warm(CHAT)
    assert isinstance(world.ask(CHAT), LocalLease) is has_credits


def test_who_waits_has_the_credits_called_back_and_gets_what_lay_idle() -> None:
    world = World()
    world.warm()
    assert world.slots() == 4
    grants = [world.ask() for _ in range(LIMIT)]
    assert [isinstance(grant, LocalLease) for grant in grants] == [True] * 4 + [False] * 4
    world.router.release(grants.pop(0), None)
    world.tick(0.3)
    # One slot lies with the router. Who asks the queue and finds no place has it called back, and gets it.
    heavy = world.ask(QueueCost(requests=1, max_tokens=0, session="s"))
    assert heavy is not None
    assert not isinstance(heavy, LocalLease)
    assert world.slots() == LIMIT
    assert world.ask() is None
    for grant in grants:
        world.router.release(grant, None)
    world.router.release(heavy, None)
    found = world.router.next()
    assert found is not None
    world.router.release(found[1], None)  # type: ignore[arg-type]
    assert not world.ledger.leases


def test_a_router_that_does_not_use_its_credits_has_none_after_a_while() -> None:
    world = World()
    world.warm()
    assert world.slots() == 4
    world.tick(4.0)
    assert not world.ledger.leases


TOKENS = replace(
    DEFAULT,
    units="tokens",
    credit_share=0.5,
    tenants={"bound": TenantLimits(running_tokens=1000)},
)
ENGINE = Offer(kv_tokens=10_000, slots=16, prefill_rate=1000.0)


@pytest.mark.parametrize(
    "cost",
    [
        replace(CHAT, max_tokens=None),
        replace(CHAT, chain=(1, 2)),
        replace(CHAT, session="s"),
        replace(CHAT, adapter="a"),
        replace(CHAT, tenant="bound"),
        replace(CHAT, band="flex"),
        replace(CHAT, max_tokens=8000),
        replace(CHAT, tokens=300),
    ],
    ids=[
        "endless",
        "prefix",
        "session",
        "adapter",
        "tenant with a limit",
        "band with a ceiling",
        "long",
        "much to read",
    ],
)
def test_what_the_queue_would_place_better_or_must_bound_asks_it(cost: QueueCost) -> None:
    world = World(config=TOKENS, offer=ENGINE)
    world.warm(CHAT)
    assert isinstance(world.ask(CHAT), LocalLease)
    assert not isinstance(world.ask(cost), LocalLease)


def test_prompts_that_are_not_read_yet_are_bounded_in_credits_and_counted_in_the_ledger() -> None:
    world = World(config=TOKENS, offer=ENGINE)
    world.warm(CHAT)
    line = world.ledger.lines[LineId("r0")]
    # A quarter of half of two seconds' worth.
    assert line.backlog == 250
    grants = [world.ask(CHAT) for _ in range(2)]
    assert [isinstance(grant, LocalLease) for grant in grants] == [True, True]
    asked = world.ask(CHAT)
    assert not isinstance(asked, LocalLease)
    assert line.backlog == 350
    grants[0].progress(1)
    assert isinstance(world.ask(CHAT), LocalLease)


def test_what_runs_by_credits_is_charged_to_its_tenant_and_its_answers_are_learnt() -> None:
    world = World(config=TOKENS, offer=ENGINE)
    world.warm(CHAT)
    queue = world.router.hub.queue
    before = queue.order.served(1, "t")
    for _ in range(30):
        grant = world.ask(replace(CHAT, tenant="t", model="m"))
        assert isinstance(grant, LocalLease)
        grant.progress(3)
        world.router.release(grant, None)
        grant.settle(QueueUse(tokens=10, is_whole=True))
    world.tick(0.5)
    assert queue.order.served(1, "t") - before == 30 * (100 + 2 * 10)
    assert queue.lengths.expect("m", "t", 100, 50) in range(8, 13)
    assert world.router.hub.statistics()["granted"] == 31


def test_of_several_words_after_the_end_of_one_by_a_credit_nothing_is_charged_twice() -> None:
    world = World(config=TOKENS, offer=ENGINE)
    world.warm(CHAT)
    before = world.router.hub.queue.order.served(1, "t")
    grant = world.ask(replace(CHAT, tenant="t"))
    assert isinstance(grant, LocalLease)
    world.router.release(grant, None)
    for tokens in (3, 3, 7, 10):
        grant.settle(QueueUse(tokens=tokens, is_whole=tokens == 10))
    world.tick(0.5)
    assert world.router.hub.queue.order.served(1, "t") - before == 100 + 2 * 10


def test_one_that_its_replica_refuses_asks_the_queue_in_its_place() -> None:
    world = World()
    world.warm()
    request = R()
    grant = world.router.submit(request)
    assert isinstance(grant, LocalLease)
    world.router.release(grant, None)
    again = world.router.again(request)
    assert again is not None
    assert not isinstance(again, LocalLease)
    # The credit is fenced off there: nothing more is sent by it.
    assert not isinstance(world.ask(), LocalLease)


def test_one_that_is_sent_after_a_later_queue_was_heard_of_is_of_the_queue_that_let_it_in() -> None:
    world = World()
    world.warm()
    grant = world.ask()
    world.router.hub.begin_epoch(2)
    world.tick()
    # Its credit is void, and nobody knows of it any more: a replica must not take it for one of the later queue.
    replica = RunningLeases(incarnation_of("r0"))
    replica.snapshot(2, None)
    assert not replica.begin(grant.tag)


def test_a_replica_that_does_not_answer_is_asked_once_to_fence_credits_off() -> None:
    world = World()
    world.warm()
    hub, numbers = world.router.hub, list(world.ledger.leases)
    hub.leave(world.router.router, world.now)
    assert hub.to_fence(world.now) == {"r0": numbers}
    assert hub.to_fence(world.now + 10) == {}
    # It could not be asked: again, after a while.
    hub.fence_ended("r0")
    assert hub.to_fence(world.now) == {}
    assert hub.to_fence(world.now + 10) == {"r0": numbers}


def test_people_are_shown_what_runs_and_apart_from_it_what_lies_in_credits() -> None:
    world = World()
    world.warm()
    grant = world.ask()
    assert isinstance(grant, LocalLease)
    world.tick(0.3)
    (line,) = world.router.hub.statistics()["lines"]
    assert (line["running"], line["begun"], line["used"], line["credits"]) == (1, 1, 1, 3)
    grant.request.request_id = "it"  # type: ignore[attr-defined]
    look = world.router.hub.look_for("it")
    world.router._deliver()
    assert world.router.hub.found("it", look) == ["it runs at replica r0, rank 0, by a credit of its router"]


def credit(number: int, epoch: int, tokens: int = 5) -> Tag:
    return Tag(epoch, 0, number, 0, 0, "r", tokens, 0, "", "", "", "default", True)


def test_a_replica_tells_a_later_queue_what_runs_by_credits_until_it_has_ended() -> None:
    leases = RunningLeases(7)
    first = credit(3, 1)
    assert leases.begin(first)
    assert leases.begin(first)
    # Of credits that are good nothing is said.
    assert not leases.has_news
    assert leases.snapshot(1, None).credits == ()
    assert leases.snapshot(2, None).credits == ((3, 0, 10, 2),)
    assert not leases.begin(first)
    assert leases.begin(credit(8, 2))
    leases.end(first)
    assert leases.report().rooms == ((3, 5, 1),)
    leases.end(first)
    assert leases.report().rooms == ((3, 0, 0),)
    leases.end(credit(8, 2))
    assert not leases.has_news


def test_a_replica_fences_off_a_credit_of_a_router_that_was_silent() -> None:
    leases = RunningLeases(7)
    tag = credit(3, 1)
    assert leases.begin(tag)
    assert leases.fence(1, [3, 4]) == ((3, 5, 1), (4, 0, 0))
    assert not leases.begin(tag)
    assert not leases.begin(credit(4, 1))
    leases.end(tag)
    assert leases.report().rooms == ((3, 0, 0),)
    # A queue before the present one has nothing to say.
    leases.snapshot(2, None)
    assert leases.fence(1, [5]) == ()
