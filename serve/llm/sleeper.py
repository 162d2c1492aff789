"""Let a model that nobody asks give back what it holds, and wake it for the next request, which waits."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator
from enum import Enum, auto

from .engines.interface import Engine, EngineError

logger = logging.getLogger("actorrt.serve.replica")


class _Sleep(Enum):
    AWAKE = auto()
    ASLEEP = auto()  # by the engine's own sleep
    STOPPED = auto()  # in place of a sleep


class Sleeper:
    """Requests hold the engine by `awake`. One that has no sleep of its own is stopped, and started again to wake."""

    def __init__(self, engine: Engine, name: str, after_s: float | None) -> None:
        self._engine = engine
        self._name = name
        self._after_s = after_s
        self._users = 0
        self.waiting = 0
        self._state = _Sleep.AWAKE
        # Held while it falls asleep or wakes up.
        self._turning = asyncio.Lock()
        self._idle = asyncio.Event()
        self._idle.set()
        self._timer: asyncio.TimerHandle | None = None
        # Both are nobody's but the engine's: who asked for it may leave meanwhile.
        self._waking: asyncio.Task[None] | None = None
        self._falling: set[asyncio.Task[None]] = set()

    @property
    def asleep(self) -> bool:
        return self._state is not _Sleep.AWAKE

    def begin(self) -> None:
        """It is up, and idle from now on."""
        self._wait_for_sleep()

    async def end(self) -> None:
        """It falls asleep no more, and does not wake."""
        self._after_s = None
        if self._timer is not None:
            self._timer.cancel()
        tasks = {*self._falling} if self._waking is None else {*self._falling, self._waking}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    @contextlib.asynccontextmanager
    async def awake(self) -> AsyncGenerator[None]:
        """Within this it is awake. EngineError if it cannot be woken."""
        while self.asleep or self._turning.locked():
            self.waiting += 1
            try:
                await self._until_awake()
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
        await asyncio.shield(self._fall(only_idle=False))

    async def _until_awake(self) -> None:
        """All who wait wait for the same, which goes on when the first of them leaves."""
        if self._waking is None:
            self._waking = asyncio.create_task(self._wake())
            self._waking.add_done_callback(self._woken)
        await asyncio.shield(self._waking)

    async def _wake(self) -> None:
        async with self._turning:
            if not self.asleep:
                return
            if self._state is _Sleep.ASLEEP:
                try:
                    await self._engine.wake()
                except EngineError as error:
                    logger.warning("%s does not wake up, and is started again: %s", self._name, error)
                    self._state = _Sleep.STOPPED
                    await self._engine.stop()
            if self._state is _Sleep.STOPPED:
                await self._engine.start()
            self._state = _Sleep.AWAKE

    def _woken(self, waking: asyncio.Task[None]) -> None:
        self._waking = None
        if not waking.cancelled() and (error := waking.exception()) is not None:
            logger.error("%s could not be woken: %s", self._name, error)
        elif not self._users:
            self._wait_for_sleep()

    def _fall(self, *, only_idle: bool) -> asyncio.Task[None]:
        task = asyncio.create_task(self._fall_asleep(only_idle))
        self._falling.add(task)
        task.add_done_callback(self._falling.discard)
        return task

    async def _fall_asleep(self, only_idle: bool) -> None:
        async with self._turning:
            if self.asleep or (only_idle and self._users):
                return
            await self._idle.wait()
            try:
                await self._engine.sleep()
            except EngineError as error:
                logger.info("%s is stopped to sleep: %s", self._name, error)
                self._state = _Sleep.STOPPED
                await self._engine.stop()
            else:
                self._state = _Sleep.ASLEEP

    def _wait_for_sleep(self) -> None:
        if self._after_s is not None:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(self._after_s, self._sleep_of_itself)

    def _sleep_of_itself(self) -> None:
        if not self._users and not self._turning.locked():
            self._fall(only_idle=True).add_done_callback(self._told)

    def _told(self, falling: asyncio.Task[None]) -> None:
        if not falling.cancelled() and (error := falling.exception()) is not None:
            logger.error("%s could not be put to sleep", self._name, exc_info=error)
