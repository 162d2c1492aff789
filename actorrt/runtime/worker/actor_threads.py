"""To which actor a thread belongs that user code has started, where several actors share a process.

A call's context does not reach a new thread, so a thread notes the actor whose code starts it. Threads of pools belong
to no actor: what they run does, and has the context of the code that handed it over.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.thread import _worker as _pool_worker  # pyright: ignore[reportPrivateUsage]
from typing import Any, Final, ParamSpec, TypeVar, cast

from ..links.running import running_call

P = ParamSpec("P")
T = TypeVar("T")

_ACTOR: Final = "_actorrt_actor"


def actor_here() -> Any:
    """The Instance whose code runs in this thread and context; None if it is no actor's, or not known."""
    run = running_call.get()
    return run.actor if run is not None else getattr(threading.current_thread(), _ACTOR, None)


def note_actors_of_threads() -> None:
    """From now on, each thread of this process knows which actor has started it."""
    start = threading.Thread.start

    def start_for_actor(self: threading.Thread) -> None:
        actor = actor_here()
        if actor is not None and getattr(self, "_target", None) is not _pool_worker:
            vars(self)[_ACTOR] = actor
        start(self)

    cast(Any, threading.Thread).start = start_for_actor


class ContextThreads(ThreadPoolExecutor):
    """The threads of `loop.run_in_executor(None, ...)`: what runs there has the context of the code that asked."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        return super().submit(contextvars.copy_context().run, fn, *args, **kwargs)
