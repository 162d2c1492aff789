"""Bands between a router's policy and the hub, in virtual time: those of later settings, and low ones beside others."""

from dataclasses import replace

import pytest

from actorrt.serve.base.news import DeploymentNews, ReplicaNews
from actorrt.serve.capacity.fair_order import Band
from actorrt.serve.capacity.holdback import IN_USE_S
from actorrt.serve.capacity.queue import BANDS, TenantLimits
from actorrt.serve.capacity_queue.by_credit import LocalLease
from actorrt.serve.capacity_queue.config import DEFAULT
from actorrt.serve.capacity_queue.hub import Hub
from actorrt.serve.capacity_queue.messages import Acquire, QueueCost, Tag, ToQueue, incarnation_of
from actorrt.serve.capacity_queue.running import RunningLeases
from actorrt.serve.policies.policy import Cost, PolicyContext, Refused

from .queue_in_memory import QueueInMemory
from .test_capacity_queue_credits import LIMIT, World

ASKING = replace(DEFAULT, credit_share=0.0)
BATCH = QueueCost(max_tokens=0, band="batch")


@pytest.mark.parametrize("by_credit", [False, True])
def test_a_band_that_later_settings_have_is_the_last_one_of_a_queue_that_runs(by_credit: bool) -> None:
    world = World(config=DEFAULT if by_credit else ASKING)
    world.warm()
    later = replace(world.router._config, bands=(*BANDS, Band("later")))
    world.router._config = later
    world.router._credits.configure(later)
    world.router.hub.update(later, LIMIT, -1, world.ids, world.now)
    lease = world.ask(QueueCost(max_tokens=0, band="later"))
    assert isinstance(lease, LocalLease) is by_credit
    world.router.release(lease, Cost(1, 1))
    world.tick(0.5)
    assert world.router.hub.queue.order.served(len(BANDS) - 1, "") > 0


@pytest.mark.parametrize("by_credit", [False, True])
def test_a_band_goes_by_its_name_where_later_settings_have_another_order(by_credit: bool) -> None:
    world = World(config=DEFAULT if by_credit else ASKING)
    world.warm()
    later = replace(world.router._config, bands=BANDS[::-1])
    world.router._config = later
    world.router._credits.configure(later)
    world.router.hub.update(later, LIMIT, -1, world.ids, world.now)
    lease = world.ask(QueueCost(max_tokens=0, band="priority"))
    assert isinstance(lease, LocalLease) is by_credit
    assert lease.tag.band == "priority"
    world.router.release(lease, Cost(1, 1))
    world.tick(0.5)
    assert world.router.hub.queue.order.served(0, "") > 0


def test_what_runs_is_of_the_band_of_its_name_to_a_later_queue_with_other_bands() -> None:
    replica = RunningLeases(incarnation_of("r"))
    assert replica.begin(Tag(1, 0, 7, 0, 0, "router", 1, 1, "", "", "", "priority"))
    hub = Hub(2, 0.0, lambda: 0.5, replace(ASKING, bands=BANDS[::-1]))
    hub.update(hub.config, 2, -1, ["r"], 0.0)
    hub.replica_said("r", replica.snapshot(2, None), 0.0)
    assert hub.queue.ledger.leases[7].ask.band == 3


def test_people_are_told_of_a_band_that_later_settings_do_not_have() -> None:
    world = World(config=ASKING)
    hub = world.router.hub
    for _ in range(LIMIT):
        world.ask()
    hub.take(
        world.router.router,
        ToQueue(epoch=1, acquire=[Acquire(99, 1, 1, 0, "", "", "", "batch", 0.0, None, (), False)]),
        world.now,
    )
    hub.update(replace(ASKING, bands=BANDS[:2]), LIMIT, -1, world.ids, world.now)
    (router,) = hub._routers.values()
    assert "batch" in hub._why(router, 99, 0, world.now)


def test_where_requests_are_counted_no_prompt_is_in_the_way_of_a_low_band() -> None:
    router = QueueInMemory(PolicyContext("a#d", lambda: 0.5, lambda: 0.0, lambda: None), ASKING)
    router.update(DeploymentNews("", 16, -1, (ReplicaNews("r0"),)))
    world = World(config=ASKING)
    world.router = router
    # Its answer is whole, so that nobody hears of a first token.
    assert world.ask()
    assert world.ask(BATCH)
    # An eighth of sixteen runs.
    assert world.ask(BATCH) is None


def test_a_tenant_whose_limits_refuse_its_requests_keeps_nothing_from_low_bands() -> None:
    config = replace(ASKING, tenants={"refused": TenantLimits(waiting_requests=0)})
    world, served = World(config=config), QueueCost(max_tokens=0, tenant="refused")
    holdback = world.router.hub.queue.holdback
    for _ in range(LIMIT):
        assert world.ask(served)
    world.tick(IN_USE_S / 2)
    with pytest.raises(Refused, match="of tenant refused wait"):
        raise world.ask(served)
    world.tick(IN_USE_S / 2 + 1.0)
    assert holdback.share(len(BANDS) - 1, world.now).slots == BANDS[-1].ceiling


def test_a_band_is_in_use_while_somebody_waits_in_it() -> None:
    world = World(config=ASKING)
    grants = [world.ask() for _ in range(LIMIT)]
    assert world.ask() is None
    world.tick(2 * IN_USE_S)
    holdback = world.router.hub.queue.holdback
    assert holdback.share(len(BANDS) - 1, world.now).slots == BANDS[-1].beside
    world.router.release(grants.pop(), None)
    world.tick(IN_USE_S + 1.0)
    assert holdback.share(len(BANDS) - 1, world.now).slots == BANDS[-1].ceiling


def test_higher_bands_are_in_use_by_credits_too() -> None:
    world = World()
    world.warm()
    began = world.now
    while world.now < began + IN_USE_S + 1.0:
        lease = world.ask()
        assert isinstance(lease, LocalLease)
        world.router.release(lease, None)
        world.tick(1.0)
    assert world.router.hub.queue.holdback.share(len(BANDS) - 1, world.now).slots == BANDS[-1].beside
    world.tick(IN_USE_S + 1.0)
    assert world.router.hub.queue.holdback.share(len(BANDS) - 1, world.now).slots == BANDS[-1].ceiling
