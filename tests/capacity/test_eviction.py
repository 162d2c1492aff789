"""Work of the last band that makes way for others, where the deployment says so."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from actorrt.serve.capacity.eviction import victims, work
from actorrt.serve.capacity.fair_order import Band
from actorrt.serve.capacity.ledger import Lease, Ledger, Line
from actorrt.serve.capacity.need import LineFacts, LineId, Need
from actorrt.serve.capacity.queue import Ask, CapacityQueue, QueueLimits, Refusal

BATCH = 3
BANDS = (Band("priority"), Band("default"), Band("flex"), Band("batch", ceiling=0.7, ageing_s=None))


def queue_of(sheds: bool = True, requests: int = 4) -> CapacityQueue:
    queue = CapacityQueue(1, 0.0, bands=BANDS, most=QueueLimits(requests=requests), sheds=sheds)
    queue.set_line(LineId("a"), LineFacts(1000, 4, 1000.0), 1)
    return queue


def submit(queue: CapacityQueue, tokens: int, band: int = 1, generated: int = 0) -> Lease:
    lease = queue.submit(Ask("m", tokens, 0, band=band), 0.0)
    assert lease is not None
    queue.progress(lease.id.number, generated)
    return lease


def test_the_least_work_of_the_last_band_is_stopped_for_the_first_that_waits_and_once() -> None:
    queue = queue_of()
    submit(queue, 100)
    much, little = submit(queue, 200, BATCH, 60), submit(queue, 240, BATCH, 1)
    first = Ask("m", 400, 0)
    assert queue.submit(first, 0.0) is None
    assert list(queue.next(0.0, lambda: 0.0)) == []
    assert queue.to_stop() == [little.id.number]
    assert queue.to_stop() == []
    queue.release(little.id.number)
    assert [ask for ask, _ in queue.next(0.0, lambda: 0.0)] == [first]
    assert much.id.number in queue.ledger.leases


def test_nothing_is_stopped_for_the_last_band_or_where_it_is_not_allowed_or_does_not_help() -> None:
    for sheds, band, tokens in ((True, BATCH, 400), (False, 1, 400), (True, 1, 950)):
        queue = queue_of(sheds)
        submit(queue, 300)
        submit(queue, 300, BATCH)
        assert queue.submit(Ask("m", tokens, 0, band=band), 0.0) is None
        assert list(queue.next(0.0, lambda: 0.0)) == []
        assert queue.to_stop() == []


def test_those_that_wait_in_the_last_band_make_way_in_a_full_queue() -> None:
    queue = queue_of()
    submit(queue, 900)
    batch = [Ask("m", 10, 0, band=BATCH, tenant="b") for _ in range(4)]
    for ask in batch:
        assert queue.submit(ask, 0.0) is None
    with pytest.raises(Refusal, match="4 requests wait, and 4 is the limit"):
        queue.submit(Ask("m", 10, 0, band=BATCH), 0.0)
    asks = [Ask("m", 10, 0, tenant="b") for _ in range(4)]
    gone: list[Ask] = []
    for ask in asks:
        assert queue.submit(ask, 0.0) is None
        for each, outcome in queue.next(0.0, lambda: 0.0):
            assert isinstance(outcome, Refusal)
            assert "a higher band" in outcome.reason
            gone.append(each)
    assert gone == batch[::-1]
    with pytest.raises(Refusal, match="4 requests wait, and 4 is the limit"):
        queue.submit(Ask("m", 10, 0), 0.0)
    assert queue.tenants.known["b"].waiting == 4


def test_whoever_is_stopped_is_enough_and_none_of_them_is_needless() -> None:
    for seed in range(300):
        dice = random.Random(seed)
        ledger = Ledger(1)
        ledger.set_line(LineId("a"), LineFacts(1000, dice.randint(1, 8), 500.0), 1)
        leases: list[Lease] = []
        while (placed := ledger.find(need := Need(dice.randint(1, 200), dice.randint(0, 200)))) is not None:
            leases.append(ledger.admit(placed, need, "r"))
            ledger.progress(leases[-1].id.number, dice.randint(0, 50))
        sheddable = [lease for lease in leases if dice.random() < 0.7]
        line, tokens = ledger.lines[LineId("a")], dice.randint(1, 900)
        chosen = victims(line, tokens, sheddable)

        def fits(line: Line = line, without: Sequence[Lease] = chosen or sheddable, tokens: int = tokens) -> bool:
            used = line.used - sum(lease.tokens for lease in without)
            running = line.running - len(without)
            return not running or (running < line.slots and used + tokens <= line.fill_tokens)

        if chosen is None:
            assert not sheddable or not fits(), seed
            continue
        assert fits(), seed
        assert set(chosen) <= set(sheddable)
        for lease in chosen[:-1]:
            assert not fits(without=[each for each in chosen if each is not lease]), seed
        assert [work(lease) for lease in chosen] == sorted(work(lease) for lease in chosen)
