"""The messages of a link, as msgspec structs. docs/wire-format.md explains them; nothing here acts on them.

Every message is a msgpack array whose first element is its tag. A frame is an array of messages. User values are
opaque bytes (see wire/codec.py): a node or the head never looks into them.

Ids are those of actorrt/types.py: a process is 8 random bytes; a call is known by the sequence number of its first
return value. A call, its outcomes and what a worker says of its own lease name the lease by its number alone: a worker
has one node.
"""

from __future__ import annotations

import contextlib
from enum import IntEnum
from typing import Any, Final, cast

import msgspec

from actorrt.types import (
    ANYWHERE,
    NO_EMPLOYER,
    NO_GROUP,
    NO_PROCESS,
    NOWHERE,
    ActorKey,
    Address,
    Employer,
    FunctionKey,
    GroupId,
    JobKey,
    LabelRule,
    LeaseId,
    Place,
    ProcessId,
    Strategy,
)

PROTOCOL_VERSION: Final = 3


class ValueKind(IntEnum):
    """What a Value holds."""

    INLINE = 0
    SEGMENT = 1
    # A pickled error.
    ERROR = 2


class OutcomeKind(IntEnum):
    """How a call ended, other than by one inline value (that is a Reply)."""

    VALUES = 0
    FAILED = 1
    CANCELLED = 2
    # The callee never started it: the caller still has it and decides anew.
    GIVEN_BACK = 3
    STREAM_END = 4
    # The callee does not have this actor (any more).
    NO_ACTOR = 5
    # The callee never started it, and was asked to take it back for that.
    WITHDRAWN = 6


# To look a member up in its class takes longer than to compare it.
INLINE: Final = ValueKind.INLINE
SEGMENT: Final = ValueKind.SEGMENT
ERROR: Final = ValueKind.ERROR
VALUES: Final = OutcomeKind.VALUES
FAILED: Final = OutcomeKind.FAILED
CANCELLED: Final = OutcomeKind.CANCELLED
GIVEN_BACK: Final = OutcomeKind.GIVEN_BACK
STREAM_END: Final = OutcomeKind.STREAM_END
NO_ACTOR: Final = OutcomeKind.NO_ACTOR
WITHDRAWN: Final = OutcomeKind.WITHDRAWN

UNLIMITED: Final = -1
# In WhereIs: answer at once, with the place that it was given, though it may not have started there.
NOW: Final = -2
# In place of a sequence number: what is named is an actor, by its 16 bytes.
ACTOR: Final = -1

HeldKey = tuple[bytes, int]
"""What a value holds on to: an object, or (an actor, ACTOR)."""


class Message(msgspec.Struct, array_like=True, omit_defaults=True, gc=False):
    """Base of everything that travels in a frame."""


class Value(Message):
    """One value: `data` inline, or a segment of `size` bytes that `node` knows as (owner, seq), or a pickled error.

    `home`: the node of the owner, which knows who has copies; empty where that is `node`.

    `refs` are the refs and handles pickled inside: (owner, seq), or (actor, ACTOR). The sender keeps them alive until
    the receiver has registered as borrower.
    """

    kind: ValueKind
    data: bytes = b""
    owner: ProcessId = NO_PROCESS
    seq: int = 0
    size: int = 0
    refs: list[HeldKey] | None = None
    node: ProcessId = NO_PROCESS
    home: ProcessId = NO_PROCESS


Slots = list[tuple[int | str, Value]]


class Hello(msgspec.Struct, frozen=True):
    """The first frame each way: who speaks, and whether the two can understand each other.

    `link`: the id of the link, chosen by its dialler. `received`: it goes on after so many bytes; -1: it is a new one.
    `address`: where it listens itself, if it does.
    """

    process: ProcessId
    role: str
    pid: int
    protocol: int
    python: str
    version: str
    refused: str = ""
    address: Address = NOWHERE
    link: bytes = b""
    received: int = -1


class ActorCall(Message, tag=1):
    """Call `method`. `credits` > 0 or UNLIMITED: it streams, with room for so many items."""

    seq: int
    actor: ActorKey
    method: str
    args: bytes
    slots: Slots | None = None
    returns: int = 1
    credits: int = 0
    group: str = ""
    # What people are told instead of the method's own name.
    name: str = ""
    # For a stream: the number of its first item in shared memory (core/item_numbers.py).
    first_item: int = 0


