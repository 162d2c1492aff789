"""Why a request waits, and what a status shows of the queue."""

from __future__ import annotations

import pytest

from actorrt.serve.capacity.explain import explain
from actorrt.serve.capacity.need import LineFacts, LineId
from actorrt.serve.capacity.queue import Ask, CapacityQueue, TenantLimits


def queue_of(lines: int = 1, slots: int = 4, limit: int | None = None) -> CapacityQueue:
    queue = CapacityQueue(1, 0.0, tenants=lambda name: TenantLimits(2.0, running_tokens=limit if name == "t" else None))
    for number in range(lines):
        queue.set_line(LineId(str(number)), LineFacts(1000, slots, 1000.0), 1)
    return queue


def waits(queue: CapacityQueue, ask: Ask, now: float = 0.0) -> Ask:
    assert queue.submit(ask, now) is None
    list(queue.next(now, lambda: 0.0))
    return ask


def reason(queue: CapacityQueue, ask: Ask) -> str:
    found = explain(queue, ask, 1.0)
    assert found is not None
    return found.reason


def test_what_is_ahead_and_when_it_will_start() -> None:
    queue = queue_of()
    assert queue.submit(Ask("m", 900, 0), 0.0)
    waits(queue, Ask("m", 500, 0))
    last = waits(queue, Ask("m", 400, 0, arrived=3.0, deadline=60.0), 3.0)
    found = explain(queue, last, 10.0)
    assert found is not None
    assert (found.waited_s, found.tokens, found.band, found.deadline_in_s) == (7.0, 400, "default", 50.0)
    # A deadline goes before those without one.
    assert (found.requests_ahead, found.tokens_ahead) == (0, 0)
    first = explain(queue, next(ask for ask, _ in queue.order.turns() if ask is not last), 10.0)
    assert first is not None
    assert (first.requests_ahead, first.tokens_ahead) == (1, 400)
    assert first.starts_in_s == pytest.approx(17.2, rel=0.01)
    assert explain(queue, Ask("m", 1, 1), 10.0) is None


def test_each_reason_is_named() -> None:
    queue = queue_of(slots=2)
    queue.submit(Ask("m", 400, 0), 0.0)
    one = waits(queue, Ask("m", 600, 0))
    assert reason(queue, one) == "it needs 600 tokens, and no replica has room for more than 500"
    waits(queue, Ask("m", 0, 200))
    assert reason(queue, one) == "it needs 600 tokens of replica 0, which is kept for it and has 500"
    queue = queue_of(slots=1)
    queue.submit(Ask("m", 400, 0), 0.0)
    one = waits(queue, Ask("m", 100, 0))
    assert reason(queue, one).startswith("every replica is full")
    queue.open_line(LineId("0"), False)
    assert reason(queue, one) == "no replica takes requests now"
    queue = queue_of(limit=500)
    queue.submit(Ask("m", 400, 0, tenant="t"), 0.0)
    one = waits(queue, Ask("m", 200, 0, tenant="t"))
    assert reason(queue, one) == "tenant t runs 400 tokens, and 500 is its limit"
    queue = queue_of()
    queue.submit(Ask("m", 500, 0, band=2), 0.0)
    one = waits(queue, Ask("m", 350, 0, band=2))
    assert reason(queue, one) == "a replica has room for 400 tokens, but its band may not fill as much"
    queue = queue_of(slots=32)
    queue.submit(Ask("m", 500, 0, band=1), 0.0)
    one = waits(queue, Ask("m", 100, 0, band=3))
    held = "beside higher bands band batch begins where fewer than 4 requests run and little waits to be read"
    assert reason(queue, one) == f"a replica has room for 400 tokens, but {held}"
