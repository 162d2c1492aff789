"""What engines say that they have reaches the ledger, and a queue goes on without it, in virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from actorrt.serve.capacity.credit_messages import Room
from actorrt.serve.capacity.engine_load import STALE_S, EngineLoad
from actorrt.serve.capacity.need import LineId
from actorrt.serve.capacity_queue import offers
from actorrt.serve.capacity_queue.config import DEFAULT, CapacityQueueConfig
from actorrt.serve.capacity_queue.engine_loads import EngineLoads, checked
from actorrt.serve.capacity_queue.messages import Offer, QueueCost

from .test_capacity_queue_credits import World

TOKENS = replace(DEFAULT, units="tokens", credit_share=0.0)
CHAT = QueueCost(tokens=50, max_tokens=50)


def world(config: CapacityQueueConfig = TOKENS, *, ranks: int = 1, slots: int = 4) -> World:
    return World(config=config, offer=Offer(1000, slots, 1000.0, ranks))


def says(world: World, *load: int | None, times: int = 2) -> None:
    for _ in range(times):
        world.router.hub.engine_says("r0", EngineLoad(*load), world.now)
        world.tick()


def test_who_waits_behind_what_others_have_at_an_engine_runs_once_that_is_gone() -> None:
    there = world()
    assert there.ask(CHAT)
    says(there, 900, 1)
    assert there.ledger.lines[LineId("r0")].others == Room(800, 0)
    assert there.ask(CHAT) is None
    line = there.router.hub.statistics()["lines"][0]
    assert (line["used"], line["others"], line["others_tokens"]) == (100, 0, 800)
    says(there, 100, 1, times=1)
    assert there.router.next() is not None


@pytest.mark.parametrize("load", [(10**9, 10**6), (None, 10**6), (10**9, None)])
def test_an_engine_that_says_no_more_what_it_has_keeps_nobody_waiting(load: tuple[int | None, int | None]) -> None:
    there = world()
    assert there.ask(CHAT)
    says(there, *load)
    assert there.ask(CHAT) is None
    there.tick(STALE_S - 0.3)
    assert there.router.next() is None
    there.tick(0.5)
    assert there.router.next() is not None
    assert there.ask(CHAT)


def test_an_engine_that_has_less_than_was_given_gets_no_more_for_it() -> None:
    there = world()
    large = QueueCost(tokens=500, max_tokens=50)
    assert there.ask(large)
    says(there, 0, 0)
    assert there.ask(large) is None


def test_what_lies_in_credits_unused_is_not_what_the_engine_should_have() -> None:
    there = world(replace(TOKENS, credit_share=0.5), slots=8)
    there.warm(CHAT)
    line = there.ledger.lines[LineId("r0")]
    assert line.running == 4
    says(there, 300, 2)
    assert line.others == Room(300, 2)


def test_of_an_engine_with_several_ranks_it_is_not_known_which_has_it() -> None:
    there = world(ranks=2)
    says(there, 900, 4)
    assert all(line.others == (0, 0) for line in there.ledger.lines.values())
    there.router.hub.engine_says("gone", EngineLoad(1, 1), there.now)


def test_where_requests_are_counted_tokens_are_not() -> None:
    there = World()
    says(there, 900, 3)
    assert there.ledger.lines[LineId("r0")].others == Room(0, 3)


def test_a_replica_that_comes_back_has_nothing_of_its_earlier_life() -> None:
    there = world()
    says(there, 900, 1)
    there.router.hub.drop_replica("r0", there.now)
    there.tick()
    assert not there.ledger.lines


async def test_an_engine_that_fails_or_says_nonsense_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    said: list[Any] = [
        (1, 2),
        OSError("gone"),
        OSError("still"),
        asyncio.CancelledError("told to"),
        KeyboardInterrupt(),
        SystemExit(1),
        GeneratorExit(),
        (None, 2),
        (-1, 2),
        None,
        "ab",
        (3, float("nan")),
        (3.0, 4),
    ]
    noted = asyncio.Queue[EngineLoad | None]()
    loads = EngineLoads(lambda: noted.put_nowait(loads.take()))

    async def engine_load() -> object:
        if not said:
            await asyncio.Event().wait()
        found = said.pop(0)
        if isinstance(found, BaseException):
            raise found
        return found

    asks = asyncio.ensure_future(loads.ask(engine_load, 0.0))
    assert [await noted.get() for _ in range(3)] == [EngineLoad(1, 2), EngineLoad(None, 2), EngineLoad(3, 4)]
    asks.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asks
    # Once for each time that it began to fail.
    assert sum("the queue goes on without" in record.message for record in caplog.records) == 3


@pytest.mark.parametrize("wrong", [7, (1,), (1, 2, 3), (True, 1), (1, float("inf")), ("1", 1), [1, -1]])
def test_what_is_no_load_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"queue_load\(\) must give tokens and requests"):
        checked(wrong)


@pytest.mark.parametrize(
    "wrong",
    [None, 7, (1,), (1, 2, 3.0, 0), (True, 1), (10**25, 1), (1, 2, 10**25), (1.5, 1), ("1", 1), (1, -1), (1,) * 7],
)
def test_what_is_no_offer_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"queue_offer\(\) must give tokens, requests, "):
        offers.checked(wrong)


def test_an_offer_says_two_numbers_at_the_least() -> None:
    assert offers.checked([1000, 4]) == Offer(1000, 4)
    assert offers.checked((1000, 4, 10.5, 2, "r1", 500)) == Offer(1000, 4, 10.5, 2, "r1", 500)
