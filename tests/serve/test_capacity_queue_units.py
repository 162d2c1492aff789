"""What a capacity queue counts, as people are told of it."""

import pytest

from actorrt.serve.base.news import DeploymentNews, ReplicaNews
from actorrt.serve.capacity_queue.config import CapacityQueueConfig
from actorrt.serve.capacity_queue.messages import QueueCost
from actorrt.serve.capacity_queue.policy import CapacityQueuePolicy
from actorrt.serve.policies.policy import PolicyContext, Refused

from .queue_in_memory import QueueInMemory
from .test_capacity_queue_credits import R


def a_queue(config: CapacityQueueConfig, slots: int = 2) -> QueueInMemory:
    queue = QueueInMemory(PolicyContext("a#d", lambda: 0.5, lambda: 0.0, lambda: None), config)
    queue.update(DeploymentNews("", slots, -1, (ReplicaNews("r0"),)))
    return queue


def asked(queue: CapacityQueuePolicy, cost: QueueCost) -> None:
    queue.submit(R(cost))
    while (found := queue.next()) is not None:
        if isinstance(found[1], Refused):
            raise found[1]


def test_requests_are_said_in_requests() -> None:
    queue = a_queue(CapacityQueueConfig(credit_share=0.0))
    for requests in (3, 1000):
        with pytest.raises(Refused, match=f"it takes {requests} requests, and a replica holds 2 at most") as refused:
            asked(queue, QueueCost(requests=requests))
        assert refused.value.status == 413
    asked(queue, QueueCost(requests=2))
    for _ in range(4):
        asked(queue, QueueCost(tenant="b"))
    shown = queue.hub.statistics()
    assert {name: (each["waiting"], each["tokens"]) for name, each in shown["tenants"].items()} == {"b": (4, 4)}
    assert [(line["kv_tokens"], line["used"], line["running"]) for line in shown["lines"]] == [(2, 2, 1)]
    (router,) = queue.hub._routers.values()
    (runs,) = queue.hub.queue.ledger.leases
    assert queue.hub._why(router, 0, runs, 0.0).endswith("with 2 requests")


def test_tokens_of_an_answer_that_are_only_expected_are_said_to_be() -> None:
    tokens = CapacityQueueConfig(units="tokens", kv_tokens=310, waiting_tokens=100)
    queue = a_queue(tokens, slots=1)
    asked(queue, QueueCost(tokens=50))
    with pytest.raises(Refused, match=r"it has 306 tokens \(50 of its prompt, 256 expected of its answer\)"):
        asked(queue, QueueCost(tokens=50))
