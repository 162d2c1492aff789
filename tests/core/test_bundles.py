"""The strict kinds of placement groups find a place if and only if there is one; the others come near."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from actorrt.core.bundles import GROUP_STRATEGIES, copy_of, put_bundles
from actorrt.core.leases import UNIT
from actorrt.core.placement import Cluster
from actorrt.types import LabelRule, ProcessId

TOTALS = st.fixed_dictionaries(
    {"CPU": st.integers(0, 3).map(lambda n: n * UNIT)}, optional={"GPU": st.integers(1, 2).map(lambda n: n * UNIT)}
)
BUNDLES = st.fixed_dictionaries(
    {},
    optional={
        "CPU": st.integers(1, 3).map(lambda n: n * UNIT),
        "GPU": st.sampled_from([3 * UNIT // 10, 6 * UNIT // 10, UNIT, 2 * UNIT]),
    },
)
ZONES = st.sampled_from(["a", "b"])
RULES = st.one_of(st.just(()), ZONES.map(lambda zone: (LabelRule("zone", (zone,)),)))


def node(number: int) -> ProcessId:
    return ProcessId(number.to_bytes(8, "big"))


def cluster_of(totals: Sequence[Mapping[str, int]], zones: Sequence[str] = ()) -> Cluster:
    cluster = Cluster()
    for number, total in enumerate(totals):
        cluster.join(node(number), total, labels={"zone": zones[number % len(zones)]} if zones else {})
    return cluster


def fit(cluster: Cluster, bundles: Sequence[Mapping[str, int]], at: Sequence[ProcessId]) -> bool:
    return all(
        cluster.resources(one).fits_all([bundle for bundle, there in zip(bundles, at, strict=True) if there == one])
        for one in set(at)
    )


@settings(max_examples=300)
@given(
    totals=st.lists(TOTALS, min_size=1, max_size=4),
    zones=st.lists(ZONES, min_size=1, max_size=4),
    bundles=st.lists(st.tuples(BUNDLES, RULES), min_size=1, max_size=4),
    strategy=st.sampled_from(GROUP_STRATEGIES),
    taken=st.lists(st.tuples(st.integers(0, 3), BUNDLES), max_size=3),
)
def test_a_place_is_found_if_and_only_if_there_is_one(
    totals: list[Mapping[str, int]],
    zones: list[str],
    bundles: list[tuple[Mapping[str, int], tuple[LabelRule, ...]]],
    strategy: str,
    taken: list[tuple[int, Mapping[str, int]]],
) -> None:
    cluster = cluster_of(totals, zones)
    for number, shape in taken:
        if number < len(totals) and cluster.resources(node(number)).fits(shape):
            cluster.take(node(number), shape)
    shapes, rules = [one for one, _ in bundles], [some for _, some in bundles]
    at = put_bundles(cluster, shapes, rules, strategy, copy_of(cluster))
    strict = {"STRICT_PACK": 1, "STRICT_SPREAD": len(shapes)}

    def allowed(way: Sequence[ProcessId]) -> bool:
        labelled = all(one in cluster.matching(some) for one, some in zip(way, rules, strict=True))
        used = len(set(way))
        return labelled and used == strict.get(strategy, used) and fit(cluster, shapes, way)

    if at is not None:
        assert allowed(at)
    elif strategy in strict:
        assert not any(allowed(way) for way in product([node(n) for n in range(len(totals))], repeat=len(shapes)))
    assert at == put_bundles(cluster, shapes, rules, strategy, copy_of(cluster))


@given(count=st.integers(1, 5), size=st.integers(1, 4), bundles=st.integers(1, 20))
def test_pack_takes_few_nodes_and_spread_many(count: int, size: int, bundles: int) -> None:
    cluster = cluster_of([{"CPU": size * UNIT}] * count)
    shapes, rules = [{"CPU": UNIT}] * bundles, [()] * bundles
    packed = put_bundles(cluster, shapes, rules, "PACK", copy_of(cluster))
    spread = put_bundles(cluster, shapes, rules, "SPREAD", copy_of(cluster))
    if bundles > count * size:
        assert packed is None
        assert spread is None
        return
    assert packed is not None
    assert spread is not None
    assert len(set(packed)) == -(-bundles // size)
    counts = Counter(spread)
    assert len(counts) == min(bundles, count)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_a_matching_moves_others_to_make_room() -> None:
    cluster = cluster_of([{"CPU": 2 * UNIT}, {"CPU": UNIT}, {"CPU": 3 * UNIT}])
    shapes = [{"CPU": UNIT}, {"CPU": 2 * UNIT}, {"CPU": 3 * UNIT}]
    at = put_bundles(cluster, shapes, [()] * 3, "STRICT_SPREAD", copy_of(cluster))
    assert at == [node(1), node(0), node(2)]


def test_a_group_that_needs_no_gpu_leaves_nodes_with_gpus_to_others() -> None:
    cluster = cluster_of([{"CPU": 4 * UNIT, "GPU": UNIT}, {"CPU": 4 * UNIT}])
    assert put_bundles(cluster, [{"CPU": UNIT}], [()], "PACK", copy_of(cluster)) == [node(1)]


@pytest.mark.parametrize("strategy", GROUP_STRATEGIES)
def test_a_large_group_on_many_nodes(strategy: str) -> None:
    cluster = cluster_of([{"CPU": 200 * UNIT}] * 300)
    shapes, rules = [{"CPU": UNIT}] * 200, [()] * 200
    at = put_bundles(cluster, shapes, rules, strategy, copy_of(cluster))
    assert at is not None
    assert len(set(at)) == (200 if "SPREAD" in strategy else 1)
