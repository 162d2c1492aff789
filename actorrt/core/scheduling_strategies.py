"""Where a task or an actor may run, as users write it: the values of `scheduling_strategy=`. Pure.

A value that is wrong is refused where it is written; whether there is such a node, or still such a group, shows later.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol, cast, get_args

from actorrt.core import option_checks as check
from actorrt.types import (
    ANY_BUNDLE,
    ANYWHERE,
    PROCESS_ID_SIZE,
    GroupId,
    LabelRule,
    PlacementGroupID,
    ProcessId,
    Strategy,
)

_NAMED: Final[Mapping[str, Strategy]] = {"DEFAULT": ANYWHERE, "SPREAD": Strategy(spread=True)}
_IN_LIST: Final = ("in(", "!in(")


class Group(Protocol):
    """A placement group, as far as a strategy asks it."""

    @property
    def id(self) -> PlacementGroupID: ...
    @property
    def bundle_count(self) -> int: ...


class PlacementGroupSchedulingStrategy:
    """Run in a placement group: in the bundle with this index, or (-1) in any that has room.

    With `placement_group_capture_child_tasks` so do the tasks and actors that it makes, if they need a worker of their
    own and do not say otherwise. None for `placement_group` is as no strategy, and is not captured.
    """

    def __init__(
        self,
        placement_group: Group | None,
        placement_group_bundle_index: int = ANY_BUNDLE,
        placement_group_capture_child_tasks: bool | None = None,
    ) -> None:
        captures = placement_group_capture_child_tasks
        if captures is not None:
            check.boolean("placement_group_capture_child_tasks", captures)
        index = check.whole(ANY_BUNDLE)("placement_group_bundle_index", placement_group_bundle_index)
        if placement_group is not None:
            if not isinstance(getattr(placement_group, "id", None), PlacementGroupID):
                raise check.wrong_type("placement_group", "a PlacementGroup", placement_group)
            count = placement_group.bundle_count
            if index >= count:
                bundles = "1 bundle" if count == 1 else f"{count} bundles"
                raise ValueError(
                    f"placement_group_bundle_index must be -1 or below {count}, not {index}: the group has {bundles}"
                )
        self.placement_group = placement_group
        self.placement_group_bundle_index = index
        self.placement_group_capture_child_tasks = captures

    @property
    def strategy(self) -> Strategy:
        group = self.placement_group
        if group is None:
            return ANYWHERE
        return Strategy(
            group=GroupId(group.id.binary()),
            bundle=self.placement_group_bundle_index,
            captures=bool(self.placement_group_capture_child_tasks),
        )


class NodeAffinitySchedulingStrategy:
    """Run on the node with this id (hex), as `nodes()` and `get_runtime_context().get_node_id()` give it.

    If `soft`, then elsewhere where that node is gone or can never serve it. `_spill_on_unavailable` (soft only):
    elsewhere too while it has no room; `_fail_on_unavailable` (hard only): that is an error.
    """

    def __init__(
        self, node_id: str, soft: bool, _spill_on_unavailable: bool = False, _fail_on_unavailable: bool = False
    ) -> None:
        self.node_id = check.text("node_id", node_id)
        try:
            self._node = ProcessId(bytes.fromhex(self.node_id))
        except ValueError:
            self._node = ProcessId(b"")
        if len(self._node) != PROCESS_ID_SIZE:
            raise check.wrong_value("node_id", f"the {2 * PROCESS_ID_SIZE} hexadecimal digits of a node's id", node_id)
        self.soft = check.boolean("soft", soft)
        self.spills = check.boolean("_spill_on_unavailable", _spill_on_unavailable)
        self.fails = check.boolean("_fail_on_unavailable", _fail_on_unavailable)
        if self.spills and not soft:
            raise ValueError("_spill_on_unavailable is for soft affinity: give soft=True too")
        if self.fails and soft:
            raise ValueError("_fail_on_unavailable is for hard affinity: give soft=False")

    @property
    def strategy(self) -> Strategy:
        return Strategy(node=self._node, soft=self.soft, spills=self.spills, fails=self.fails)


class _Values:
    """Values of a label."""

    def __init__(self, *values: str) -> None:
        if not values:
            raise ValueError(f"{type(self).__name__} needs a value at least")
        self.values = tuple(check.text(f"a value of {type(self).__name__}", value) for value in values)


class In(_Values):
    """A node has one of these values."""


class NotIn(_Values):
    """A node has none of these values."""


class Exists:
    """A node has the label."""


class DoesNotExist:
    """A node does not have the label."""


Match = In | NotIn | Exists | DoesNotExist


class NodeLabelSchedulingStrategy:
    """Run on a node whose labels match all of `hard`, and if possible all of `soft`."""

    def __init__(self, hard: Mapping[str, Match], *, soft: Mapping[str, Match] | None = None) -> None:
        self.hard, self.soft = hard, soft
        self._labels, self._soft_labels = _rules("hard", hard), _rules("soft", soft or {})

    @property
    def strategy(self) -> Strategy:
        return Strategy(labels=self._labels, soft_labels=self._soft_labels)


SchedulingStrategy = PlacementGroupSchedulingStrategy | NodeAffinitySchedulingStrategy | NodeLabelSchedulingStrategy


def _rules(name: str, given: Any) -> tuple[LabelRule, ...]:
    if not isinstance(given, Mapping):
        raise check.wrong_type(name, "a dict of labels and how they have to match", given)
    found: list[LabelRule] = []
    for key, match in cast("Mapping[Any, Any]", given).items():
        check.text(f"a key of {name}", key)
        if isinstance(match, In | NotIn):
            found.append(LabelRule(key, match.values, isinstance(match, NotIn)))
        elif isinstance(match, Exists | DoesNotExist):
            found.append(LabelRule(key, (), isinstance(match, DoesNotExist)))
        else:
            raise check.wrong_type(f"{name}[{key!r}]", "In, NotIn, Exists or DoesNotExist", match)
    return tuple(found)


def label_selector(name: str, value: Any) -> tuple[LabelRule, ...]:
    """`{"zone": "a", "disk": "!hdd", "rack": "in(1,2)", "gpu": "!in(a,b)"}`."""
    if not isinstance(value, Mapping):
        raise check.wrong_type(name, "a dict of labels and their values", value)
    found: list[LabelRule] = []
    for key, text in cast("Mapping[Any, Any]", value).items():
        check.text(f"a key of {name}", key)
        check.text(f"{name}[{key!r}]", text)
        negated = text.startswith("!")
        wanted = text.removeprefix("!")
        if text.startswith(_IN_LIST) and text.endswith(")"):
            values = tuple(part.strip() for part in wanted[3:-1].split(","))
        else:
            values = (wanted,)
        if not all(values):
            raise check.wrong_value(f"{name}[{key!r}]", "'v', '!v', 'in(v,w)' or '!in(v,w)'", text)
        found.append(LabelRule(key, values, negated))
    return tuple(found)


def inherited_from(strategy: Strategy) -> Strategy:
    """How that is placed which work with this strategy makes, if it does not say so itself."""
    return Strategy(group=strategy.group, captures=True) if strategy.captures else ANYWHERE


def chosen(given: Strategy | None, inherited: Strategy, *, own_worker: bool) -> Strategy:
    """By which strategy something is placed. `given`: what it says itself; `own_worker`: it needs one. What needs none
    is not captured."""
    if given is not None:
        return given
    return inherited if own_worker else ANYWHERE


def strategy_of(name: str, value: Any) -> Strategy:
    """The value of `scheduling_strategy`."""
    if isinstance(value, str):
        return _NAMED[check.one_of(*_NAMED)(name, value)]
    if isinstance(value, SchedulingStrategy):
        return value.strategy
    names = ", ".join(one.__name__ for one in get_args(SchedulingStrategy))
    raise check.wrong_type(name, f"'DEFAULT', 'SPREAD', or one of {names}", value)
