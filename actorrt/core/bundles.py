"""On which nodes the bundles of a placement group go. Pure.

The strict kinds find a way if there is one; PACK and SPREAD fall back to what comes near it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, get_args

from actorrt.types import LabelRule, ProcessId

from .leases import Resources, add_up
from .placement import Cluster, Shape

GroupStrategy = Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]
GROUP_STRATEGIES: Final[tuple[str, ...]] = get_args(GroupStrategy)

Rules = Sequence[Sequence[LabelRule]]
# What a node has left, to try things out.
Copy = Callable[[ProcessId], Resources]


def put_bundles(
    cluster: Cluster, bundles: Sequence[Shape], rules: Rules, strategy: str, copy: Copy, *, ever: bool = False
) -> list[ProcessId] | None:
    """A node for each bundle; None if there are none. `copy`: what of a node there is to give; `ever`: it may be more
    than is free."""
    search = _Search(cluster, bundles, rules, copy, ever)
    match strategy:
        case "STRICT_PACK":
            return search.on_one()
        case "STRICT_SPREAD":
            return search.on_as_many()
        case "SPREAD":
            return search.on_as_many() or search.near(spread=True)
        case _:
            return search.on_one() or search.near(spread=False)


class _Search:
    def __init__(self, cluster: Cluster, bundles: Sequence[Shape], rules: Rules, copy: Copy, ever: bool) -> None:
        self._cluster = cluster
        self._bundles = bundles
        self._rules = rules
        self._copy = copy
        self._ever = ever
        self._order = {node: number for number, node in enumerate(cluster.nodes)}
        self._known: dict[tuple[object, ...], list[ProcessId]] = {}
        self._wants_gpu = any(bundle.get("GPU") for bundle in bundles)

    def _serving(self, shape: Shape, rules: Sequence[LabelRule]) -> list[ProcessId]:
        """Nodes for a shape, the best first: those without GPUs for who needs none, then those that are least used."""
        key = (tuple(sorted(shape.items())), tuple(rules))
        if key not in self._known:
            found = self._cluster.serving(shape, rules, ever=self._ever)
            self._known[key] = sorted(
                (node for node in found if not self._ever or self._copy(node).fits(shape)), key=self._rank
            )
        return self._known[key]

    def _rank(self, node: ProcessId) -> tuple[bool, int, int]:
        has_gpus = bool(self._cluster.resources(node).total.get("GPU"))
        return has_gpus and not self._wants_gpu, self._cluster.fullness(node), self._order[node]

    def on_one(self) -> list[ProcessId] | None:
        """All on one node."""
        rules = [rule for some in self._rules for rule in some]
        for node in self._serving(add_up(self._bundles), rules):
            if self._copy(node).fits_all(self._bundles):
                return [node] * len(self._bundles)
        return None

    def on_as_many(self) -> list[ProcessId] | None:
        """Each on a node of its own: a matching of bundles and nodes, grown by paths (Kuhn's algorithm)."""
        choices = [self._serving(bundle, rules) for bundle, rules in zip(self._bundles, self._rules, strict=True)]
        taken: dict[ProcessId, int] = {}
        # Those with the least choice first.
        for number in sorted(range(len(choices)), key=lambda one: len(choices[one])):
            if not _match(number, choices, taken):
                return None
        at = {number: node for node, number in taken.items()}
        return [at[number] for number in range(len(choices))]

    def near(self, *, spread: bool) -> list[ProcessId] | None:
        """The largest first: on the node with the fewest of them, or (not `spread`) the most."""
        left: dict[ProcessId, Resources] = {}
        count: Counter[ProcessId] = Counter()
        at: dict[int, ProcessId] = {}
        for number in sorted(range(len(self._bundles)), key=lambda one: self._size(self._bundles[one]), reverse=True):
            bundle = self._bundles[number]
            serving = self._serving(bundle, self._rules[number])
            best: ProcessId | None = None
            for node in serving:
                if node in left and not left[node].fits(bundle):
                    continue
                if best is None or (count[node] < count[best] if spread else count[node] > count[best]):
                    best = node
            if best is None:
                return None
            if best not in left:
                left[best] = self._copy(best)
            left[best].take(bundle)
            count[best] += 1
            at[number] = best
        return [at[number] for number in range(len(self._bundles))]

    def _size(self, bundle: Shape) -> tuple[int, int, int]:
        return bundle.get("GPU", 0), bundle.get("CPU", 0), sum(bundle.values())


def _match(number: int, choices: Sequence[Sequence[ProcessId]], taken: dict[ProcessId, int]) -> bool:
    """Have a bundle matched as well, by moving others if need be."""
    came_from: dict[ProcessId, int] = {}
    bundles = [number]
    for bundle in bundles:
        for node in choices[bundle]:
            if node in came_from:
                continue
            came_from[node] = bundle
            if node in taken:
                bundles.append(taken[node])
                continue
            # Back along the path: each gives its node to the one that asked for it.
            previous = {other: held for held, other in taken.items()}
            end: ProcessId | None = node
            while end is not None:
                mover = came_from[end]
                taken[end] = mover
                end = previous.get(mover)
            return True
    return False


def copy_of(cluster: Cluster, *, kept: Mapping[ProcessId, Sequence[Shape]] | None = None) -> Copy:
    """What is free of nodes; with `kept`: all that they have but these shapes."""

    def copy(node: ProcessId) -> Resources:
        if kept is None:
            return cluster.resources(node).copy()
        resources = cluster.resources(node).copy(emptied=True)
        shapes = kept.get(node, ())
        if resources.fits_all(shapes):
            resources.take_all(shapes)
        elif shapes:
            # They are there, but on GPUs in another way than was found here: nothing can be said of what is left.
            resources.report({}, {})
        return resources

    return copy
