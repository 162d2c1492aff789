"""Structured concurrency over processes: a group whose children never outlive it."""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from actorrt import exceptions

from ..owner.references import ObjectRef
from ..owner.waiting import entry_of
from . import program

T = TypeVar("T")


class _State(Enum):
    NEW = auto()
    # Its body runs, and children are added.
    OPEN = auto()
    # A child has failed while the body ran, which was cancelled for it.
    BROKEN = auto()
    # The body has ended; the children are waited for.
    LEAVING = auto()
    # The same, and a child has failed.
    FAILED = auto()


_AFTER_FAILURE: Final = {_State.OPEN: _State.BROKEN, _State.LEAVING: _State.FAILED}
_AFTER_BODY: Final = {_State.OPEN: _State.LEAVING, _State.BROKEN: _State.FAILED}


class TaskGroup:
    """`async with TaskGroup() as group:` leaving it waits for all its children.

    `group.start(ref)` adds a call: `group.start(f.remote(1))`. If a child fails, or the body raises, the others are
    cancelled on whatever process they run, and their `finally` blocks have run when the group is left. The errors of
    children come as an ExceptionGroup, as with asyncio.TaskGroup; a cancellation of the body stays a cancellation.
    """

    def __init__(self) -> None:
        self._children: list[ObjectRef[Any]] = []
        self._state = _State.NEW
        self._changed: asyncio.Event | None = None
        self._task: asyncio.Task[Any] | None = None

    async def __aenter__(self) -> Self:
        if self._changed is not None:
            raise RuntimeError("a TaskGroup can be entered once")
        self._changed = asyncio.Event()
        self._task = asyncio.current_task()
        self._state = _State.OPEN
        return self

    def start(self, ref: ObjectRef[T]) -> ObjectRef[T]:
        """Add a call to the group, and give its ref back. Raises RuntimeError once the group is being left."""
        if not isinstance(ref, ObjectRef):  # pyright: ignore[reportUnnecessaryIsInstance]  users may not check types
            raise TypeError(f"start() takes the ref of a call, not {type(ref).__name__}")
        if self._state is not _State.OPEN:
            program.session().cancel(entry_of(ref), False, True)
            raise RuntimeError("the TaskGroup is not open: the call was cancelled")
        self._children.append(ref)
        ref.add_done_callback(self._child_done)
        return ref

    def _child_done(self, ref: ObjectRef[Any]) -> None:
        assert self._changed is not None
        self._changed.set()
        error = ref.exception()
        after = _AFTER_FAILURE.get(self._state)
        if error is None or isinstance(error, exceptions.TaskCancelledError) or after is None:
            return
        self._state = after
        self._cancel_children()
        # The body waits for something else, perhaps for ever: it is told, as in asyncio.TaskGroup.
        if after is _State.BROKEN and self._task is not None:
            self._task.cancel()

    def _cancel_children(self) -> None:
        runtime = program.maybe_runtime()
        for child in self._children:
            if runtime is not None and not child.done():
                runtime.cancel(entry_of(child), False, True)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        broken = self._state is _State.BROKEN
        self._state = _AFTER_BODY[self._state]
        assert self._task is not None
        cancelled = isinstance(error, asyncio.CancelledError)
        # The body was cancelled by the group itself, and by nobody else.
        if broken and self._task.uncancel() == 0 and cancelled:
            error, cancelled = None, False
        if error is not None:
            self._cancel_children()
        interrupted = await self._join()
        errors = self._errors()
        if interrupted and not cancelled:
            raise asyncio.CancelledError
        if cancelled:
            return False
        if error is not None:
            if not isinstance(error, Exception):
                return False
            errors.insert(0, error)
        if errors:
            raise ExceptionGroup("errors in a TaskGroup", errors) from None
        return False

    async def _join(self) -> bool:
        """Wait for every child, also while being cancelled; True if that happened."""
        assert self._changed is not None
        interrupted = False
        while not all(child.done() for child in self._children):
            self._changed.clear()
            if all(child.done() for child in self._children):
                break
            try:
                await self._changed.wait()
            except asyncio.CancelledError:
                interrupted = True
                self._cancel_children()
        return interrupted

    def _errors(self) -> list[Exception]:
        found: list[Exception] = []
        for child in self._children:
            error = child.exception()
            if isinstance(error, Exception) and not isinstance(error, exceptions.TaskCancelledError):
                found.append(error)
        return found
