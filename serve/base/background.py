"""Work that goes on after the call that began it, whether or not anybody waits for it."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

logger = logging.getLogger("actorrt.serve")

# The loop itself keeps only weak references to tasks.
_running: set[asyncio.Task[Any]] = set()


def spawn(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Run it on this loop in an empty context: it is no part of the call that began it, nor cancelled with it."""
    task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
    _running.add(task)
    task.add_done_callback(_over)
    return task


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """What it gives or raises. It goes on, in an empty context as well, when who waits here is cancelled."""
    task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
    _running.add(task)
    task.add_done_callback(_running.discard)
    return await asyncio.shield(task)


def run_from_here(work: Coroutine[Any, Any, T]) -> T:
    """What it gives or raises, to a caller that blocks. Where a loop runs already, as in a notebook, it has one of its
    own in another thread.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def later(seconds: float, work: Callable[[], None]) -> threading.Timer:
    """Have it done on a thread of its own in so long. The program's end does not wait for it."""
    timer = threading.Timer(seconds, work)
    timer.daemon = True
    timer.start()
    return timer


def _over(task: asyncio.Task[None]) -> None:
    _running.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("a step in the background failed", exc_info=error)
