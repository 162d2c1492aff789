"""The stacks of this process: each thread and each coroutine, and what it waits for.

They are taken by the runtime's thread, so that a thread that user code blocks is seen where it stands. Only code that
keeps the interpreter to itself is not: then the process does not answer, and its node says so.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from types import CodeType, FrameType
from typing import Any, Final

from actorrt.core.stacks import MOST_FRAMES, Gathering
from actorrt.core.state_scan import short_id
from actorrt.core.state_words import of_call

from ..base.thread_stacks import Stacks, shown, threads
from ..links.running import RunningCall
from .calls import Call
from .entries import Entry
from .generators import ObjectRefGenerator
from .inventory import Surroundings, awaited, title_of
from .references import ObjectRef, until_local
from .waiting import Waits

# So many coroutines are looked at in one turn of the loop.
SLICE: Final = 200
# How often it is tried to read a set that other threads change.
TRIES: Final = 1000
_ASYNCIO: Final = os.path.dirname(asyncio.__file__) + os.sep


async def stacks(process: Surroundings, loop: asyncio.AbstractEventLoop) -> Stacks:
    """Of a driver or worker; `loop` is the runtime's own, whose coroutines are left out."""
    runner = process.program.runner
    runs = {
        id(run.task): run
        for link in process.peers.all_links()
        for run in list(link.serving.values())
        if run.task is not None
    }
    now = None if runner is None else runner.running
    idle = runner is not None and now is None
    does = "" if now is None else _title(now)
    found = list(threads(_waits_for, does, "work" if idle else ""))
    gathering = Gathering()
    for number, task in enumerate(_every_task()):
        if not task.done() and task.get_loop() is not loop:
            _gather(gathering, task, runs.get(id(task)))
        if number % SLICE == SLICE - 1:
            await asyncio.sleep(0)
    return {"threads": found, "coroutines": gathering.found, "left_out": gathering.left_out}


# ---- coroutines


def _every_task() -> list[asyncio.Task[Any]]:
    """All tasks of asyncio in this process, whatever their loops."""
    names = ("_all_tasks", "_scheduled_tasks", "_eager_tasks")
    sets: list[Iterable[asyncio.Task[Any]]] = [getattr(asyncio.tasks, name, ()) for name in names]
    for _ in range(TRIES):
        try:
            return [task for each in sets for task in list(each)]
        except RuntimeError:
            continue  # another thread has made or ended one meanwhile
    return []


def _gather(gathering: Gathering, task: asyncio.Task[Any], run: RunningCall | None) -> None:
    frames = _inwards(task.get_coro())
    if not frames:
        # It is parked for the next call.
        return
    place = tuple((each.f_code.co_filename, each.f_lineno or 0) for each in frames)
    name = _title(run) if run is not None else f"{task.get_name()} {frames[0].f_code.co_qualname}"
    if not gathering.is_known(place, name):
        waits_for = _waits_for(list(reversed(frames))) or _future_in_words(task)
        gathering.add(place, name, [shown(each) for each in frames], waits_for)


def _inwards(coroutine: Any) -> list[FrameType]:
    """The frames of a coroutine and of what it awaits, the outermost first."""
    found: list[FrameType] = []
    while coroutine is not None and len(found) < MOST_FRAMES:
        frame = inner = None
        for kind, awaits in (("cr", "cr_await"), ("gi", "gi_yieldfrom"), ("ag", "ag_await")):
            frame = frame or getattr(coroutine, f"{kind}_frame", None)
            inner = inner if inner is not None else getattr(coroutine, awaits, None)
        if frame is not None:
            found.append(frame)
        coroutine = inner
    return found


def _title(run: RunningCall) -> str:
    return run.name if run.actor is None else f"{run.actor.title}.{run.name}"


# ---- what they wait for


def _waits_for(inner_first: list[FrameType]) -> str:
    """What a stack waits for, as far as its frames say it: a ref, or the function of asyncio that it is in."""
    for frame in inner_first:
        describe = _WAITS.get(frame.f_code)
        if describe is not None:
            return describe(frame.f_locals)
    innermost = inner_first[0] if inner_first else None
    if innermost is not None and innermost.f_code.co_filename.startswith(_ASYNCIO):
        return f"asyncio: {innermost.f_code.co_qualname}"
    return ""


def _future_in_words(task: asyncio.Task[Any]) -> str:
    waiter: Any = getattr(task, "_fut_waiter", None)
    if waiter is None:
        return ""
    if isinstance(waiter, asyncio.Task):
        return f"the asyncio task {waiter.get_name()}"
    children: Any = getattr(waiter, "_children", None)
    if children:
        return f"{len(children)} things gathered"
    return f"a {type(waiter).__name__}"  # pyright: ignore[reportUnknownArgumentType]


def _entry_in_words(entry: Entry) -> str:
    call: Call | None = entry.call
    if call is None:
        return f"object {short_id(entry.hex())} of process {short_id(entry.owner.hex())}"
    return f"object {short_id(entry.hex())}: {_call_in_words(call)}"


def _call_in_words(call: Call) -> str:
    state = of_call(call.state, "")
    if state:
        link = call.link
        return f"{title_of(call)}, which is at worker {short_id(link.peer.hex())} (pid {link.pid})"
    pending = awaited(call)
    if pending:
        return f"{title_of(call)}, which waits for object {short_id(pending[0].hex())}"
    return f"{title_of(call)}, which waits for a worker, or for its actor"


def _of_entry(variables: Mapping[str, Any]) -> str:
    entry: Any = variables.get("entry")
    return _entry_in_words(entry) if isinstance(entry, Entry) else "an object"


def _of_blocked(variables: Mapping[str, Any]) -> str:
    pending = [each for each in variables.get("entries") or () if isinstance(each, Entry) and not each.done]
    if not pending:
        return "values of calls"
    more = f" and {len(pending) - 1} others" if len(pending) > 1 else ""
    return _entry_in_words(pending[0]) + more


def _of_generator(variables: Mapping[str, Any]) -> str:
    generator: Any = variables.get("self")
    call: Any = getattr(getattr(generator, "stream", None), "call", None)
    return f"the next item of {_call_in_words(call)}" if isinstance(call, Call) else "the next item of a generator"


def _of_sleep(variables: Mapping[str, Any]) -> str:
    return f"asyncio.sleep({variables.get('delay')})"


_ref: Any = ObjectRef
_generator: Any = ObjectRefGenerator
_WAITS: Final[Mapping[CodeType, Callable[[Mapping[str, Any]], str]]] = {
    _ref.__await__.__code__: _of_entry,
    until_local.__code__: _of_entry,
    Waits.blocked.__code__: _of_blocked,
    _generator.__anext__.__code__: _of_generator,
    asyncio.sleep.__code__: _of_sleep,
}