class TaskCall(Message, tag=2):
    seq: int
    function: FunctionKey
    args: bytes
    slots: Slots | None = None
    returns: int = 1
    credits: int = 0
    name: str = ""
    # The number of the lease at the worker's node.
    lease: int = 0
    first_item: int = 0


class Reply(Message, tag=3):
    """The common outcome: one inline value without refs in it."""

    seq: int
    data: bytes


class Outcome(Message, tag=4):
    """`count`: the items of a stream that has ended; 1 with NO_ACTOR if the call had been started."""

    seq: int
    kind: OutcomeKind
    values: list[Value] = msgspec.field(default_factory=list[Value])
    count: int = 0


class Item(Message, tag=5):
    """One streamed value."""

    seq: int
    index: int
    data: bytes


class ItemValue(Message, tag=6):
    seq: int
    index: int
    value: Value


class Credit(Message, tag=7):
    """The caller has room for `n` more items of stream `seq`."""

    seq: int
    n: int


class Cancel(Message, tag=8):
    """`unbegun`: only if it has not begun; it is answered as WITHDRAWN then."""

    seq: int
    force: bool = False
    recursive: bool = True
    unbegun: bool = False


class Define(Message, tag=9):
    """A function or class by its content hash; sent once a link, before its first use."""

    function: FunctionKey
    blob: bytes


class Forget(Message, tag=19):
    """A function or class that is not called again over this link, unless it is defined again."""

    function: FunctionKey


class StartActor(Message, tag=10):
    """Make the actor; the outcome comes as a Reply like a call's. Calls may follow at once.

    `max_task_retries` and `max_pending` are for callers: the actor hands them on with handles to itself.
    """

    seq: int
    actor: ActorKey
    cls: FunctionKey
    args: bytes
    slots: Slots | None = None
    concurrency: int = 1000
    groups: dict[str, int] | None = None
    name: str = ""
    namespace: str = ""
    incarnation: int = 0
    lease: int = 0
    process: bool = False
    method_groups: dict[str, str] | None = None
    resources: dict[str, int] | None = None
    max_task_retries: int = 0
    max_pending: int = -1
    # By which its worker was found, where it has one to itself.
    strategy: Strategy = ANYWHERE


class StopActor(Message, tag=11):
    """End the actor: at once, or (`graceful`) after the calls that it already has."""

    actor: ActorKey
    graceful: bool = False
    reason: str = ""


class ActorEnded(Message, tag=12):
    """To the owner: the actor ended by itself, for example through exit_actor."""

    actor: ActorKey
    cause: str
    intended: bool = True


class RefsTaken(Message, tag=13):
    """The caller has registered for the refs that came inside the values of `seq`, or in its streamed item `index`."""

    seq: int
    index: int = 0


class Borrow(Message, tag=14):
    """To the owner: this process holds a ref to your object `seq`; (Unborrow: no more)."""

    seq: int


class Unborrow(Message, tag=15):
    seq: int


class BorrowActor(Message, tag=16):
    actor: ActorKey


class UnborrowActor(Message, tag=17):
    actor: ActorKey


class Room(Message, tag=21):
    """The pipe of call `seq` has room for `n` more bytes; `to_callee`: those that the caller takes."""

    seq: int
    n: int
    to_callee: bool = False


class CancelObject(Message, tag=18):
    """To the owner: somebody who holds a ref to your object `seq` wants the call that makes it cancelled."""

    seq: int
    force: bool = False
    recursive: bool = True


# ---- to and from the node -------------------------------------------------------------------------------------------


class WorkerReady(Message, tag=30):
    """A worker listens and can be leased."""

    pid: int


class ReturnLease(Message, tag=31):
    """`end`: its worker has run what it may run (max_calls) and is not to be used again."""

    lease: LeaseId
    end: bool = False


class Blocked(Message, tag=32):
    """The worker of this lease, of its own node's, waits in `get`: its CPUs are free meanwhile."""

    lease: int


class Unblocked(Message, tag=33):
    lease: int


class LeasesWanted(Message, tag=34):
    """To those who hold these leases: others wait for them. What they have is finished, then they are given back."""

    leases: list[LeaseId]


class PleaseDial(Message, tag=35):
    """To a process that does not listen: dial `process`, which has something to tell you."""

    process: ProcessId
    address: Address = NOWHERE


class FreeSegment(Message, tag=36):
    """The object is not wanted any more. Nothing happens if it is not there. `node`: it lies on another one."""

    owner: ProcessId
    seq: int
    node: ProcessId = NO_PROCESS


