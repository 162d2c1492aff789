"""Python values to bytes and back: pickle protocol 5 with out-of-band buffers, cloudpickle where plain pickle can't.

What needs to know which refs are pickled inside a value (ownership does) calls `serialize` and looks at `refs`: a
ref's `__reduce__` calls `note_ref`. Nothing here knows what a ref is, and nothing moves bytes between processes.
"""

from __future__ import annotations

import io
import pickle
from contextvars import ContextVar
from sys import getsizeof
from typing import Any, Final, cast

from . import by_value
from .container import CONTAINER_MAGIC, Plan, pack_into, parse, plan
from .named import Reducers

ATOMS: Final = frozenset({int, str, float, bytes, bool, type(None), complex})
_CONTAINERS: Final = frozenset({list, tuple, dict})
# More elements are not looked at one by one.
_FEW: Final = 16
_PROTOCOL: Final = 5
_Pickler: Final = pickle.Pickler
_reducers: Final = Reducers()
SURELY_SMALL: Final = 16 * 1024
# So many of them together are surely small, too.
_FEW_PARTS: Final = 4
# The byte by which a pickle of this protocol names what is called when it is loaded. Where it does not occur nothing
# is: the value is made of plain data, without a ref or handle.
NAMES_A_CALL: Final = pickle.STACK_GLOBAL[0]

_noted: ContextVar[list[Any] | None] = ContextVar("actorrt_noted_refs", default=None)


def note_ref(ref: object) -> bool:
    """Called by a ref that is being pickled. False: nobody collects, it is pickled outside of any call."""
    sink = _noted.get()
    if sink is None:
        return False
    sink.append(ref)
    return True


class Serialized:
    """A pickled value: `data`, its out-of-band `buffers`, the refs inside, and the bytes that it needs altogether."""

    __slots__ = ("_plan", "buffers", "data", "refs")

    def __init__(self, data: bytes, buffers: list[memoryview], refs: list[Any]) -> None:
        self.data = data
        self.buffers = buffers
        self.refs = refs
        self._plan: Plan | None = None

    @property
    def plan(self) -> Plan:
        if self._plan is None:
            self._plan = plan(len(self.data), [b.nbytes for b in self.buffers])
        return self._plan

    @property
    def nbytes(self) -> int:
        return self.plan.total if self.buffers else len(self.data)


_NO_BUFFERS: Final[list[memoryview]] = []
_NO_REFS: Final[list[Any]] = []


def serialize(value: Any) -> Serialized:
    """Pickle `value`. Raises whatever pickle raises when it can't."""
    if type(value) in ATOMS or _is_of_atoms(value):
        return Serialized(pickle.dumps(value, _PROTOCOL), _NO_BUFFERS, _NO_REFS)
    refs: list[Any] = []
    token = _noted.set(refs)
    try:
        buffers: list[pickle.PickleBuffer] = []
        try:
            if by_value.is_asked_for():
                raise pickle.PicklingError
            file = io.BytesIO()
            pickler = _Pickler(file, _PROTOCOL, True, buffers.append)
            pickler.dispatch_table = _reducers.up_to_date()
            pickler.dump(value)
            data = file.getvalue()
            plain = b"__main__" not in data
        except Exception:  # whatever user code raises in __reduce__: cloudpickle gets its turn, and its error counts
            plain = False
            data = b""
        if not plain:
            # Classes and functions of the program's own __main__ go by value: the worker's __main__ is another.
            refs.clear()
            buffers.clear()
            data = by_value.dumps(value, buffers.append)
        return Serialized(data, [b.raw() for b in buffers], refs)
    finally:
        _noted.reset(token)


def _is_of_atoms(value: Any, depth: int = 2) -> bool:
    """Whether this is a small list, tuple or dict of atoms: to look costs less than a pickler that knows more."""
    kind = cast("type[Any]", type(value))
    if kind not in _CONTAINERS or len(value) > _FEW:
        return False
    parts: Any = value
    if kind is dict:
        for key in value:
            if type(key) not in ATOMS:
                return False
        parts = value.values()
    for part in parts:  # noqa: SIM110  `all` would cost as much again
        if type(part) not in ATOMS and not (depth and _is_of_atoms(part, depth - 1)):
            return False
    return True


def pack(serialized: Serialized) -> bytes:
    """One run of bytes for a value that travels inside a message."""
    if not serialized.buffers:
        return serialized.data
    target = bytearray(serialized.plan.total)
    pack_into(serialized.plan, serialized.data, serialized.buffers, memoryview(target))
    return bytes(target)


def deserialize(payload: bytes | memoryview) -> Any:
    """The value. Arrays inside are views of `payload`, read-only, without a copy."""
    if payload[0] != CONTAINER_MAGIC:
        return pickle.loads(payload)
    data, buffers = parse(memoryview(payload))
    return pickle.loads(data, buffers=buffers)


def dumps_atom(value: Any) -> bytes | None:
    """A value of a plain type, pickled, where it is surely small; else None: the fast way for most results."""
    kind: Any = type(value)  # pyright: ignore[reportUnknownVariableType]
    if kind is bytes:
        if len(value) > SURELY_SMALL:
            return None
    # A number may be large, too.
    elif kind not in ATOMS or getsizeof(value) > SURELY_SMALL:
        return None
    return pickle.dumps(value, _PROTOCOL)


def dumps_item(value: Any) -> bytes | None:
    """The same for one item of a stream, which may also be a short tuple of such values."""
    kind: Any = type(value)  # pyright: ignore[reportUnknownVariableType]
    if kind is not tuple:
        return dumps_atom(value)
    if len(value) > _FEW_PARTS:
        return None
    for part in value:
        kind = type(part)  # pyright: ignore[reportUnknownVariableType]
        if kind is bytes:
            if len(part) > SURELY_SMALL:
                return None
        elif kind not in ATOMS or getsizeof(part) > SURELY_SMALL:
            return None
    return pickle.dumps(value, _PROTOCOL)


def dumps_call(args: tuple[Any, ...], kwargs: dict[str, Any], limit: int) -> bytes | None:
    """The arguments of a call where all are plain atoms of at most `limit` bytes altogether, else None.

    This is the fast way for most calls.
    """
    # A loop, though it takes more of Python's steps: `issuperset(map(type, ...))` alone takes as long as all of it.
    for value in args:
        kind: Any = type(value)  # pyright: ignore[reportUnknownVariableType]
        if kind is bytes or kind is str:
            if len(value) > limit:
                return None
        elif kind not in ATOMS:
            return None
    if kwargs:
        for value in kwargs.values():
            if type(value) not in ATOMS or getsizeof(value) > limit:
                return None
        data = pickle.dumps([args, kwargs], _PROTOCOL)
    else:
        data = pickle.dumps(args, _PROTOCOL)
    return data if len(data) <= limit else None
