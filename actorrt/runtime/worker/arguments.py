"""The arguments of a call as its worker reads them: unpickled, with the values of refs in place."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any, cast

from actorrt.core.object_state import SHARED
from actorrt.types import ObjectKey, ProcessId
from actorrt.wire import codec
from actorrt.wire.messages import SEGMENT, ActorCall, StartActor, TaskCall, Value

from ..owner.calls import ALL_ARGUMENTS, unpack_arguments
from ..owner.entries import Entry
from ..owner.objects import new_borrows

WithArguments = ActorCall | TaskCall | StartActor


def plain_arguments(message: WithArguments) -> tuple[Any, Any] | None:
    """The arguments of a message where nothing has to be fetched first, else None."""
    if message.slots is not None:
        return None
    value = codec.deserialize(message.args)
    if type(value) is list:
        both = cast("list[Any]", value)
        return both[0], both[1]
    return value, None


def segment_entries(message: WithArguments) -> list[Entry]:
    """Entries for the arguments that lie in shared memory; they have to be mapped before `read_arguments`."""
    found: list[Entry] = []
    for _, value in message.slots or ():
        if value.kind == SEGMENT:
            entry = Entry(value.owner, value.seq)
            entry.settle(SHARED, value)
            found.append(entry)
    return found


def read_arguments(message: WithArguments, segments: list[Entry]) -> tuple[list[Any], dict[str, Any]]:
    """Unpickle arguments and fill in the values of refs. Raises the error of an argument that failed."""
    views = {(entry.owner, entry.seq): entry for entry in segments}
    slots = message.slots or []
    payload: bytes | memoryview = message.args
    for place, value in slots:
        if place == ALL_ARGUMENTS:
            payload = views[value.owner, value.seq].mapped()
    args, kwargs = unpack_arguments(payload)
    for place, value in slots:
        if place == ALL_ARGUMENTS:
            continue
        loaded = _load(value, views)
        if isinstance(place, int):
            args[place] = loaded
        else:
            kwargs[place] = loaded
    return args, kwargs


def _load(value: Value, views: dict[ObjectKey, Entry]) -> Any:
    if value.kind == SEGMENT:
        return views[value.owner, value.seq].load()
    return codec.deserialize(value.data)


@contextlib.contextmanager
def noting_borrows(owners: list[ProcessId]) -> Generator[None]:
    """Have the owners of what is unpickled in this context added to `owners`."""
    token = new_borrows.set(owners)
    try:
        yield
    finally:
        new_borrows.reset(token)


def to_confirm(owners: list[ProcessId], caller: ProcessId, own: ProcessId) -> set[ProcessId]:
    """Owners that have to confirm a borrow before the reply to this caller may leave."""
    return {owner for owner in owners if owner not in (caller, own)}
