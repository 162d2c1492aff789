"""Policies that know which replica has read the beginning of a prompt, each router by what it has sent itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actorrt.serve.capacity.prefix_index import PrefixIndex

from ..requests import Request
from .direct import Direct

if TYPE_CHECKING:
    from ..fleet import Fleet


class KnowsPrefixes(Direct):
    def __init__(self, name: str, fleet: Fleet, stale_s: float) -> None:
        super().__init__(name, fleet, stale_s)
        self._prefixes: list[PrefixIndex[int]] = [
            PrefixIndex(fleet.model.hash_tokens) for _ in range(fleet.routers)
        ]  # fmt: skip

    def hits(self, request: Request) -> dict[int, int]:
        """Tokens of its prompt that replicas have, those that have some, the most first."""
        is_up = self.fleet.is_up
        if not request.chain:
            return {}
        found = self._prefixes[request.router].hits(request.chain)
        return {replica: tokens for replica, tokens in found if is_up[replica]}

    def go(self, request: Request, replica: int, cached: int) -> None:
        self._prefixes[request.router].note(replica, request.chain, self.fleet.model.kv_tokens)
        self.dispatch(request, replica, max(1, request.tokens - cached))

    def arrive(self, request: Request, now: float) -> None:
        hits = self.hits(request)
        replica = self.choose_of(request, self.up_replicas(), hits)
        self.go(request, replica, hits.get(replica, 0))

    def choose_of(self, request: Request, replicas: list[int], hits: dict[int, int]) -> int:
        raise NotImplementedError

    def down(self, replica: int, now: float) -> None:
        super().down(replica, now)
        for each in self._prefixes:
            each.drop(replica)

    def least(self, loads: dict[int, float]) -> int:
        """Of equals chance names one."""
        least = min(loads.values())
        return self.fleet.dice.choice([replica for replica, load in loads.items() if load == least])


class ShortestUncached(KnowsPrefixes):
    """Where with this request fewest tokens of prompts are to be read."""

    def choose_of(self, request: Request, replicas: list[int], hits: dict[int, int]) -> int:
        unread = self.view_of(request).unread
        return self.least({replica: float(unread[replica] - hits.get(replica, 0)) for replica in replicas})


class PrefixOnly(KnowsPrefixes):
    """Where most of its prompt has been read, whatever else runs there; else where fewest requests are."""

    def choose_of(self, request: Request, replicas: list[int], hits: dict[int, int]) -> int:
        if hits:
            return next(iter(hits))
        requests = self.view_of(request).requests
        return self.least({replica: float(requests[replica]) for replica in replicas})
