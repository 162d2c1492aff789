"""Detached actors that a head keeps: which of them have lost their node, and which node makes them again. No I/O.

An actor is its node's own; its key names that. As the node leaves, its actors are made again on others, under new keys;
as it dies, those of them that may restart, and it counts as a restart. What a head has kept from before its own start
waits until all nodes of that time have joined again, or are gone: one of them may have made it again already.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from actorrt.types import ActorKey, ProcessId, owner_of


class Placed(NamedTuple):
    """`node` is to make `actor` again."""

    actor: ActorKey
    node: ProcessId


class KeptActors:
    """The detached actors of a cluster, with how often each may restart (-1: without end)."""

    def __init__(self, restarts: Mapping[ActorKey, int], nodes: Iterable[ProcessId]) -> None:
        """`nodes`: those that were in the cluster under the head before, and have not joined this one."""
        self._restarts = dict(restarts)
        self._awaited = set(nodes)
        # Those without a node, in the order in which they lost it; and which node is asked to make each again.
        self._homeless: dict[ActorKey, ProcessId | None] = {
            actor: None for actor in self._restarts if owner_of(actor) not in self._awaited
        }

    def __len__(self) -> int:
        return len(self._restarts)

    def __contains__(self, actor: object) -> bool:
        return actor in self._restarts

    def restarts(self, actor: ActorKey) -> int:
        """How often it may restart from now on."""
        return self._restarts[actor]

    def is_homeless(self, actor: ActorKey) -> bool:
        """It is about to be made again: who looks for it waits."""
        return actor in self._homeless

    # ---- events

    def made(self, actor: ActorKey, restarts: int) -> None:
        self._restarts[actor] = restarts

    def ended(self, actor: ActorKey) -> None:
        self._restarts.pop(actor, None)
        self._homeless.pop(actor, None)

    def joined(self, node: ProcessId) -> None:
        self._awaited.discard(node)

    def node_gone(self, node: ProcessId, *, died: bool) -> list[ActorKey]:
        """A node is here no more: its actors that end with it; the others wait for another node."""
        self._awaited.discard(node)
        lost: list[ActorKey] = []
        for actor, asked in self._homeless.items():
            if asked == node:
                self._homeless[actor] = None
        for actor, restarts in list(self._restarts.items()):
            if owner_of(actor) != node or actor in self._homeless:
                continue
            if died and restarts == 0:
                lost.append(actor)
                self.ended(actor)
                continue
            self._restarts[actor] = restarts - 1 if died and restarts > 0 else restarts
            self._homeless[actor] = None
        return lost

    def place(self, nodes: Iterable[ProcessId]) -> list[Placed]:
        """Who is to be asked to make what again, now; `nodes` take work. Report `moved` or `not_moved`."""
        if self._awaited:
            return []
        load = Counter(dict.fromkeys(nodes, 0))
        if not load:
            return []
        for actor in self._restarts:
            home = self._homeless[actor] if actor in self._homeless else owner_of(actor)
            if home is not None and home in load:
                load[home] += 1
        placed: list[Placed] = []
        for actor, asked in self._homeless.items():
            if asked is None:
                node = min(load, key=lambda each: load[each])
                load[node] += 1
                self._homeless[actor] = node
                placed.append(Placed(actor, node))
        return placed

    def not_moved(self, actor: ActorKey, node: ProcessId) -> None:
        """The node that was asked did not answer, or could not."""
        if self._homeless.get(actor) == node:
            self._homeless[actor] = None

    def moved(self, before: ActorKey, actor: ActorKey) -> bool:
        """A node has made it again, as `actor`. False: it is not wanted (any more), and is to be ended."""
        if before not in self._homeless:
            return False
        self._restarts[actor] = self._restarts.pop(before)
        del self._homeless[before]
        return True
