"""A request that was refused keeps its place by its ticket: hub and policy at once, in virtual time."""

from collections.abc import Callable
from secrets import token_bytes

import pytest

from actorrt.serve.base.news import DeploymentNews, ReplicaNews
from actorrt.serve.capacity.tickets import VALID_S
from actorrt.serve.capacity_queue.config import DEFAULT
from actorrt.serve.capacity_queue.hub import Hub
from actorrt.serve.capacity_queue.messages import QueueCost
from actorrt.serve.policies.policy import Grant, PolicyContext, Refused, Request

from .queue_in_memory import QueueInMemory


class Asked:
    def __init__(self, cost: QueueCost) -> None:
        self.cost = cost


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class World:
    """A queue of one place, which is taken."""

    def __init__(self) -> None:
        self.clock = Clock()
        hub = Hub(1, self.clock.now, lambda: 0.5, DEFAULT, key=token_bytes(32))
        self.queue = QueueInMemory(PolicyContext("app#it", lambda: 0.5, self.clock, lambda: None), hub=hub)
        self.queue.update(DeploymentNews("", 1, -1, (ReplicaNews("a"),)))
        found = self.queue.submit(Asked(QueueCost(max_tokens=0)))
        assert found is not None
        self.runs: Grant = found

    def ask(self, ticket: str = "", tenant: str = "", deadline_s: float | None = None) -> Request:
        self.clock.now += 1.0
        request = Asked(QueueCost(max_tokens=0, ticket=ticket, tenant=tenant, deadline_s=deadline_s))
        assert self.queue.submit(request) is None
        return request

    def ticket(self, tenant: str = "") -> str:
        """Of a request that came now and has waited to its deadline."""
        request = self.ask(tenant=tenant, deadline_s=0.5)
        self.clock.now += 1.0
        self.queue.hub.tick(self.clock.now)
        self.queue._deliver()
        found = self.queue.next()
        assert found is not None
        assert found[0] is request
        assert isinstance(found[1], Refused)
        assert found[1].status == 429
        assert found[1].ticket
        return found[1].ticket

    def order(self, count: int) -> list[Request]:
        """Those that are served one after the other."""
        served: list[Request] = []
        for _ in range(count):
            self.queue.release(self.runs, None)
            found = self.queue.next()
            assert found is not None
            assert isinstance(found[1], Grant)
            served.append(found[0])
            self.runs = found[1]
        return served


def test_a_retry_with_its_ticket_goes_before_those_that_came_after_its_first_try() -> None:
    world = World()
    ticket = world.ticket()
    others = [world.ask() for _ in range(3)]
    back = world.ask(ticket)
    assert world.order(4) == [back, *others]


def test_without_one_it_goes_behind_them() -> None:
    world = World()
    world.ticket()
    others = [world.ask() for _ in range(3)]
    back = world.ask()
    assert world.order(4) == [*others, back]


def test_a_retry_that_is_refused_again_keeps_its_first_place() -> None:
    world = World()
    ticket = world.ticket()
    other = world.ask()
    with pytest.raises(Refused, match="it would wait for") as refused:
        world.ask(ticket, deadline_s=0.5)
    assert refused.value.ticket != ticket
    back = world.ask(refused.value.ticket)
    assert world.order(2) == [back, other]


def used_already(world: World) -> str:
    ticket = world.ticket()
    world.queue.withdraw(world.ask(ticket))
    return ticket


def too_old(world: World) -> str:
    ticket = world.ticket()
    world.clock.now += VALID_S + 1
    world.queue.hub.tick(world.clock.now)
    return ticket


@pytest.mark.parametrize(
    "ticket_of",
    [
        lambda world: "A" * len(world.ticket()),
        lambda world: world.ticket()[:-2] + "AA",
        lambda world: world.ticket()[:-1],
        lambda world: "\xe9 ticket",
        lambda world: World().ticket(),
        lambda world: world.ticket("another"),
        used_already,
        too_old,
    ],
    ids=["forged", "changed", "cut", "no text of one", "another queue's", "another tenant's", "used", "too old"],
)
def test_what_is_no_ticket_any_more_is_as_none(ticket_of: Callable[[World], str]) -> None:
    world = World()
    ticket = ticket_of(world)
    other = world.ask()
    back = world.ask(ticket)
    assert world.order(2) == [other, back]


def test_a_request_that_did_not_begin_is_asked_for_anew_with_the_same_ticket() -> None:
    world = World()
    ticket = world.ticket()
    other, later, back = world.ask(), world.ask(), world.ask(ticket)
    assert world.order(1) == [back]
    # Its replica would not begin it, and the place went to who was next.
    world.queue.release(world.runs, None)
    assert world.queue.again(back) is None
    found = world.queue.next()
    assert found is not None
    assert found[0] is other
    assert isinstance(found[1], Grant)
    world.runs = found[1]
    assert world.order(2) == [back, later]


def test_what_is_no_matter_of_time_has_none() -> None:
    world = World()
    with pytest.raises(Refused) as refused:
        world.queue.submit(Asked(QueueCost(max_tokens=0, band="none")))
    assert (refused.value.status, refused.value.ticket) == (400, "")
