"""Whose turn it is: bands, ageing, tenants by their weights, users within them, deadlines."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actorrt.serve.capacity.fair_order import Band, FairOrder

BANDS = [Band("high"), Band("normal", ageing_s=10.0), Band("batch", ceiling=0.7, ageing_s=100.0)]
_names = itertools.count()


@dataclass(eq=False)
class One:
    tenant: str = "a"
    band: int = 1
    tokens: int = 100
    user: str = ""
    deadline: float = float("inf")
    arrived: float = 0.0
    rank: int = 1
    name: int = field(default_factory=lambda: next(_names))

    @property
    def place(self) -> float:
        return self.deadline


def order_of(*requests: One, now: float = 0.0) -> FairOrder[One]:
    order = FairOrder[One](BANDS)
    for request in requests:
        order.add(request, now)
    return order


def turns(order: FairOrder[One]) -> list[One]:
    return [request for request, _ in order.turns()]


def serve_next(order: FairOrder[One]) -> One:
    request, _ = next(order.turns())
    order.remove(request)
    order.charge(request.band, request.tenant, request.user, request.tokens)
    return request


def test_bands_go_before_each_other() -> None:
    batch, normal, high = One(band=2), One(band=1), One(band=0)
    assert turns(order_of(batch, normal, high)) == [high, normal, batch]


def test_within_a_user_the_earliest_deadline_then_the_earliest_arrival() -> None:
    late, early, ticket, soon = One(arrived=2), One(arrived=1), One(arrived=0), One(arrived=3, deadline=9)
    assert turns(order_of(late, early, ticket, soon)) == [soon, ticket, early, late]


def test_turns_of_sessions_that_run_go_before_others_of_their_user() -> None:
    new, turn, soon = One(arrived=0), One(arrived=5, rank=0), One(arrived=1, deadline=9)
    assert turns(order_of(new, turn, soon)) == [turn, soon, new]


def test_tenants_take_turns_by_tokens_and_weight() -> None:
    order = order_of(*(One("a") for _ in range(40)), *(One("b") for _ in range(40)))
    order.set_weight("b", 3.0)
    served = [serve_next(order).tenant for _ in range(40)]
    assert served.count("b") == 30


def test_users_of_a_tenant_share_what_is_its() -> None:
    flood = [One("a", user="x") for _ in range(40)]
    order = order_of(*flood, *(One("a", user="y") for _ in range(20)), *(One("b") for _ in range(40)))
    served = [serve_next(order) for _ in range(40)]
    assert sum(one.tenant == "b" for one in served) == 20
    assert sum(one.user == "y" for one in served) == 10


def test_nobody_saves_up_by_being_away() -> None:
    order = order_of(*(One("a") for _ in range(60)))
    for _ in range(30):
        serve_next(order)
    for _ in range(30):
        order.add(One("b"), 0.0)
    assert [serve_next(order).tenant for _ in range(20)].count("b") == 10


def test_nobody_gets_rid_of_a_debt_by_being_away() -> None:
    one = One("a")
    order = order_of(one, *(One("b") for _ in range(10)))
    order.charge(1, "a", "", 500)
    order.remove(one)
    order.add(One("a"), 0.0)
    assert [serve_next(order).tenant for _ in range(5)] == ["b"] * 5


def test_who_has_waited_long_enough_goes_up_a_band_at_a_time() -> None:
    old, young = One(band=2), One(band=2)
    order = order_of(old)
    order.add(young, 60.0)
    order.age(99.9)
    assert [band.name for _, band in order.turns()] == ["batch", "batch"]
    order.age(100.0)
    assert [(request, band.name) for request, band in order.turns()] == [(old, "normal"), (young, "batch")]
    order.age(110.0)
    assert [(request, band.name) for request, band in order.turns()] == [(old, "high"), (young, "batch")]
    order.age(10_000.0)
    assert turns(order) == [old, young]


def test_who_leaves_is_nowhere_any_more() -> None:
    one, other = One(), One("b", band=2)
    order = order_of(one, other)
    assert order.remove(one)
    assert not order.remove(one)
    assert one not in order
    assert turns(order) == [other]
    assert order.tokens == [0, 0, 100]


def test_what_is_ahead_of_a_newcomer() -> None:
    order = order_of(One(band=0, tokens=70), One("a", tokens=100), One("b", tokens=1000), One("c", tokens=10))
    # All of the higher band, its own, of b as much as it is served itself meanwhile, and all of c; nothing lower.
    order.add(One("a", band=2, tokens=5), 0.0)
    assert order.ahead(One("a", tokens=50)) == 70 + 100 + 150 + 10
    order.set_weight("b", 2.0)
    assert order.ahead(One("a", tokens=50)) == 70 + 100 + 300 + 10


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan")])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="the weight of tenant a must be above 0"):
        order_of().set_weight("a", weight)


def test_a_band_that_is_not_there_is_refused() -> None:
    for band in (-1, 3):
        with pytest.raises(ValueError, match="there is no band"):
            order_of().add(One(band=band), 0.0)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    weights=st.lists(st.sampled_from([0.5, 1.0, 2.0, 5.0]), min_size=2, max_size=5),
    largest=st.integers(1, 400),
)
def test_backlogged_tenants_are_served_within_the_bound(seed: int, weights: list[float], largest: int) -> None:
    """VTC's bound: service by weight of two that always have something waiting differs by two of the largest."""
    dice = random.Random(seed)
    order = FairOrder[One](BANDS)
    names = [f"t{n}" for n in range(len(weights))]
    for name, weight in zip(names, weights, strict=True):
        order.set_weight(name, weight)
        for _ in range(3):
            order.add(One(name, tokens=dice.randint(1, largest), user=str(dice.randrange(3))), 0.0)
    served = dict.fromkeys(names, 0.0)
    for _ in range(300):
        one = serve_next(order)
        served[one.tenant] += one.tokens / weights[names.index(one.tenant)]
        order.add(One(one.tenant, tokens=dice.randint(1, largest), user=str(dice.randrange(3))), 0.0)
    assert max(served.values()) - min(served.values()) <= 2 * largest / min(weights)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32).map(random.Random))
def test_all_that_wait_have_exactly_one_turn(dice: random.Random) -> None:
    order = FairOrder[One](BANDS)
    here: dict[One, None] = {}
    now = 0.0
    for _ in range(200):
        now += dice.random() * 5
        what = dice.randrange(4)
        if what < 2:
            one = One(
                dice.choice("abc"),
                dice.randrange(3),
                dice.randint(0, 50),
                dice.choice("xy"),
                now + 10 * dice.random(),
                now,
            )
            order.add(one, now)
            here[one] = None
        elif what == 2 and here:
            one = dice.choice(list(here))
            del here[one]
            order.remove(one)
        else:
            order.age(now)
            order.charge(dice.randrange(3), dice.choice("abcd"), dice.choice("xy"), dice.random() * 100)
        found = turns(order)
        assert len(found) == len(here) == len(order)
        assert set(found) == set(here)
        assert sum(order.tokens) == sum(one.tokens for one in here)
