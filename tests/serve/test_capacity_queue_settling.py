"""What a request has used is often known after its place came back: it is charged once, by the last word."""

import random

import pytest

from actorrt.serve.base.news import DeploymentNews, ReplicaNews
from actorrt.serve.capacity_queue.config import CapacityQueueConfig
from actorrt.serve.capacity_queue.messages import QueueCost, QueueUse, Report
from actorrt.serve.policies.policy import Grant, PolicyContext

from .queue_in_memory import QueueInMemory

CONFIG = CapacityQueueConfig(units="tokens", kv_tokens=1_000_000, prefill_rate=1e6, credit_share=0.0)


class Asked:
    cost = QueueCost(tokens=10, max_tokens=100, model="m", tenant="t")


class World:
    def __init__(self, config: CapacityQueueConfig = CONFIG) -> None:
        context = PolicyContext("app#it", random.Random(1).random, lambda: 100.0, lambda: None)
        self.router = QueueInMemory(context, config)
        self.router.update(DeploymentNews("", 1000, -1, (ReplicaNews("a"),)))
        self.queue = self.router.hub.queue

    def granted(self) -> Grant:
        found = self.router.submit(Asked())
        assert found is not None
        return found

    @property
    def charged(self) -> float:
        return self.queue.order.served(1, "t")

    @property
    def expected(self) -> int:
        return self.queue.lengths.expect("m", "t", 10, 100)


@pytest.mark.parametrize("sheds", [False, True])
@pytest.mark.parametrize("came", [0, 1, 7])
def test_an_answer_is_charged_whole_and_learnt_however_little_was_read_before_its_end(came: int, sheds: bool) -> None:
    world = World(CapacityQueueConfig(units="tokens", kv_tokens=1_000_000, prefill_rate=1e6, sheds=sheds))
    for _ in range(30):
        grant, before = world.granted(), world.charged
        if came:
            grant.progress(came)
        world.router.release(grant, None)
        grant.settle(QueueUse(tokens=20, cached=0, is_whole=True))
        assert world.charged - before == 2 * 20
    assert world.expected in range(16, 26)
    assert world.router.ledger_is([])
    assert len(world.router.hub._ended) == 0


def test_of_several_words_after_the_end_the_last_counts_and_nothing_is_charged_twice() -> None:
    world = World()
    grant = world.granted()
    before = world.charged
    world.router.release(grant, QueueUse(tokens=3, cached=0))
    for tokens in (0, 5, 5, 20):
        grant.settle(QueueUse(tokens=tokens, cached=0))
    assert world.charged - before == 2 * 20
    grant.settle(QueueUse(tokens=21, cached=0, is_whole=True))
    grant.settle(QueueUse(tokens=21, cached=0, is_whole=True))
    assert world.charged - before == 2 * 21


def test_what_a_router_says_as_it_gives_back_counts_also_after_the_replicas_word_of_the_end() -> None:
    world = World()
    for _ in range(30):
        grant, before = world.granted(), world.charged
        number = grant.tag.number
        world.router.hub.replica_reports("a", Report((number,), (number,), (), ()), 100.0)
        assert world.router.ledger_is([])
        world.router.release(grant, QueueUse(tokens=20, is_whole=True))
        assert world.charged - before == 2 * 20
    assert world.expected in range(16, 26)


def test_where_requests_are_counted_those_that_end_without_a_word_are_not_remembered() -> None:
    world = World(CapacityQueueConfig(units="requests", credit_share=0.0))
    world.router.release(world.granted(), None)
    assert world.router.ledger_is([])
    assert len(world.router.hub._ended) == 0
