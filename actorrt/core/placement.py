"""Which node of a cluster a request goes to. Pure: what nodes report comes in, a choice comes out.

Half full is packed, then spread: of the nodes with room the first that is less than half used (the one that asks before
all), else the least used. Ties go by the order in which nodes joined, so the same reports give the same choices.

Sets of nodes are numbers whose bit n is the n-th node. For each shape that was asked for lately there is the set of
those that could ever serve it and of those that can now; what a node reports marks it as to be looked at again, so a
request looks at those that have changed and not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from actorrt.types import ANYWHERE, NO_PROCESS, LabelRule, ProcessId, Strategy

from .leases import UNIT, Resources

# How finely nodes are told apart by how full they are.
LEVELS: Final = 64
HALF: Final = LEVELS // 2
# Arguments below this many bytes are sent rather than looked for.
LARGE: Final = 1 << 20
# Shapes that were asked for lately.
MOST_SHAPES: Final = 128
# Nodes that a sentence names.
MOST_NAMED: Final = 4

Shape = Mapping[str, int]


class Demand(msgspec.Struct, frozen=True):
    """What is asked for: `shape` in units of 1/10000.

    `asker`: the node whose request it is. `bytes_at`: how many bytes of its arguments lie on which node. `patient`:
    where no node can ever serve it, it waits for one that joins.
    """

    shape: Shape
    strategy: Strategy = ANYWHERE
    asker: ProcessId = NO_PROCESS
    bytes_at: Mapping[ProcessId, int] = {}
    patient: bool = False


class Go(msgspec.Struct, frozen=True):
    """There is room on `node`."""

    node: ProcessId


class Busy(msgspec.Struct, frozen=True):
    """No node has room now. It had better wait at `node`, whose queue holds back others once it has grown old there;
    NO_PROCESS: no node that is there can ever serve it, and it is patient. `explain` has why."""

    node: ProcessId


class Never(msgspec.Struct, frozen=True):
    """No node can ever serve it, or it is not to wait."""

    why: str


Choice = Go | Busy | Never


class _Node:
    __slots__ = ("bit", "labels", "level", "name", "node", "resources")

    def __init__(self, node: ProcessId, bit: int, name: str, total: Shape, labels: Mapping[str, str]) -> None:
        self.node = node
        self.bit = bit
        self.name = name
        self.labels = dict(labels)
        self.resources = Resources(total)
        self.level = 0

    def measure(self) -> int:
        """How full it is by the resource of which the least is left."""
        free = self.resources.free
        level = 0
        for name, total in self.resources.total.items():
            if total > 0:
                level = max(level, (total - free.get(name, 0)) * LEVELS // total)
        return min(level, LEVELS - 1)


class _Fit:
    """Which nodes could serve a shape, and which can now; `stale` are to be looked at again."""

    __slots__ = ("could", "fits", "shape", "stale")

    def __init__(self, shape: Shape, stale: int) -> None:
        self.shape = shape
        self.could = 0
        self.fits = 0
        self.stale = stale


class Cluster:
    """The nodes, as they have said that they are."""

    def __init__(self) -> None:
        self._nodes: dict[ProcessId, _Node] = {}
        # By bit. The bit of a node that has left is that of the next one that joins.
        self._at: list[_Node | None] = []
        self._alive = 0
        self._with_gpus = 0
        self._levels = [0] * LEVELS
        self._labels: dict[str, dict[str, int]] = {}
        self._fits: dict[tuple[tuple[str, int], ...], _Fit] = {}
        # What SPREAD chose last.
        self._cursor = 0

    # ---- what nodes say

    def join(self, node: ProcessId, total: Shape, *, name: str = "", labels: Mapping[str, str] | None = None) -> None:
        """A node is there, with nothing taken; again: all that was known of it is forgotten."""
        self.leave(node)
        bit = next((bit for bit, one in enumerate(self._at) if one is None), len(self._at))
        if bit == len(self._at):
            self._at.append(None)
        known = self._at[bit] = self._nodes[node] = _Node(node, bit, name or node.hex(), total, labels or {})
        mask = 1 << bit
        self._alive |= mask
        self._levels[0] |= mask
        if total.get("GPU"):
            self._with_gpus |= mask
        for key, value in known.labels.items():
            values = self._labels.setdefault(key, {})
            values[value] = values.get(value, 0) | mask
        self._changed(known)

    def leave(self, node: ProcessId) -> None:
        """It is gone; nothing happens if it was not there."""
        known = self._nodes.pop(node, None)
        if known is None:
            return
        self._at[known.bit] = None
        mask = 1 << known.bit
        self._alive &= ~mask
        self._with_gpus &= ~mask
        self._levels[known.level] &= ~mask
        for key, value in known.labels.items():
            self._labels[key][value] &= ~mask
        for fit in self._fits.values():
            fit.could &= ~mask
            fit.fits &= ~mask
            fit.stale &= ~mask

    def report(self, node: ProcessId, free: Shape, rooms: Mapping[int, int]) -> None:
        """What is free there, and how much of each GPU; nothing happens if it has left."""
        known = self._nodes.get(node)
        if known is not None:
            known.resources.report(free, rooms)
            self._changed(known)

    def take(self, node: ProcessId, shape: Shape) -> list[int]:
        """Take what fits there, before it reports so; the GPUs that go with it."""
        known = self._nodes[node]
        gpus = known.resources.take(shape)
        self._changed(known)
        return gpus

    def take_all(self, node: ProcessId, shapes: Sequence[Shape]) -> list[list[int]]:
        known = self._nodes[node]
        gpus = known.resources.take_all(shapes)
        self._changed(known)
        return gpus

    def give(self, node: ProcessId, shape: Shape, gpus: Sequence[int]) -> None:
        """Give back what was taken there; nothing happens if the node has left."""
        known = self._nodes.get(node)
        if known is not None:
            known.resources.give(shape, gpus)
            self._changed(known)

    def _changed(self, known: _Node) -> None:
        mask = 1 << known.bit
        level = known.measure()
        if level != known.level:
            self._levels[known.level] &= ~mask
            self._levels[level] |= mask
            known.level = level
        for fit in self._fits.values():
            fit.stale |= mask

    # ---- what is known

    def __len__(self) -> int:
        return len(self._nodes)

    def __contains__(self, node: ProcessId) -> bool:
        return node in self._nodes

    @property
    def nodes(self) -> Iterable[ProcessId]:
        """In the order in which they joined, but for those that took the place of others."""
        return [one.node for one in self._at if one is not None]

    def resources(self, node: ProcessId) -> Resources:
        """What is to be read only."""
        return self._nodes[node].resources

    def name(self, node: ProcessId) -> str:
        return self._nodes[node].name

    def fullness(self, node: ProcessId) -> int:
        """How full it is, in parts of LEVELS."""
        return self._nodes[node].level

    def matching(self, rules: Iterable[LabelRule]) -> list[ProcessId]:
        """The nodes whose labels match."""
        return [self._node(bit).node for bit in _bits(self._matching(rules))]

    def serving(self, shape: Shape, rules: Iterable[LabelRule] = (), *, ever: bool = False) -> list[ProcessId]:
        """The nodes with these labels that have room for a shape; `ever`: that would have if nothing was taken."""
        fit = self._fit(shape)
        return [self._node(bit).node for bit in _bits(self._matching(rules) & (fit.could if ever else fit.fits))]

    def has(self, shape: Shape, rules: Iterable[LabelRule] = (), *, free: bool = False) -> str:
        """How much of a shape the nodes with these labels have, or (`free`) have left, in words."""
        allowed = self._matching(rules)
        return self._has(shape, allowed, free=free) if allowed else f"no node has {labels_in_words(rules)}"

    # ---- where to

    def choose(self, demand: Demand) -> Choice:
        """Where a request goes now. Nothing is taken."""
        strategy = demand.strategy
        fit, allowed = self._fit(demand.shape), self._matching(demand.strategy.labels)
        bound = self._bound(demand, allowed, fit)
        now, could = bound & fit.fits, bound & fit.could
        if now:
            if strategy.soft_labels:
                now = now & self._matching(strategy.soft_labels) or now
            return Go(self._best(demand, now).node)
        if could and not (strategy.fails and strategy.node and not strategy.soft):
            return Busy(self._waits_at(demand, could).node)
        if demand.patient:
            return Busy(NO_PROCESS)
        return Never(self.explain(demand))

    def explain(self, demand: Demand) -> str:
        """Why a request has no node, in words: what it waits for and who has how much, or why it waits in vain."""
        fit, allowed = self._fit(demand.shape), self._matching(demand.strategy.labels)
        bound = self._bound(demand, allowed, fit)
        if could := bound & fit.could:
            return f"it waits for {in_words(demand.shape)}; free: {self._has(demand.shape, could, free=True)}"
        return self._never(demand, allowed)

    def _bound(self, demand: Demand, allowed: int, fit: _Fit) -> int:
        """The nodes among which it is to be: one, if it has an affinity that can be followed, or has to be."""
        strategy = demand.strategy
        if not strategy.node:
            return allowed
        known = self._nodes.get(strategy.node)
        only = 0 if known is None else allowed & (1 << known.bit)
        if not strategy.soft or only & fit.fits:
            return only
        return only if only & fit.could and not strategy.spills else allowed

    def _waits_at(self, demand: Demand, could: int) -> _Node:
        """Where its arguments lie, at the node that asks, or where the most is left, in this order."""
        if (largest := self._largest(demand.bytes_at, could)) is not None:
            return largest
        asker = self._nodes.get(demand.asker)
        return asker if asker is not None and could >> asker.bit & 1 else self._least_used(could, turns=False)

    def _best(self, demand: Demand, now: int) -> _Node:
        """Of the nodes with room the one to take."""
        if (best := self._largest(demand.bytes_at, now)) is not None:
            return best
        # Those with GPUs are left to who needs them.
        if not demand.shape.get("GPU"):
            now = now & ~self._with_gpus or now
        if demand.strategy.spread:
            return self._least_used(now)
        asker = self._nodes.get(demand.asker)
        light = 0
        for level in range(HALF):
            light |= self._levels[level]
        if asker is not None and now & light & (1 << asker.bit):
            return asker
        if now & light:
            return self._node(_lowest(now & light))
        return self._least_used(now, turns=False)

    def _largest(self, bytes_at: Mapping[ProcessId, int], now: int) -> _Node | None:
        """Of these nodes the one where most of the arguments lie, if that is much."""
        there = [
            (-size, known.bit)
            for node, size in bytes_at.items()
            if size >= LARGE and (known := self._nodes.get(node)) is not None and now >> known.bit & 1
        ]
        return self._node(min(there)[1]) if there else None

    def _least_used(self, now: int, *, turns: bool = True) -> _Node:
        """One of the least used; `turns`: those that are as full as each other take turns."""
        for level in self._levels:
            if here := now & level:
                if not turns:
                    return self._node(_lowest(here))
                after = here >> self._cursor
                bit = _lowest(after) + self._cursor if after else _lowest(here)
                self._cursor = bit + 1
                return self._node(bit)
        raise AssertionError("a node with room is as full as any")

    def _fit(self, shape: Shape) -> _Fit:
        key = tuple(sorted(shape.items()))
        fit = self._fits.pop(key, None)
        if fit is None:
            fit = _Fit(dict(shape), self._alive)
            if len(self._fits) >= MOST_SHAPES:
                del self._fits[next(iter(self._fits))]
        # The last one that was asked for is the last one to be forgotten.
        self._fits[key] = fit
        if fit.stale:
            for bit in _bits(fit.stale):
                mask, resources = 1 << bit, self._node(bit).resources
                fit.could = fit.could | mask if resources.could(shape) else fit.could & ~mask
                fit.fits = fit.fits | mask if resources.fits(shape) else fit.fits & ~mask
            fit.stale = 0
        return fit

    def _node(self, bit: int) -> _Node:
        known = self._at[bit]
        assert known is not None
        return known

    def _matching(self, rules: Iterable[LabelRule]) -> int:
        found = self._alive
        for rule in rules:
            values = self._labels.get(rule.key, {})
            chosen = 0
            for value in rule.values or values:
                chosen |= values.get(value, 0)
            found &= ~chosen if rule.negated else chosen
        return found

    # ---- in words

    def _never(self, demand: Demand, allowed: int) -> str:
        strategy, wants = demand.strategy, in_words(demand.shape)
        if strategy.node and not strategy.soft:
            only = self._nodes.get(strategy.node)
            if only is None:
                return f"there is no node {strategy.node.hex()}"
            if not allowed >> only.bit & 1:
                return f"node {only.name} does not have {labels_in_words(strategy.labels)}"
            return f"it asks for {wants}, and {self._has(demand.shape, 1 << only.bit)}"
        if not self._alive:
            return "there is no node"
        if not allowed:
            return f"no node has {labels_in_words(strategy.labels)}"
        where = f" with {labels_in_words(strategy.labels)}" if strategy.labels else ""
        return f"it asks for {wants}, and no node{where} has that: {self._has(demand.shape, allowed)}"

    def _has(self, shape: Shape, nodes: int, *, free: bool = False) -> str:
        """How much of what a shape asks for these nodes have; those with the most first."""
        found = [self._node(bit) for bit in _bits(nodes)]
        lacking = [name for name in sorted(shape) if any(_amount(one, name, free) < shape[name] for one in found)]
        names = lacking or sorted(shape)
        found.sort(key=lambda one: [-_amount(one, name, free) for name in names])
        said = [
            f"node {one.name} has {', '.join(f'{_amount(one, name, free) / UNIT:g} {name}' for name in names)}"
            for one in found[:MOST_NAMED]
        ]
        more = len(found) - len(said)
        return ", ".join(said) + (f", and {more} more have no more" if more > 0 else "")


def in_words(shape: Shape) -> str:
    """A shape, as people are told of it."""
    return ", ".join(f"{amount / UNIT:g} {name}" for name, amount in sorted(shape.items())) or "nothing"


def labels_in_words(rules: Iterable[LabelRule]) -> str:
    """Labels that are asked for, as people are told of them."""
    return " and ".join(_rule_in_words(rule) for rule in rules)


def _rule_in_words(rule: LabelRule) -> str:
    if not rule.values:
        return f"{'no ' * rule.negated}label {rule.key}"
    values = rule.values[0] if len(rule.values) == 1 else f"one of {', '.join(rule.values)}"
    return f"label {rule.key} {'other than ' * rule.negated}{values}"


def _amount(one: _Node, name: str, free: bool) -> int:
    return (one.resources.free if free else one.resources.total).get(name, 0)


def _lowest(bits: int) -> int:
    return (bits & -bits).bit_length() - 1


def _bits(bits: int) -> Iterator[int]:
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest
