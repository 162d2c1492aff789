"""How an executed call's result becomes messages: values inline or in segments, errors with their traceback."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Generator, Iterable
from functools import partial
from types import GeneratorType, TracebackType
from typing import Any, Final, NoReturn, Protocol, cast

from actorrt import exceptions
from actorrt.config import Settings
from actorrt.core.item_numbers import next_item
from actorrt.types import ProcessId
from actorrt.wire import codec
from actorrt.wire.codec import Serialized
from actorrt.wire.messages import (
    ACTOR,
    CANCELLED,
    ERROR,
    FAILED,
    INLINE,
    NO_ACTOR,
    SEGMENT,
    VALUES,
    WITHDRAWN,
    AnyMessage,
    Cancel,
    HeldKey,
    Item,
    ItemValue,
    Outcome,
    Reply,
    Value,
)

from ..base.explain import explain_value
from ..base.loop_thread import LoopThread
from ..links.running import RunningCall
from .calls import error_bytes
from .entries import Entry
from .membership import Membership
from .references import ObjectRef
from .segments_client import SegmentsClient
from .yielded import BehindValues, Yielded

_OWN_CODE: Final = os.path.dirname(os.path.dirname(__file__))
# All of this package, under both names that serve's folder has, and what runs a method in a thread.
_PACKAGE: Final = os.path.dirname(_OWN_CODE)
_NOT_THE_USERS: Final = (
    _PACKAGE + os.sep,
    os.path.realpath(os.path.join(_PACKAGE, "serve")) + os.sep,
)
_IN_THREADS: Final = os.path.join("concurrent", "futures", "thread.py")


def serialize_result(value: Any, what: str) -> Serialized:
    try:
        return codec.serialize(value)
    except Exception as error:
        raise explain_value(f"the result of {what}", value, error) from error


class Surroundings(Protocol):
    """What is asked of the process."""

    settings: Settings

    @property
    def membership(self) -> Membership: ...
    @property
    def thread(self) -> LoopThread: ...
    @property
    def segments(self) -> SegmentsClient: ...


class Outcomes:
    """Makes outcome messages; from the user's threads, but for `taken` and `peer_lost`."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._process = surroundings
        self._thread = surroundings.thread
        # What is named inside values that were sent, until their receiver has registered for it, by the receiver, the
        # call, and which of its values it is.
        self._pins: dict[tuple[ProcessId, int, int], list[Any]] = {}

    def forked(self, leave: Callable[..., NoReturn]) -> None:
        """This process is a fork of a worker: what would make an outcome leaves it."""
        makers = ("pickled", "success", "item_of", "failure", "cancelled", "no_actor")
        vars(self).update(dict.fromkeys(makers, leave))

    # ---- refs and handles inside values

    def _pin(self, run: RunningCall, index: int, refs: list[Any]) -> None:
        key = (run.link.peer, run.seq, index)
        self._pins.setdefault(key, []).extend(refs)
        if run.link.closed:
            # `peer_lost` may have been here before.
            self._pins.pop(key, None)

    def taken(self, peer: ProcessId, seq: int, index: int) -> None:
        """The receiver has registered."""
        self._pins.pop((peer, seq, index), None)

    @property
    def is_awaited(self) -> bool:
        """True while refs lie in values that were sent, and nobody has registered for them yet."""
        return bool(self._pins)

    def peer_lost(self, peer: ProcessId) -> None:
        for key in list(self._pins):
            if key[0] == peer:
                self._pins.pop(key, None)

    # ---- values

    def is_small(self, serialized: Serialized) -> bool:
        return serialized.nbytes <= self._process.settings.inline_limit and not serialized.refs

    def is_inline(self, serialized: Serialized) -> bool:
        """Whether its message can be made without blocking."""
        return serialized.nbytes <= self._process.settings.inline_limit

    def single(self, run: RunningCall, serialized: Serialized) -> AnyMessage:
        """The outcome of a call with one return. Blocks while a segment is written."""
        if self.is_small(serialized):
            return Reply(run.seq, codec.pack(serialized))
        return Outcome(run.seq, VALUES, [self._value(run, run.seq, serialized, 0)])

    def _value(self, run: RunningCall, seq: int, serialized: Serialized, index: int) -> Value:
        """One value as it travels, the caller's in any case. Blocks while a segment is written."""
        refs = [key_of(ref) for ref in serialized.refs] or None
        if self.is_inline(serialized):
            value = Value(INLINE, codec.pack(serialized), refs=refs)
        else:
            owner = run.link.peer
            size = self._process.segments.write(owner, seq, serialized)
            value = Value(SEGMENT, b"", owner, seq, size, refs, self._process.membership.node_id)
        if refs:
            self._pin(run, index, serialized.refs)
        return value

    def pickled(self, run: RunningCall, result: Any, returns: int) -> list[Serialized]:
        """The values of a call that returned: all of them, before the first is sent anywhere, or none."""
        if type(result) is GeneratorType:
            return Yielded(run.name, returns).take_all(cast("Generator[Any, Any, Any]", result))
        if returns == 1:
            return [serialize_result(result, run.name)]
        if returns == 0:
            return [codec.serialize(None)]
        if not isinstance(result, Iterable):
            raise ValueError(
                f"{run.name} has num_returns={returns} and returned {type(result).__name__}, not a sequence"
            )
        results: list[Any] = list(cast("Iterable[Any]", result))
        if len(results) != returns:
            raise ValueError(f"{run.name} has num_returns={returns} and returned {len(results)} values")
        return [serialize_result(one, run.name) for one in results]

    def success(self, run: RunningCall, pickled: list[Serialized]) -> AnyMessage:
        """The outcome of a call with these values. Blocks while segments are written."""
        if len(pickled) == 1:
            return self.single(run, pickled[0])
        values: list[Value] = []
        try:
            for index, serialized in enumerate(pickled):
                values.append(self._value(run, run.seq + index, serialized, index))
        except BaseException:
            for index, value in enumerate(values):
                self.taken(run.link.peer, run.seq, index)
                if value.kind == SEGMENT:
                    self._thread.run_soon(partial(self._process.segments.free, value.owner, value.seq))
            raise
        return Outcome(run.seq, VALUES, values)

    def item_of(self, run: RunningCall, index: int, serialized: Serialized) -> AnyMessage:
        """One streamed value. Blocks while a segment is written."""
        if self.is_small(serialized):
            return Item(run.seq, index, codec.pack(serialized))
        item = ItemValue(run.seq, index, self._value(run, run.next_large, serialized, index))
        if item.value.kind == SEGMENT:
            run.next_large = next_item(run.next_large)
        return item

    # ---- other ends

    def failure(self, run: RunningCall, error: BaseException) -> AnyMessage:
        """The user's error with its traceback as the caller will see it."""
        if type(error) is BehindValues:
            values = [self._value(run, run.seq + index, one, index) for index, one in enumerate(error.pickled)]
            return Outcome(run.seq, FAILED, [self._error_value(run, error.error), *values])
        return Outcome(run.seq, FAILED, [self._error_value(run, error)])

    @staticmethod
    def _error_value(run: RunningCall, error: BaseException) -> Value:
        title = None if run.actor is None else run.actor.title
        try:
            data = _failure_bytes(run.name, title, error)
        except BaseException as unreadable:
            # The error's own code raises as one looks at it. The call is answered all the same.
            kind = type(error).__name__
            text = f"{kind}, which cannot be shown: {type(unreadable).__name__} was raised as it was looked at"
            stand_in = exceptions.UnserializableException(kind, text, "")
            data = error_bytes(exceptions.TaskError(run.name, os.getpid(), title, text, stand_in))
        return Value(ERROR, data)

    @staticmethod
    def cancelled(seq: int) -> AnyMessage:
        return Outcome(seq, CANCELLED)

    @staticmethod
    def unbegun(message: Cancel) -> AnyMessage:
        """For a call that was taken back before it began, as this message wants."""
        return Outcome(message.seq, WITHDRAWN if message.unbegun else CANCELLED)

    @staticmethod
    def no_actor(seq: int, started: bool = False) -> AnyMessage:
        """The actor is not here (any more). `started`: the call had begun when it went."""
        return Outcome(seq, NO_ACTOR, count=int(started))


