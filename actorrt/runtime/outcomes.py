"""How an executed call's result becomes messages: values inline or in segments, errors with their traceback."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from actorrt import exceptions
from actorrt.wire import codec
from actorrt.wire.codec import Serialized
from actorrt.wire.messages import (
    CANCELLED,
    FAILED,
    INLINE,
    NO_ACTOR,
    SEGMENT,
    VALUES,
    AnyMessage,
    Item,
    ItemValue,
    Outcome,
    Reply,
    Value,
)

from .calls import error_bytes
from .context import RunningCall
from .explain import explain_value

if TYPE_CHECKING:
    from .runtime import Runtime

_OWN_CODE: Final = os.path.dirname(__file__)


def serialize_result(value: Any, what: str) -> Serialized:
    try:
        return codec.serialize(value)
    except Exception as error:
        raise explain_value(f"the result of {what}", value, error) from error


class Outcomes:
    """Makes outcome messages; from the user's threads."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        # Refs inside values that were sent, until their receiver has registered for them: (peer, seq) -> refs.
        self.pins: dict[tuple[bytes, int], list[Any]] = {}

    def is_small(self, serialized: Serialized) -> bool:
        return serialized.nbytes <= self._runtime.settings.inline_limit and not serialized.refs

    def value(self, run: RunningCall, seq: int, serialized: Serialized) -> Value:
        """One value as it travels. Blocks while a segment is written."""
        refs = None
        if serialized.refs:
            refs = [key for ref in serialized.refs if (key := _key(ref)) is not None]
            self.pins.setdefault((run.link.peer, run.seq), []).extend(serialized.refs)
        if serialized.nbytes <= self._runtime.settings.inline_limit:
            return Value(INLINE, codec.pack(serialized), refs=refs or None)
        owner = run.link.peer
        size = self._runtime.segments.write(owner, seq, serialized)
        return Value(SEGMENT, b"", owner, seq, size, refs or None)

    def success(self, run: RunningCall, result: Any, returns: int) -> AnyMessage:
        if returns == 1:
            serialized = serialize_result(result, run.name)
            if self.is_small(serialized):
                return Reply(run.seq, codec.pack(serialized))
            return Outcome(run.seq, VALUES, [self.value(run, run.seq, serialized)])
        if returns == 0:
            return Reply(run.seq, codec.serialize(None).data)
        if not isinstance(result, Iterable):
            raise ValueError(
                f"{run.name} has num_returns={returns} and returned {type(result).__name__}, not a sequence"
            )
        results = list(result)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        if len(results) != returns:  # pyright: ignore[reportUnknownArgumentType]
            raise ValueError(f"{run.name} has num_returns={returns} and returned {len(results)} values")  # pyright: ignore[reportUnknownArgumentType]
        values = [
            self.value(run, run.seq + index, serialize_result(one, run.name))
            for index, one in enumerate(results)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        ]
        return Outcome(run.seq, VALUES, values)

    def item(self, run: RunningCall, index: int, value: Any) -> AnyMessage:
        serialized = serialize_result(value, run.name)
        if self.is_small(serialized):
            return Item(run.seq, index, codec.pack(serialized))
        # Items have no number of their own at the caller: a segment of theirs is owned by the process that made it.
        return ItemValue(run.seq, index, self.owned_value(run, serialized))

    def owned_value(self, run: RunningCall, serialized: Serialized) -> Value:
        entry = self._runtime.objects.put_serialized(serialized)
        self._runtime.objects.export(entry, collected=True)
        pins = self.pins.setdefault((run.link.peer, run.seq), [])
        pins.append(entry)
        pins.extend(serialized.refs)
        refs = [key for ref in serialized.refs if (key := _key(ref)) is not None]
        refs.append((entry.owner, entry.seq))
        if entry.data is not None and isinstance(entry.data, Value):
            value: Value = entry.data
            return Value(SEGMENT, b"", value.owner, value.seq, value.size, refs)
        return Value(INLINE, entry.data, refs=refs)

    def failure(self, run: RunningCall, error: BaseException) -> AnyMessage:
        """The user's error with its traceback as the caller will see it."""
        if isinstance(error, exceptions.TaskError):
            # It came from a call that this one made: its own origin is what matters.
            return Outcome(run.seq, FAILED, [Value(2, error_bytes(error))])
        text = "".join(traceback.format_exception(type(error), error, _users_part(error.__traceback__)))
        title = None if run.actor is None else run.actor.title
        wrapped = exceptions.TaskError(run.name, os.getpid(), title, text, error)
        data = error_bytes(wrapped)
        return Outcome(run.seq, FAILED, [Value(2, data)])

    @staticmethod
    def cancelled(seq: int) -> AnyMessage:
        return Outcome(seq, CANCELLED)

    @staticmethod
    def no_actor(seq: int) -> AnyMessage:
        return Outcome(seq, NO_ACTOR)


def _users_part(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame on that is not the runtime's own."""
    found = trace
    while found is not None and found.tb_frame.f_code.co_filename.startswith(_OWN_CODE):
        found = found.tb_next
    return found or trace


def _key(ref: Any) -> tuple[bytes, int] | None:
    entry = getattr(ref, "_entry", None)
    return None if entry is None else (entry.owner, entry.seq)
