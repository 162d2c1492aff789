"""GPUs under the names that CUDA knows them by: CUDA_VISIBLE_DEVICES of this process, else their numbers.

A name is a number, or an id such as "GPU-8932f937" or "MIG-...".
"""

from __future__ import annotations

import os
from typing import Final

VARIABLE: Final = "CUDA_VISIBLE_DEVICES"


def named() -> list[str] | None:
    """The GPUs that this process may use; None if all. CUDA takes none from the first one on that it does not know."""
    names = os.environ.get(VARIABLE)
    if names is None:
        return None
    found: list[str] = []
    for name in map(str.strip, names.split(",")):
        if not name or name == "-1":
            break
        found.append(name)
    return found


def check(amount: float) -> None:
    """Raise ValueError if this process may not use so many."""
    names = named()
    if names is not None and amount > len(names):
        given = f"{VARIABLE}={os.environ[VARIABLE]!r}"
        raise ValueError(f"num_gpus={amount:g}, and {given} names {len(names)}: ask for no more, or unset it")


def visible_gpus(gpus: list[int]) -> list[str]:
    """What CUDA calls these GPUs of the node."""
    known = named() or []
    return [known[gpu] if gpu < len(known) else str(gpu) for gpu in gpus]


def ids(names: list[str]) -> list[int | str]:
    """The same for users: numbers as such."""
    return [int(name) if name.isdecimal() else name for name in names]