def _failure_bytes(name: str, title: str | None, error: BaseException) -> bytes:
    if issubclass(type(error), exceptions.TaskError):
        # It came from a call that this one made: its own origin is what matters.
        return error_bytes(error)
    told = traceback.TracebackException(type(error), error, users_part(error.__traceback__))
    _leave_out_own_frames(told)
    text = "".join(told.format())
    return error_bytes(exceptions.TaskError(name, os.getpid(), title, text, error))


def _leave_out_own_frames(told: traceback.TracebackException, depth: int = 64) -> None:
    """Of the error, its causes and members: what lies between and below the user's lines says nothing to him."""
    users = [frame for frame in told.stack if not frame.filename.startswith(_NOT_THE_USERS)]
    while users and users[0].filename.endswith(_IN_THREADS):
        del users[0]
    if users and len(users) < len(told.stack):
        told.stack = traceback.StackSummary.from_list(users)
    if depth:
        for other in (told.__cause__, told.__context__, *(told.exceptions or ())):
            if other is not None:
                _leave_out_own_frames(other, depth - 1)


def users_part(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame on that is not the runtime's own."""
    found = trace
    while found is not None and found.tb_frame.f_code.co_filename.startswith(_OWN_CODE):
        found = found.tb_next
    return found or trace


def key_of(ref: Any) -> HeldKey:
    """How a ref or a handle that was pickled inside a value is named in `Value.refs`."""
    if isinstance(ref, Entry):
        return ref.owner, ref.seq
    if isinstance(ref, ObjectRef):
        entry: Entry = ref._entry
        return entry.owner, entry.seq
    return ref.actor, ACTOR
