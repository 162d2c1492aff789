"""What a `def` task may change of its process unnoticed by the next one: signals, environment, folder, umask, streams.

To look at all that after each task would cost more than most of what else is done for it. So the few functions by which
Python code changes it take a note, and it is undone only then. What the import of a task's module changes stays, as the
module does. An actor has its process for itself and keeps what it changes.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import signal
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

# All that can be caught, as numbers.
SIGNALS: Final = sorted(map(int, signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}))
# What is behind `signal`, which makes enum members of all that it gives and takes ten times as long for it.
_signal: Final[Any] = importlib.import_module("_signal")
DEFAULT: Final[int] = _signal.SIG_DFL
handler_of: Final = _signal.getsignal
set_handler: Final = _signal.signal
set_mask: Final = _signal.pthread_sigmask
_alarm: Final = signal.alarm
_umask: Final = os.umask

# `os.environ` calls the first two.
_CHANGERS: Final[tuple[tuple[ModuleType, str], ...]] = (
    (os, "putenv"),
    (os, "unsetenv"),
    (os, "chdir"),
    (os, "fchdir"),
    (os, "umask"),
    (signal, "signal"),
    (signal, "alarm"),
    (signal, "setitimer"),
    (signal, "pthread_sigmask"),
)


class Surroundings:
    """Of the main thread of a worker. `note` says what is right from now on, `restore` makes it so again."""

    def __init__(self) -> None:
        self._interrupt: Any = handler_of(signal.SIGINT)
        self.note()
        for module, name in _CHANGERS:
            function: Callable[..., Any] = getattr(module, name)
            noting = self._noting(function)
            # Where it is found by its name too, so that it can be sent to other processes.
            home = sys.modules.get(function.__module__)
            if getattr(home, name, None) is function:
                setattr(home, name, noting)
            setattr(module, name, noting)

    def _noting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def noting(*args: Any, **kwargs: Any) -> Any:
            self._changed = True
            return function(*args, **kwargs)

        return noting

    def note(self) -> None:
        self._changed = False
        self._handlers: dict[int, Any] = {number: handler_of(number) for number in SIGNALS}
        # A task is cancelled by it, whatever the import of its module thinks of that.
        self._handlers[signal.SIGINT] = self._interrupt
        self._mask: set[int] = set_mask(signal.SIG_BLOCK, ())
        self._environ: Any = os.environ
        self._variables = dict(_raw(os.environ))
        self._folder = _folder()
        self._umask = _current_umask()
        self._streams = sys.stdin, sys.stdout, sys.stderr

    def restore(self) -> None:
        """After a task."""
        # The handler of cancellations is looked at in any case: code in C may have set another one.
        if self._changed or os.environ is not self._environ or handler_of(2) is not self._interrupt:
            self._restore()
            self._changed = False
        stdin, stdout, stderr = self._streams
        if sys.stdout is not stdout or sys.stderr is not stderr or sys.stdin is not stdin:
            sys.stdin, sys.stdout, sys.stderr = stdin, stdout, stderr

    def _restore(self) -> None:
        for number, handler in self._handlers.items():
            # None is what was not set from Python, and cannot be from here.
            if handler is not None and handler_of(number) != handler:
                set_handler(number, handler)
        # What a task has set going for itself would hit the next one.
        _alarm(0)
        if set_mask(signal.SIG_BLOCK, ()) != self._mask:
            set_mask(signal.SIG_SETMASK, self._mask)
        if os.environ is not self._environ:
            os.environ = self._environ  # noqa: B003  the one that it was
        if _raw(self._environ) != self._variables:
            self._restore_variables()
        if _folder() != self._folder:
            with contextlib.suppress(OSError):
                os.chdir(self._folder)
        _umask(self._umask)

    def _restore_variables(self) -> None:
        decode = os.fsdecode
        for name in [name for name in _raw(self._environ) if name not in self._variables]:
            del self._environ[decode(name)]
        now = _raw(self._environ)
        for name, value in self._variables.items():
            if now.get(name) != value:
                self._environ[decode(name)] = decode(value)


def _raw(environ: Any) -> dict[bytes, bytes]:
    """The bytes behind `os.environ`, which are compared in a microsecond."""
    return environ._data


def _current_umask() -> int:
    # To ask by setting another one would be felt by the files that other threads make just then.
    with open("/proc/self/status", "rb") as status:
        for line in status:
            if line.startswith(b"Umask:"):
                return int(line.split()[1], 8)
    before = _umask(0o077)
    _umask(before)
    return before


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""
