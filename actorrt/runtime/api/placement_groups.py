"""Placement groups, as programs make and use them: resources that are set aside together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, cast

from actorrt import exceptions
from actorrt.core import option_checks as check
from actorrt.core.bundles import GROUP_STRATEGIES
from actorrt.core.options import shape_of_bundle
from actorrt.types import NO_GROUP, GroupId, PlacementGroupID, owned
from actorrt.wire.messages import AwaitGroup, CreateGroup, Facts, ListGroups, RemoveGroup

from ..owner.references import ObjectRef
from . import program
from .remote import remote

_PATIENCE_S: Final = 30


class PlacementGroup:
    """Bundles of resources that are set aside together, or not at all. It may be sent to other processes.

    What runs in it names it by `scheduling_strategy=PlacementGroupSchedulingStrategy(group, ...)`.
    """

    def __init__(self, id: PlacementGroupID, bundle_specs: Sequence[Mapping[str, float]]) -> None:
        self.id = id
        self._bundles = [dict(bundle) for bundle in bundle_specs]

    @staticmethod
    def empty() -> PlacementGroup:
        """The group that is none: `PlacementGroupSchedulingStrategy` takes it as one without bundles."""
        return PlacementGroup(PlacementGroupID.nil(), [])

    @property
    def is_empty(self) -> bool:
        return self.id.is_nil()

    @property
    def bundle_specs(self) -> list[dict[str, float]]:
        """What each bundle has, by its index."""
        return [dict(bundle) for bundle in self._bundles]

    @property
    def bundle_count(self) -> int:
        return len(self._bundles)

    def ready(self) -> ObjectRef[PlacementGroup]:
        """A ref to the group, which is there once the group is; PlacementGroupError if it is removed before."""
        return _once_ready.remote(self)

    def wait(self, timeout_seconds: float = _PATIENCE_S) -> bool:
        """True once the group is there, False if it is not within so many seconds. PlacementGroupError: it is gone."""
        limit = check.seconds("timeout_seconds", timeout_seconds)
        runtime = program.runtime()
        try:
            runtime.thread.call_sync(runtime.node.ask(AwaitGroup(_key(self))), limit)
        except TimeoutError:
            return False
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlacementGroup) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"PlacementGroup({self.id.hex()}, {self._bundles})"


@remote
async def _once_ready(group: PlacementGroup) -> PlacementGroup:
    runtime = program.runtime()
    await runtime.thread.call_async(runtime.node.ask(AwaitGroup(_key(group))))
    return group


def placement_group(
    bundles: Sequence[Mapping[str, float]],
    strategy: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] | None = None,
    name: str = "",
    lifetime: Literal["detached"] | None = None,
) -> PlacementGroup:
    """Have bundles such as `[{"CPU": 1, "GPU": 1}, {"CPU": 2}]` set aside, as soon as there is room for all of them.

    `strategy`: PACK (unless given) puts them on few nodes, SPREAD on many; STRICT_PACK on one, STRICT_SPREAD each on
    another, or nowhere. `name`: `get_placement_group` finds it by that, in this program's namespace. The group ends
    with this program, if it is not removed before; with `lifetime="detached"` it does not.

    PlacementGroupError if no node can ever have it, or the name is taken. TypeError or ValueError names what is wrong.
    """
    shapes = [shape_of_bundle(f"bundles[{number}]", bundle) for number, bundle in enumerate(_list(bundles))]
    if not shapes:
        raise check.wrong_value("bundles", "a list with a bundle at least", bundles)
    chosen = check.one_of(*GROUP_STRATEGIES)("strategy", "PACK" if strategy is None else strategy)
    if name:
        check.text("name", name)
    if lifetime is not None:
        check.one_of("detached")("lifetime", lifetime)
    runtime = program.runtime()
    key = GroupId(owned(runtime.process, runtime.objects.next_seq()))
    membership = runtime.membership
    wanted = CreateGroup(
        key, shapes, chosen, membership.employer, name, membership.namespace if name else "", lifetime is not None
    )
    runtime.thread.call_sync(runtime.node.ask(wanted))
    return PlacementGroup(PlacementGroupID(key), bundles)


def remove_placement_group(placement_group: PlacementGroup) -> None:
    """Give its resources back. What runs in it is ended, and what was to run in it fails. Once more does no harm."""
    runtime = program.runtime()
    runtime.thread.call_sync(runtime.node.ask(RemoveGroup(_key(placement_group))))


def get_placement_group(name: str) -> PlacementGroup:
    """The group that has this name in this program's namespace. PlacementGroupError (a ValueError) if there is none."""
    check.text("name", name)
    namespace = program.runtime().membership.namespace
    rows = _rows(ListGroups(NO_GROUP, name, namespace))
    if not rows:
        raise exceptions.PlacementGroupError(name, f"there is none of this name in namespace {namespace!r}")
    return _group_of(rows[0])


def placement_group_table(placement_group: PlacementGroup | None = None) -> dict[str, Any]:
    """How a group stands, or all by their ids: name, bundles, nodes, strategy, state (PENDING, CREATED, RESCHEDULING or
    REMOVED), and `why` it waits."""
    if placement_group is not None:
        rows = _rows(ListGroups(_key(placement_group)))
        return rows[0] if rows else {}
    return {row["placement_group_id"]: row for row in _rows(ListGroups())}


def get_current_placement_group() -> PlacementGroup | None:
    """The group that this code runs in; None outside of any."""
    runtime = program.maybe_runtime()
    group = NO_GROUP if runtime is None else runtime.tenancy.strategy.group
    rows = _rows(ListGroups(group)) if group else []
    return _group_of(rows[0]) if rows and "bundles" in rows[0] else None


def _rows(question: ListGroups) -> list[dict[str, Any]]:
    runtime = program.runtime()
    facts: Facts = runtime.thread.call_sync(runtime.node.ask(question))
    return facts.data


def _group_of(row: Mapping[str, Any]) -> PlacementGroup:
    # Bundles are numbered from 0 on, in their order.
    return PlacementGroup(PlacementGroupID.from_hex(row["placement_group_id"]), list(row["bundles"].values()))


def _key(group: PlacementGroup) -> GroupId:
    if not isinstance(cast("object", group), PlacementGroup):
        raise check.wrong_type("placement_group", "a PlacementGroup", group)
    if group.is_empty:
        raise exceptions.PlacementGroupError(group.id.hex(), "it is the empty one, which is never there")
    return GroupId(group.id.binary())


def _list(bundles: Any) -> Sequence[Mapping[str, float]]:
    if not isinstance(bundles, list | tuple):
        raise check.wrong_type("bundles", "a list of dicts such as {'CPU': 1}", bundles)
    return cast("Sequence[Mapping[str, float]]", bundles)
