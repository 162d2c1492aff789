"""Modules that a program's `sys.path` has found since a worker was made.

A worker begins with the path of its program. Where a module is not found, its program is asked once more: what it has
added meanwhile is added here too, and looked through.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final, Protocol

from actorrt import exceptions
from actorrt.wire.any_text import as_text
from actorrt.wire.messages import Facts, Query

from ..base.loop_thread import LoopThread
from ..links.link import Link

# A program that does not answer has added nothing.
ANSWER_S: Final = 5.0


class Surroundings(Protocol):
    """What is asked of the process."""

    @property
    def node(self) -> Link: ...
    @property
    def thread(self) -> LoopThread: ...


class ProgramPaths:
    """A finder of `sys.meta_path`, behind all others."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._process = surroundings
        self._thread = surroundings.thread

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module, if the program has added a folder in which it lies."""
        # A package's own modules lie where it lies.
        if path is not None or self._thread.on_own_thread() or not self._follow():
            return None
        return importlib.machinery.PathFinder.find_spec(fullname, None, target)

    def _follow(self) -> bool:
        """Add what the program has added; True if there was something."""
        process = self._process
        with contextlib.suppress(exceptions.ActorrtError, TimeoutError, RuntimeError):
            answer: Facts = self._thread.call_sync(process.node.ask(Query("sys_path")), ANSWER_S)
            added = [folder for folder in map(as_text, answer.data) if folder not in sys.path]
            sys.path.extend(added)
            if added:
                # A folder that was looked for before it was there.
                importlib.machinery.PathFinder.invalidate_caches()
            return bool(added)
        return False
