"""The `__main__` of a worker: it stands for the program's, and has by name what has come of that by value.

So code that pickles by name finds the program's own functions and classes in a task too: `multiprocessing`,
`ProcessPoolExecutor`, `pickle`, `joblib.dump`. It keeps nothing alive.
"""

from __future__ import annotations

import sys
import types
import weakref
from collections.abc import Callable
from typing import Any, Final

MAIN: Final = "__main__"
# The newest of each name: a program may define it anew.
_arrived: Final[weakref.WeakValueDictionary[str, Any]] = weakref.WeakValueDictionary()


class StandIn(types.ModuleType):
    """The module itself."""

    def __getattr__(self, name: str) -> Any:
        found = _arrived.get(name)
        if found is None:
            told = "" if name.startswith("__") else ": of the main program, a worker has what its calls refer to"
            raise AttributeError(f"module {MAIN!r} has no attribute {name!r}{told}", name=name, obj=self)
        return found


def is_named_in_main(obj: type | Callable[..., Any]) -> bool:
    """Whether the main program, or what stands for it here, has this class or function under its own name."""
    return obj.__module__ == MAIN and getattr(sys.modules.get(MAIN), obj.__qualname__, None) is obj


def arrived(obj: type | Callable[..., Any]) -> None:
    """A class or function of the main program has been made here."""
    if obj.__module__ == MAIN and "." not in obj.__qualname__ and type(sys.modules.get(MAIN)) is StandIn:
        _arrived[obj.__qualname__] = obj
