"""The runtime of this process: one at most, started on first use. It is forgotten in a fork."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from .runtime import Runtime

FORKED: Final = "this process was forked from one that uses actorrt: call actorrt.init() in it first"
NONE_YET: Final = "actorrt is not initialized in this process: call actorrt.init() first"
ENDED: Final = "actorrt was shut down: refs and handles end with the session that they were made in"

_runtime: Runtime | None = None
_had_one = False
_in_worker = False
_start: Callable[[], Runtime] | None = None


def maybe_runtime() -> Runtime | None:
    return _runtime


def runtime() -> Runtime:
    """The runtime of this process; a driver that has none starts one (auto-init)."""
    if _runtime is None:
        if _start is None:
            raise RuntimeError(NONE_YET)
        return _start()
    return _runtime


def session() -> Runtime:
    """The runtime that the refs and handles of this process belong to. RuntimeError if that ended: none is begun."""
    if _runtime is None:
        if _start is _refuse:
            _refuse()
        raise RuntimeError(ENDED if _had_one else NONE_YET)
    return _runtime


def has_ended() -> bool:
    """True if this process had a session that is over; False in a fork of it."""
    return _runtime is None and _had_one and _start is not _refuse


def set_runtime(runtime: Runtime | None) -> None:
    global _runtime, _had_one
    _runtime = runtime
    _had_one = True


def in_worker() -> bool:
    """True in a process that runs other programs' calls: it never begins or ends a session."""
    return _in_worker


def set_in_worker() -> None:
    global _in_worker
    _in_worker = True


def on_first_use(start: Callable[[], Runtime] | None) -> None:
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
