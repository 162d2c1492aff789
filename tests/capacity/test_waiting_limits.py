"""Limits on what waits: who need not wait is not held to them, and low bands do not lock out higher ones."""

from __future__ import annotations

from typing import Any

import pytest

from actorrt.serve.capacity.ask import Ask, Refusal
from actorrt.serve.capacity.ledger import Lease
from actorrt.serve.capacity.need import LineFacts, LineId
from actorrt.serve.capacity.queue import CapacityQueue, QueueLimits
from actorrt.serve.capacity.tenants import TenantLimits

PRIORITY, DEFAULT, FLEX, BATCH = range(4)


def queue_of(most: int = 4, slots: int = 8, **tenants: TenantLimits) -> CapacityQueue:
    limits = {"capped": TenantLimits(running_tokens=200), **tenants}
    queue = CapacityQueue(
        1, 0.0, most=QueueLimits(requests=most), tenants=lambda name: limits.get(name, TenantLimits())
    )
    queue.set_line(LineId("a"), LineFacts(10_000, slots, 1e15), 1)
    return queue


def ask(tenant: str = "", band: int = DEFAULT, **options: Any) -> Ask:
    return Ask("m", 50, 50, tenant=tenant, band=band, **options)


def submitted(queue: CapacityQueue, *asks: Ask, now: float = 0.0) -> dict[Ask, Lease | Refusal | None]:
    """What becomes of them as they come together, and one look follows."""
    found: dict[Ask, Lease | Refusal | None] = {}
    for each in asks:
        try:
            found[each] = queue.submit(each, now)
        except Refusal as refusal:
            found[each] = refusal
    found.update(queue.next(now, lambda: 0.0))
    return found


def filled(queue: CapacityQueue, band: int = DEFAULT) -> list[Ask]:
    """As many of the tenant that is capped as may wait; two run."""
    asks = [ask("capped", band) for _ in range(6)]
    found = submitted(queue, *asks)
    assert [isinstance(each, Lease) for each in found.values()] == [True] * 2 + [False] * 4
    assert len(queue.order) == 4
    return asks


@pytest.mark.parametrize("band", [PRIORITY, DEFAULT])
def test_who_has_a_place_at_once_is_not_refused_for_those_that_wait_for_a_tenants_limit(band: int) -> None:
    queue = queue_of()
    filled(queue)
    others = [ask("other", band) for _ in range(6)]
    assert all(isinstance(each, Lease) for each in submitted(queue, *others).values())
    late = ask("other", band)
    if band == PRIORITY:
        # Of the same band, so that none makes way.
        queue = queue_of()
        filled(queue, PRIORITY)
        submitted(queue, *(ask("other", PRIORITY) for _ in range(6)))
    found = submitted(queue, late)[late]
    assert isinstance(found, Refusal)
    assert found.reason == "4 requests wait, and 4 is the limit"
    assert len(queue.order) == 4


def test_who_has_a_place_at_once_is_not_refused_for_a_limit_of_its_tenant_or_its_deadline() -> None:
    queue = queue_of(10, none=TenantLimits(waiting_requests=0))
    filled(queue)
    # Nothing has gone since, so whoever is behind all that wait would be too late.
    first, second = ask("none", deadline=1000.5), ask("b", deadline=1000.5)
    found = submitted(queue, first, second, now=1000.0)
    assert all(isinstance(each, Lease) for each in found.values()), found


def test_low_bands_that_wait_lock_nobody_out_of_free_places() -> None:
    queue = queue_of()
    submitted(queue, ask("d"))
    batch = [ask("e", BATCH) for _ in range(5)]
    submitted(queue, *batch)
    assert len(queue.order) == 4
    urgent = ask("c", PRIORITY)
    assert isinstance(submitted(queue, urgent)[urgent], Lease)
    assert len(queue.order) == 4


def test_what_comes_free_is_for_who_waits_and_not_for_who_came_beyond_the_limit() -> None:
    queue = queue_of(2, slots=1)
    runs, first, second, late = ask(), ask(), ask(), ask()
    lease = submitted(queue, runs)[runs]
    assert isinstance(lease, Lease)
    submitted(queue, first, second)
    queue.release(lease.id.number)
    later = ask()
    found = submitted(queue, late, later)
    assert isinstance(found[first], Lease)
    # One place of those that wait came free with it.
    assert found[late] is None
    assert isinstance(found[later], Refusal)
    assert list(queue.order.places) == [second, late]


def test_one_of_a_higher_band_that_has_to_wait_takes_the_place_of_the_last_of_the_lowest() -> None:
    queue = queue_of(3, slots=1)
    submitted(queue, ask())
    flex, low, last = ask(band=FLEX), ask(band=BATCH), ask(band=BATCH)
    submitted(queue, flex, low, last)
    for gone in (last, low, flex):
        higher = ask()
        found = submitted(queue, higher)
        assert found[higher] is None
        refusal = found[gone]
        assert isinstance(refusal, Refusal)
        assert (refusal.status, refusal.reason) == (429, "others of a higher band came, and the queue is full")
    for band in (DEFAULT, BATCH):
        same = ask(band=band)
        assert isinstance(submitted(queue, same)[same], Refusal)


def test_what_had_its_place_once_makes_way_for_nobody() -> None:
    queue = queue_of(1, slots=1)
    submitted(queue, ask())
    back = ask(band=BATCH)
    assert queue.submit(back, 0.0, returns=True) is None
    higher = ask()
    assert isinstance(submitted(queue, higher)[higher], Refusal)
    assert list(queue.order.places) == [back]


def test_nobody_makes_way_where_that_is_not_enough() -> None:
    queue = queue_of(4, slots=1)
    queue.most = QueueLimits(tokens=400)
    submitted(queue, ask())
    waiting = [ask(), ask(), ask(), ask(band=BATCH)]
    submitted(queue, *waiting)
    large = Ask("m", 200, 100)
    with pytest.raises(
        Refusal, match=r"the limit: it has 300 tokens \(200 of its prompt, 100 expected of its answer\)"
    ):
        queue.submit(large, 0.0)
    assert list(queue.order.places) == waiting


def test_those_that_a_tenants_limit_refuses_hold_back_no_lower_band() -> None:
    queue = queue_of(none=TenantLimits(waiting_requests=0, running_tokens=100))
    submitted(queue, ask("none", BATCH))
    refused = ask("none", PRIORITY)
    assert isinstance(submitted(queue, refused)[refused], Refusal)
    low = [ask(band=BATCH) for _ in range(3)]
    assert all(isinstance(each, Lease) for each in submitted(queue, *low).values())


def test_who_came_beyond_a_limit_leaves_nothing_behind() -> None:
    queue = queue_of()
    filled(queue)
    gone = ask("other")
    assert queue.submit(gone, 0.0) is None
    assert queue.withdraw(gone)
    assert "other" not in queue.tenants.known
    assert list(queue.next(0.0, lambda: 0.0)) == []
    assert len(queue.order) == 4
