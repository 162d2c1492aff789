"""Policies that send each request on at once: it waits inside of an engine, if anywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..requests import Request
from .views import View, Viewing

if TYPE_CHECKING:
    from ..fleet import Fleet


class Direct(Viewing):
    def choose(self, request: Request, replicas: list[int]) -> int:
        raise NotImplementedError

    def arrive(self, request: Request, now: float) -> None:
        self.dispatch(request, self.choose(request, self.up_replicas()), request.tokens)


class RoundRobin(Direct):
    def __init__(self, name: str, fleet: Fleet) -> None:
        super().__init__(name, fleet)
        # Each router begins elsewhere.
        self._next = [fleet.dice.randrange(len(fleet.engines)) for _ in range(fleet.routers)]

    def choose(self, request: Request, replicas: list[int]) -> int:
        at = self._next[request.router]
        self._next[request.router] = at + 1
        return replicas[at % len(replicas)]


class PowerOfTwo(Direct):
    """The better one of two that chance names."""

    def __init__(self, name: str, fleet: Fleet, stale_s: float, load: Callable[[View], list[int]]) -> None:
        super().__init__(name, fleet, stale_s)
        self._load = load

    def choose(self, request: Request, replicas: list[int]) -> int:
        dice, load = self.fleet.dice, self._load(self.view_of(request))
        one, other = dice.choice(replicas), dice.choice(replicas)
        return one if load[one] <= load[other] else other


class Shortest(Direct):
    """The least loaded of all; of equals chance names one."""

    def __init__(self, name: str, fleet: Fleet, stale_s: float, load: Callable[[View], list[int]]) -> None:
        super().__init__(name, fleet, stale_s)
        self._load = load

    def choose(self, request: Request, replicas: list[int]) -> int:
        load = self._load(self.view_of(request))
        least = min(load[replica] for replica in replicas)
        return self.fleet.dice.choice([replica for replica in replicas if load[replica] == least])
