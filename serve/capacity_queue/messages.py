"""What routers, the queue and replicas tell each other: typed values, and their bytes on the stream of a router.

A message is a batch: all that has happened in one turn of a loop. Times are given as ages and as what is left, since
clocks of machines differ.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple, cast

import msgspec

from ..base.encodable import is_encodable
from ..policies.policy import MOST, Cost, check_count

LONGEST_TEXT: Final = 1024
_TEXTS: Final = ("model", "tenant", "user", "band", "session", "adapter", "ticket")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueCost(Cost):
    """A Cost that says more of a request. `tokens` is the length of its prompt."""

    max_tokens: int | None = None
    """Its answer has no more; None: as many as there is room for."""
    model: str = ""
    tenant: str = ""
    user: str = ""
    """A user of the tenant: each user has an equal share of what the tenant gets."""
    band: str = ""
    """"": the default."""
    deadline_s: float | None = None
    """Seconds from now to its first token; None: as the deployment says."""
    chain: tuple[int, ...] = ()
    """Hashes over blocks of its prompt, each with those before it (capacity/prefix_index.py)."""
    session: str = ""
    """Which of its tenant's it is a turn of: it goes to where the last one ran, and before others of its user."""
    adapter: str = ""
    """What has to be loaded where it runs, if it is not: a LoRA adapter, or one model of several."""
    ticket: str = ""
    """Of the RequestRefusedError of its first try, whose place it keeps."""

    def __post_init__(self) -> None:
        Cost.__post_init__(self)
        # It goes with other requests' in one message: what that cannot hold would be lost with them.
        if self.max_tokens is not None:
            check_count("max_tokens", self.max_tokens)
        try:
            said = "".join((self.model, self.tenant, self.user, self.band, self.session, self.adapter, self.ticket))
        except TypeError:
            said = None
        if said is None or not said.isascii() or len(said) > LONGEST_TEXT:
            for name in _TEXTS:
                check_text(name, getattr(self, name))
        if self.deadline_s is not None:
            check_seconds(self.deadline_s)
        if self.chain:
            check_chain(self.chain)


def check_text(name: str, value: object) -> None:
    """TypeError, or ValueError for what UTF-8 does not have or is too long to be kept by the thousand."""
    if not isinstance(value, str):
        raise TypeError(f"{name} of a cost must be a str, not {type(value).__name__}")
    if len(value) > LONGEST_TEXT:
        raise ValueError(f"{name} of a cost must have at most {LONGEST_TEXT} characters, not {len(value)}")
    if not is_encodable(value):
        raise ValueError(f"{name} of a cost is not UTF-8: surrogates not allowed")


def check_seconds(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"deadline_s of a cost must be a number, not {type(value).__name__}")
    if not 0 <= value < math.inf:
        raise ValueError(f"deadline_s of a cost must be zero or more seconds, not {value}")
    if value > MOST:
        raise ValueError(f"deadline_s of a cost must be at most {MOST}, not {value}")


def check_chain(value: object) -> None:
    blocks = cast("tuple[int, ...]", value)
    if not isinstance(value, tuple) or {*map(type, blocks)} != {int}:
        raise TypeError("chain of a cost must be a tuple of int")
    try:
        array("Q", blocks)
    except OverflowError:
        raise ValueError("chain of a cost must be of numbers from 0 to 2**64 - 1") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueUse(Cost):
    """What a request has really used, for `report_used`. `tokens`: those that were generated."""

    cached: int | None = None
    """Of its prompt, what the engine had already; None: not known."""
    is_whole: bool = False
    """The answer ended by itself: others are expected to be as long."""

    def __post_init__(self) -> None:
        Cost.__post_init__(self)
        if self.cached is not None:
            check_count("cached", self.cached)
        if type(self.is_whole) is not bool:
            raise TypeError(f"is_whole of a cost must be a bool, not {type(self.is_whole).__name__}")


@lru_cache(maxsize=16_384)
def incarnation_of(replica: str) -> int:
    """Of a replica, by its id, which no two processes have."""
    return int.from_bytes(blake2b(replica.encode(), digest_size=6).digest(), "big")


class Tag(NamedTuple):
    """A lease as it goes to the replica with its request, and from there to a queue that does not know of it."""

    epoch: int
    incarnation: int
    number: int
    """Unique over all epochs; below zero: a router gave it while the queue was down."""
    rank: int
    queue_ms: int
    router: str
    prompt: int
    output: int
    model: str
    tenant: str
    user: str
    band: str
    credit: bool = False
    """`number` is that of a credit, by which others may run too."""
    prefill: tuple[str, int] | None = None
    """Replica and rank that read its prompt by the same lease; None: whoever answers does."""


