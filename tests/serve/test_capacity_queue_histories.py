"""The capacity queue with routers and replicas in virtual time: they are killed in any order, messages take their time.

After each history nothing is lost or left: each request of a router that lives was answered, and the ledger is empty
because nothing runs. No queue ever gives more than it has, and what it refuses a replica for want of room it could not
know of.
"""

import heapq
import itertools
import random
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from actorrt.serve.base.news import DeploymentNews, ReplicaNews
from actorrt.serve.base.refusals import FULL, OUTDATED
from actorrt.serve.capacity_queue.by_credit import LocalLease
from actorrt.serve.capacity_queue.config import CapacityQueueConfig
from actorrt.serve.capacity_queue.hub import Hub
from actorrt.serve.capacity_queue.messages import (
    Acquire,
    Messages,
    Report,
    Snapshot,
    Tag,
    ToQueue,
    encode,
    incarnation_of,
    to_queue,
)
from actorrt.serve.capacity_queue.policy import CapacityQueuePolicy, Lease
from actorrt.serve.capacity_queue.running import RunningLeases
from actorrt.serve.policies.policy import NOTHING, ONE_REQUEST, PolicyContext, Refused

from ..depth import DEPTH

CONFIG = CapacityQueueConfig(lease_ttl_s=2.0, grace_s=1.0, silence_s=1.0, credit_share=1.0)
Granted = Lease | LocalLease
SECONDS = 20.0


class World:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        # What each replica takes at once.
        self.limit = self.random.choice((3, 12))
        self.now = 1000.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._ways: dict[object, float] = defaultdict(float)
        self.replicas: dict[str, Replica] = {}
        self.routers: list[Router] = []
        self.queue: Queue | None = None
        self.epochs = itertools.count(1)
        self.full_refusals = 0
        self.queue_deaths = self.fences = self.by_credit = self.outdated = 0

    def after(self, seconds: float, work: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), work))

    def send(self, way: object, work: Callable[[], None]) -> None:
        """What is sent one way arrives in its order, each after a while."""
        at = self._ways[way] = max(self._ways[way], self.now + self.random.choice((0.0001, 0.001, 0.05)))
        heapq.heappush(self._events, (at, next(self._numbers), work))

    def stall(self, way: object) -> None:
        """What is sent this way from now on takes longer than a router may be silent."""
        self._ways[way] = max(self._ways[way], self.now + 1.5)

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, work = heapq.heappop(self._events)
            work()
            if self.queue is not None:
                check(self.queue.hub)
                check_what_runs_is_counted(self, self.queue.hub)
        self.now = until

    def news(self) -> DeploymentNews:
        return DeploymentNews("", self.limit, -1, tuple(ReplicaNews(id) for id in self.replicas))

    def publish(self) -> None:
        for router in self.routers:
            self.send(("news", router), router.told)
        if self.queue is not None:
            self.send(("news", self.queue), self.queue.told)


def check(hub: Hub) -> None:
    ledger = hub.queue.ledger
    for line in ledger.lines.values():
        assert line.running == sum(lease.slots for lease in line.leases.values())
        assert line.used == sum(lease.tokens for lease in line.leases.values())


def check_what_runs_is_counted(world: World, hub: Hub) -> None:
    """Whatever runs by a lease of this queue has its room in the ledger, or that room would be given twice."""
    leases = hub.queue.ledger.leases
    for replica in world.replicas.values():
        for lease in replica.running.values():
            if type(lease) is Lease and lease.epoch == hub.epoch and lease.number > 0:
                assert lease.number in leases


