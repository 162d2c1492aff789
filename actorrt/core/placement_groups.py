"""The placement groups of a cluster: a table of what becomes of each, and a class that applies it. Pure.

    PENDING --a place is found--> RESERVING --every node has reserved--> CREATED
    RESERVING --a node refuses, or has left--> PENDING
    CREATED --one of its nodes has left--> PENDING: what is left of it is released, and it is placed again as a whole

A group takes resources in two phases: each node is asked to reserve its bundles, and only when all have done so are
they told that the group is there; else they release them. An answer belongs to one attempt; a later one has another
number. Of groups that find no room the oldest may have nodes wait until they have it, and no other: so no two groups
wait for each other's half. What nodes have free is theirs to report, before whatever they say here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import auto
from itertools import takewhile
from typing import Any, Final

import msgspec

from actorrt.exceptions import PlacementGroupError
from actorrt.types import NO_GROUP, Employer, GroupId, LabelRule, ProcessId

from .bundles import GROUP_STRATEGIES, Copy, copy_of, put_bundles
from .labels import Label
from .leases import UNIT
from .placement import Cluster, Shape, in_words, labels_in_words
from .recent import Recent

# Groups that were removed and are remembered, so that who uses one is told so.
MOST_REMEMBERED: Final = 10_000


class GroupSpec(msgspec.Struct, frozen=True):
    """A group as it was asked for. `labels`: rules for each bundle, or none at all. It ends with `employer`, a program
    or what outlives that, unless it is `detached`. `patient`: it may wait for nodes that can have it."""

    group: GroupId
    bundles: tuple[dict[str, int], ...]
    strategy: str
    employer: Employer
    name: str = ""
    namespace: str = ""
    detached: bool = False
    labels: tuple[tuple[LabelRule, ...], ...] = ()
    patient: bool = False

    @property
    def rules(self) -> tuple[tuple[LabelRule, ...], ...]:
        return self.labels or ((),) * len(self.bundles)


class State(Label):
    # It waits for room.
    PENDING = auto()
    # Nodes are asked to reserve its bundles.
    RESERVING = auto()
    CREATED = auto()
    REMOVED = auto()


class Event(Label):
    CHOSEN = auto()
    ALL_RESERVED = auto()
    REFUSED = auto()
    # One of its nodes.
    NODE_LEFT = auto()
    REMOVE = auto()


class Step(Label):
    RESERVE = auto()
    COMMIT = auto()
    RELEASE = auto()
    TELL = auto()
    FORGET = auto()


S, E, P = State, Event, Step

TABLE: Final[Mapping[tuple[State, Event], tuple[State, tuple[Step, ...]]]] = {
    (S.PENDING, E.CHOSEN): (S.RESERVING, (P.RESERVE,)),
    (S.PENDING, E.REMOVE): (S.REMOVED, (P.TELL, P.FORGET)),
    (S.RESERVING, E.ALL_RESERVED): (S.CREATED, (P.COMMIT, P.TELL)),
    (S.RESERVING, E.REFUSED): (S.PENDING, (P.RELEASE,)),
    (S.RESERVING, E.NODE_LEFT): (S.PENDING, (P.RELEASE,)),
    (S.RESERVING, E.REMOVE): (S.REMOVED, (P.RELEASE, P.TELL, P.FORGET)),
    # All of it, so that what runs in it starts again together.
    (S.CREATED, E.NODE_LEFT): (S.PENDING, (P.RELEASE, P.TELL)),
    (S.CREATED, E.REMOVE): (S.REMOVED, (P.RELEASE, P.TELL, P.FORGET)),
}


class Reserve(msgspec.Struct, frozen=True):
    """Ask a node to reserve these bundles, by index; `waits`: as soon as it can, else now or not at all. `reserved` or
    `refused` follows."""

    node: ProcessId
    group: GroupId
    attempt: int
    bundles: dict[int, dict[str, int]]
    waits: bool


class Commit(msgspec.Struct, frozen=True):
    """Tell a node that the group is there: its bundles may be used."""

    node: ProcessId
    group: GroupId
    attempt: int


class Release(msgspec.Struct, frozen=True):
    """Tell a node to give back its bundles, and to end what runs in them for this reason."""

    node: ProcessId
    group: GroupId
    attempt: int
    why: str


class Tell(msgspec.Struct, frozen=True):
    """Tell those who wait for the group: it is there, waits again, or has been removed."""

    group: GroupId


GroupAction = Reserve | Commit | Release | Tell


class _Group:
    __slots__ = ("answers", "at", "attempt", "lives", "spec", "state", "waits")

    def __init__(self, spec: GroupSpec) -> None:
        self.spec = spec
        self.state = State.PENDING
        self.attempt = 0
        # How often it has been created.
        self.lives = 0
        # The node of each bundle, while it has them; and the nodes that have not answered.
        self.at: list[ProcessId] = []
        self.answers: set[ProcessId] = set()
        self.waits = False

    @property
    def nodes(self) -> list[ProcessId]:
        return list(dict.fromkeys(self.at))

    def bundles_at(self, node: ProcessId) -> dict[int, dict[str, int]]:
        return {number: self.spec.bundles[number] for number, one in enumerate(self.at) if one == node}


class PlacementGroups:
    """All groups of a cluster. What is to be done is returned, in order."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        # In the order in which they were made.
        self._groups: dict[GroupId, _Group] = {}
        self._names: dict[tuple[str, str], GroupId] = {}
        self._removed: Recent[GroupId, str] = Recent(MOST_REMEMBERED)
        self._actions: list[GroupAction] = []

    def __len__(self) -> int:
        return len(self._groups)

    # ---- what programs ask

    def impossible(self, spec: GroupSpec) -> str:
        """Why no node that is there can ever have it; empty if they can."""
        cluster = self._cluster
        for number, (bundle, rules) in enumerate(zip(spec.bundles, spec.rules, strict=True)):
            if not cluster.serving(bundle, rules, ever=True):
                where = f" with {labels_in_words(rules)}" if rules else ""
                has = cluster.has(bundle, rules)
                return f"bundle {number} asks for {in_words(bundle)}, and no node{where} has that: {has}"
        everything = copy_of(cluster, kept={})
        if put_bundles(cluster, spec.bundles, spec.rules, spec.strategy, everything, ever=True) is None:
            return f"its {len(spec.bundles)} bundles fit one by one and not together, {_manner(spec.strategy)}"
        return ""

    def create(self, spec: GroupSpec) -> tuple[GroupAction, ...]:
        """A group is wanted. Raises PlacementGroupError if its name is taken, or no node can ever have it."""
        assert spec.strategy in GROUP_STRATEGIES
        title = spec.name or spec.group.hex()
        if spec.name and (spec.namespace, spec.name) in self._names:
            raise PlacementGroupError(title, f"its name is taken in namespace {spec.namespace!r}")
        if not spec.patient and (why := self.impossible(spec)):
            raise PlacementGroupError(title, f"it can never be had: {why}")
        self._groups[spec.group] = _Group(spec)
        if spec.name:
            self._names[(spec.namespace, spec.name)] = spec.group
        self._try()
        return self._done()

    def remove(self, group: GroupId, why: str) -> tuple[GroupAction, ...]:
        """A group is not wanted any more; nothing happens if there is none."""
        known = self._groups.get(group)
        if known is not None:
            self._apply(known, Event.REMOVE, why)
            self._try()
        return self._done()

    def employer_ended(self, employer: Employer) -> tuple[GroupAction, ...]:
        """A program has ended, or the last of what outlives it: so do its groups, unless they are detached."""
        for known in list(self._groups.values()):
            if known.spec.employer == employer and not known.spec.detached:
                self._apply(known, Event.REMOVE, "its program ended")
        self._try()
        return self._done()

    # ---- what nodes say

    def changed(self) -> tuple[GroupAction, ...]:
        """Nodes have joined, or have more free than before."""
        self._try()
        return self._done()

    def reserved(self, node: ProcessId, group: GroupId, attempt: int) -> tuple[GroupAction, ...]:
        """A node has reserved what it was asked for."""
        known = self._awaited(node, group, attempt)
        if known is not None:
            known.answers.discard(node)
            if not known.answers:
                self._apply(known, Event.ALL_RESERVED)
                self._try()
        return self._done()

    def refused(self, node: ProcessId, group: GroupId, attempt: int) -> tuple[GroupAction, ...]:
        """A node has no room for it now."""
        known = self._awaited(node, group, attempt)
        if known is not None:
            self._apply(known, Event.REFUSED, "it could not be reserved as a whole")
            self._try()
        return self._done()

    def node_left(self, node: ProcessId, name: str) -> tuple[GroupAction, ...]:
        """A node is gone; the cluster knows."""
        for known in list(self._groups.values()):
            if node in known.at:
                self._apply(known, Event.NODE_LEFT, f"node {name}, which had a part of it, is gone")
        self._try()
        return self._done()

    def _awaited(self, node: ProcessId, group: GroupId, attempt: int) -> _Group | None:
        known = self._groups.get(group)
        if known is None or known.state is not State.RESERVING or known.attempt != attempt or node not in known.answers:
            return None
        return known

    # ---- what becomes of them

    def _apply(self, known: _Group, event: Event, why: str = "") -> None:
        known.state, steps = TABLE[known.state, event]
        group = known.spec.group
        for step in steps:
            match step:
                case Step.RESERVE:
                    for node in known.nodes:
                        bundles = known.bundles_at(node)
                        self._actions.append(Reserve(node, group, known.attempt, bundles, known.waits))
                case Step.COMMIT:
                    known.lives += 1
                    known.waits = False
                    for node in known.nodes:
                        self._actions.append(Commit(node, group, known.attempt))
                case Step.RELEASE:
                    for node in known.nodes:
                        if node in self._cluster:
                            self._actions.append(Release(node, group, known.attempt, why))
                    known.at, known.answers, known.waits = [], set(), False
                case Step.TELL:
                    self._actions.append(Tell(group))
                case Step.FORGET:
                    del self._groups[group]
                    self._names.pop((known.spec.namespace, known.spec.name), None)
                    self._removed.put(group, why)

    def _try(self) -> None:
        """Find room for those that wait, in the order in which they were made."""
        pending = [known for known in self._groups.values() if known.state is State.PENDING]
        if not pending:
            return
        somebody_waits = any(known.waits for known in self._groups.values())
        free = copy_of(self._cluster)
        for known in pending:
            spec = known.spec
            at = put_bundles(self._cluster, spec.bundles, spec.rules, spec.strategy, free)
            if at is None and not somebody_waits:
                but_groups = self._but_groups()
                at = put_bundles(self._cluster, spec.bundles, spec.rules, spec.strategy, but_groups, ever=True)
                somebody_waits = known.waits = at is not None
            if at is None:
                continue
            known.at = at
            known.attempt += 1
            known.answers = set(at)
            if not known.waits:
                for node in known.nodes:
                    # Until it says so itself.
                    self._cluster.take_all(node, list(known.bundles_at(node).values()))
            self._apply(known, Event.CHOSEN)

    def _but_groups(self) -> Copy:
        """What nodes have but for what groups have of them."""
        kept: dict[ProcessId, list[dict[str, int]]] = {}
        for known in self._groups.values():
            for number, node in enumerate(known.at):
                kept.setdefault(node, []).append(known.spec.bundles[number])
        return copy_of(self._cluster, kept=kept)

    # ---- what is known

    def find(self, namespace: str, name: str) -> GroupId | None:
        return self._names.get((namespace, name))

    def check(self, group: GroupId) -> None:
        """Raises PlacementGroupError if it is gone."""
        if group not in self._groups:
            raise PlacementGroupError(group.hex(), self._removed.get(group) or "there is no such group")

    def spec(self, group: GroupId) -> GroupSpec | None:
        """A group that has not been removed."""
        known = self._groups.get(group)
        return None if known is None else known.spec

    def is_created(self, group: GroupId) -> bool:
        known = self._groups.get(group)
        return known is not None and known.state is State.CREATED

    def node_of(self, group: GroupId, bundle: int) -> ProcessId | None:
        """Where a bundle is; None while it is nowhere."""
        known = self._groups.get(group)
        return known.at[bundle] if known is not None and known.state is State.CREATED else None

    def explain(self, group: GroupId) -> str:
        """How it stands with a group, in words: while it waits, for what."""
        known = self._groups.get(group)
        if known is None:
            why = self._removed.get(group)
            return "there is no such placement group" if why is None else f"it was removed: {why}"
        spec, cluster = known.spec, self._cluster
        if known.state is State.CREATED:
            return f"it is on {', '.join(f'node {cluster.name(node)}' for node in known.nodes)}"
        if known.state is State.RESERVING:
            waits = ", ".join(f"node {cluster.name(node)}" for node in known.nodes if node in known.answers)
            return f"it waits until {waits} has reserved its bundles"
        if why := self.impossible(spec):
            return why
        before = takewhile(lambda one: one is not known, self._groups.values())
        ahead = sum(one.state is not State.CREATED for one in before)
        behind = f"; groups before it that wait too: {ahead}" if ahead else ""
        for number, (bundle, rules) in enumerate(zip(spec.bundles, spec.rules, strict=True)):
            if not cluster.serving(bundle, rules):
                has = cluster.has(bundle, rules, free=True)
                return f"it waits for {in_words(bundle)} for bundle {number}; free: {has}{behind}"
        return f"it waits until there is room for its bundles together, {_manner(spec.strategy)}{behind}"

    def rows(self, group: GroupId = NO_GROUP, namespace: str = "", name: str = "") -> list[dict[str, Any]]:
        """How groups stand, as programs are shown it: one by its id or its name, or all that have not been removed."""
        if not group and not name:
            return [self._row(known) for known in self._groups.values()]
        found = group or self._names.get((namespace, name))
        row = None if found is None else self.row(found)
        return [] if row is None else [row]

    def row(self, group: GroupId) -> dict[str, Any] | None:
        """How one stands; of one that was removed as well, in short."""
        known = self._groups.get(group)
        if known is not None:
            return self._row(known)
        why = self._removed.get(group)
        return None if why is None else {"placement_group_id": group.hex(), "state": "REMOVED", "why": why}

    def _row(self, known: _Group) -> dict[str, Any]:
        spec = known.spec
        bundles = {
            number: {name: amount / UNIT for name, amount in bundle.items()}
            for number, bundle in enumerate(spec.bundles)
        }
        is_created = known.state is State.CREATED
        state = "CREATED" if is_created else "RESCHEDULING" if known.lives else "PENDING"
        return {
            "placement_group_id": spec.group.hex(),
            "name": spec.name,
            "bundles": bundles,
            "bundles_to_node_id": {number: node.hex() for number, node in enumerate(known.at)} if is_created else {},
            "strategy": spec.strategy,
            "state": state,
            "why": "" if is_created else self.explain(spec.group),
            "is_detached": spec.detached,
        }

    def _done(self) -> tuple[GroupAction, ...]:
        actions = tuple(self._actions)
        self._actions.clear()
        return actions


def _manner(strategy: str) -> str:
    return {
        "STRICT_PACK": "which STRICT_PACK wants on one node",
        "STRICT_SPREAD": "which STRICT_SPREAD wants on as many nodes",
    }.get(strategy, "on all nodes")


def shapes_of(bundles: Iterable[Shape]) -> tuple[dict[str, int], ...]:
    """What is zero is left out."""
    return tuple({name: amount for name, amount in bundle.items() if amount} for bundle in bundles)