# Between routers and the queue.


class Acquire(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A request wants a place. `id` is the router's."""

    id: int
    requests: int
    prompt: int
    """In tokens; which of the two counts is the queue's matter."""
    max_tokens: int | None
    model: str
    tenant: str
    user: str
    band: str
    age_s: float
    """Since it came first."""
    left_s: float | None
    """To its deadline."""
    chain: tuple[int, ...]
    returns: bool
    """It had a grant and did not start: it is not refused for want of room."""
    session: str = ""
    adapter: str = ""
    ticket: str = ""


def plain_acquire(id: int, age_s: float, band: str) -> Acquire:
    """As ToQueue has it among its plain ones."""
    return Acquire(id, 1, 0, 0, "", "", "", band, age_s, None, (), False)


class Release(msgspec.Struct, array_like=True, frozen=True, gc=False):
    number: int
    generated: int | None = None
    cached: int | None = None
    is_whole: bool = False


class CreditsHeld(msgspec.Struct, array_like=True, frozen=True):
    """What a router has of the credits that it was told of; capacity/credit_messages.py says what they are."""

    number: int
    version: int
    held: list[tuple[int, int, int, int, int]]
    """Credit; tokens and slots that it may fill or has filled; and those that it has filled."""
    usage: int
    served: list[tuple[str, str, str, float]]
    """Number of what is to be charged; band, tenant, user, and tokens by their weights."""
    admitted: int
    tokens: int
    """Requests that it has let in by them so far and that have ended, and their tokens."""


class Learnt(msgspec.Struct, array_like=True, frozen=True):
    """What one that was let in by a credit has used, beside what was charged for it."""

    band: str
    model: str
    tenant: str
    user: str
    prompt: int
    generated: int
    charge: float
    is_whole: bool


class ToQueue(msgspec.Struct, omit_defaults=True):
    """In this order: the leases that a router has (its first message), replicas that are full for it (or not any
    more), what goes on, what ended, what is wanted, what is not wanted any more."""

    epoch: int = 0
    """Of the queue that it is said to."""
    held: list[int] | None = None
    full: list[tuple[str, bool]] = msgspec.field(default_factory=list[tuple[str, bool]])
    release: list[Release] = msgspec.field(default_factory=list[Release])
    given_back: list[int] = msgspec.field(default_factory=list[int])
    """Leases that ended as well, of which no more is to be said."""
    progress: list[tuple[int, int]] = msgspec.field(default_factory=list[tuple[int, int]])
    settle: list[Release] = msgspec.field(default_factory=list[Release])
    """What was used by leases that had ended before that was known."""
    acquire: list[Acquire] = msgspec.field(default_factory=list[Acquire])
    plain: list[tuple[int, float]] = msgspec.field(default_factory=list[tuple[int, float]])
    """The same of those of which nothing is known but that each is a request: id, and seconds since it came."""
    withdraw: list[int] = msgspec.field(default_factory=list[int])
    found: list[tuple[str, int, int]] = msgspec.field(default_factory=list[tuple[str, int, int]])
    """Requests that were looked for: what they are called there, and by which id they wait, or their lease; else 0."""
    alive: bool = False
    """The answer to a question for it."""
    credits: CreditsHeld | None = None
    learnt: list[Learnt] = msgspec.field(default_factory=list[Learnt])

    def answer(self) -> None:
        self.alive = True

    def hold(self, credits: CreditsHeld) -> None:
        self.credits = credits

    def finish(self, epoch: int, given_back: list[int], plain: list[tuple[int, float]]) -> None:
        """It is said now, to the queue of this epoch."""
        self.epoch, self.given_back, self.plain = epoch, given_back, plain

    def __bool__(self) -> bool:
        return bool(
            self.acquire
            or self.plain
            or self.release
            or self.given_back
            or self.progress
            or self.settle
            or self.withdraw
            or self.full
            or self.found
            or self.alive
            or self.learnt
        ) or self.held is not None or self.credits is not None  # fmt: skip


class Granted(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The place of request `id`: a lease, and where."""

    id: int
    number: int
    replica: str
    rank: int
    prompt: int
    output: int
    """What it takes: its prompt, and its answer as expected; in requests both are their number."""
    prefill: tuple[str, int] | None = None
    """Replica and rank that read its prompt, where those are others."""


class Alike(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The places of requests that take the same, by leases whose numbers follow each other."""

    first: int
    """The number of the first one's lease."""
    prompt: int
    output: int
    lines: list[tuple[str, int, list[int]]]
    """Replica, rank, and the requests that have a place there."""


class Refusal(msgspec.Struct, array_like=True, frozen=True):
    id: int
    status: int
    reason: str
    retry_after_s: float | None
    queued: int = -1
    """Requests that wait, where `limit` of them is the reason."""
    limit: int = -1
    ticket: str = ""


class Share(msgspec.Struct, array_like=True, frozen=True):
    """What one router may have at a replica while the queue is down."""

    requests: int
    tokens: int


class CreditsTold(msgspec.Struct, array_like=True, frozen=True):
    """All credits of a router; to be answered by what it has of them."""

    version: int
    heard: int
    counted: int
    in_requests: bool
    """What they are counted in."""
    credits: list[tuple[int, str, int, int, int, int]]
    """Number, replica, rank, tokens, slots, and how much of the tokens may be unread. Empty: as in this version."""


class ToRouter(msgspec.Struct, omit_defaults=True):
    epoch: int = 0
    """In the first message."""
    shares: dict[str, Share] | None = None
    grants: list[Granted] = msgspec.field(default_factory=list[Granted])
    alike: list[Alike] = msgspec.field(default_factory=list[Alike])
    refused: list[Refusal] = msgspec.field(default_factory=list[Refusal])
    ended: list[int] = msgspec.field(default_factory=list[int])
    """Leases that are void: their replica has gone."""
    stop: list[tuple[int, str]] = msgspec.field(default_factory=list[tuple[int, str]])
    """Leases whose requests are to make way, and a ticket for each."""
    find: str = ""
    """Has it a request of this name?"""
    ask: bool = False
    """Are you there?"""
    credits: CreditsTold | None = None

    def share(self, shares: dict[str, Share]) -> None:
        self.shares = shares

    def credit(self, credits: CreditsTold) -> None:
        self.credits = credits

    def look_for(self, name: str) -> None:
        self.find = name

    def question(self) -> None:
        self.ask = True

    def take_question(self) -> bool:
        """Whether the router is asked if it is there; that is not told again."""
        asked, self.ask = self.ask, False
        return asked

    def __bool__(self) -> bool:
        said = self.grants or self.alike or self.refused or self.ended or self.stop or self.find or self.ask
        return bool(said or self.epoch) or self.shares is not None or self.credits is not None


# From replicas to the queue.


class Offer(NamedTuple):
    """What a replica's code says that it holds, for each of its ranks."""

    kv_tokens: int
    slots: int
    prefill_rate: float = 0.0
    """Tokens of prompts a second; 0: not known."""
    ranks: int = 1
    revision: str = ""
    """Who reads prompts for others does it for those of the same one."""
    context: int = 0
    """Tokens of one prompt and its answer at most; 0: as many as there are."""


class Snapshot(NamedTuple):
    """The first that a replica says to a queue: it refuses older epochs from now on."""

    epoch: int
    """The newest that it has seen; another than the one that asked: a newer queue is there."""
    incarnation: int
    offer: Offer | None
    running: tuple[Tag, ...]
    credits: tuple[tuple[int, int, int, int], ...] = ()
    """What runs by credits that are fenced off, as all earlier ones are: number, rank, tokens, slots."""


class Report(NamedTuple):
    """What has happened since. What has begun and ended meanwhile is in none of these."""

    begun: tuple[int, ...]
    ended: tuple[int, ...]
    unknown: tuple[Tag, ...] = ()
    """Of those that have begun, the leases that a router gave itself."""
    rooms: tuple[tuple[int, int, int], ...] = ()
    """What still runs by credits that are fenced off: number, tokens, slots."""


# Bytes: each message with its length before it.

_LENGTH: Final = 4
# No batch is as long: so many bytes are no message.
LONGEST_MESSAGE: Final = 2**30
_encoder: Final = msgspec.msgpack.Encoder()
to_queue: Final = msgspec.msgpack.Decoder(ToQueue)
to_router: Final = msgspec.msgpack.Decoder(ToRouter)


def encode(message: ToQueue | ToRouter) -> bytes:
    data = _encoder.encode(message)
    return len(data).to_bytes(_LENGTH, "big") + data


class Messages:
    """Bytes, cut anywhere, in; whole messages out. ValueError for what is none."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        rest = self._rest + data
        at = 0
        while len(rest) - at >= _LENGTH:
            length = int.from_bytes(rest[at : at + _LENGTH], "big")
            if length > LONGEST_MESSAGE:
                raise ValueError(f"a message of {length} bytes is none")
            end = at + _LENGTH + length
            if end > len(rest):
                break
            yield rest[at + _LENGTH : end]
            at = end
        self._rest = rest[at:]
