"""Groups are reserved as a whole or not at all, whatever crosses; what is promised of them, by a model of nodes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actorrt.core.bundles import GROUP_STRATEGIES, copy_of, put_bundles
from actorrt.core.leases import UNIT, Resources
from actorrt.core.placement import Cluster
from actorrt.core.placement_groups import (
    TABLE,
    Commit,
    Event,
    GroupAction,
    GroupSpec,
    PlacementGroups,
    Release,
    Reserve,
    State,
    Tell,
    shapes_of,
)
from actorrt.exceptions import PlacementGroupError
from actorrt.types import Employer, GroupId, JobKey, LabelRule, ProcessId

JOBS = [Employer(JobKey(ProcessId(bytes([number]) * 8))) for number in range(2)]
CPU = {"CPU": UNIT}


def node(number: int) -> ProcessId:
    return ProcessId(number.to_bytes(8, "big"))


def group(number: int) -> GroupId:
    return GroupId(number.to_bytes(16, "big"))


def spec(number: int, strategy: str, *cpus: float, name: str = "", detached: bool = False, job: int = 0) -> GroupSpec:
    bundles = tuple({"CPU": round(amount * UNIT)} for amount in cpus)
    return GroupSpec(group(number), bundles, strategy, JOBS[job], name, "space", detached)


class NodeModel:
    """A node as the table sees it: it takes orders one after the other, and its answers come one after the other."""

    def __init__(self, which: ProcessId, total: Mapping[str, int]) -> None:
        self.which = which
        self.resources = Resources(total)
        self.orders: deque[Reserve | Commit | Release] = deque()
        self.answers: deque[tuple[str, GroupId, int, dict[str, int], dict[int, int]]] = deque()
        self.held: dict[tuple[GroupId, int], tuple[Reserve, list[list[int]]]] = {}
        self.committed: set[tuple[GroupId, int]] = set()
        self.waiting: list[Reserve] = []
        self.tasks: list[tuple[Mapping[str, int], list[int]]] = []

    def answer(self, what: str, who: GroupId, attempt: int) -> None:
        self.answers.append((what, who, attempt, dict(self.resources.free), dict(self.resources.rooms)))

    def obey(self) -> None:
        order = self.orders.popleft()
        key = (order.group, order.attempt)
        match order:
            case Reserve():
                if not self.try_reserve(order):
                    if order.waits:
                        self.waiting.append(order)
                    else:
                        self.answer("refused", *key)
            case Commit():
                assert key in self.held
                self.committed.add(key)
            case Release():
                self.waiting = [one for one in self.waiting if (one.group, one.attempt) != key]
                self.committed.discard(key)
                held = self.held.pop(key, None)
                if held is not None:
                    for bundle, gpus in zip(held[0].bundles.values(), held[1], strict=True):
                        self.resources.give(bundle, gpus)
                self.serve()

    def try_reserve(self, order: Reserve) -> bool:
        bundles = list(order.bundles.values())
        if not self.resources.fits_all(bundles):
            return False
        # One group holds only what one attempt has asked for.
        assert not any(who == order.group for who, _ in self.held)
        self.held[order.group, order.attempt] = (order, self.resources.take_all(bundles))
        self.answer("reserved", order.group, order.attempt)
        return True

    def serve(self) -> None:
        self.waiting = [one for one in self.waiting if not self.try_reserve(one)]
        self.answer("changed", group(0), 0)


class Groups(RuleBasedStateMachine):
    """Programs make and remove groups, tasks come and go, nodes join and die, and messages take their time."""

    @initialize(totals=st.lists(st.integers(1, 4), min_size=1, max_size=3), gpus=st.integers(0, 2))
    def begin(self, totals: list[int], gpus: int) -> None:
        self.cluster = Cluster()
        self.table = PlacementGroups(self.cluster)
        self.nodes: dict[ProcessId, NodeModel] = {}
        self.last = 0
        self.made: dict[GroupId, GroupSpec] = {}
        self.told: set[GroupId] = set()
        for cpus in totals:
            self.join(cpus, gpus)

    def perform(self, actions: tuple[GroupAction, ...]) -> None:
        for action in actions:
            if isinstance(action, Tell):
                self.told.add(action.group)
            else:
                self.nodes[action.node].orders.append(action)

    @rule(cpus=st.integers(1, 4), gpus=st.integers(0, 2))
    def join(self, cpus: int, gpus: int) -> None:
        if len(self.nodes) >= 4:
            return
        self.last += 1
        total = {"CPU": cpus * UNIT, **({"GPU": gpus * UNIT} if gpus else {})}
        self.nodes[node(self.last)] = NodeModel(node(self.last), total)
        self.cluster.join(node(self.last), total)
        self.perform(self.table.changed())

    @precondition(lambda self: self.nodes)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        which = data.draw(st.sampled_from(list(self.nodes)))
        del self.nodes[which]
        self.cluster.leave(which)
        self.perform(self.table.node_left(which, which.hex()))

    @rule(
        bundles=st.lists(
            st.fixed_dictionaries(
                {"CPU": st.integers(1, 2).map(lambda n: n * UNIT)},
                optional={"GPU": st.sampled_from([4 * UNIT // 10, 7 * UNIT // 10, UNIT])},
            ),
            min_size=1,
            max_size=3,
        ),
        strategy=st.sampled_from(GROUP_STRATEGIES),
        job=st.integers(0, 1),
        detached=st.booleans(),
    )
    def create(self, bundles: list[dict[str, int]], strategy: str, job: int, detached: bool) -> None:
        self.last += 1
        made = GroupSpec(group(self.last), tuple(bundles), strategy, JOBS[job], detached=detached, patient=True)
        self.made[made.group] = made
        self.perform(self.table.create(made))

    @precondition(lambda self: self.made)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        which = data.draw(st.sampled_from(list(self.made)))
        del self.made[which]
        self.perform(self.table.remove(which, "it was removed"))
        assert self.table.explain(which) == "it was removed: it was removed"

    @rule(job=st.integers(0, 1))
    def program_ends(self, job: int) -> None:
        self.made = {one: made for one, made in self.made.items() if made.employer != JOBS[job] or made.detached}
        self.perform(self.table.employer_ended(JOBS[job]))

    @precondition(lambda self: self.nodes)
    @rule(data=st.data(), cpus=st.integers(1, 2))
    def task(self, data: st.DataObject, cpus: int) -> None:
        there = self.nodes[data.draw(st.sampled_from(list(self.nodes)))]
        shape = {"CPU": cpus * UNIT}
        if there.tasks and data.draw(st.booleans()):
            there.resources.give(*there.tasks.pop())
            there.serve()
        elif there.resources.fits(shape):
            there.tasks.append((shape, there.resources.take(shape)))
            there.answer("changed", group(0), 0)

    @precondition(lambda self: any(one.orders for one in self.nodes.values()))
    @rule(data=st.data())
    def order_arrives(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from([one for one in self.nodes.values() if one.orders])).obey()

    @precondition(lambda self: any(one.answers for one in self.nodes.values()))
    @rule(data=st.data())
    def answer_arrives(self, data: st.DataObject) -> None:
        self.hear(data.draw(st.sampled_from([one for one in self.nodes.values() if one.answers])))

    def hear(self, there: NodeModel) -> None:
        what, who, attempt, free, rooms = there.answers.popleft()
        self.cluster.report(there.which, free, rooms)
        match what:
            case "reserved":
                self.perform(self.table.reserved(there.which, who, attempt))
            case "refused":
                self.perform(self.table.refused(there.which, who, attempt))
            case _:
                self.perform(self.table.changed())

    @rule()
    def all_arrives(self) -> None:
        for _ in range(1000):
            busy = [one for one in self.nodes.values() if one.orders or one.answers]
            if not busy:
                break
            for one in busy:
                while one.orders:
                    one.obey()
                while one.answers:
                    self.hear(one)
        else:
            raise AssertionError("it does not come to rest")
        self.at_rest()

    def at_rest(self) -> None:
        created = {one: made for one, made in self.made.items() if self.table.is_created(one)}
        # What nodes hold is what the table says, bundle by bundle.
        for there in self.nodes.values():
            for (who, attempt), (order, _) in there.held.items():
                if (who, attempt) in there.committed:
                    assert who in created
                    assert all(self.table.node_of(who, number) == there.which for number in order.bundles)
        for who, made in created.items():
            at = [self.table.node_of(who, number) for number in range(len(made.bundles))]
            for number, which in enumerate(at):
                assert which is not None
                keys = [key for key in self.nodes[which].committed if key[0] == who]
                assert len(keys) == 1
                assert self.nodes[which].held[keys[0]][0].bundles[number] == made.bundles[number]
            if made.strategy == "STRICT_PACK":
                assert len(set(at)) == 1
            if made.strategy == "STRICT_SPREAD":
                assert len(set(at)) == len(at)
        # Nobody waits for what is free; and only one waits at nodes.
        waiting = {one.group for there in self.nodes.values() for one in there.waiting}
        assert len(waiting) <= 1
        for who, made in self.made.items():
            if who not in created and who not in waiting and self.table.explain(who)[:17] != "it waits until no":
                free = copy_of(self.cluster)
                assert put_bundles(self.cluster, made.bundles, made.rules, made.strategy, free) is None
                assert self.table.explain(who)

    @invariant()
    def no_node_gives_more_than_it_has(self) -> None:
        for there in self.nodes.values():
            used = sum(shape["CPU"] for shape, _ in there.tasks)
            used += sum(one["CPU"] for order, _ in there.held.values() for one in order.bundles.values())
            assert there.resources.free["CPU"] + used == there.resources.total["CPU"]
            assert all(amount >= 0 for amount in there.resources.free.values())
            assert all(amount >= 0 for amount in there.resources.rooms.values())

    @invariant()
    def the_table_knows_those_that_were_made_and_not_removed(self) -> None:
        assert {bytes.fromhex(row["placement_group_id"]) for row in self.table.rows()} == set(self.made)


TestGroups = Groups.TestCase
TestGroups.settings = settings(max_examples=80, stateful_step_count=40)


# ---- one after the other


class Desk:
    """A table, and nodes that obey at once."""

    def __init__(self, *cpus: int, labels: Callable[[int], Mapping[str, str]] = lambda _: {}) -> None:
        self.cluster = Cluster()
        self.table = PlacementGroups(self.cluster)
        self.log: list[GroupAction] = []
        for number, count in enumerate(cpus):
            self.cluster.join(node(number), {"CPU": count * UNIT}, name=f"n{number}", labels=labels(number))

    def do(self, actions: tuple[GroupAction, ...]) -> None:
        for action in actions:
            self.log.append(action)
            if isinstance(action, Reserve):
                if action.waits:
                    if not self.cluster.resources(action.node).fits_all(list(action.bundles.values())):
                        continue
                    self.cluster.take_all(action.node, list(action.bundles.values()))
                self.do(self.table.reserved(action.node, action.group, action.attempt))
            if isinstance(action, Release):
                for number in self.bundles(action.group):
                    self.cluster.give(action.node, number, [])
                self.do(self.table.changed())

    def bundles(self, which: GroupId) -> list[dict[str, int]]:
        reserved = [one for one in self.log if isinstance(one, Reserve) and one.group == which]
        return list(reserved[-1].bundles.values())


def test_a_group_is_there_once_all_nodes_have_reserved_and_is_released_if_one_refuses() -> None:
    desk = Desk(1, 1)
    asked = desk.table.create(spec(1, "STRICT_SPREAD", 1, 1))
    assert asked == tuple(Reserve(node(n), group(1), 1, {n: CPU}, False) for n in range(2))
    assert desk.table.reserved(node(0), group(1), 1) == ()
    assert desk.table.explain(group(1)) == "it waits until node n1 has reserved its bundles"
    desk.cluster.report(node(1), {"CPU": 0}, {})
    released = desk.table.refused(node(1), group(1), 1)
    why = "it could not be reserved as a whole"
    assert released[:2] == tuple(Release(node(n), group(1), 1, why) for n in range(2))
    # It is the oldest that waits: nodes may take their time for it.
    assert released[2:] == tuple(Reserve(node(n), group(1), 2, {n: CPU}, True) for n in range(2))
    # Answers of the first attempt count no more.
    assert desk.table.reserved(node(0), group(1), 1) == ()
    assert desk.table.reserved(node(0), group(1), 2) == ()
    assert desk.table.reserved(node(1), group(1), 2) == (
        Commit(node(0), group(1), 2),
        Commit(node(1), group(1), 2),
        Tell(group(1)),
    )
    assert desk.table.rows(group(1))[0]["state"] == "CREATED"


def test_a_group_whose_node_dies_is_placed_again_as_a_whole() -> None:
    desk = Desk(1, 1)
    desk.do(desk.table.create(spec(1, "STRICT_SPREAD", 1, 1)))
    assert desk.table.is_created(group(1))
    desk.cluster.leave(node(1))
    desk.log.clear()
    released = desk.table.node_left(node(1), "n1")
    why = "node n1, which had a part of it, is gone"
    assert released == (Release(node(0), group(1), 1, why), Tell(group(1)))
    assert desk.table.row(group(1))["state"] == "RESCHEDULING"  # type: ignore[index]
    assert desk.table.explain(group(1)) == (
        "its 2 bundles fit one by one and not together, which STRICT_SPREAD wants on as many nodes"
    )
    desk.cluster.report(node(0), CPU, {})
    desk.cluster.join(node(2), CPU, name="n2")
    desk.do(desk.table.changed())
    assert [desk.table.node_of(group(1), number) for number in range(2)] == [node(0), node(2)]


def test_what_can_never_be_had_is_said_with_the_bundle() -> None:
    desk = Desk(2, 1, labels=lambda number: {"zone": "ab"[number]})
    table = desk.table
    with pytest.raises(PlacementGroupError, match="it can never be had: bundle 0 asks for 9 CPU, and no node"):
        table.create(spec(1, "PACK", 9))
    assert table.impossible(spec(1, "PACK", 1, 3)) == (
        "bundle 1 asks for 3 CPU, and no node has that: node n0 has 2 CPU, node n1 has 1 CPU"
    )
    together = "its 2 bundles fit one by one and not together, which STRICT_PACK wants on one node"
    assert table.impossible(spec(1, "STRICT_PACK", 1, 2)) == together
    assert table.impossible(spec(1, "PACK", 1, 2)) == ""
    rules = ((LabelRule("zone", ("b",)),),)
    assert table.impossible(GroupSpec(group(1), ({"CPU": 2 * UNIT},), "PACK", JOBS[0], labels=rules)) == (
        "bundle 0 asks for 2 CPU, and no node with label zone b has that: node n1 has 1 CPU"
    )


def test_a_group_that_waits_says_for_what_and_who_is_before_it() -> None:
    desk = Desk(2)
    desk.do(desk.table.create(spec(1, "PACK", 2)))
    desk.do(desk.table.create(spec(2, "PACK", 1)))
    desk.do(desk.table.create(spec(3, "PACK", 1)))
    text = "it waits for 1 CPU for bundle 0; free: node n0 has 0 CPU"
    assert desk.table.explain(group(2)) == text
    assert desk.table.explain(group(3)) == f"{text}; groups before it that wait too: 1"
    desk.do(desk.table.remove(group(1), "it was removed"))
    assert desk.table.is_created(group(2))
    assert desk.table.is_created(group(3))


def test_a_small_group_passes_a_large_one_that_waits_at_its_node() -> None:
    desk = Desk(2)
    desk.cluster.take(node(0), CPU)
    desk.do(desk.table.create(spec(1, "PACK", 2)))
    assert desk.log == [Reserve(node(0), group(1), 1, {0: {"CPU": 2 * UNIT}}, True)]
    desk.do(desk.table.create(spec(2, "PACK", 1)))
    assert desk.table.is_created(group(2))


def test_names_are_free_again_once_their_group_is_removed() -> None:
    desk = Desk(2)
    desk.do(desk.table.create(spec(1, "PACK", 1, name="one")))
    assert desk.table.find("space", "one") == group(1)
    assert desk.table.find("other", "one") is None
    assert [row["name"] for row in desk.table.rows(namespace="space", name="one")] == ["one"]
    with pytest.raises(PlacementGroupError, match=r"^placement group one: its name is taken in namespace 'space'$"):
        desk.table.create(spec(2, "PACK", 1, name="one"))
    desk.do(desk.table.remove(group(1), "it was removed"))
    assert desk.table.find("space", "one") is None
    assert desk.table.row(group(1)) == {
        "placement_group_id": group(1).hex(), "state": "REMOVED", "why": "it was removed",
    }  # fmt: skip
    assert desk.table.row(group(9)) is None
    assert desk.table.remove(group(1), "again") == ()


def test_a_program_that_ends_takes_its_groups_along_but_not_detached_ones() -> None:
    desk = Desk(3)
    desk.do(desk.table.create(spec(1, "PACK", 1)))
    desk.do(desk.table.create(spec(2, "PACK", 1, detached=True)))
    desk.do(desk.table.create(spec(3, "PACK", 1, job=1)))
    desk.do(desk.table.employer_ended(JOBS[0]))
    assert [row["placement_group_id"] for row in desk.table.rows()] == [group(2).hex(), group(3).hex()]
    with pytest.raises(PlacementGroupError, match="its program ended"):
        desk.table.check(group(1))


def test_every_pair_of_state_and_event_that_can_be_is_in_the_table() -> None:
    never = {
        (State.PENDING, Event.ALL_RESERVED), (State.PENDING, Event.REFUSED), (State.PENDING, Event.NODE_LEFT),
        (State.RESERVING, Event.CHOSEN),
        (State.CREATED, Event.CHOSEN), (State.CREATED, Event.ALL_RESERVED), (State.CREATED, Event.REFUSED),
        *((State.REMOVED, event) for event in Event),
    }  # fmt: skip
    assert set(TABLE) | never == {(state, event) for state in State for event in Event}
    assert not set(TABLE) & never


@given(st.lists(st.dictionaries(st.sampled_from(["CPU", "x"]), st.integers(0, 2)), max_size=3))
def test_zeros_are_left_out(bundles: list[dict[str, int]]) -> None:
    assert all(all(one.values()) for one in shapes_of(bundles))


@pytest.mark.parametrize("strategy", GROUP_STRATEGIES)
def test_the_same_history_has_the_same_end(strategy: str) -> None:
    def run() -> list[GroupAction]:
        desk = Desk(2, 3, 1)
        for number in range(1, 5):
            desk.do(desk.table.create(spec(number, strategy, 1, 0.5)))
        desk.do(desk.table.remove(group(2), "it was removed"))
        return desk.log

    assert run() == run()
