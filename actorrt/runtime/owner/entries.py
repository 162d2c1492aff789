"""The state of an object in this process, and who waits for it.

An `Entry` is what this process knows about one object: that it is pending, its value, where that lies, or its error.
Refs to the same object share it. Who computes the value, and how it is counted across processes, is not decided here.
"""

from __future__ import annotations

import contextlib
import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any, Final, cast

from actorrt import exceptions
from actorrt.core.object_state import PENDING, PRESENT, RAISED, REMOTE, SHARED, State
from actorrt.types import ProcessId
from actorrt.wire import codec

from . import current

Waiter = Callable[["Entry"], None]
_waiters_lock = threading.Lock()
# Told of each entry that becomes an error: those who wait for many at once do not wait for the others then. Sets are
# replaced and not changed, so that they can be read without a lock.
_error_watchers: frozenset[Waiter] = frozenset()


def watch_errors(watcher: Waiter) -> None:
    global _error_watchers
    with _waiters_lock:
        _error_watchers |= {watcher}


def unwatch_errors(watcher: Waiter) -> None:
    global _error_watchers
    with _waiters_lock:
        _error_watchers -= {watcher}


class Entry:
    """One object as this process sees it. Its state changes by the table of core/object_state.py, whose rows `settle`
    and `asked_for` write out: they are on the way of every call.

    `data` by state: bytes; the Value that says in which segment it lies, and `view` once it is mapped here; or an
    exception or its pickled form.
    """

    __slots__ = ("__weakref__", "call", "data", "hold", "owner", "seq", "state", "view", "waiters")

    def __init__(self, owner: ProcessId, seq: int, state: State = PENDING, call: Any = None) -> None:
        self.owner = owner
        self.seq = seq
        self.state = state
        self.data: Any = None
        # What has to live as long as the value: refs inside it, the claim on its segment, a borrow.
        self.hold: Any = None
        # The call that will bring the value, for `cancel`.
        self.call = call
        self.view: memoryview | None = None
        self.waiters: list[Waiter] | None = None

    @property
    def done(self) -> bool:
        return self.state > PENDING

    def settle(self, state: State, data: Any) -> None:
        """The value is known. Everybody who waits is told, once; a second outcome is ignored."""
        if self.state > PENDING:
            return
        self.data = data
        self.state = state
        self.call = None
        if self.waiters is not None:
            with _waiters_lock:
                waiters, self.waiters = self.waiters, None
            for waiter in waiters or ():
                waiter(self)
        if state == RAISED:
            for watcher in _error_watchers:
                watcher(self)

    def asked_for(self) -> bool:
        """Somebody wants the value. True the first time if another process owns it: it is to be fetched."""
        with _waiters_lock:
            if self.state is not REMOTE:
                return False
            self.state = PENDING
            return True

    def present(self, data: bytes, refs: Any) -> None:
        """Its value is here, and `refs` to other objects inside of it live as long."""
        self.hold = refs
        self.settle(PRESENT, data)

    def add_waiter(self, waiter: Waiter) -> bool:
        """Have `waiter(entry)` called when the value is known; False if it is known already."""
        with _waiters_lock:
            if self.state > PENDING:
                return False
            if self.waiters is None:
                self.waiters = [waiter]
            else:
                self.waiters.append(waiter)
            if self.state > PENDING:
                # It was settled between the look and the append: whoever takes the list calls those in it.
                self.waiters.remove(waiter)
                return False
            return True

    def remove_waiter(self, waiter: Waiter) -> bool:
        """False if it does not wait any more."""
        with _waiters_lock:
            if self.waiters is not None:
                with contextlib.suppress(ValueError):
                    self.waiters.remove(waiter)
                    return True
        return False

    def load(self) -> Any:
        """The value, unpickled anew. Raises the call's error. The entry must be done and its segment mapped."""
        if self.state == PRESENT or self.state == SHARED:
            data = self.data if self.state == PRESENT else self.mapped()
            try:
                return codec.deserialize(data)
            except UNMADE as error:
                raise cannot_be_made(f"object {self.hex()}", error) from error
        raise self.error()

    def mapped(self) -> memoryview:
        """The bytes of a value that lies in a segment. Maps it again if it was given back for want of memory."""
        view = self.view
        return current.session().segments.view_of(self) if view is None else view

    def error(self) -> BaseException:
        error = self.data
        if not isinstance(error, BaseException):
            try:
                error = cast(BaseException, codec.deserialize(error))
            except Exception as raised:
                # Its class is not to be had here, or does not let itself be made again.
                return exceptions.UnserializableException(
                    "an error", f"it cannot be unpickled here: {type(raised).__name__}: {raised}", ""
                )
        else:
            # One of its own for each that it is raised in, else its traceback would keep all that they hold.
            error = copy.copy(error)
        if isinstance(error, exceptions.TaskError):
            return error.as_instanceof_cause()
        return error

    def hex(self) -> str:
        return f"{self.owner.hex()}{self.seq:016x}"


# What pickle raises, and classes whose constructor or module is another here than there. What a ref or handle inside
# of the value raises is about the session.
UNMADE: Final = (
    TypeError,
    AttributeError,
    ImportError,
    LookupError,
    ValueError,
    ArithmeticError,
    AssertionError,
    NameError,
    EOFError,
    OSError,
    pickle.UnpicklingError,
)


def cannot_be_made(what: str, error: Exception) -> exceptions.NotSerializableError:
    """The error for a value whose class does not let itself be made again from what was pickled."""
    said = f"{type(error).__name__}: {exceptions.text_of(error)}"
    return exceptions.NotSerializableError(what, "", f"it was pickled and cannot be unpickled here: {said}")


class Gate:
    """Holds a thread until `count` entries are done."""

    __slots__ = ("_arrived", "_count", "_lock")

    def __init__(self, count: int) -> None:
        self._count = count
        self._arrived: list[object] = []
        self._lock = threading.Lock()
        self._lock.acquire()

    def arrive(self, entry: object) -> None:
        self._arrived.append(entry)
        if len(self._arrived) >= self._count:
            self.open()

    def open(self) -> None:
        try:
            self._lock.release()
        except RuntimeError:
            # Two threads have both seen the last arrival.
            return

    def wait(self, timeout: float | None) -> bool:
        return self._lock.acquire(timeout=-1 if timeout is None else max(0.0, min(timeout, threading.TIMEOUT_MAX)))
