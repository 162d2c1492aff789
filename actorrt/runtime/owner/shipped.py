"""Which functions and classes this process has sent to others, and when those may forget them.

A definition is used by its decorated object, by calls that have no outcome yet, and by actors that may be started
again; each keeps it alive. Once it is garbage no call to it is under way, and each process that has it drops it.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Protocol

from actorrt.types import FunctionKey
from actorrt.wire.messages import Forget

from ..base.definitions import Definition
from ..links.link import Link
from ..links.peers import Peers
from . import current


class Surroundings(current.Session, Protocol):
    """What is asked of the process."""

    @property
    def peers(self) -> Peers: ...


class Shipped:
    """The definitions in use, by their content hash; `know` may be called from any thread."""

    def __init__(self, surroundings: Surroundings, unused: Callable[[FunctionKey], None]) -> None:
        """`unused(function_id)` is called on the runtime loop when no definition has this content any more."""
        self._process = surroundings
        self._thread = surroundings.thread
        self._unused = unused
        # How many definitions have this content. The lock makes one step of looking at it and of changing what a link
        # has: a call that comes meanwhile finds the definition either still there or to be sent again.
        self._lock = threading.RLock()
        self._users: dict[FunctionKey, int] = {}

    def __len__(self) -> int:
        return len(self._users)

    def know(self, definition: Definition) -> None:
        """Count `definition` as used until it is garbage."""
        mark = definition.mark
        if isinstance(mark, Mark) and mark.belongs_to(self):
            return
        # Pickles it, the first time: the user's code, and not under a lock.
        key = definition.function_id
        with self._lock:
            self._users[key] = self._users.get(key, 0) + 1
            definition.mark = Mark(self, key)

    def left(self, key: FunctionKey) -> None:
        """A definition is garbage; from any thread, also from within a garbage collection."""
        if current.maybe_runtime() is self._process:  # not so in a fork, nor after the end
            self._thread.release(partial(self._drop, key))

    def _drop(self, key: FunctionKey) -> None:
        told: list[Link] = []
        with self._lock:
            users = self._users.get(key, 0) - 1
            if users > 0:
                self._users[key] = users
                return
            self._users.pop(key, None)
            self._unused(key)
            for link in list(self._process.peers.links.values()):
                if key in link.defined:
                    link.defined.discard(key)
                    # In line behind the last call, and before a next definition.
                    link.push(Forget(key))
                    told.append(link)
        for link in told:
            link.flush_at_end_of_turn()


class Mark:
    """Lies in a definition that has been sent, and goes with it."""

    __slots__ = ("_key", "_shipped")

    def __init__(self, shipped: Shipped, key: FunctionKey) -> None:
        # Not held: a definition of a module outlives the session.
        self._shipped = weakref.ref(shipped)
        self._key = key

    def belongs_to(self, shipped: Shipped) -> bool:
        return self._shipped() is shipped

    def __del__(self, _ending: Callable[[], bool] = sys.is_finalizing) -> None:
        shipped = self._shipped()
        # As the interpreter ends, modules lose their names.
        if shipped is not None and not _ending():
            shipped.left(self._key)
