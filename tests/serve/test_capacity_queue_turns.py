"""Turns of a session beside credits: what lies idle in a credit takes nobody's place where its session ran last."""

from __future__ import annotations

import pytest

from actorrt.serve.capacity.credit_messages import Room
from actorrt.serve.capacity.need import LineId
from actorrt.serve.capacity_queue.by_credit import LocalLease
from actorrt.serve.capacity_queue.config import CapacityQueueConfig
from actorrt.serve.capacity_queue.hub import TURN_WAITS_S
from actorrt.serve.capacity_queue.messages import Offer, QueueCost
from actorrt.serve.policies.policy import Refused

from .test_capacity_queue_credits import LIMIT, R, World

TURN = QueueCost(max_tokens=0, session="s")


def beside_credits() -> tuple[World, str]:
    """Half of each replica lies in credits; the rest of the one that the session ran on is taken."""
    world = World(2)
    world.warm()
    first = world.ask(TURN)
    world.router.release(first, None)
    held = [world.ask(TURN) for _ in range(LIMIT // 2)]
    assert {each.replica for each in held} == {first.replica}
    assert [line.running for line in world.ledger.lines.values() if line.id.replica == first.replica] == [LIMIT]
    return world, first.replica


def test_the_next_turn_has_its_place_where_credits_lie_idle() -> None:
    world, replica = beside_credits()
    assert world.ask(TURN).replica == replica
    # Those of the other replica were left to their router.
    by_credit = [world.ask() for _ in range(LIMIT // 2)]
    assert all(isinstance(each, LocalLease) and each.replica != replica for each in by_credit)
    assert world.slots() == LIMIT // 2 + 1 + LIMIT // 2


def test_where_credits_are_filled_load_decides_at_once() -> None:
    world, replica = beside_credits()
    # All of both replicas' credits.
    filled = [world.ask() for _ in range(LIMIT)]
    assert all(isinstance(each, LocalLease) for each in filled)
    assert world.ask(TURN).replica != replica


def test_what_others_have_there_is_no_reason_to_call_credits_back() -> None:
    world, replica = beside_credits()
    world.ledger.set_others(LineId(replica), Room(0, LIMIT // 2))
    assert world.ask(TURN).replica != replica
    assert world.slots() == 2 * LIMIT - LIMIT // 2 + 1


def test_a_session_that_has_not_run_takes_no_credits_away() -> None:
    world, _ = beside_credits()
    world.ask(QueueCost(max_tokens=0, session="new"))
    assert len([each for each in (world.ask() for _ in range(LIMIT)) if isinstance(each, LocalLease)]) == LIMIT


@pytest.mark.parametrize("leaves", [False, True])
def test_a_router_that_does_not_answer_holds_a_turn_up_for_a_moment(
    leaves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, replica = beside_credits()
    deaf(world, monkeypatch)
    request = R(TURN)
    assert world.router.submit(request) is None
    statistics = world.router.hub.statistics()
    assert statistics["tenants"][""]["waiting"] == 1
    if leaves:
        world.router.withdraw(request)
        assert not world.router.hub.statistics()["tenants"]
    world.tick(TURN_WAITS_S)
    world.tick(0.1)
    found = world.router._at_once(request)
    assert (found is None) == leaves
    if found is not None:
        assert found.replica != replica


def deaf(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the queue says of credits does not arrive."""
    credits = world.router._credits
    monkeypatch.setattr(credits, "hear", lambda told, now: credits.held(now))


def test_prompts_that_credits_may_have_are_no_reason_to_leave_either() -> None:
    # A second's worth of prompts may wait where a session stays; of that credits count a quarter of two seconds'.
    config = CapacityQueueConfig(units="tokens", prefill_rate=1000.0, credit_share=0.5)
    world = World(2, config, Offer(100_000, 16, 1000.0))
    turn = QueueCost(tokens=800, max_tokens=10, session="s")
    world.warm(QueueCost(tokens=10, max_tokens=10))
    assert world.slots()
    first = world.ask(turn)
    assert world.ask(turn).replica == first.replica


def test_limits_of_what_may_wait_count_after_it_as_before() -> None:
    config = CapacityQueueConfig(waiting_requests=0)
    world = World(1, config)
    world.warm()
    world.router.release(world.ask(TURN), None)
    for _ in range(LIMIT // 2):
        world.ask(TURN)
    filled = [world.ask() for _ in range(LIMIT // 2)]
    assert all(isinstance(each, LocalLease) for each in filled)
    with pytest.raises(Refused, match="0 is the limit"):
        world.ask(TURN)


def test_people_are_told_what_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    world, _ = beside_credits()
    deaf(world, monkeypatch)
    world.router.submit(R(TURN))
    (router,) = world.router.hub._routers.values()
    ((id, _),) = router.asked.items()
    said = world.router.hub._why(router, id, 0, world.now)
    assert said.endswith(": credits come back from where its session ran last")