class Queue:
    """The actor: it joins routers and follows replicas."""

    config = CONFIG

    def __init__(self, world: World) -> None:
        self.world = world
        self.alive = True
        self.hub = Hub(next(world.epochs) * 10**6, world.now, world.random.random, self.config)
        self.joined: dict[str, Router] = {}
        self.followed: set[str] = set()
        self.told()
        world.after(0.1, self.tick)

    def told(self) -> None:
        if not self.alive:
            return
        world = self.world
        self.hub.update(self.config, world.limit, -1, list(world.replicas), world.now)
        for id, replica in world.replicas.items():
            if id not in self.followed:
                self.followed.add(id)
                world.send((self, id), lambda replica=replica: replica.follow(self))  # type: ignore[misc]
        self.tell()

    def tick(self) -> None:
        if self.alive:
            for name in self.hub.tick(self.world.now):
                router = self.joined.pop(name)
                self.world.send((self, name), router.session_ended)
            for id, credits in self.hub.to_fence(self.world.now).items():
                if (replica := self.world.replicas.get(id)) is not None:
                    self.world.send(
                        (self, replica, "fence"),
                        lambda replica=replica, credits=credits: replica.fence(self, credits),  # type: ignore[misc]
                    )
            self.tell()
            self.world.after(0.1, self.tick)

    def tell(self) -> None:
        for name, message in self.hub.told():
            router, data = self.joined[name], encode(message)
            self.world.send((self, name), lambda router=router, data=data: router.came(self, data))  # type: ignore[misc]

    def join(self, router: "Router") -> None:
        if not self.alive:
            self.world.send((self, router.name), router.session_ended)
        elif router.alive:
            self.joined[router.name] = router
            self.hub.join(router.name, self.world.now)
            self.tell()

    def leave(self, router: "Router") -> None:
        if self.alive and self.joined.pop(router.name, None) is not None:
            self.hub.leave(router.name, self.world.now)
            self.tell()

    def broken(self, router: "Router") -> None:
        """The stream of a router ends while both live."""
        if router.alive and router.session is self:
            self.leave(router)
            self.world.send((self, router.name), router.session_ended)

    def hear(self, router: "Router", data: bytes) -> None:
        if self.alive and router.alive and router.name in self.joined:
            for message in Messages().feed(data):
                self.hub.take(router.name, to_queue.decode(message), self.world.now)
            self.tell()

    def replica_said(self, id: str, said: Snapshot | Report) -> None:
        if not self.alive:
            return
        if isinstance(said, Snapshot):
            self.hub.replica_said(id, said, self.world.now)
        else:
            self.hub.replica_reports(id, said, self.world.now)
        self.tell()

    def fenced(self, id: str, rooms: tuple[tuple[int, int, int], ...]) -> None:
        if self.alive:
            self.hub.replica_fenced(rooms, self.world.now)
            self.hub.fence_ended(id)
            self.tell()

    def lost(self, id: str) -> None:
        if self.alive:
            self.hub.drop_replica(id, self.world.now)
            self.tell()

    def die(self) -> None:
        world = self.world
        self.alive, world.queue = False, None
        world.queue_deaths += 1
        for replica in world.replicas.values():
            world.send(("death", self, replica), lambda replica=replica: replica.unfollowed(self))  # type: ignore[misc]
        for router in self.joined.values():
            world.send((self, router.name), router.session_ended)
        world.after(world.random.choice((0.01, 0.5, 3.0)), lambda: setattr(world, "queue", type(self)(world)))


class Replica:
    def __init__(self, world: World, id: str) -> None:
        self.world, self.id = world, id
        self.alive = True
        self.leases = RunningLeases(incarnation_of(id))
        self.running: dict[R, Granted] = {}
        self.follower: Queue | None = None
        self.waiting_for_room: list[Router] = []

    def follow(self, queue: Queue) -> None:
        if not self.alive:
            return self.world.send((self, queue), lambda: queue.lost(self.id))
        if queue.alive:
            self.follower = queue
            said = self.leases.snapshot(queue.hub.epoch, None)
            self.leases.is_followed = True
            self.world.send((self, queue), lambda: queue.replica_said(self.id, said))
            self.report()
        return None

    def fence(self, queue: Queue, credits: list[int]) -> None:
        if self.alive:
            rooms = self.leases.fence(queue.hub.epoch, credits)
            self.world.fences += len(rooms)
            self.world.send((self, queue, "fence"), lambda: queue.fenced(self.id, rooms))

    def unfollowed(self, queue: Queue) -> None:
        if self.follower is queue:
            self.follower, self.leases.is_followed = None, False

    def report(self) -> None:
        queue = self.follower
        if queue is None or not self.alive or not queue.alive:
            return
        if self.leases.has_news:
            said = self.leases.report()
            self.world.send((self, queue), lambda: queue.replica_said(self.id, said))
        self.world.after(0.05, self.report)

    def arrive(self, router: "Router", request: "R", lease: Granted) -> None:
        world = self.world
        if not router.alive:
            return
        if not self.alive:
            world.send((self, router), lambda: router.replica_died(self, request, lease))
        elif len(self.running) >= world.limit:
            world.full_refusals += 1
            self.waiting_for_room.append(router)
            world.send((self, router), lambda: router.refused(self, request, lease, FULL))
        elif not self.leases.begin(lease.tag):
            world.outdated += 1
            world.send((self, router), lambda: router.refused(self, request, lease, OUTDATED))
        else:
            self.running[request] = lease
            self.begun(router, request, lease)

    def begun(self, router: "Router", request: "R", lease: Granted) -> None:
        world = self.world
        world.after(world.random.choice((0.001, 0.1, 1.0)), lambda: self.end(router, request, lease))

    def end(self, router: "Router", request: "R", lease: Granted) -> None:
        if not self.alive or self.running.pop(request, None) is None:
            return
        self.leases.end(lease.tag)
        if router.alive:
            self.world.send((self, router), lambda: router.ended(request, lease))
        waiting, self.waiting_for_room = self.waiting_for_room, []
        for each in waiting:
            self.world.send((self, each), lambda each=each: each.emptied(self.id))  # type: ignore[misc]

    def die(self) -> None:
        world = self.world
        self.alive = False
        world.replicas.pop(self.id, None)
        if self.follower is not None:
            queue = self.follower
            world.send((self, queue), lambda: queue.lost(self.id))
        for router in world.routers:
            world.send((self, router), lambda router=router: router.heard_of_death(self))  # type: ignore[misc]
        world.after(0.02, world.publish)
        new = type(self)(world, f"r{next(world._numbers)}")
        world.after(0.3, lambda: (world.replicas.update({new.id: new}), world.publish())[1])  # type: ignore[func-returns-value]


