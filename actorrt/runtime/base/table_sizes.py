"""How much the tables of a process hold, for whoever looks whether one of them only grows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sized


def table_sizes(*owners: object) -> dict[str, int]:
    """The length of each container that one of `owners` has as an attribute, by class and attribute, summed up."""
    sizes: Counter[str] = Counter()
    for owner in owners:
        for name, value in vars(owner).items():
            if isinstance(value, Sized) and not isinstance(value, str | bytes):
                sizes[f"{type(owner).__name__}.{name}"] += len(value)
    return dict(sizes)
