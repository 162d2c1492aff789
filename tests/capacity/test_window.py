"""Who may pass the first that waits: looked up now and then, and nobody is left standing beside room for it."""

from __future__ import annotations

import random

from actorrt.serve.capacity.ledger import Lease
from actorrt.serve.capacity.most_first import LOOKS, MostFirst
from actorrt.serve.capacity.need import LineFacts, LineId
from actorrt.serve.capacity.queue import Ask, CapacityQueue, QueueLimits, TenantLimits
from actorrt.serve.capacity.sizes import Sizes
from actorrt.serve.capacity.window import FRESH_S, PASSES

from ..depth import DEPTH


class Numbered:
    def __init__(self, number: int, key: int) -> None:
        self.number, self.key = number, key


def queue_of(lines: int, tenants: dict[str, TenantLimits] | None = None) -> CapacityQueue:
    limits = tenants or {}
    queue = CapacityQueue(1, 0.0, most=QueueLimits(10**9, 10**9), tenants=lambda name: limits.get(name, TenantLimits()))
    for number in range(lines):
        queue.set_line(LineId(str(number)), LineFacts(1000, 8, 1000.0), 1)
    return queue


def test_a_tenant_at_its_limit_hides_nobody_however_many_of_its_requests_come_first() -> None:
    queue = queue_of(1, {"a": TenantLimits(running_tokens=100)})
    lease = queue.submit(Ask("m", 10, 90, tenant="a"), 0.0)
    assert lease is not None
    mine = [Ask("m", 10, 90, tenant="a") for _ in range(20 * PASSES)]
    for one in mine:
        assert queue.submit(one, 0.0) is None
    # Another that has been served far more.
    other = Ask("m", 10, 90, tenant="b")
    queue.order.charge(1, "b", "", 1e9)
    assert queue.submit(other, 0.0) is None
    assert [one for one, _ in queue.next(0.0, lambda: 0.0)] == [other]
    queue.release(lease.id.number)
    assert [one for one, _ in queue.next(0.0, lambda: 0.0)] == mine[:1]


def test_all_that_a_batch_of_ends_has_made_room_for_have_a_place_at_once() -> None:
    queue = queue_of(40)
    running = [queue.submit(Ask("m", 890, 10), 0.0) for _ in range(40)]
    waiting = [Ask("m", 890, 10) for _ in range(100)]
    for one in waiting:
        assert queue.submit(one, 0.0) is None
    for lease in running:
        assert lease is not None
        queue.release(lease.id.number)
    assert [one for one, _ in queue.next(0.0, lambda: 0.0)] == waiting[:40]


def test_who_leaves_off_in_the_middle_goes_on_there() -> None:
    queue = queue_of(8)
    running = [queue.submit(Ask("m", 890, 10), 0.0) for _ in range(8)]
    large, small = Ask("m", 985, 10), [Ask("m", 190, 10) for _ in range(20)]
    for one in (large, *small):
        assert queue.submit(one, 0.0) is None
    for lease in running[:4]:
        assert lease is not None
        queue.release(lease.id.number)
    found: list[Ask] = []
    for _ in range(13):
        found += [one for one, _ in [next(queue.next(0.0, lambda: 0.0))]]
    assert found == [large, *small[:12]]
    assert list(queue.next(0.0, lambda: 0.0)) == []


def test_nobody_waits_beside_room_for_it_for_longer_than_a_few_looks() -> None:
    for seed in range(2 * DEPTH):
        dice = random.Random(seed)
        queue, now, running = queue_of(20), 0.0, list[int]()
        for _ in range(3000):
            now += 1e-4
            ask = Ask("m", dice.randint(1, 400), dice.randint(1, 500), tenant=dice.choice("abc"))
            lease = queue.submit(ask, now, dice.random())
            if lease is not None:
                running.append(lease.id.number)
            if len(queue.order) > 200:
                for _ in range(dice.randint(1, 3)):
                    queue.release(running.pop(dice.randrange(len(running))), dice.randint(0, 300))
            running += [one.id.number for _, one in queue.next(now, dice.random) if isinstance(one, Lease)]
        queue.release(running.pop())
        for _ in range(3):
            now += FRESH_S
            list(queue.next(now, dice.random))
        first = [ask for ask, _ in queue.order.turns()][:PASSES]
        lines = queue.ledger.lines.values()
        assert not any(line.admits(ask.tokens) for ask in first for line in lines), seed


def test_the_line_with_most_is_found_after_any_changes() -> None:
    dice = random.Random(3)
    most: MostFirst[Numbered] = MostFirst(lambda line: line.key)
    lines: dict[int, Numbered] = {}
    assert most.most == -1
    for step in range(2000):
        number = dice.randrange(30)
        if number in lines and dice.random() < 0.2:
            most.take(lines.pop(number))
        elif number in lines:
            lines[number].key = dice.randrange(1000)
            most.changed(lines[number])
        else:
            lines[number] = Numbered(number, dice.randrange(1000))
            most.put(lines[number])
        if step % 7 == 0 and lines:
            assert most.most == max(line.key for line in lines.values())
            odd = most.first(lambda line: line.number % 2 == 1)
            assert (odd.key if odd else None) == max(
                (one.key for one in lines.values() if one.number % 2), default=None
            )
    for line in lines.values():
        most.take(line)
    for number in range(100, 100 + LOOKS + 1):
        most.put(Numbered(number, 1000 - number))
    assert most.first(lambda line: line.number == 100 + LOOKS) is None
    assert most.first(lambda line: line.number == 100 + LOOKS - 1) is not None


def test_the_largest_and_the_smallest_are_known_about() -> None:
    sizes = Sizes()
    assert (sizes.most, sizes.least) == (-1, 0)
    for number in (5, 900, 17):
        sizes.add(number.bit_length())
    assert (sizes.most, sizes.least) == (1023, 4)
    sizes.take((900).bit_length())
    sizes.take((5).bit_length())
    assert (sizes.most, sizes.least) == (31, 16)
