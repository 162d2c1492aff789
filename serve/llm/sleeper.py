"""Let a model that nobody asks give back what it holds, and wake it for the next request, which waits."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator

from .engines.interface import Engine, EngineError

logger = logging.getLogger("actorrt.serve.replica")


class Sleeper:
    """Requests hold the engine by `awake`. One that has no sleep of its own is stopped, and started again to wake."""

    def __init__(self, engine: Engine, name: str, after_s: float | None) -> None:
        self._engine = engine
        self._name = name
        self._after_s = after_s
        self._users = 0
        self.waiting = 0
        self.asleep = False
        self._stopped = False
        # Held while it falls asleep or wakes up.
        self._turning = asyncio.Lock()
        self._idle = asyncio.Event()
        self._idle.set()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """It is up, and idle from now on."""
        self._wait_for_sleep()

    async def end(self) -> None:
        """It falls asleep no more."""
        self._after_s = None
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    @contextlib.asynccontextmanager
    async def awake(self) -> AsyncGenerator[None]:
        """Within this it is awake. EngineError if it cannot be woken."""
        if self.asleep or self._turning.locked():
            self.waiting += 1
            try:
                async with self._turning:
                    await self._wake()
            finally:
                self.waiting -= 1
        self._users += 1
        self._idle.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._idle.set()
                self._wait_for_sleep()

    async def sleep(self) -> None:
        """Once nobody uses it; later requests wait, and wake it."""
        async with self._turning:
            if self.asleep:
                return
            await self._idle.wait()
            try:
                await self._engine.sleep()
            except EngineError as error:
                logger.info("%s is stopped to sleep: %s", self._name, error)
                self._stopped = True
                self.asleep = True
                await self._engine.stop()
            self.asleep = True

    async def _wake(self) -> None:
        if not self.asleep:
            return
        if self._stopped:
            await self._engine.start()
        else:
            await self._engine.wake()
        self.asleep = self._stopped = False

    def _wait_for_sleep(self) -> None:
        if self._after_s is not None:
            self._timer = asyncio.get_running_loop().call_later(self._after_s, self._fall_asleep)

    def _fall_asleep(self) -> None:
        if not self._users and not self._turning.locked():
            self._task = asyncio.create_task(self._sleep_of_itself())

    async def _sleep_of_itself(self) -> None:
        try:
            await self.sleep()
        except Exception:
            logger.exception("%s could not be put to sleep", self._name)