class CloseSegment(Message, tag=37):
    """This process has unmapped what one OpenSegment gave it."""

    creator: ProcessId
    serial: int


class SegmentBack(Message, tag=38):
    """To a segment's creator: nobody reads it, it may be filled again; or, if not `reuse`, it is to be let go of."""

    serial: int
    reuse: bool


class LogLines(Message, tag=39):
    """Lines that a worker printed: (name, pid, is_stderr, line)."""

    lines: list[tuple[str, int, bool, str]]


class WorkerName(Message, tag=40):
    """What this worker runs, for the prefix of its output."""

    name: str


class LoopBlocked(Message, tag=47):
    """What blocks the loop of this worker; "": it turns again. `harmful`: it is a user's code, and others wait."""

    by: str = ""
    harmful: bool = False


class WorkerBlocked(Message, tag=48):
    """To those who may share this worker: nothing new is to go there until it is not blocked any more."""

    process: ProcessId
    blocked: bool


class KillWorker(Message, tag=41):
    process: ProcessId
    reason: str


class NodeStopping(Message, tag=42):
    reason: str


class DropName(Message, tag=43):
    name: str
    namespace: str
    actor: ActorKey


class OwnerEnded(Message, tag=52):
    """To the head: a process has ended; the names of the actors that it owned are free."""

    owner: ProcessId


class Assigned(Message, tag=44):
    """To a leased worker, before the first task: what `lease`, of its node's, gives to its tasks (units of 1/10000).

    `strategy`: by which it was found.
    """

    lease: int
    resources: dict[str, int]
    strategy: Strategy = ANYWHERE


class LetGo(Message, tag=45):
    """The creator of the segment `serial` does not hold it any more."""

    serial: int


class Unreserve(Message, tag=46):
    """Of the room that was given so much is not needed after all."""

    size: int


class Retire(Message, tag=49):
    """To a worker: it gets no more work, and ends once nobody needs what it owns.

    `finish`: nor before the calls that its tasks have made have ended.
    """

    finish: bool = True


class Retired(Message, tag=50):
    """From a worker whose work is done: it stays, without its lease, since others need what it owns."""


class LeaseEnds(Message, tag=53):
    """From a leased worker to its holder, as a task ends its process: of `lease` it begins no more. What it has and
    has not begun comes back, and so does what crosses this."""

    lease: int


class FreeItems(Message, tag=51):
    """To the node: item `first` of a stream never came to this process, its caller, nor will any behind it."""

    first: int


# ---- objects between nodes: see core/copies.py and core/transfers.py -------------------------------------------------


class WantCopy(Message, tag=130):
    """To the home of an object: this node needs it. `failed`: its source so far was lost, or (`missing`) has it not."""

    owner: ProcessId
    seq: int
    failed: ProcessId = NO_PROCESS
    missing: bool = False


class CopyAt(Message, tag=131):
    """From its home: take this version of the object from `source`."""

    owner: ProcessId
    seq: int
    version: int
    source: ProcessId


class HaveCopy(Message, tag=132):
    """To its home: this node has the whole object."""

    owner: ProcessId
    seq: int
    version: int


class DropCopy(Message, tag=133):
    """To its home: this node has no copy of the object, nor waits for one."""

    owner: ProcessId
    seq: int


class FreeCopy(Message, tag=134):
    """From its home: there is no copy for this node, and it is to free the one that it has."""

    owner: ProcessId
    seq: int
    cause: str


# ---- questions and answers ------------------------------------------------------------------------------------------


class JoinDriver(Message, tag=60):
    """Paths and arguments need not be UTF-8: they are what `any_text` makes of them."""

    pid: int
    namespace: str
    sys_path: list[bytes]
    cwd: bytes
    main_file: bytes
    argv: list[bytes]
    env: dict[str, str]
    log_to_driver: bool
    shares_fate: bool


class Joined(Message, tag=61):
    """`cpus` and `store_limit` (bytes of shared memory) are the node's."""

    node: Place
    cpus: int
    head: Place
    store_limit: int


class LeaseRequest(Message, tag=62):
    """A worker of its own for `shape` (units of 1/10000).

    `mode`: "sync" runs def code in its main thread, "loop" a loop there, "runtime" coroutines on the runtime's loop.
    """

    shape: dict[str, int]
    mode: str
    env: dict[str, str] | None = None
    actor: str = ""
    employer: Employer = NO_EMPLOYER
    strategy: Strategy = ANYWHERE


