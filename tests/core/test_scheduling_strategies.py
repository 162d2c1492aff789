"""Where something may run, as users write it: each form is read as it is meant, and what is wrong is named."""

from __future__ import annotations

from typing import Any

import pytest

from actorrt.core.options import parse_actor_options, shape_of_bundle
from actorrt.core.scheduling_strategies import (
    DoesNotExist,
    Exists,
    In,
    NodeAffinitySchedulingStrategy,
    NodeLabelSchedulingStrategy,
    NotIn,
    PlacementGroupSchedulingStrategy,
    chosen,
    inherited_from,
    label_selector,
    strategy_of,
)
from actorrt.types import ANYWHERE, GroupId, LabelRule, PlacementGroupID, ProcessId, Strategy

NODE = "00112233445566aa"


class Group:
    id = PlacementGroupID(bytes(range(16)))
    bundle_count = 2


# Without what a type checker says of their arguments.
PLACEMENT: Any = PlacementGroupSchedulingStrategy
AFFINITY: Any = NodeAffinitySchedulingStrategy
LABELS: Any = NodeLabelSchedulingStrategy
NOT_IN: Any = NotIn
KEY = GroupId(Group.id.binary())


@pytest.mark.parametrize(
    ("value", "strategy"),
    [
        ("DEFAULT", ANYWHERE),
        ("SPREAD", Strategy(spread=True)),
        (PlacementGroupSchedulingStrategy(None), ANYWHERE),
        (PlacementGroupSchedulingStrategy(Group()), Strategy(group=KEY)),
        (PlacementGroupSchedulingStrategy(Group(), 1, True), Strategy(group=KEY, bundle=1, captures=True)),
        (NodeAffinitySchedulingStrategy(NODE, False), Strategy(node=ProcessId(bytes.fromhex(NODE)))),
        (
            NodeAffinitySchedulingStrategy(NODE, soft=True, _spill_on_unavailable=True),
            Strategy(node=ProcessId(bytes.fromhex(NODE)), soft=True, spills=True),
        ),
        (
            NodeLabelSchedulingStrategy({"zone": In("a", "b"), "gpu": Exists()}, soft={"disk": NotIn("hdd")}),
            Strategy(
                labels=(LabelRule("zone", ("a", "b")), LabelRule("gpu")),
                soft_labels=(LabelRule("disk", ("hdd",), negated=True),),
            ),
        ),
        (NodeLabelSchedulingStrategy({"gpu": DoesNotExist()}), Strategy(labels=(LabelRule("gpu", negated=True),))),
    ],
)
def test_each_form_is_read_as_it_is_meant(value: object, strategy: Strategy) -> None:
    assert strategy_of("scheduling_strategy", value) == strategy


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: strategy_of("scheduling_strategy", "spread"), "'DEFAULT' or 'SPREAD', not 'spread'"),
        (lambda: strategy_of("scheduling_strategy", 3), "'DEFAULT', 'SPREAD', or one of PlacementGroup"),
        (lambda: PlacementGroupSchedulingStrategy(Group(), 2), "-1 or below 2, not 2: the group has 2 bundles"),
        (lambda: PlacementGroupSchedulingStrategy(Group(), -2), "placement_group_bundle_index must be"),
        (lambda: PLACEMENT("group"), "placement_group must be a PlacementGroup"),
        (lambda: PLACEMENT(Group(), 0, 1), "capture_child_tasks must be True or False"),
        (lambda: NodeAffinitySchedulingStrategy("xyz", True), "16 hexadecimal digits"),
        (lambda: NodeAffinitySchedulingStrategy("00", True), "16 hexadecimal digits"),
        (lambda: AFFINITY(NODE, 1), "soft must be True or False"),
        (lambda: NodeAffinitySchedulingStrategy(NODE, False, _spill_on_unavailable=True), "give soft=True too"),
        (lambda: NodeAffinitySchedulingStrategy(NODE, True, _fail_on_unavailable=True), "give soft=False"),
        (lambda: LABELS({"zone": "a"}), "hard['zone'] must be In, NotIn, Exists or DoesNotExist"),
        (lambda: LABELS("zone"), "hard must be a dict of labels"),
        (In, "In needs a value at least"),
        (lambda: NOT_IN(3), "a value of NotIn must be a string"),
        (lambda: label_selector("label_selector", {"zone": "in(a,,b)"}), "'v', '!v', 'in(v,w)' or '!in(v,w)'"),
        (lambda: label_selector("label_selector", ["zone"]), "label_selector must be a dict"),
        (lambda: shape_of_bundle("bundles[1]", {"CPU": -1}), "bundles[1]['CPU'] must be"),
        (lambda: shape_of_bundle("bundles[1]", {"GPU": 1.5}), "bundles[1]['GPU'] must be a fraction of one or"),
        (lambda: shape_of_bundle("bundles[1]", {"CPU": 0}), "bundles[1] must be a dict with a resource at least"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(make: Any, text: str) -> None:
    with pytest.raises((TypeError, ValueError)) as found:
        make()
    assert text in str(found.value)


def test_label_selectors_are_read_as_they_are_meant() -> None:
    assert label_selector("x", {"a": "1", "b": "!2", "c": "in(1, 2)", "d": "!in(3)"}) == (
        LabelRule("a", ("1",)),
        LabelRule("b", ("2",), negated=True),
        LabelRule("c", ("1", "2")),
        LabelRule("d", ("3",), negated=True),
    )


@pytest.mark.parametrize(
    "strategy",
    [
        PlacementGroupSchedulingStrategy(Group()),
        NodeAffinitySchedulingStrategy(NODE, True),
        NodeLabelSchedulingStrategy({"a": Exists()}),
    ],
)
def test_an_actor_that_says_where_has_a_process_to_itself(strategy: object) -> None:
    assert parse_actor_options({"scheduling_strategy": strategy}).exclusive(has_async=True)
    assert not parse_actor_options({"scheduling_strategy": "SPREAD"}).exclusive(has_async=True)


def test_what_a_group_captures_is_what_needs_a_worker_and_does_not_say_otherwise() -> None:
    assert inherited_from(Strategy(group=KEY, bundle=1)) == ANYWHERE
    inherited = inherited_from(Strategy(group=KEY, bundle=1, captures=True))
    assert inherited == Strategy(group=KEY, captures=True)
    assert chosen(None, inherited, own_worker=True) == inherited
    assert chosen(None, inherited, own_worker=False) == ANYWHERE
    assert chosen(ANYWHERE, inherited, own_worker=True) == ANYWHERE
