"""A node's resources: what is there, what is taken, and which GPU goes to whom. Pure; amounts in units of 1/10000."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

UNIT: Final = 10_000


class Resources:
    """What a machine has and what of it is free. CPUs may be overdrawn: a worker that goes on after it was blocked takes
    its CPU back at once, whoever has it meanwhile."""

    def __init__(self, total: Mapping[str, int]) -> None:
        self.total = dict(total)
        self.free = dict(total)
        self._gpus = [UNIT] * (self.total.get("GPU", 0) // UNIT)

    def lacking(self, shape: Mapping[str, int]) -> str:
        """Why `shape` can never be had here; empty if it can."""
        missing = [
            f"{(amount - self.total.get(name, 0)) / UNIT:g} more {name}"
            for name, amount in sorted(shape.items())
            if amount > self.total.get(name, 0)
        ]
        return ", ".join(missing)

    def fits(self, shape: Mapping[str, int]) -> bool:
        """True if `shape` is free now."""
        if any(amount > self.free.get(name, 0) for name, amount in shape.items()):
            return False
        wanted = shape.get("GPU", 0)
        return not wanted or self._choose_gpus(wanted) is not None

    def _choose_gpus(self, wanted: int) -> list[int] | None:
        if wanted >= UNIT:
            whole = [index for index, free in enumerate(self._gpus) if free == UNIT]
            count = -(-wanted // UNIT)
            return whole[:count] if len(whole) >= count else None
        # The fullest one with room, so that whole ones stay whole.
        roomy = [(free, index) for index, free in enumerate(self._gpus) if free >= wanted]
        return [min(roomy)[1]] if roomy else None

    def take(self, shape: Mapping[str, int]) -> list[int]:
        """Take what `fits`; the GPUs that go with it, by index."""
        for name, amount in shape.items():
            self.free[name] = self.free.get(name, 0) - amount
        wanted = shape.get("GPU", 0)
        if not wanted:
            return []
        gpus = self._choose_gpus(wanted) or []
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
