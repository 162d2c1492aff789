"""A thread with a loop of its own, and how other threads and loops hand work to it.

What is handed over lies in a deque, with one wake-up for all of it, so that a blocked user loop never stalls what lives
on this one.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

import uvloop

from actorrt import exceptions

logger = logging.getLogger("actorrt")

CLOSING_TURNS: Final = 20


class LoopThread:
    """A loop, the thread that turns it, and what was handed to it. Methods are for any thread unless they say so."""

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.loop: asyncio.AbstractEventLoop = loop or uvloop.new_event_loop()
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        # Set once, before the thread ends: who waits for it is told that the session is over.
        self.closing = False
        self._inbox: deque[Callable[[], None]] = deque()
        self._woken = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._ident = 0

    def start(self) -> None:
        self.thread.start()

    def _run(self) -> None:
        self._ident = threading.get_ident()
        try:
            self.loop.run_forever()
            # What other threads have handed over since the last step is told that nothing comes of it.
            self.loop.run_until_complete(asyncio.sleep(0))
            for _ in range(CLOSING_TURNS):
                if not (left := asyncio.all_tasks(self.loop)):
                    break
                for task in left:
                    task.cancel()
                self.loop.run_until_complete(asyncio.wait(left, timeout=0.1))
        finally:
            self.loop.close()
            # The system may give it to another thread.
            self._ident = 0

    def begin_closing(self) -> None:
        """The thread will end: who waits for it from now on is told that the session is over."""
        self.closing = True

    def on_own_thread(self) -> bool:
        """True on this thread."""
        return threading.get_ident() == self._ident

    # ---- handing over

    def run_soon(self, work: Callable[[], None]) -> None:
        """Run `work` on the loop, after what was handed over before; one wake-up for all that wait."""
        self._inbox.append(work)
        if not self._woken:
            self._woken = True
            try:
                self.loop.call_soon_threadsafe(self._drain)
            except RuntimeError:
                # The loop is closed.
                return
            except BaseException:
                # A KeyboardInterrupt: whoever comes next wakes it.
                self._woken = False
                raise

    release = run_soon
    """The same, by what is called from within a garbage collection."""

    def _drain(self) -> None:
        # Cleared first: what is added from here on wakes the loop again.
        self._woken = False
        inbox = self._inbox
        for _ in range(len(inbox)):
            work = inbox.popleft()
            try:
                work()
            except Exception:
                logger.exception("a handed-over step failed")
        if inbox and not self._woken:
            self._woken = True
            self.loop.call_soon(self._drain)

    def spawn_here(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine on the loop, from the loop itself; it ends with the thread at the latest."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a step of the runtime failed", exc_info=task.exception())

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """The same from any thread."""
        self.run_soon(partial(self.spawn_here, work))

    # ---- waiting for it

    def new_future(self) -> concurrent.futures.Future[Any]:
        """A future that another thread may wait for."""
        return concurrent.futures.Future()

    def call_sync(self, work: Coroutine[Any, Any, Any], timeout: float | None = None) -> Any:
        """Run a coroutine on the loop and wait for its result in the calling thread.

        Raises RuntimeError on the loop's own thread, and where the loop is closed; ActorrtError if the session ends.
        """
        if self.on_own_thread():
            work.close()
            raise RuntimeError("the runtime's own thread cannot wait for itself")
        try:
            future = asyncio.run_coroutine_threadsafe(work, self.loop)
        except RuntimeError:
            # The loop is closed.
            work.close()
            raise
        try:
            return future.result(timeout)
        except concurrent.futures.CancelledError:
            if self.closing:
                raise exceptions.ActorrtError("actorrt was shut down") from None
            raise
        except BaseException:
            # Interrupted, or it took too long: nobody waits for it any more.
            future.cancel()
            raise
        finally:
            # An error would keep itself alive through this frame, and with it all that the frames above hold.
            del future

    async def call_async(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the loop and await its result on whatever loop runs here."""
        if asyncio.get_running_loop() is self.loop:
            return await work
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self.closing and (task is None or not task.cancelling()):
                raise exceptions.ActorrtError("actorrt was shut down") from None
            raise
        finally:
            del future

    # ---- ending

    async def end_tasks(self, timeout_s: float) -> None:
        """Cancel what was spawned but the task that calls this, and wait so long for it; on the loop."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)

    def stop(self, timeout: float) -> None:
        """Stop the loop and wait so long for the thread, unless it is the one that calls."""
        try:
            self.loop.call_soon_threadsafe(self.loop.stop)
        except RuntimeError:
            return
        if not self.on_own_thread():
            self.thread.join(timeout)