class R:
    def __init__(self) -> None:
        self.cost = ONE_REQUEST
        self.outcome = ""


class Quiet(CapacityQueuePolicy):
    def _watch(self) -> None:
        pass  # the world looks


class Router:
    """Does with grants what serve's router does, and keeps a session to the queue that is there."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.alive = True
        self.requests: dict[R, None] = {}
        self.dead: set[str] = set()
        self.policy = Quiet(PolicyContext("a#d", world.random.random, lambda: world.now, self.ready))
        self.policy._config = CONFIG
        self.policy.router = name
        self.policy._credits.configure(CONFIG)
        self.policy._alone._number = -(10**9) * next(world._numbers)
        self.policy._session = self  # type: ignore[assignment]
        self.session: Queue | None = None
        self.looks = False
        self.told()
        self.begin()
        world.after(0.5, self.watch)

    # Its session.

    def begin(self) -> None:
        if not self.alive:
            return
        self.session = queue = self.world.queue
        if queue is None:
            self.world.after(0.05, self.begin)
        else:
            self.world.send((self, queue), lambda: queue.join(self))

    def session_ended(self) -> None:
        if self.alive:
            self.session = None
            self.policy.closed()
            self.begin()

    def came(self, queue: Queue, data: bytes) -> None:
        if self.alive and self.session is queue:
            for message in Messages().feed(data):
                self.policy.came(message)

    def write(self, data: bytes) -> None:
        if (queue := self.session) is not None:
            self.world.send((self, queue), lambda: queue.hear(self, data))

    def leave(self) -> None: ...

    # A router.

    def ready(self) -> None:
        if not self.looks:
            self.looks = True
            self.world.after(0.0, self.look)

    def watch(self) -> None:
        if self.alive:
            if self.policy._waiting and self.policy._is_alone(self.world.now):
                self.look()
            self.world.after(0.5, self.watch)

    def look(self) -> None:
        self.looks = False
        while self.alive and (found := self.policy.next()) is not None:
            request, grant = found
            assert isinstance(request, R)
            self.got(request, grant)

    def got(self, request: R, grant: Any) -> None:
        if isinstance(grant, Refused):
            self.done(request, "refused")
        elif grant is not None:
            self.world.by_credit += isinstance(grant, LocalLease)
            assert request not in self.policy._waiting
            replica = self.world.replicas.get(grant.replica)
            if grant.replica in self.dead or replica is None:
                self.policy.release(grant, NOTHING)
                self.got(request, self.policy.again(request))
            else:
                self.world.send((self, replica.id), lambda: replica.arrive(self, request, grant))

    def told(self) -> None:
        if self.alive:
            news = self.world.news()
            self.policy.update(news._replace(replicas=tuple(r for r in news.replicas if r.id not in self.dead)))
            self.look()

    def ask(self) -> None:
        request = R()
        self.requests[request] = None
        self.got(request, self.policy.submit(request))

    def give_up(self, request: R) -> None:
        """Its client has gone, if it waits still."""
        if request in self.policy._waiting or request in self.policy._ready or request in self.policy._early:
            self.policy.withdraw(request)
            self.done(request, "withdrawn")
            self.look()

    def ended(self, request: R, lease: Granted) -> None:
        if self.alive:
            self.policy.release(lease, None)
            self.done(request, "ended")
            self.look()

    def refused(self, replica: Replica, request: R, lease: Granted, reason: int) -> None:
        if self.alive:
            if reason != OUTDATED:
                self.policy.filled(replica.id)
            self.policy.release(lease, NOTHING)
            self.got(request, self.policy.again(request))

    def replica_died(self, replica: Replica, request: R, lease: Granted) -> None:
        if self.alive and not request.outcome:
            self.heard_of_death(replica)
            self.policy.release(lease, NOTHING)
            self.got(request, self.policy.again(request))

    def heard_of_death(self, replica: Replica) -> None:
        if self.alive and replica.id not in self.dead:
            self.dead.add(replica.id)
            self.policy.died(replica.id)
            for request, lease in list(replica.running.items()):
                if request in self.requests and not request.outcome:
                    del replica.running[request]
                    self.policy.release(lease, None)
                    self.got(request, self.policy.again(request))
            self.look()

    def emptied(self, replica: str) -> None:
        if self.alive:
            self.policy.emptied(replica)
            self.look()

    def done(self, request: R, outcome: str) -> None:
        assert not request.outcome
        request.outcome = outcome

    def die(self) -> None:
        world = self.world
        self.alive = False
        world.routers.remove(self)
        for replica in world.replicas.values():
            for request, lease in list(replica.running.items()):
                if request in self.requests:
                    world.send((self, replica.id), lambda r=replica, q=request, held=lease: r.end(self, q, held))  # type: ignore[misc]
        if (queue := self.session) is not None:
            world.send((self, queue), lambda: queue.leave(self))
        world.after(0.2, lambda: world.routers.append(Router(world, f"router{next(world._numbers)}")))


def history(seed: int, *, kills: bool) -> World:
    world = World(seed)
    chance = world.random
    for number in range(chance.randint(1, 3)):
        replica = Replica(world, f"r{number}x")
        world.replicas[replica.id] = replica
    world.queue = Queue(world)
    world.routers = [Router(world, f"router{number}x") for number in range(chance.randint(1, 3))]
    end = world.now + SECONDS
    at = world.now
    while at < end - SECONDS / 4:
        at += chance.expovariate(12)
        world.run(at)
        if world.routers:
            router = chance.choice(world.routers)
            router.ask()
            if chance.random() < 0.1 and router.requests:
                router.give_up(chance.choice(list(router.requests)))
        if kills and chance.random() < 0.01:
            kind = chance.choice(("queue", "router", "replica", "stall", "break"))
            if kind == "queue" and world.queue is not None:
                world.queue.die()
            elif kind == "router" and len(world.routers) > 1:
                chance.choice(world.routers).die()
            elif kind == "replica" and len(world.replicas) > 1:
                chance.choice(list(world.replicas.values())).die()
            elif kind == "stall" and world.queue is not None and world.routers:
                router = chance.choice(world.routers)
                world.stall(chance.choice(((router, world.queue), (world.queue, router.name))))
            elif kind == "break" and world.queue is not None and world.routers:
                world.queue.broken(chance.choice(world.routers))
    world.run(end + 60)
    return world


def check_nothing_is_left(world: World) -> None:
    lost = [request for router in world.routers for request in router.requests if not request.outcome]
    assert not lost
    assert not any(replica.running for replica in world.replicas.values())
    assert world.queue is not None
    hub = world.queue.hub
    assert not hub.queue.ledger.leases
    assert (len(hub.queue.order), hub._parked) == (0, {})
    # All that there is may be given again.
    assert [line.slots for line in hub.queue.ledger.lines.values()] == [world.limit] * len(world.replicas)
    assert all(line.is_open for line in hub.queue.ledger.lines.values())
    for router in world.routers:
        policy = router.policy
        assert not policy._credits.running
        assert [policy._held, policy._waiting, policy._ready, policy._early, policy._by_id] == [{}] * 5
        assert set(policy.statistics().values()) == {0}


@pytest.mark.parametrize("block", range(10))
def test_whatever_dies_no_request_is_lost_and_the_ledger_is_what_runs(block: int) -> None:
    for seed in range(block, 100 * DEPTH, 10):
        try:
            check_nothing_is_left(history(seed, kills=True))
        except AssertionError as error:
            raise AssertionError(f"seed {seed}") from error


def test_where_nothing_dies_no_replica_is_ever_asked_for_more_than_it_has() -> None:
    for seed in range(10 * DEPTH):
        world = history(seed, kills=False)
        check_nothing_is_left(world)
        assert world.full_refusals == 0, f"seed {seed}"


def test_what_a_router_had_in_hand_as_it_left_is_given_to_others_once_its_replica_refuses_it() -> None:
    hub, replica = Hub(1, 0.0, random.random, CONFIG), RunningLeases(incarnation_of("r"))
    hub.update(CONFIG, 2, -1, ["r"], 0.0)
    hub.replica_said("r", replica.snapshot(1, None), 0.0)
    tags = []
    for name in ("left", "stays"):
        hub.join(name, 0.0)
        asked = [Acquire(id, 1, 0, 0, "", "", "", "default", 0.0, None, (), False) for id in range(2)]
        hub.take(name, ToQueue(epoch=1, held=[], acquire=asked), 0.0)
        for _, told in hub.told():
            tags += [Tag(1, 0, each.number, 0, 0, name, 1, 1, "", "", "", "default") for each in told.grants]
    begun, on_its_way = tags
    assert replica.begin(begun)
    hub.leave("left", 0.1)
    assert not any(told.grants for _, told in hub.told())
    rooms = replica.fence(1, hub.to_fence(0.1)["r"])
    assert not replica.begin(on_its_way)
    hub.replica_fenced(rooms, 0.2)
    hub.fence_ended("r")
    assert [[granted.id for granted in told.grants] for _, told in hub.told()] == [[0]]
    assert hub.to_fence(10.0) == {}
    replica.end(begun)
    hub.replica_reports("r", replica.report(), 0.3)
    assert [[granted.id for granted in told.grants] for _, told in hub.told()] == [[1]]


def test_a_router_that_is_back_keeps_what_it_has_in_hand() -> None:
    hub = Hub(1, 0.0, random.random, CONFIG)
    hub.update(CONFIG, 2, -1, ["r"], 0.0)
    hub.replica_said("r", RunningLeases(incarnation_of("r")).snapshot(1, None), 0.0)
    hub.join("router", 0.0)
    hub.take(
        "router", ToQueue(epoch=1, acquire=[Acquire(1, 1, 0, 0, "", "", "", "default", 0.0, None, (), False)]), 0.0
    )
    (number,) = hub.queue.ledger.leases
    hub.leave("router", 0.1)
    hub.join("router", 0.2)
    hub.take("router", ToQueue(epoch=1, held=[number]), 0.2)
    assert list(hub.queue.ledger.leases) == [number]
    assert hub.to_fence(0.3) == {}
    hub.leave("router", 0.4)
    hub.join("router", 0.5)
    hub.take("router", ToQueue(epoch=1, held=[]), 0.5)
    assert not hub.queue.ledger.leases


def test_what_was_said_to_an_earlier_queue_is_not_heard_by_the_next() -> None:
    hub = Hub(2, 0.0, random.random, CONFIG)
    hub.join("router", 0.0)
    asked = [Acquire(1, 1, 0, 0, "", "", "", "default", 0.0, None, (), False)]
    hub.take("router", ToQueue(epoch=1, acquire=asked), 0.0)
    assert hub.statistics()["tenants"] == {}
    hub.take("router", ToQueue(epoch=2, held=[], acquire=asked), 0.0)
    assert hub.statistics()["tenants"][""]["waiting"] == 1


def test_who_says_too_late_that_a_request_is_his_leaves_nothing() -> None:
    hub = Hub(2, 0.0, random.random, CONFIG)
    hub.join("router", 0.0)
    look = hub.look_for("a")
    hub.take("router", ToQueue(epoch=2, found=[("a", 1, 0)]), 0.0)
    assert len(hub.found("a", look)) == 1
    hub.take("router", ToQueue(epoch=2, found=[("a", 1, 0)]), 0.0)
    assert "a" not in hub._looks
    assert len(look) == 1


def test_all_who_look_for_one_request_at_once_hear_of_it_once() -> None:
    hub = Hub(2, 0.0, random.random, CONFIG)
    for name in ("one", "two"):
        hub.join(name, 0.0)
    first = hub.look_for("a")
    assert [message.find for _, message in hub.told()] == ["a", "a"]
    hub.take("one", ToQueue(epoch=2, found=[("a", 1, 0)]), 0.0)
    # The routers are asked again, since something may have changed.
    second = hub.look_for("a")
    assert [message.find for _, message in hub.told()] == ["a", "a"]
    for name in ("one", "two"):
        hub.take(name, ToQueue(epoch=2, found=[("a", 1, 0), ("b", 2, 0)]), 0.0)
    assert len(hub.found("a", first)) == 2
    hub.take("one", ToQueue(epoch=2, found=[("a", 3, 0)]), 0.0)
    assert len(hub.found("a", second)) == 3
    assert "a" not in hub._looks
