"""The loop of a session in local mode, which has no thread of its own: whoever waits turns it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

from actorrt import exceptions

from ..base.loop_thread import LoopThread
from .local_futures import LocalFuture

STEP_S: Final = 0.001


class LocalThread(LoopThread):
    """What is handed to another thread elsewhere is done at once here."""

    def __init__(self) -> None:
        super().__init__("actorrt-local")
        # The loop that turns the session's, while it has something to do.
        self._pumped_by: asyncio.AbstractEventLoop | None = None

    def run_soon(self, work: Callable[[], None]) -> None:
        work()

    release = run_soon

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.loop_here().create_task(work)

    def call_sync(self, work: Coroutine[Any, Any, Any], timeout: float | None = None) -> Any:
        """Nothing in local mode has to wait for an answer: the coroutine ends in its first step."""
        try:
            work.send(None)
        except StopIteration as done:
            return done.value
        work.close()
        raise RuntimeError("local mode cannot wait here")

    async def call_async(self, work: Coroutine[Any, Any, Any]) -> Any:
        return await work

    def new_future(self) -> concurrent.futures.Future[Any]:
        return LocalFuture(self)

    def loop_here(self) -> asyncio.AbstractEventLoop:
        """The loop that runs here, or the session's."""
        try:
            return asyncio.get_running_loop()
        except RuntimeError:
            return self.loop

    def pump(self) -> None:
        """Somebody is about to wait: what began where no loop ran goes on while a loop of the program's own runs."""
        here = asyncio._get_running_loop()
        if here is None or here is self.loop or (self._pumped_by is here and not here.is_closed()):
            return
        if not self.loop.is_running() and asyncio.all_tasks(self.loop):
            self._pumped_by = here
            here.call_soon(self._pump_once, here)

    def _pump_once(self, here: asyncio.AbstractEventLoop) -> None:
        """One turn of the session's loop within a turn of the loop that runs."""
        asyncio._set_running_loop(None)
        try:
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()
        finally:
            asyncio._set_running_loop(here)
        if asyncio.all_tasks(self.loop):
            here.call_later(STEP_S, self._pump_once, here)
        else:
            self._pumped_by = None

    def turn(self, ready: Callable[[], bool], timeout: float | None, what: str) -> None:
        """Turn the session's loop until `ready()`. GetTimeoutError after `timeout` seconds."""
        if ready():
            return
        if on_a_loop():
            raise RuntimeError(
                f"in local mode there is one loop, and waiting for {what} here would stop it: use `await` instead"
            )
        until = None if timeout is None else time.monotonic() + timeout
        if not self.loop.run_until_complete(_turned(ready, until)):
            raise exceptions.GetTimeoutError(what, timeout or 0.0)

    def finish(self, tasks: Iterable[asyncio.Task[None]]) -> None:
        """Turn the session's loop until those of these tasks that are on it have ended, where it can be turned."""
        mine = [task for task in tasks if task.get_loop() is self.loop]
        if mine and not self.loop.is_running() and not on_a_loop():
            self.loop.run_until_complete(asyncio.wait(mine))

    def close(self) -> None:
        if not self.loop.is_running():
            self.loop.close()

    def turns_elsewhere(self) -> bool:
        """True if the session's loop runs in another thread."""
        return self.loop.is_running() and not on_a_loop()


def on_a_loop() -> bool:
    """True in code that runs on a loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _turned(ready: Callable[[], bool], until: float | None) -> bool:
    while not ready():
        if until is not None and time.monotonic() >= until:
            return False
        await asyncio.sleep(STEP_S)
    return True
