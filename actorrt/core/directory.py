"""What the head knows: which actor has which name, and which nodes there are. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple


class Holder(NamedTuple):
    """Who has a name; `info` is what its handles are made of, opaque here."""

    actor: bytes
    info: bytes


class Directory:
    """Names are unique within a namespace; who claims first has it."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, str], Holder] = {}
        self.nodes: dict[bytes, dict[str, Any]] = {}

    def claim(self, namespace: str, name: str, actor: bytes, info: bytes) -> tuple[Holder, bool]:
        """Who has the name now, and whether it is the claimant."""
        holder = self._names.setdefault((namespace, name), Holder(actor, info))
        return holder, holder.actor == actor

    def find(self, namespace: str, name: str) -> Holder | None:
        return self._names.get((namespace, name))

    def drop(self, namespace: str, name: str, actor: bytes) -> None:
        """Free a name, if it is still that actor's."""
        holder = self._names.get((namespace, name))
        if holder is not None and holder.actor == actor:
            del self._names[namespace, name]

    def drop_owner(self, owner: bytes) -> None:
        """A process ended: the names of the actors that it owned are free."""
        for key in [key for key, holder in self._names.items() if holder.actor[:8] == owner]:
            del self._names[key]

    def names(self, namespace: str | None) -> list[tuple[str, str]]:
        """(namespace, name) of all, or of one namespace, sorted."""
        return sorted(key for key in self._names if namespace is None or key[0] == namespace)
