"""Prefill and decode on separate replicas in virtual time: whoever reads, answers, asks or decides is killed.

After each history all requests of routers that live were answered, and neither ledger has anything left.
"""

from collections.abc import Callable
from dataclasses import replace

from actorrt.serve.capacity_queue.by_lease import read_by
from actorrt.serve.capacity_queue.hub import Hub
from actorrt.serve.capacity_queue.messages import Tag, incarnation_of
from actorrt.serve.capacity_queue.policy import Lease
from actorrt.serve.capacity_queue.running import RunningLeases

from ..depth import DEPTH
from . import test_capacity_queue_histories as whole
from .test_capacity_queue_histories import Granted, Queue, R, Replica, Router, World, check_nothing_is_left

CONFIG = replace(whole.CONFIG, prefill="readers")


class Apart(World):
    """With replicas that read, beside those that answer."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.readers: dict[str, Reader] = {}
        self.read = self.unread = self.refused_reads = 0


class PairQueue(Queue):
    world: Apart
    config = CONFIG

    def told(self) -> None:
        if not self.alive:
            return
        world = self.world
        self.hub.update_readers(world.limit, list(world.readers), world.now)
        super().told()
        for id, reader in world.readers.items():
            if id not in self.followed:
                self.followed.add(id)
                world.send((self, id), lambda reader=reader: reader.follow(self))  # type: ignore[misc]

    def die(self) -> None:
        super().die()
        for reader in self.world.readers.values():
            reader.unfollowed(self)


class Reader(Replica):
    """It reads for one that answers, by the lease of a request, and says when it has."""

    world: Apart

    def read(self, by: "Answers", request: R, tag: Tag, then: Callable[[bool], None]) -> None:
        world = self.world
        if not by.alive or request not in by.running:
            return
        if not self.alive or len(self.reading) >= world.limit or not self.leases.begin(tag):
            world.refused_reads += self.alive and len(self.reading) >= world.limit
            world.send((self, by.id), lambda: then(False))
            return
        self.reading[request] = tag, by, then
        world.after(world.random.choice((0.001, 0.1, 0.5)), lambda: self.over(request, tag, is_read=True))

    def __init__(self, world: Apart, id: str) -> None:
        super().__init__(world, id)
        self.reading: dict[R, tuple[Tag, Answers, Callable[[bool], None]]] = {}

    def over(self, request: R, tag: Tag, *, is_read: bool) -> None:
        """It was read, or nobody wants it any more."""
        if self.alive and request in self.reading and self.reading[request][0] is tag:
            _, by, then = self.reading.pop(request)
            self.leases.end(tag)
            if is_read:
                self.world.read += 1
                self.world.send((self, by.id), lambda: then(True))

    def die(self) -> None:
        world, reading = self.world, list(self.reading.values())
        self.alive = False
        world.readers.pop(self.id)
        for _, by, then in reading:
            world.send((self, by.id), lambda then=then: then(False))  # type: ignore[misc]
        if self.follower is not None:
            queue = self.follower
            world.send((self, queue), lambda: queue.lost(self.id))
        world.after(0.02, world.publish)
        new = Reader(world, f"p{next(world._numbers)}")
        world.after(0.3, lambda: (world.readers.update({new.id: new}), world.publish())[1])  # type: ignore[func-returns-value]


class Answers(Replica):
    world: Apart

    def __init__(self, world: Apart, id: str) -> None:
        super().__init__(world, id)
        self.leases = RunningLeases(incarnation_of(id))

    def begun(self, router: Router, request: R, lease: Granted) -> None:
        world = self.world
        by = read_by(lease.tag)
        if by is None:
            # Its router does without a queue.
            super().begun(router, request, lease)
            return
        reader = world.readers.get(by.replica)

        def then(is_read: bool) -> None:
            if not self.alive or self.running.get(request) is not lease:
                return
            if is_read:
                Replica.begun(self, router, request, lease)
            else:
                # It fails, and its front has it asked for again.
                world.unread += 1
                del self.running[request]
                self.leases.end(lease.tag)
                world.send((self, router), lambda: again(router, request, lease))

        if reader is None:
            then(False)
        else:
            world.send((self, reader), lambda: reader.read(self, request, by.tag, then))

    def end(self, router: Router, request: R, lease: Granted) -> None:
        self._not_wanted(request)
        super().end(router, request, lease)

    def die(self) -> None:
        for request in self.running:
            self._not_wanted(request)
        super().die()

    def _not_wanted(self, request: R) -> None:
        """The runtime cancels what was asked for it."""
        for reader in self.world.readers.values():
            if (found := reader.reading.get(request)) is not None and found[1] is self:
                self.world.send(
                    (self, reader),
                    lambda reader=reader, tag=found[0]: reader.over(request, tag, is_read=False),  # type: ignore[misc]
                )


def again(router: Router, request: R, lease: Granted) -> None:
    if router.alive and not request.outcome:
        assert isinstance(lease, Lease)
        router.policy.release(lease, None)
        router.got(request, router.policy.submit(request))
        router.look()


def check_readers(hub: Hub) -> None:
    prefill = hub.queue.prefill
    assert prefill is not None
    for line in prefill.lines():
        assert line.running == len(line.leases)
        assert line.used == sum(lease.tokens for lease in line.leases.values())


def history(seed: int, *, kills: bool) -> Apart:
    world = Apart(seed)
    chance = world.random
    for number in range(chance.randint(1, 3)):
        world.replicas[f"d{number}x"] = Answers(world, f"d{number}x")
        world.readers[f"p{number}x"] = Reader(world, f"p{number}x")
    world.queue = PairQueue(world)
    world.routers = [Router(world, f"router{number}x") for number in range(chance.randint(1, 2))]
    end, at = world.now + whole.SECONDS, world.now
    while at < end - whole.SECONDS / 4:
        at += chance.expovariate(12)
        world.run(at)
        if world.queue is not None:
            check_readers(world.queue.hub)
        if world.routers:
            chance.choice(world.routers).ask()
        if kills and chance.random() < 0.015:
            kind = chance.choice(("queue", "router", "replica", "reader", "reader"))
            if kind == "queue" and world.queue is not None:
                world.queue.die()
            elif kind == "router" and len(world.routers) > 1:
                chance.choice(world.routers).die()
            elif kind == "replica" and len(world.replicas) > 1:
                chance.choice(list(world.replicas.values())).die()
            elif kind == "reader" and world.readers:
                chance.choice(list(world.readers.values())).die()
    world.run(end + 60)
    return world


def check_nothing_is_read(world: Apart) -> None:
    check_nothing_is_left(world)
    assert world.queue is not None
    prefill = world.queue.hub.queue.prefill
    assert prefill is not None
    lines = list(prefill.lines())
    assert [(line.slots, line.used, line.running) for line in lines] == [(world.limit, 0, 0)] * len(world.readers)
    assert not any(reader.reading or reader.leases.running for reader in world.readers.values())


def test_whatever_dies_no_request_is_lost_and_both_ledgers_are_what_runs() -> None:
    read = unread = 0
    for seed in range(10 * DEPTH):
        try:
            world = history(seed, kills=True)
            check_nothing_is_read(world)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}") from error
        read, unread = read + world.read, unread + world.unread
    # Most go the way that is tried here, and some have to go it again.
    assert read > 1000
    assert unread


def test_where_nothing_dies_nobody_is_asked_for_more_than_he_has_and_all_is_read_apart() -> None:
    for seed in range(4 * DEPTH):
        world = history(seed, kills=False)
        check_nothing_is_read(world)
        assert (world.full_refusals, world.refused_reads, world.unread) == (0, 0, 0), f"seed {seed}"
        assert world.read == sum(len(router.requests) for router in world.routers)
