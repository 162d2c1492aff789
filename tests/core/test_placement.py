"""A request goes where it fits, by a rule that is the same each time; what cannot be placed is told why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from actorrt.core.leases import UNIT
from actorrt.core.placement import LARGE, LEVELS, Busy, Choice, Cluster, Demand, Go, Never
from actorrt.types import ANYWHERE, NO_PROCESS, LabelRule, ProcessId, Strategy

CPU = {"CPU": UNIT}
SPREAD = Strategy(spread=True)


def node(number: int) -> ProcessId:
    return ProcessId(number.to_bytes(8, "big"))


def cluster_of(*totals: Mapping[str, float], labels: Mapping[int, Mapping[str, str]] | None = None) -> Cluster:
    cluster = Cluster()
    for number, total in enumerate(totals):
        amounts = {name: round(amount * UNIT) for name, amount in total.items()}
        cluster.join(node(number), amounts, name=f"n{number}", labels=(labels or {}).get(number))
    return cluster


def put(cluster: Cluster, demand: Demand) -> int:
    """Place and take; the number of the node."""
    choice = cluster.choose(demand)
    assert isinstance(choice, Go), choice
    cluster.take(choice.node, demand.shape)
    return int.from_bytes(choice.node, "big")


def why(choice: Choice) -> str:
    assert isinstance(choice, Never)
    return choice.why


# ---- where a request goes


def test_nodes_are_packed_until_half_full_and_then_spread() -> None:
    cluster = cluster_of({"CPU": 4}, {"CPU": 4})
    assert [put(cluster, Demand(CPU)) for _ in range(8)] == [0, 0, 1, 1, 0, 1, 0, 1]
    assert isinstance(cluster.choose(Demand(CPU)), Busy)


def test_the_node_that_asks_goes_first_while_it_is_less_than_half_full() -> None:
    cluster = cluster_of({"CPU": 4}, {"CPU": 4})
    assert [put(cluster, Demand(CPU, asker=node(1))) for _ in range(3)] == [1, 1, 0]


@given(count=st.integers(1, 6), size=st.integers(1, 9), wanted=st.integers(0, 60))
def test_spread_gives_nodes_of_one_size_as_much_as_each_other(count: int, size: int, wanted: int) -> None:
    cluster = cluster_of(*[{"CPU": size}] * count)
    placed = Counter(put(cluster, Demand(CPU, SPREAD)) for _ in range(min(wanted, count * size)))
    counts = [placed[number] for number in range(count)]
    assert max(counts) - min(counts) <= 1


def test_spread_takes_turns_also_with_what_takes_nothing() -> None:
    cluster = cluster_of({"CPU": 4}, {"CPU": 4}, {"CPU": 4})
    assert [put(cluster, Demand({}, SPREAD)) for _ in range(6)] == [0, 1, 2, 0, 1, 2]


def test_nodes_with_gpus_are_left_to_who_needs_them() -> None:
    cluster = cluster_of({"CPU": 4, "GPU": 1}, {"CPU": 1})
    assert put(cluster, Demand(CPU)) == 1
    assert put(cluster, Demand(CPU)) == 0
    assert put(cluster, Demand({"GPU": UNIT})) == 0


def test_fractions_of_gpus_need_one_gpu_with_room() -> None:
    cluster = cluster_of({"GPU": 2})
    half = Demand({"GPU": UNIT * 6 // 10})
    assert [put(cluster, half), put(cluster, half)] == [0, 0]
    # 0.8 are free, in two pieces.
    assert isinstance(cluster.choose(half), Busy)


def test_a_request_goes_where_its_large_arguments_lie_if_there_is_room() -> None:
    cluster = cluster_of({"CPU": 4}, {"CPU": 1}, {"CPU": 4})
    demand = Demand(CPU, bytes_at={node(1): 3 * LARGE, node(2): 2 * LARGE, node(0): LARGE - 1})
    assert [put(cluster, demand), put(cluster, demand)] == [1, 2]
    assert put(cluster, Demand(CPU, bytes_at={node(2): LARGE - 1})) == 0


def test_affinity_holds_to_its_node_and_soft_affinity_where_that_can_serve_it() -> None:
    cluster = cluster_of({"CPU": 2}, {"CPU": 1})
    hard, soft = Strategy(node=node(1)), Strategy(node=node(1), soft=True)
    assert put(cluster, Demand(CPU, hard)) == 1
    assert cluster.choose(Demand(CPU, hard)) == Busy(node(1))
    assert cluster.explain(Demand(CPU, hard)) == "it waits for 1 CPU; free: node n1 has 0 CPU"
    assert isinstance(cluster.choose(Demand(CPU, soft)), Busy)
    assert cluster.choose(Demand(CPU, soft._replace(spills=True))) == Go(node(0))
    assert isinstance(cluster.choose(Demand(CPU, hard._replace(fails=True))), Never)
    assert cluster.choose(Demand({"CPU": 2 * UNIT}, soft)) == Go(node(0))
    assert why(cluster.choose(Demand({"CPU": 2 * UNIT}, hard))) == "it asks for 2 CPU, and node n1 has 1 CPU"
    cluster.leave(node(1))
    assert cluster.choose(Demand(CPU, soft)) == Go(node(0))
    assert "there is no node 0000000000000001" in why(cluster.choose(Demand(CPU, hard)))


def test_labels_choose_among_nodes_and_soft_ones_only_where_they_can() -> None:
    zones = {0: {"zone": "a"}, 1: {"zone": "b", "disk": "ssd"}, 2: {"disk": "hdd"}}
    cluster = cluster_of({"CPU": 1}, {"CPU": 1}, {"CPU": 1}, labels=zones)

    def matching(*rules: LabelRule) -> list[ProcessId]:
        return cluster.matching(rules)

    assert matching(LabelRule("zone", ("a", "b"))) == [node(0), node(1)]
    assert matching(LabelRule("zone", ("a",), negated=True)) == [node(1), node(2)]
    assert matching(LabelRule("zone"), LabelRule("disk", ("ssd",))) == [node(1)]
    assert matching(LabelRule("zone", negated=True)) == [node(2)]
    assert matching(LabelRule("no such")) == []
    soft = Strategy(soft_labels=(LabelRule("zone", ("b",)),))
    assert [put(cluster, Demand(CPU, soft)) for _ in range(3)] == [1, 0, 2]


# ---- what can never be placed


def test_what_no_node_can_ever_serve_is_said_at_once_with_what_they_have() -> None:
    cluster = cluster_of({"CPU": 4, "GPU": 2}, {"CPU": 8}, labels={1: {"zone": "b"}})
    never = cluster.choose(Demand({"GPU": 4 * UNIT}))
    text = "it asks for 4 GPU, and no node has that: node n0 has 2 GPU, node n1 has 0 GPU"
    assert never == Never(text)
    assert cluster.choose(Demand({"GPU": 4 * UNIT}, patient=True)) == Busy(NO_PROCESS)
    assert cluster.explain(Demand({"GPU": 4 * UNIT}, patient=True)) == text
    assert why(cluster.choose(Demand(CPU, Strategy(labels=(LabelRule("zone", ("c",)),))))) == "no node has label zone c"
    there = Strategy(labels=(LabelRule("zone", ("b",)),))
    assert why(cluster.choose(Demand({"GPU": UNIT}, there))) == (
        "it asks for 1 GPU, and no node with label zone b has that: node n1 has 0 GPU"
    )
    assert why(Cluster().choose(Demand(CPU))) == "there is no node"


def test_a_patient_request_is_placed_once_a_node_joins() -> None:
    cluster = cluster_of({"CPU": 1})
    demand = Demand({"CPU": 2 * UNIT}, patient=True)
    assert isinstance(cluster.choose(demand), Busy)
    cluster.join(node(7), {"CPU": 2 * UNIT})
    assert cluster.choose(demand) == Go(node(7))


def test_many_nodes_are_not_all_named() -> None:
    text = why(cluster_of(*[{"CPU": 1}] * 9).choose(Demand({"CPU": 2 * UNIT})))
    assert text.endswith("node n3 has 1 CPU, and 5 more have no more")


# ---- any history

SHAPES = st.fixed_dictionaries(
    {},
    optional={
        "CPU": st.integers(1, 4 * UNIT),
        "GPU": st.sampled_from([UNIT // 4, UNIT // 2, UNIT, 2 * UNIT]),
        "disk": st.sampled_from([UNIT, 2 * UNIT]),
    },
)
TOTALS = st.fixed_dictionaries(
    {"CPU": st.integers(0, 4).map(lambda n: n * UNIT)},
    optional={"GPU": st.integers(1, 2).map(lambda n: n * UNIT), "disk": st.just(2 * UNIT)},
)
RULES = st.lists(
    st.builds(LabelRule, st.sampled_from("xy"), st.lists(st.sampled_from("12"), max_size=2).map(tuple), st.booleans()),
    max_size=2,
).map(tuple)
NODES = st.integers(0, 5).map(node)
STRATEGIES = st.builds(
    Strategy,
    spread=st.booleans(),
    node=st.one_of(st.just(NO_PROCESS), NODES),
    soft=st.booleans(),
    spills=st.booleans(),
    fails=st.booleans(),
    labels=RULES,
    soft_labels=RULES,
)
DEMANDS = st.builds(
    Demand,
    SHAPES,
    STRATEGIES,
    asker=NODES,
    bytes_at=st.dictionaries(NODES, st.integers(0, 2 * LARGE), max_size=2),
    patient=st.booleans(),
)


def matches(labels: Mapping[str, str], rules: tuple[LabelRule, ...]) -> bool:
    return all(
        ((rule.key in labels and (not rule.values or labels[rule.key] in rule.values)) != rule.negated)
        for rule in rules
    )


class Placing(RuleBasedStateMachine):
    """Nodes join, leave and report, requests are placed and given back. A plain scan says what had to be chosen."""

    placed = Bundle("placed")

    @initialize()
    def begin(self) -> None:
        self.cluster = Cluster()
        self.labels: dict[ProcessId, Mapping[str, str]] = {}
        self.incarnation: dict[ProcessId, int] = {}
        self.steps = 0

    @rule(which=NODES, total=TOTALS, labels=st.dictionaries(st.sampled_from("xy"), st.sampled_from("12")))
    def join(self, which: ProcessId, total: Mapping[str, int], labels: Mapping[str, str]) -> None:
        self.steps += 1
        self.cluster.join(which, total, labels=labels)
        self.labels[which] = labels
        self.incarnation[which] = self.steps

    @rule(which=NODES)
    def leave(self, which: ProcessId) -> None:
        self.cluster.leave(which)
        self.labels.pop(which, None)
        self.incarnation.pop(which, None)

    @rule(target=placed, demand=DEMANDS)
    def place(self, demand: Demand) -> object:
        cluster, strategy = self.cluster, demand.strategy
        allowed = [one for one in cluster.nodes if matches(self.labels[one], strategy.labels)]
        fits = [one for one in allowed if cluster.resources(one).fits(demand.shape)]
        could = [one for one in allowed if cluster.resources(one).could(demand.shape)]
        choice = cluster.choose(demand)
        if isinstance(choice, Go):
            assert choice.node in fits
            if strategy.node in fits:
                assert choice.node == strategy.node
            if strategy.node and not strategy.soft:
                assert choice.node == strategy.node
            preferred = [one for one in fits if matches(self.labels[one], strategy.soft_labels)]
            if preferred and not strategy.node:
                assert choice.node in preferred
            gpus = cluster.take(choice.node, demand.shape)
            return (choice.node, self.incarnation[choice.node], demand.shape, gpus)
        if isinstance(choice, Busy) and choice.node:
            assert choice.node in could
        bound = [one for one in fits if one == strategy.node] if strategy.node and not strategy.soft else fits
        if strategy.node in could and not (strategy.soft and strategy.spills):
            bound = [one for one in bound if one == strategy.node]
        assert not bound
        reachable = [one for one in could if one == strategy.node] if strategy.node and not strategy.soft else could
        if isinstance(choice, Never):
            assert not reachable or (strategy.fails and not strategy.soft)
        else:
            assert reachable or demand.patient
        return None

    @rule(what=consumes(placed))
    def give_back(self, what: tuple[ProcessId, int, Mapping[str, int], list[int]] | None) -> None:
        if what is not None and self.incarnation.get(what[0]) == what[1]:
            self.cluster.give(what[0], what[2], what[3])

    @invariant()
    def nothing_is_given_twice(self) -> None:
        for one in self.cluster.nodes:
            resources = self.cluster.resources(one)
            assert all(
                0 <= amount <= resources.total[name]
                for name, amount in resources.free.items()
                if name in resources.total
            )
            assert all(amount >= 0 for amount in resources.rooms.values())
            assert 0 <= self.cluster.fullness(one) < LEVELS


TestPlacing = Placing.TestCase
TestPlacing.settings = settings(max_examples=60, stateful_step_count=30)


@given(demands=st.lists(DEMANDS, max_size=12), totals=st.lists(TOTALS, min_size=1, max_size=5))
def test_the_same_reports_give_the_same_choices(demands: list[Demand], totals: list[Mapping[str, int]]) -> None:
    def run() -> list[Choice]:
        cluster = Cluster()
        for number, total in enumerate(totals):
            cluster.join(node(number), total)
        choices: list[Choice] = []
        for demand in demands:
            choices.append(choice := cluster.choose(demand))
            if isinstance(choice, Go):
                cluster.take(choice.node, demand.shape)
        return choices

    assert run() == run()


def test_what_a_node_reports_takes_the_place_of_what_was_thought() -> None:
    cluster = cluster_of({"CPU": 2, "GPU": 1})
    put(cluster, Demand({"CPU": 2 * UNIT, "GPU": UNIT}))
    cluster.report(node(0), {"CPU": UNIT, "GPU": UNIT // 2}, {0: UNIT // 2})
    assert cluster.choose(Demand({"CPU": UNIT, "GPU": UNIT // 2})) == Go(node(0))
    assert isinstance(cluster.choose(Demand({"GPU": UNIT})), Busy)
    cluster.report(node(5), CPU, {})
    assert len(cluster) == 1


@pytest.mark.parametrize("strategy", [ANYWHERE, SPREAD])
def test_few_nodes_are_looked_at_for_a_request(strategy: Strategy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index: once a shape was asked for, only nodes that have changed are looked at."""
    from actorrt.core import leases

    cluster = cluster_of(*[{"CPU": 8}] * 1000)
    put(cluster, Demand(CPU, strategy))
    looked: list[object] = []
    real = leases.Resources.fits
    monkeypatch.setattr(leases.Resources, "fits", lambda self, shape: looked.append(shape) or real(self, shape))  # type: ignore[misc]
    for _ in range(100):
        put(cluster, Demand(CPU, strategy))
    assert len(looked) == 100
