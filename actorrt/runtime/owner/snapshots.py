"""A value as it is now, where its large arrays are written into shared memory later, while other code goes on.

Pickling copies everything but the buffers of large arrays, which stay views of the user's memory. Whoever writes them
later takes copies of them first. What nobody else refers to any more, or can change, needs none: so a method gives a
large array up by keeping no reference to it. Nothing here waits.
"""

from __future__ import annotations

import contextlib
import mmap
import pickle
from sys import getrefcount
from typing import Any, Final, cast
from weakref import getweakrefcount

from actorrt.wire.codec import Serialized

# Below, malloc gives memory that was used before; from here on it would be fresh, and that is best of huge pages.
_HUGE_FROM: Final = 32 << 20
# Containers of more elements, or deeper, are not searched: what is in them is copied.
_MOST_ELEMENTS: Final = 64
_DEPTH: Final = 3


def _references() -> tuple[int, int]:
    """What `getrefcount` says of the only element of a list, and what each view of a pickle adds to that."""
    box = [bytearray(1)]
    alone = getrefcount(box[0])
    view = pickle.PickleBuffer(box[0]).raw()
    viewed = getrefcount(box[0])
    view.release()
    return alone, viewed - alone


_ALONE, _VIEW = _references()


def take_snapshot(serialized: Serialized, box: list[Any] | None = None) -> None:
    """Copy what may be changed before it is written.

    `box` holds the value that was pickled, as its only element and, as far as the caller knows, its only reference.
    """
    buffers = serialized.buffers
    if not buffers or (box is not None and _is_given_up(box, buffers)):
        return
    serialized.buffers = [view if _is_constant(view) else _copy_of(view) for view in buffers]


def _copy_of(view: memoryview) -> memoryview:
    if view.nbytes < _HUGE_FROM:
        return memoryview(bytes(view))
    memory = mmap.mmap(-1, view.nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):
        memory.madvise(mmap.MADV_HUGEPAGE)
    copy = memoryview(memory)
    copy[:] = view
    return copy


def _is_constant(view: memoryview) -> bool:
    """Whether nobody can change these bytes: they lie in a `bytes`, or in a segment that this process reads."""
    if not view.readonly:
        return False
    owner: Any = view.obj
    # An array knows whose memory it shows by its `base`, a view by its `obj`.
    while (below := owner.obj if isinstance(owner, memoryview) else getattr(owner, "base", None)) is not None:
        owner = cast("Any", below)
    # Who made an array read-only can make it writable again: an array is no end of this search.
    return isinstance(owner, bytes) or (isinstance(owner, mmap.mmap) and memoryview(owner).readonly)


def _is_given_up(box: list[Any], buffers: list[memoryview]) -> bool:
    views: dict[int, int] = {}
    for view in buffers:
        views[id(view.obj)] = views.get(id(view.obj), 0) + 1
    _look(box, 0, views, _DEPTH)
    return not views


def _look(container: Any, key: Any, views: dict[int, int], depth: int) -> None:
    """Take those out of `views` who are found at this place, or below it, and nowhere else."""
    found = id(container[key])
    if found in views:
        alone = getrefcount(container[key]) == _ALONE + _VIEW * views[found] and not getweakrefcount(container[key])
        # The memory of one that has a base is the base's.
        if alone and getattr(container[key], "base", container) is None:
            del views[found]
    elif depth and getrefcount(container[key]) == _ALONE:
        inner = container[key]
        kind = cast("type[Any]", type(inner))
        if kind in (tuple, list, dict) and len(inner) <= _MOST_ELEMENTS:
            for place in list(cast("dict[Any, Any]", inner)) if kind is dict else range(len(inner)):
                _look(inner, place, views, depth - 1)