class Lease(Message, tag=63):
    """`wanted`: others wait already, so it is good for one helping of tasks."""

    lease: LeaseId
    worker: Place
    pid: int = 0
    gpus: list[int] | None = None
    wanted: bool = False


class SharedWorkers(Message, tag=64):
    """At least one, if possible `want` workers that coroutine actors and async tasks of this employer share."""

    want: int
    env: dict[str, str] | None = None
    employer: Employer = NO_EMPLOYER


class WorkerList(Message, tag=65):
    workers: list[Place]
    limit: int


class ExitOf(Message, tag=66):
    """Why did this process end? Answered when it is known."""

    process: ProcessId


class Exit(Message, tag=67):
    """`started`: the last task that it began, as (lease of its node's, sequence number); None where nobody knows.

    `known`: false where the node knows no such process, and so not whether it has ended.
    """

    cause: str
    oom: bool = False
    started: tuple[int, int] | None = None
    known: bool = True


class ClaimName(Message, tag=68):
    name: str
    namespace: str
    actor: ActorKey
    info: bytes


class NameHolder(Message, tag=69):
    """Who has the name; `yours`: the claim succeeded. NO_ACTOR_KEY: nobody."""

    actor: ActorKey
    info: bytes = b""
    yours: bool = False


class FindName(Message, tag=70):
    name: str
    namespace: str


class ListNames(Message, tag=71):
    namespace: str | None = None


class Names(Message, tag=72):
    names: list[tuple[str, str]]


class DialMe(Message, tag=73):
    """Have `process` dial who asks, at `address`."""

    process: ProcessId
    address: Address = NOWHERE


class Seal(Message, tag=74):
    """The segment `serial`, of `size` bytes of memory, holds an object of `length` bytes.

    If the node does not have the segment yet, it takes it over from the file descriptor `fd` of this process. `kept`:
    this process holds on to it. Without a question around it, nobody waits: only for segments that the node has.
    """

    owner: ProcessId
    seq: int
    serial: int
    size: int
    length: int
    kept: bool
    fd: int
    inode: int


class OpenSegment(Message, tag=75):
    """This process is about to map an object. Without a question around it, it knows where: it is the creator.

    `home`: the object, of `size` bytes, may lie on another node; that one knows where.
    """

    owner: ProcessId
    seq: int
    size: int = 0
    home: ProcessId = NO_PROCESS


class SegmentAt(Message, tag=76):
    """The first `length` bytes of what `path` leads to, if that is `inode`. Until CloseSegment it stays there."""

    creator: ProcessId
    serial: int
    path: str
    inode: int
    length: int


class Query(Message, tag=77):
    """Facts about the cluster: "nodes", "resources", "available", "workers", "store"; of a program: "sys_path".

    "tables" and "head tables": how many entries each table of the node or the head has. "statistics": how a process
    stands; of a node, how it and all processes of its session do. `timeout_s`: for how long its asker waits then; 0: it
    has not said.
    """

    what: str
    timeout_s: float = 0.0


class Scope(IntEnum):
    """Of whom a Survey asks what there is."""

    PROCESS = 0
    # Of a node and its processes.
    NODE = 1
    # Of all nodes.
    CLUSTER = 2


class Survey(Message, tag=95):
    """What is there, of a kind: "workers", "actors", "tasks", "objects", as rows with the columns of
    core/state_records.py; "running": which of the calls `ids` run; "segments": where the objects `ids` lie; "stacks";
    "backlog": what is before the call `id` at its caller; "queues": who waits for workers. Answered by Facts.

    `filters` are (column, whether it has to be equal, value), `id` is one as people write it. `group_by`: counts by
    these columns, in place of rows. `processes`: who is asked, where that is known. `timeout_s`: how long the asker
    waits.
    """

    what: str
    scope: Scope = Scope.PROCESS
    filters: list[tuple[str, bool, str]] = []
    id: str = ""
    limit: int = 100
    group_by: list[str] = []
    ids: list[str] = []
    processes: list[ProcessId] = []
    timeout_s: float = 0.0


class Facts(Message, tag=78):
    data: Any


class WhereIs(Message, tag=79):
    """To an actor's owner: where does it run, now that it is not (any more) at `incarnation`?

    Answered when it runs there; with `fate` as soon as it is known that it will, or that it is dead.
    """

    actor: ActorKey
    incarnation: int = -1
    fate: bool = False


