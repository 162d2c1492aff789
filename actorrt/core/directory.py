"""Which actor has which name, and which nodes there are. Pure.

The head has the names of all; a node keeps one for what its own processes hold, to tell it to the next head.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any, NamedTuple

from actorrt.types import NO_PROCESS, ActorKey, ProcessId, owner_of


class Holder(NamedTuple):
    """Who has a name; `info` is what its handles are made of, opaque here. `node` told of it."""

    actor: ActorKey
    info: bytes
    node: ProcessId = NO_PROCESS


class Held(NamedTuple):
    """A name with its holder, as a node tells it to a head."""

    name: str
    namespace: str
    actor: ActorKey
    info: bytes


class Statistics(NamedTuple):
    """How many names are taken, and how many nodes have joined."""

    names: int
    nodes: int


class Directory:
    """Names are unique within a namespace; who claims first has it."""

    def __init__(self, kept: Mapping[tuple[str, str], Holder] | None = None) -> None:
        """`kept`: the names that a store has, for a head whose changes are written to one (`take_changes`)."""
        self._names: dict[tuple[str, str], Holder] = dict(kept or {})
        self.nodes: dict[ProcessId, dict[str, Any]] = {}
        self._changed: dict[tuple[str, str], None] | None = None if kept is None else {}

    def __len__(self) -> int:
        return len(self._names)

    def statistics(self) -> Statistics:
        return Statistics(len(self._names), len(self.nodes))

    def claim(
        self, namespace: str, name: str, actor: ActorKey, info: bytes, node: ProcessId = NO_PROCESS
    ) -> tuple[Holder, bool]:
        """Who has the name now, and whether it is the claimant. A claim that is repeated is granted again."""
        key = (namespace, name)
        holder = self._names.get(key)
        if holder is None:
            holder = self._names[key] = Holder(actor, info, node)
            self._note(key)
        return holder, holder.actor == actor

    def find(self, namespace: str, name: str) -> Holder | None:
        return self._names.get((namespace, name))

    def drop(self, namespace: str, name: str, actor: ActorKey) -> None:
        """Free a name, if it is still that actor's."""
        holder = self._names.get((namespace, name))
        if holder is not None and holder.actor == actor:
            del self._names[namespace, name]
            self._note((namespace, name))

    def drop_owner(self, owner: ProcessId) -> None:
        """A process ended: the names of the actors that it owned are free."""
        self._free(lambda _, holder: owner_of(holder.actor) == owner)

    def names(self, namespace: str | None) -> list[tuple[str, str]]:
        """(namespace, name) of all, or of one namespace, sorted."""
        return sorted(key for key in self._names if namespace is None or key[0] == namespace)

    # ---- a node tells a head

    def held(self) -> list[Held]:
        """All names, for `join`."""
        return [Held(name, space, holder.actor, holder.info) for (space, name), holder in self._names.items()]

    def join(self, node: ProcessId, info: dict[str, Any], held: Iterable[Held]) -> None:
        """A node is here, and its processes hold these names and no others; a name that another node's has stays so."""
        self.nodes[node] = info
        said = list(held)
        stays = {(each.namespace, each.name): each for each in said}
        self._free(lambda key, holder: holder.node == node and not _is_same(holder, stays.get(key)))
        for name, namespace, actor, about in said:
            self.claim(namespace, name, actor, about, node)

    def leave(self, node: ProcessId, kept: Container[ActorKey] = ()) -> None:
        """A node is gone: what its processes held is free, but for the names of actors that are made again (`kept`)."""
        self.nodes.pop(node, None)
        self._free(lambda _, holder: holder.node == node and holder.actor not in kept)

    def move(self, before: ActorKey, actor: ActorKey, node: ProcessId) -> None:
        """An actor was made again, under another key and on another node: the name is that one's."""
        for key, holder in list(self._names.items()):
            if holder.actor == before:
                self._names[key] = Holder(actor, holder.info, node)
                self._note(key)

    def drop_actor(self, actor: ActorKey) -> None:
        """An actor is dead: its name is free."""
        self._free(lambda _, holder: holder.actor == actor)

    def keep_only(self, nodes: Container[ProcessId], kept: Container[ActorKey]) -> None:
        """As a head begins: what is held on nodes that are gone is free, but for the names of `kept` actors."""
        self._free(lambda _, holder: holder.node not in nodes and holder.actor not in kept)

    # ---- what a store is to keep

    def take_changes(self) -> dict[tuple[str, str], Holder | None]:
        """The names that have changed since this was called last, with who has each now."""
        if self._changed is None:
            return {}
        changed, self._changed = self._changed, {}
        return {key: self._names.get(key) for key in changed}

    def _note(self, key: tuple[str, str]) -> None:
        if self._changed is not None:
            self._changed[key] = None

    def _free(self, is_free: Callable[[tuple[str, str], Holder], bool]) -> None:
        for key in [key for key, holder in self._names.items() if is_free(key, holder)]:
            del self._names[key]
            self._note(key)


def _is_same(holder: Holder, held: Held | None) -> bool:
    return held is not None and (holder.actor, holder.info) == (held.actor, held.info)
