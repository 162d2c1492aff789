"""A request that a replica did not start keeps its place, also where its grant came back before that was known."""

import random
from typing import Any

import pytest

from actorrt.serve.base.news import DeploymentNews, ReplicaNews
from actorrt.serve.capacity_queue.config import CapacityQueueConfig
from actorrt.serve.policies.policy import ONE_REQUEST, PolicyContext

from .queue_in_memory import QueueInMemory


class Streamed:
    """What a router sees of a stream."""

    cost = ONE_REQUEST

    def __init__(self) -> None:
        self.given: Any = None


@pytest.mark.parametrize("credit_share", [0.0, 0.5])
def test_a_stream_that_was_refused_keeps_its_place_though_others_have_ended_since(credit_share: float) -> None:
    now = 100.0
    context = PolicyContext("app#it", random.Random(1).random, lambda: now, lambda: None)
    config = CapacityQueueConfig(units="requests", credit_share=credit_share, deadline_s=50.0)
    router = QueueInMemory(context, config)
    router.update(DeploymentNews("", 4, 0, (ReplicaNews("a"),)))
    # By credits, where there are any.
    router.submit(Streamed())
    now += 1.0
    router.hub.tick(now)
    router._deliver()
    one, other = Streamed(), Streamed()
    for each in (one, other):
        each.given = router.submit(each)
        assert each.given is not None
    now += 5.0
    router.release(one.given, None)
    router.release(other.given, None)
    # There is no room, and nobody else may wait.
    router.filled("a")
    assert router.again(one) is None
    asked = next(iter(router._waiting.values()))
    assert (asked.arrived, asked.returns) == (101.0, True)