class ActorAt(Message, tag=80):
    """Where the actor runs, or (with a cause) that it is dead for good and why. `failed`: the error behind it."""

    worker: Place | None
    incarnation: int = 0
    cause: str = ""
    phase: str = ""
    failed: bytes = b""


class GetObject(Message, tag=81):
    """To an object's owner: answered when the value is there."""

    seq: int


class ObjectIs(Message, tag=82):
    value: Value


class Done(Message, tag=83):
    pass


class CreateDetached(Message, tag=84):
    """The node becomes the owner of the actor. `start` has seq and actor filled in by the node."""

    start: StartActor
    blob: bytes
    shape: dict[str, int]
    mode: str
    shared: bool
    max_restarts: int
    info: bytes
    env: dict[str, str] | None = None
    get_if_exists: bool = False
    job: JobKey = NO_EMPLOYER.job
    strategy: Strategy = ANYWHERE


class JoinNode(Message, tag=85):
    """A node registers with the head. `names`: all that its processes hold, as (name, namespace, actor, info)."""

    node: ProcessId
    info: dict[str, Any]
    names: list[tuple[str, str, bytes, bytes]] = []


class NodeEnded(Message, tag=100):
    """A head tells a node: another node of the cluster is gone, with all its processes."""

    node: ProcessId
    cause: str


class Reaches(Message, tag=101):
    """A head asks a node: does it reach that one? Answered with Facts(bool)."""

    node: ProcessId


class AdoptActor(Message, tag=105):
    """A head asks a node: make this detached actor again, whose node is gone; `driver` is its program as it was.

    Answered with a NameHolder of the new key; asked twice for one key, a node makes one actor.
    """

    before: ActorKey
    request: CreateDetached
    driver: JoinDriver | None = None


class KeptActor(msgspec.Struct, frozen=True, array_like=True):
    """A detached actor as a head keeps it. `request.start` has the key that it has now."""

    request: CreateDetached
    driver: JoinDriver | None
    restarts: int


class KeepActor(Message, tag=106):
    """Have the head keep a detached actor of this node, so that it is made again where the node is gone; None: it is
    dead. Answered with Done once that is on disk."""

    actor: ActorKey
    kept: KeptActor | None


class PutEntry(Message, tag=102):
    """Have a head keep `value` under a key, if the entry's version is `expected` (0: there is none; -1: any).

    Answered once it is on disk, with the entry: of another version if that was not so. `value` None drops it.
    """

    key: str
    value: bytes | None
    expected: int = -1


class ListEntries(Message, tag=103):
    """What a head keeps under keys that begin so. Answered with Entries."""

    prefix: str


class Entries(Message, tag=104):
    """(key, version, value) of each; `done`: the change that was asked for was made."""

    entries: list[tuple[str, int, bytes]]
    done: bool = True


class KillActor(Message, tag=86):
    """To an actor's owner: end it now; `no_restart` for good."""

    actor: ActorKey
    no_restart: bool = True


class Ping(Message, tag=87):
    pass


class FlushOutput(Message, tag=88):
    """From a driver that leaves: what its workers have printed so far comes before the answer, as LogLines."""


class Reserve(Message, tag=89):
    """May this process make a new segment of `size` bytes? Answered when there is room."""

    size: int


class DropViews(Message, tag=94):
    """Memory is short: unmap what is mapped for refs alone. Answered when the CloseSegments have been sent."""


class CreateGroup(Message, tag=140):
    """Make a placement group; each bundle is a shape (units of 1/10000). Refused if it can never be."""

    group: GroupId
    bundles: list[dict[str, int]]
    strategy: str
    employer: Employer
    name: str = ""
    namespace: str = ""
    detached: bool = False
    # For each bundle, or none at all.
    labels: list[list[LabelRule]] = []


class RemoveGroup(Message, tag=141):
    """Remove a placement group: what runs in it is ended. Nothing happens if it is gone."""

    group: GroupId


class AwaitGroup(Message, tag=142):
    """Answered once the placement group is there; refused if it is gone."""

    group: GroupId


class ListGroups(Message, tag=143):
    """How placement groups stand: one, by its id or its name, or all."""

    group: GroupId = NO_GROUP
    name: str = ""
    namespace: str = ""


