"""The runtime of this process: one at most, started on first use. It is forgotten in a fork."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

from actorrt.types import ActorKey, ProcessId

if TYPE_CHECKING:
    from ..base.loop_thread import LoopThread
    from ..links.pipe_turns import PipeTurns

FORKED: Final = "this process was forked from one that uses actorrt: call actorrt.init() in it first"
NONE_YET: Final = "actorrt is not initialized in this process: call actorrt.init() first"
ENDED: Final = "actorrt was shut down: refs and handles end with the session that they were made in"


class ActorClients(Protocol):
    """The actors that are known to a session, an ActorClient each."""

    def client(self, actor: ActorKey, title: str, traits: Any) -> Any: ...
    def export(self, client: Any, collected: bool) -> None: ...
    def release_owned(self, record: Any) -> None: ...


class MappedSegments(Protocol):
    """The shared memory that a session has mapped."""

    def view_of(self, entry: Any) -> memoryview: ...


class UserSide(Protocol):
    """The thread that runs calls."""

    @property
    def pipe_turns(self) -> Callable[[], PipeTurns | None]: ...


class UsersThreads(Protocol):
    """The program of a session's process."""

    @property
    def user_side(self) -> UserSide: ...


class Session(Protocol):
    """What refs, generators and handles ask of the session that they belong to.

    An `entry` is an Entry, what is `awaited` an Entry or a Stream; `borrow` gives an ObjectRef.
    """

    @property
    def thread(self) -> LoopThread: ...
    @property
    def actors(self) -> ActorClients: ...
    @property
    def segments(self) -> MappedSegments: ...
    @property
    def program(self) -> UsersThreads: ...

    def get(self, refs: Any, timeout: float | None) -> list[Any]: ...
    def get_one(self, ref: Any, timeout: float | None) -> Any: ...
    def cancel(self, entry: Any, force: bool, recursive: bool) -> None: ...
    def check_mine(self, awaited: Any) -> None: ...
    def wait_blocked(self, gate: Any, timeout: float | None, what: str, entries: Sequence[Any] = ()) -> None: ...
    def flush(self) -> None: ...
    def request(self, entry: Any) -> None: ...
    async def map_segment(self, entry: Any) -> None: ...
    def export(self, entry: Any, collected: bool) -> None: ...
    def borrow(self, owner: ProcessId, seq: int) -> Any: ...
    def forked(self) -> None: ...


_runtime: Session | None = None
_had_one = False
_in_worker = False
_start: Callable[[], Session] | None = None


def maybe_runtime() -> Session | None:
    return _runtime


def runtime() -> Session:
    """The runtime of this process; a driver that has none starts one (auto-init)."""
    if _runtime is None:
        if _start is None:
            raise RuntimeError(NONE_YET)
        return _start()
    return _runtime


def session() -> Session:
    """The runtime that the refs and handles of this process belong to. RuntimeError if that ended: none is begun."""
    if _runtime is None:
        if _start is _refuse:
            _refuse()
        raise RuntimeError(ENDED if _had_one else NONE_YET)
    return _runtime


def has_ended() -> bool:
    """True if this process had a session that is over; False in a fork of it."""
    return _runtime is None and _had_one and _start is not _refuse


def set_runtime(runtime: Session | None) -> None:
    global _runtime, _had_one
    _runtime = runtime
    _had_one = True


@contextlib.contextmanager
def put_back() -> Generator[None]:
    """Whatever is set inside of the `with`: behind it this process has the runtime that it had before."""
    global _runtime, _had_one
    kept = _runtime, _had_one
    try:
        yield
    finally:
        _runtime, _had_one = kept


def in_worker() -> bool:
    """True in a process that runs other programs' calls: it never begins or ends a session."""
    return _in_worker


def set_in_worker() -> None:
    global _in_worker
    _in_worker = True


def on_first_use(start: Callable[[], Session] | None) -> None:
    """What `runtime()` calls where there is none yet."""
    global _start
    _start = start


def _forget() -> None:
    # What a task forks is a program of its own.
    global _in_worker
    _in_worker = False
    # What a fork inherits is inert: its links and thread exist in the parent only.
    if _runtime is not None:
        _runtime.forked()
        set_runtime(None)
        on_first_use(_refuse)


def _refuse() -> NoReturn:
    raise RuntimeError(FORKED)


os.register_at_fork(after_in_child=_forget)
