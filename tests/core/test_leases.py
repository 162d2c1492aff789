"""Resources are conserved, and nothing that somebody waits for is left lying."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from actorrt.core.leases import FIRST_HOLD, OLD, UNIT, Queue, Request, Resources, add_up

TOTAL = {"CPU": 4 * UNIT, "GPU": 2 * UNIT, "disk": 3 * UNIT}

SHAPES = st.fixed_dictionaries(
    {},
    optional={
        "CPU": st.integers(1, 4 * UNIT),
        "GPU": st.sampled_from([UNIT // 10, UNIT // 2, UNIT, 2 * UNIT]),
        "disk": st.integers(1, 3 * UNIT),
    },
)
KINDS = st.sampled_from("abc")


class Desk(RuleBasedStateMachine):
    """Ask, withdraw, give back, block and go on, in any order."""

    waiting = Bundle("waiting")
    taken = Bundle("taken")
    paused = Bundle("paused")

    def __init__(self) -> None:
        super().__init__()
        self.resources = Resources(TOTAL)
        self.queue = Queue(self.resources)
        self.order: list[Request] = []
        self.held: list[Request] = []
        self.blocked: list[Request] = []

    def grant(self) -> None:
        granted = self.queue.grant()
        numbers = [one.number for one in granted]
        assert numbers == sorted(numbers)
        for one in granted:
            self.order.remove(one)
            self.held.append(one)

    @rule(target=waiting, shape=SHAPES, kind=KINDS)
    def ask(self, shape: Mapping[str, int], kind: str) -> Request:
        request = self.queue.ask(shape, kind)
        self.order.append(request)
        self.grant()
        return request

    @rule(request=consumes(waiting))
    def leave(self, request: Request) -> None:
        if self.queue.withdraw(request):
            self.order.remove(request)
        elif request in self.held:
            self.held.remove(request)
            if request in self.blocked:
                self.blocked.remove(request)
                self.resources.resume(request.shape)
            request.give()
        self.grant()

    @rule()
    def tick(self) -> None:
        self.queue.tick(lambda _: add_up(one.shape for one in self.held))
        self.grant()

    @rule(request=waiting)
    def block(self, request: Request) -> None:
        if request in self.held and request not in self.blocked:
            self.blocked.append(request)
            self.resources.pause(request.shape)
            self.grant()

    @rule(request=waiting)
    def go_on(self, request: Request) -> None:
        if request in self.blocked:
            self.blocked.remove(request)
            self.resources.resume(request.shape)

    @invariant()
    def what_is_free_and_what_is_taken_is_all_there_is(self) -> None:
        for name, total in TOTAL.items():
            taken = sum(one.shape.get(name, 0) for one in self.held if not (name == "CPU" and one in self.blocked))
            assert self.resources.free[name] + taken == total

    @invariant()
    def no_gpu_is_given_twice(self) -> None:
        used = [0, 0]
        for one in self.held:
            for gpu in one.gpus:
                used[gpu] += min(one.shape["GPU"], UNIT)
            assert sum(min(one.shape["GPU"], UNIT) for _ in one.gpus) == one.shape.get("GPU", 0)
        assert all(amount <= UNIT for amount in used)

    @invariant()
    def nobody_waits_for_what_is_free(self) -> None:
        # But for what is held for one that is old.
        holder = self.queue.holder
        held = set[str]() if holder is None else set(holder.shape)
        assert not any(one.fits(self.resources) and held.isdisjoint(one.shape) for one in self.order)
        assert holder is None or (holder in self.order and not holder.fits(self.resources))
        assert len(self.queue) == len(self.order)

    @invariant()
    def only_cpus_are_overdrawn(self) -> None:
        assert all(amount >= 0 for name, amount in self.resources.free.items() if name != "CPU")

    @invariant()
    def a_lease_is_wanted_back_if_and_only_if_another_kind_lacks_what_it_has(self) -> None:
        for lease in self.held:
            wanted = any(
                one.kind != lease.kind and any(lease.shape.get(name) for name in self.resources.short_of(one.shape))
                for one in self.order
            )
            assert self.queue.wanted_back(lease.shape, lease.kind) == wanted


TestDesk = Desk.TestCase
TestDesk.settings = settings(max_examples=40, stateful_step_count=30)


def test_requests_of_one_shape_are_served_in_the_order_of_their_arrival() -> None:
    resources = Resources({"CPU": UNIT})
    queue = Queue(resources)
    requests = [queue.ask({"CPU": UNIT}, kind) for kind in "abc"]
    for expected in requests:
        assert queue.grant() == [expected]
        resources.give(expected.shape, expected.gpus)
    assert queue.grant() == []


def test_a_request_that_does_not_fit_holds_up_no_smaller_one() -> None:
    resources = Resources({"CPU": 2 * UNIT})
    queue = Queue(resources)
    resources.take({"CPU": UNIT})
    large, small = queue.ask({"CPU": 2 * UNIT}, "a"), queue.ask({"CPU": UNIT}, "b")
    assert queue.grant() == [small]
    assert not large.granted


@pytest.mark.parametrize(
    ("total", "shape", "lacking"),
    [
        ({"CPU": 2 * UNIT}, {"CPU": 2 * UNIT}, ""),
        ({"CPU": 2 * UNIT}, {"CPU": 2 * UNIT + 1}, "0.0001 more CPU"),
        ({}, {"GPU": UNIT, "x": UNIT // 2}, "1 more GPU, 0.5 more x"),
        # There is enough, but not in one piece.
        ({"GPU": UNIT + UNIT // 2}, {"GPU": UNIT + UNIT // 2}, "whole GPUs"),
        ({"GPU": UNIT // 2}, {"GPU": UNIT // 2}, ""),
    ],
)
def test_what_can_never_be_had_is_named(total: dict[str, int], shape: dict[str, int], lacking: str) -> None:
    assert Resources(total).lacking(shape) == lacking


@given(shape=SHAPES)
def test_what_is_not_lacking_fits_into_an_empty_machine(shape: dict[str, int]) -> None:
    resources = Resources(TOTAL)
    assert resources.fits(shape) == (not resources.lacking(shape))
    assert bool(resources.short_of(shape)) == bool(resources.lacking(shape))


def test_small_shares_of_gpus_leave_whole_ones_whole() -> None:
    resources = Resources({"GPU": 2 * UNIT})
    first = resources.take({"GPU": UNIT // 4})
    assert resources.take({"GPU": UNIT // 4}) == first
    assert resources.take({"GPU": UNIT}) == [1 - first[0]]


def test_a_worker_that_goes_on_overdraws_the_cpus() -> None:
    resources = Resources({"CPU": UNIT})
    shape = {"CPU": UNIT}
    resources.take(shape)
    resources.pause(shape)
    assert resources.fits(shape)
    resources.take(shape)
    resources.resume(shape)
    assert resources.free["CPU"] == -UNIT
    resources.give(shape, [])
    assert not resources.fits(shape)
    resources.give(shape, [])
    assert resources.free == resources.total


# ---- one that asks for much


class Line:
    """A queue whose small requests each take a CPU for some ticks, and are followed by further ones without end."""

    def __init__(self, cpus: int, small: int, lasts: int) -> None:
        self.resources = Resources({"CPU": cpus * UNIT})
        self.queue = Queue(self.resources)
        self.lasts = lasts
        self.running: list[tuple[int, Request]] = []
        self.now = 0
        for _ in range(small):
            self.queue.ask({"CPU": UNIT}, "small")

    def step(self) -> list[Request]:
        """A tick: some end, others begin; each that ends is followed by another."""
        self.now += 1
        ended = [one for one in self.running if one[0] <= self.now]
        self.running = [one for one in self.running if one[0] > self.now]
        for _, request in ended:
            request.give()
            self.queue.ask({"CPU": UNIT}, "small")
        self.queue.tick(lambda _: add_up(one.shape for _, one in self.running))
        return self.go()

    def go(self) -> list[Request]:
        granted = self.queue.grant()
        # Never all at once.
        self.running += [
            (self.now + self.lasts + one.number % self.lasts, one) for one in granted if one.kind == "small"
        ]
        return granted


@given(cpus=st.integers(2, 6), more=st.integers(0, 6), lasts=st.integers(1, 10), share=st.floats(0.3, 1))
def test_one_that_asks_for_much_does_not_wait_for_ever_beside_many_small_ones(
    cpus: int, more: int, lasts: int, share: float
) -> None:
    line = Line(cpus, cpus + more, lasts)
    line.go()
    large = line.queue.ask({"CPU": max(2, int(cpus * share)) * UNIT}, "large")
    for _ in range(OLD + 2 * (FIRST_HOLD + 2 * FIRST_HOLD + 4 * FIRST_HOLD) + 2 * lasts):
        if large in line.step():
            return
    raise AssertionError("it waits still")


def test_nothing_is_held_for_what_actors_have_for_good() -> None:
    resources = Resources({"CPU": 2 * UNIT})
    queue = Queue(resources)
    queue.ask({"CPU": UNIT}, "actor")
    queue.grant()
    queue.ask({"CPU": 2 * UNIT}, "large")
    for _ in range(3 * OLD):
        queue.tick(lambda _: {})
    small = queue.ask({"CPU": UNIT}, "small")
    assert queue.holder is None
    assert queue.grant() == [small]


def test_a_hold_ends_so_that_those_who_are_waited_for_get_on() -> None:
    resources = Resources({"CPU": 2 * UNIT, "disk": UNIT})
    queue = Queue(resources)
    parent = queue.ask({"disk": UNIT}, "parent")
    queue.grant()
    large = queue.ask({"CPU": 2 * UNIT, "disk": UNIT}, "large")
    for _ in range(OLD):
        queue.tick(lambda _: parent.shape)
    # The parent ends once its child has.
    child = queue.ask({"CPU": UNIT}, "child")
    assert queue.holder is large
    assert queue.grant() == []
    for _ in range(FIRST_HOLD):
        queue.tick(lambda _: parent.shape)
    assert queue.holder is None
    assert queue.grant() == [child]


def test_what_is_asked_for_together_is_had_together() -> None:
    resources = Resources({"CPU": 2 * UNIT, "GPU": 2 * UNIT})
    queue = Queue(resources)
    parts = ({"GPU": UNIT * 6 // 10}, {"GPU": UNIT * 3 // 10, "CPU": UNIT}, {"GPU": UNIT * 7 // 10})
    both = queue.ask(add_up(parts), "group", parts=parts)
    assert queue.grant() == [both]
    assert both.gpus_of_parts == [[1], [0], [0]]
    assert resources.rooms == {0: 0, 1: UNIT * 4 // 10}
    both.give()
    assert resources.free == resources.total


@given(
    rooms=st.lists(st.integers(0, 10), min_size=1, max_size=3),
    wanted=st.lists(st.sampled_from([1, 3, 4, 5, 6, 7, 9, 10, 20]), min_size=1, max_size=5),
)
def test_several_fit_on_gpus_if_and_only_if_there_is_a_way_to_put_them_there(
    rooms: list[int], wanted: list[int]
) -> None:
    unit = UNIT // 10
    resources = Resources({"GPU": len(rooms) * UNIT})
    resources.report({"GPU": sum(rooms) * unit}, {index: room * unit for index, room in enumerate(rooms)})

    def brute(left: list[int], rest: list[int]) -> bool:
        if not rest:
            return True
        if rest[0] >= 10:
            whole = [index for index, room in enumerate(left) if room == 10]
            chosen = [set(some) for some in combinations(whole, rest[0] // 10)]
            return any(brute([0 if i in some else room for i, room in enumerate(left)], rest[1:]) for some in chosen)
        return any(
            brute([room - rest[0] * (i == index) for i, room in enumerate(left)], rest[1:])
            for index, room in enumerate(left)
            if room >= rest[0]
        )

    shapes = [{"GPU": one * unit} for one in wanted]
    assert resources.fits_all(shapes) == brute(rooms, wanted)
    if resources.fits_all(shapes):
        resources.take_all(shapes)
        assert all(room >= 0 for room in resources.rooms.values())