Question = (
    JoinDriver
    | LeaseRequest
    | SharedWorkers
    | ExitOf
    | ClaimName
    | FindName
    | ListNames
    | DialMe
    | Reserve
    | Seal
    | OpenSegment
    | Query
    | Survey
    | WhereIs
    | GetObject
    | CreateDetached
    | JoinNode
    | Reaches
    | AdoptActor
    | KeepActor
    | PutEntry
    | ListEntries
    | KillActor
    | Ping
    | FlushOutput
    | DropViews
    | CreateGroup
    | RemoveGroup
    | AwaitGroup
    | ListGroups
)
AnswerBody = (
    Joined | Lease | WorkerList | Exit | NameHolder | Names | SegmentAt | Facts | ActorAt | ObjectIs | Entries | Done
)


class Ask(Message, tag=90):
    rid: int
    body: Question


class Answer(Message, tag=91):
    rid: int
    body: AnswerBody


class Refusal(Message, tag=92):
    """The question has no answer: `error` names the exception class of actorrt.exceptions, `args` its fields."""

    rid: int
    error: str
    args: list[Any]


class Withdraw(Message, tag=93):
    """The asker no longer waits for `rid`."""

    rid: int


AnyMessage = (
    ActorCall
    | TaskCall
    | Reply
    | Outcome
    | Item
    | ItemValue
    | Credit
    | Cancel
    | Define
    | Forget
    | StartActor
    | StopActor
    | ActorEnded
    | RefsTaken
    | Borrow
    | Unborrow
    | BorrowActor
    | UnborrowActor
    | CancelObject
    | Room
    | WorkerReady
    | ReturnLease
    | Blocked
    | Unblocked
    | LeasesWanted
    | PleaseDial
    | FreeSegment
    | FreeItems
    | CloseSegment
    | SegmentBack
    | Seal
    | OpenSegment
    | LetGo
    | Unreserve
    | WantCopy
    | CopyAt
    | HaveCopy
    | DropCopy
    | FreeCopy
    | LogLines
    | WorkerName
    | LoopBlocked
    | WorkerBlocked
    | KillWorker
    | NodeStopping
    | Retire
    | Retired
    | DropName
    | OwnerEnded
    | NodeEnded
    | Assigned
    | LeaseEnds
    | Ask
    | Answer
    | Refusal
    | Withdraw
)

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final[msgspec.msgpack.Decoder[list[AnyMessage]]] = msgspec.msgpack.Decoder(list[AnyMessage])
_pieces_decoder: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])
_one_decoder: Final[msgspec.msgpack.Decoder[AnyMessage]] = msgspec.msgpack.Decoder(AnyMessage)
_hello_decoder: Final = msgspec.msgpack.Decoder(Hello)


def encode_batch(messages: list[AnyMessage]) -> bytes:
    """The payload of one frame."""
    return _encoder.encode(messages)


def decode_batch(payload: bytes) -> list[AnyMessage]:
    """The messages of one frame. Raises msgspec.DecodeError (or ValidationError, its subclass) for anything else."""
    return _decoder.decode(payload)


def tag_of(kind: type[Message]) -> int:
    tag = kind.__struct_config__.tag
    assert isinstance(tag, int)
    return tag


class Unreadable(msgspec.Struct, frozen=True):
    """A message of a frame that is none: its tag and the number behind it, 0 where there is none, and what is wrong."""

    tag: int
    number: int
    why: str


def decode_each(payload: bytes) -> list[AnyMessage | Unreadable]:
    """The messages of a frame of which some are none. Raises msgspec.DecodeError if the frame is no array."""
    found: list[AnyMessage | Unreadable] = []
    for piece in _pieces_decoder.decode(payload):
        try:
            found.append(_one_decoder.decode(piece))
        except msgspec.DecodeError as error:
            found.append(_unreadable(piece, str(error)))
    return found


def _unreadable(piece: msgspec.Raw, why: str) -> Unreadable:
    fields: object = None
    with contextlib.suppress(msgspec.DecodeError):
        fields = msgspec.msgpack.decode(piece)
    first_two = [*cast("list[object]", fields if isinstance(fields, list) else []), 0, 0][:2]
    tag, number = (each if isinstance(each, int) else 0 for each in first_two)
    return Unreadable(tag, number, why)


def encode_hello(hello: Hello) -> bytes:
    return _encoder.encode(hello)


def decode_hello(payload: bytes) -> Hello:
    return _hello_decoder.decode(payload)
