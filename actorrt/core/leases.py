"""A node's resources: what is there, what is taken, who waits for it, and which GPU goes to whom. Pure.

Amounts are in units of 1/10000. Nothing here knows of processes, or of what a lease is used for.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Final

UNIT: Final = 10_000


class Resources:
    """What a machine has and what is free of it. CPUs may be overdrawn: a worker that goes on after a block takes
    its CPU back at once, whoever has it meanwhile."""

    def __init__(self, total: Mapping[str, int]) -> None:
        self.total = dict(total)
        self.free = dict(total)
        whole, rest = divmod(self.total.get("GPU", 0), UNIT)
        self._gpu_sizes = [UNIT] * whole + [rest] * bool(rest)
        self._gpus = list(self._gpu_sizes)

    def lacking(self, shape: Mapping[str, int]) -> str:
        """Why `shape` can never be had here; empty if it can."""
        missing = [
            f"{(amount - self.total.get(name, 0)) / UNIT:g} more {name}"
            for name, amount in sorted(shape.items())
            if amount > self.total.get(name, 0)
        ]
        if not missing and _choose_gpus(self._gpu_sizes, shape.get("GPU", 0)) is None:
            missing.append("one GPU with room for it" if shape["GPU"] < UNIT else "whole GPUs")
        return ", ".join(missing)

    def fits(self, shape: Mapping[str, int]) -> bool:
        """True if `shape` is free now."""
        if any(amount > self.free.get(name, 0) for name, amount in shape.items()):
            return False
        return _choose_gpus(self._gpus, shape.get("GPU", 0)) is not None

    def short_of(self, shape: Mapping[str, int]) -> set[str]:
        """The resources of which too little is free for `shape` now."""
        short = {name for name, amount in shape.items() if amount > self.free.get(name, 0)}
        if _choose_gpus(self._gpus, shape.get("GPU", 0)) is None:
            short.add("GPU")
        return short

    def take(self, shape: Mapping[str, int]) -> list[int]:
        """Take what `fits`; the GPUs that go with it, by index."""
        for name, amount in shape.items():
            self.free[name] = self.free.get(name, 0) - amount
        wanted = shape.get("GPU", 0)
        gpus = _choose_gpus(self._gpus, wanted) or []
        for index in gpus:
            self._gpus[index] -= min(wanted, UNIT)
        return gpus

    def give(self, shape: Mapping[str, int], gpus: list[int]) -> None:
        """Give back what was taken."""
        for name, amount in shape.items():
            self.free[name] = self.free.get(name, 0) + amount
        for index in gpus:
            self._gpus[index] += min(shape.get("GPU", 0), UNIT)

    def pause(self, shape: Mapping[str, int]) -> None:
        """A worker waits: its CPUs are free meanwhile."""
        self.free["CPU"] = self.free.get("CPU", 0) + shape.get("CPU", 0)

    def resume(self, shape: Mapping[str, int]) -> None:
        self.free["CPU"] = self.free.get("CPU", 0) - shape.get("CPU", 0)


def _choose_gpus(free: list[int], wanted: int) -> list[int] | None:
    """Indices of GPUs for `wanted`; None if they are not free."""
    if not wanted:
        return []
    if wanted >= UNIT:
        whole = [index for index, room in enumerate(free) if room == UNIT]
        count = -(-wanted // UNIT)
        return whole[:count] if len(whole) >= count else None
    # The fullest one with room, so that whole ones stay whole.
    roomy = [(room, index) for index, room in enumerate(free) if room >= wanted]
    return [min(roomy)[1]] if roomy else None


class Request:
    """One who asked for `shape`. `kind` says who, and what for: leases of one kind can stand in for each other."""

    __slots__ = ("_gpus", "kind", "number", "shape")

    def __init__(self, number: int, shape: Mapping[str, int], kind: Hashable) -> None:
        self.number = number
        self.shape = shape
        self.kind = kind
        # None until it is granted.
        self._gpus: list[int] | None = None

    @property
    def granted(self) -> bool:
        return self._gpus is not None

    @property
    def gpus(self) -> list[int]:
        """Those that go with it, by index."""
        return self._gpus or []

    def grant(self, gpus: list[int]) -> None:
        self._gpus = gpus


class Queue:
    """Those who wait for resources. Who came first is served first, but a request that does not fit holds up nobody
    whose does: what is free is never left lying while somebody could use it. So a large request may wait for long
    beside many small ones."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        # By shape, each in order of arrival: a shape that does not fit is looked at once, however many ask for it.
        self._waiting: dict[tuple[tuple[str, int], ...], dict[Request, None]] = {}
        self._kinds: dict[Hashable, int] = {}
        self._last_number = 0

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def ask(self, shape: Mapping[str, int], kind: Hashable) -> Request:
        """Stand in line; `grant` says when it is one's turn."""
        self._last_number += 1
        request = Request(self._last_number, shape, kind)
        self._waiting.setdefault(_key(shape), {})[request] = None
        self._kinds[kind] = self._kinds.get(kind, 0) + 1
        return request

    def withdraw(self, request: Request) -> bool:
        """Leave the line. False: it was granted already, and what it got has to be given back."""
        if request.granted:
            return False
        self._remove(request)
        return True

    def grant(self) -> list[Request]:
        """Take resources for all who can have them now, in order."""
        granted: list[Request] = []
        open_shapes = dict(self._waiting)
        while open_shapes:
            request = min((next(iter(requests)) for requests in open_shapes.values()), key=lambda one: one.number)
            key = _key(request.shape)
            if not self._resources.fits(request.shape):
                del open_shapes[key]
                continue
            request.grant(self._resources.take(request.shape))
            self._remove(request)
            granted.append(request)
            if key not in self._waiting:
                del open_shapes[key]
        return granted

    def wanted_back(self, shape: Mapping[str, int], kind: Hashable) -> bool:
        """True if somebody of another kind waits for something of which a lease of `shape` has some."""
        if len(self._kinds) <= (kind in self._kinds):
            return False
        for requests in self._waiting.values():
            if any(request.kind != kind for request in requests):
                short = self._resources.short_of(next(iter(requests)).shape)
                if any(shape.get(name) for name in short):
                    return True
        return False

    def _remove(self, request: Request) -> None:
        key = _key(request.shape)
        requests = self._waiting[key]
        del requests[request]
        if not requests:
            del self._waiting[key]
        left = self._kinds[request.kind] - 1
        if left:
            self._kinds[request.kind] = left
        else:
            del self._kinds[request.kind]


def _key(shape: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(shape.items()))
