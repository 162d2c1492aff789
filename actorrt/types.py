"""Name processes, objects, actors and the rest by ids that compare, hash, print and travel.

An id is bytes with a kind. Nothing here makes one up: randomness, clocks and counters belong to whoever calls.
"""

from functools import total_ordering
from typing import Any, ClassVar, Final, NamedTuple, NewType, Self, final

# ---- what messages and tables carry: raw bytes, told apart by their kind

ProcessId = NewType("ProcessId", bytes)
"""Eight raw bytes that name one process of the cluster, for its lifetime and never again. A node is a process."""

JobKey = NewType("JobKey", ProcessId)
"""One program: the process id of its driver."""

ActorKey = NewType("ActorKey", bytes)
"""An actor: the process id of its owner and a number of the owner's, 16 bytes; see `actor_key`."""

FunctionKey = NewType("FunctionKey", bytes)
"""A function or class as it was shipped: a hash of its content."""

ObjectKey = tuple[ProcessId, int]
"""An object: the process that owns it, and its number there."""


Address = NewType("Address", str)
"""How a process is reached; see actorrt/wire/addresses.py."""


class Place(NamedTuple):
    """Where a process is: its node, and the address by which any process of the cluster reaches it."""

    process: ProcessId
    node: ProcessId
    address: Address


class Employer(NamedTuple):
    """Whom workers work for: a program, or (`detached`) those of its actors that outlive it."""

    job: JobKey
    detached: bool = False


class RetryPolicy(NamedTuple):
    """How a call is repeated: the option `retry_policy` of tasks and methods.

    How often it is, and for which errors of its code, say `max_retries` or `max_task_retries` and `retry_exceptions`.
    """

    pause_s: float = 0.1
    """How long it waits before it is sent again for the first time, in seconds; 0: not at all, nor later."""
    growth: float = 2.0
    """How many times as long each pause is as the one before it; at least 1."""
    longest_pause_s: float = 30.0
    """No pause is longer, but for the jitter."""
    jitter: float = 0.1
    """By up to this part of it, 0 to 1, a pause is longer or shorter, by chance: so that many are not back at once."""
    never_for: tuple[type[BaseException], ...] = ()
    """Errors of the code for which it is not repeated, whatever `retry_exceptions` says."""


class LeaseId(NamedTuple):
    """A lease: the node that granted it, and its number there."""

    node: ProcessId
    number: int


class SegmentId(NamedTuple):
    """A segment: the process that created it, and its number there. It stays when another object is put in it."""

    creator: ProcessId
    serial: int


GroupId = NewType("GroupId", bytes)
"""A placement group: the process that created it and a number of that process's, 16 bytes; see `owned`."""


class LabelRule(NamedTuple):
    """What a node's label `key` has to be: one of `values`, or anything if there are none; `negated`: not that."""

    key: str
    values: tuple[str, ...] = ()
    negated: bool = False


class Strategy(NamedTuple):
    """Where a task or an actor may run.

    `bundle`: of `group`; ANY_BUNDLE: any that has room. `captures`: so do the tasks and actors that it makes.
    `node`: there, or (`soft`) elsewhere if that node is gone or can never serve it; with `spills` also if it is full
    now; with `fails` that is an error instead of a wait. `labels` have to match, `soft_labels` had better.
    """

    spread: bool = False
    group: GroupId = GroupId(b"")
    bundle: int = -1
    captures: bool = False
    node: ProcessId = ProcessId(b"")
    soft: bool = False
    spills: bool = False
    fails: bool = False
    labels: tuple[LabelRule, ...] = ()
    soft_labels: tuple[LabelRule, ...] = ()

    @property
    def is_bound(self) -> bool:
        """It names where: what has it needs a worker of its own there."""
        return bool(self.group or self.node or self.labels)


PROCESS_ID_SIZE: Final = 8
_NUMBER_SIZE: Final = 8
NO_PROCESS: Final = ProcessId(b"")
NOWHERE: Final = Address("")
NO_ACTOR_KEY: Final = ActorKey(b"")
NO_FUNCTION: Final = FunctionKey(b"")
NO_EMPLOYER: Final = Employer(JobKey(NO_PROCESS))
NO_LEASE: Final = LeaseId(NO_PROCESS, 0)
NO_GROUP: Final = GroupId(b"")
ANY_BUNDLE: Final = -1
ANYWHERE: Final = Strategy()


def actor_key(owner: ProcessId, number: int) -> ActorKey:
    """The actor that is `number` of its owner's."""
    return ActorKey(owned(owner, number))


def owner_of(owned: bytes) -> ProcessId:
    """The process that owns an actor, by its key; that of a process is its own."""
    return ProcessId(owned[:PROCESS_ID_SIZE])


def owned(owner: ProcessId, number: int) -> bytes:
    """The bytes of the id of a thing that `owner` has made as its `number`."""
    return owner + number.to_bytes(_NUMBER_SIZE, "big")


# ---- what users see: ids that compare, hash, print and travel


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
        return cls(owned(owner, number))

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
