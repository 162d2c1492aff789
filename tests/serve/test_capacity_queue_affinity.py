"""Where turns of a session run, and requests for an adapter that has to be loaded elsewhere: hub and policy at once."""

import random

import pytest

from actorrt.serve.base.news import DeploymentNews, ReplicaNews
from actorrt.serve.capacity_queue.config import CapacityQueueConfig
from actorrt.serve.capacity_queue.messages import QueueCost
from actorrt.serve.policies.policy import Grant, PolicyContext, Request

from .queue_in_memory import QueueInMemory

# Without headroom, so that two requests fill a replica.
CONFIG = CapacityQueueConfig(units="tokens", kv_tokens=1000, prefill_rate=100.0, headroom=1.0, load_tokens=50)


class Asked:
    def __init__(self, cost: QueueCost) -> None:
        self.cost = cost


@pytest.fixture(params=range(5))
def queue(request: pytest.FixtureRequest) -> QueueInMemory:
    numbers = random.Random(request.param)
    context = PolicyContext("app#it", numbers.random, lambda: 100.0, lambda: None)
    policy = QueueInMemory(context, CONFIG)
    policy.update(DeploymentNews("", 2, -1, (ReplicaNews("a"), ReplicaNews("b"), ReplicaNews("c"))))
    return policy


def granted(queue: QueueInMemory, **cost: object) -> Grant:
    found = queue.submit(Asked(QueueCost(**{"tokens": 10, "max_tokens": 10, **cost})))  # type: ignore[arg-type]
    assert found is not None
    return found


def test_a_session_stays_where_it_ran_although_others_have_less_to_do(queue: QueueInMemory) -> None:
    first = granted(queue, session="chat")
    assert granted(queue, session="chat").replica == first.replica
    # Both places there are taken now.
    assert granted(queue, session="chat").replica != first.replica


def test_sessions_of_two_tenants_are_two_whatever_they_are_called(queue: QueueInMemory) -> None:
    first = granted(queue, session="chat", tenant="one")
    assert granted(queue, session="chat", tenant="other").replica != first.replica
    assert granted(queue, session="chat", tenant="one").replica == first.replica


def test_turns_of_a_session_go_before_new_sessions_of_their_user(queue: QueueInMemory) -> None:
    queue.release(granted(queue, session="old"), None)
    for _ in range(6):
        granted(queue)
    new, old, nobodys = (Asked(QueueCost(tokens=10, max_tokens=10, session=name)) for name in ("new", "old", ""))
    assert [queue.submit(each) for each in (new, nobodys, old)] == [None] * 3
    order: list[Request] = []
    for lease in list(queue._held.values())[:3]:
        queue.release(lease, None)
        found = queue.next()
        assert found is not None
        order.append(found[0])
    assert order == [old, new, nobodys]


def with_first_token(queue: QueueInMemory, **cost: object) -> Grant:
    grant = granted(queue, **cost)
    grant.progress(1)
    return grant


def test_an_adapter_draws_its_requests_to_where_it_is_loaded_until_that_is_full(queue: QueueInMemory) -> None:
    first = with_first_token(queue, adapter="french")
    assert with_first_token(queue, adapter="french").replica == first.replica
    # Both places there are taken now: it is loaded a second time, and that one has more room.
    second = with_first_token(queue, adapter="french")
    assert second.replica != first.replica
    assert granted(queue, adapter="french").replica == second.replica


def test_what_is_loaded_still_counts_as_unread(queue: QueueInMemory) -> None:
    first = granted(queue, adapter="french")
    assert queue.hub.statistics()["lines"][["a", "b", "c"].index(first.replica)]["backlog"] == 10 + 50
    # To load it elsewhere takes no longer than to wait for it there, twice over as two run there then.
    assert granted(queue, adapter="french").replica != first.replica


@pytest.mark.parametrize("load_tokens", [0, 50])
def test_without_a_price_an_adapter_draws_nobody(load_tokens: int) -> None:
    config = CapacityQueueConfig(units="tokens", kv_tokens=1000, prefill_rate=100.0, load_tokens=load_tokens)
    queue = QueueInMemory(PolicyContext("app#it", random.Random(1).random, lambda: 100.0, lambda: None), config)
    queue.update(DeploymentNews("", 2, -1, (ReplicaNews("a"), ReplicaNews("b"))))
    first = with_first_token(queue, adapter="french")
    assert (granted(queue, adapter="french").replica == first.replica) == bool(load_tokens)
