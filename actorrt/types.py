"""Name processes, objects, actors and the rest by ids that compare, hash, print and travel.

An id is bytes with a kind. Nothing here makes one up: randomness, clocks and counters belong to whoever calls.
"""

from functools import total_ordering
from typing import Any, ClassVar, Final, NewType, Self, final

ProcessId = NewType("ProcessId", bytes)
"""Eight raw bytes that name one process of the cluster, for its lifetime and never again."""

PROCESS_ID_SIZE: Final = 8
_NUMBER_SIZE: Final = 8


@total_ordering
class BaseID:
    """An id of a fixed size. Two ids are equal if their kind and bytes are; ids of one kind are ordered by bytes."""

    __slots__ = ("_bytes",)
    SIZE: ClassVar[int] = 16

    def __init__(self, binary: bytes) -> None:
        if type(binary) is not bytes:
            raise TypeError(f"{type(self).__name__} takes bytes, not {type(binary).__name__}")
        if len(binary) != self.SIZE:
            raise ValueError(f"{type(self).__name__} takes {self.SIZE} bytes, not {len(binary)}")
        self._bytes = binary

    @classmethod
    def from_hex(cls, text: str) -> Self:
        """The id that `hex()` printed; ValueError if it is not one."""
        return cls(bytes.fromhex(text))

    @classmethod
    def nil(cls) -> Self:
        """The id that names nothing: all zero."""
        return cls(bytes(cls.SIZE))

    @final
    def binary(self) -> bytes:
        return self._bytes

    @final
    def hex(self) -> str:
        return self._bytes.hex()

    @final
    def is_nil(self) -> bool:
        return not any(self._bytes)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._bytes == other._bytes

    def __lt__(self, other: Self) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._bytes < other._bytes

    def __hash__(self) -> int:
        return hash(self._bytes)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._bytes.hex()})"

    def __str__(self) -> str:
        return self._bytes.hex()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._bytes,)


class OwnedID(BaseID):
    """The id of a thing that one process made: that process, and a number it counts up."""

    __slots__ = ()
    SIZE: ClassVar[int] = PROCESS_ID_SIZE + _NUMBER_SIZE

    @classmethod
    def of(cls, owner: ProcessId, number: int) -> Self:
        return cls(owner + number.to_bytes(_NUMBER_SIZE, "big"))

    @property
    def owner(self) -> ProcessId:
        return ProcessId(self._bytes[:PROCESS_ID_SIZE])

    @property
    def number(self) -> int:
        return int.from_bytes(self._bytes[PROCESS_ID_SIZE:], "big")


class ObjectID(OwnedID):
    """An object. Its owner and the number of the return or put that made it."""

    __slots__ = ()


class TaskID(OwnedID):
    """A call of a function or method: the id of its first return."""

    __slots__ = ()


class ActorID(OwnedID):
    """An actor; `owner` is the process that created it."""

    __slots__ = ()


class PlacementGroupID(OwnedID):
    """A set of reserved resources."""

    __slots__ = ()


class WorkerID(BaseID):
    """A worker or driver process."""

    __slots__ = ()
    SIZE: ClassVar[int] = PROCESS_ID_SIZE


class NodeID(BaseID):
    """The supervising process of one machine, in one incarnation."""

    __slots__ = ()
    SIZE: ClassVar[int] = PROCESS_ID_SIZE


class JobID(BaseID):
    """One program: the id of its driver process."""

    __slots__ = ()
    SIZE: ClassVar[int] = PROCESS_ID_SIZE


class FunctionID(BaseID):
    """A function or class as it was shipped: a hash of its content."""

    __slots__ = ()


class UniqueID(BaseID):
    """Any other thing that needs a name."""

    __slots__ = ()
