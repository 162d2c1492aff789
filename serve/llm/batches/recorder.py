"""Write down the answers of a batch as they come: all that came during one write are the next."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from .database import StorageError
from .store import Done

logger = logging.getLogger("actorrt.serve.llm")

# After a write that failed.
AGAIN_S: Final = 1.0
MOST_AGAIN_S: Final = 30.0
_Waiting = tuple[Done, "asyncio.Future[None]"]


class Recorder:
    def __init__(self, write: Callable[[Sequence[Done]], Awaitable[None]]) -> None:
        """`write`: StorageError if it cannot now, LostError if it cannot any more."""
        self._write = write
        self._waiting: list[_Waiting] = []
        self._writing: asyncio.Task[None] | None = None

    async def record(self, done: Done) -> None:
        """Returns once it is written. It will be, also if who waits here is cancelled. LostError if it is in vain."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((done, written))
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write_all())
        await written

    async def flush(self) -> None:
        """Returns once all is written, or is in vain."""
        while self._writing is not None:
            await asyncio.wait({self._writing})

    def close(self) -> None:
        """What is not written is left."""
        if self._writing is not None:
            self._writing.cancel()

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, []
                await self._write_some(waiting)
        finally:
            self._writing = None
            for _, written in self._waiting:
                written.cancel()

    async def _write_some(self, waiting: list[_Waiting]) -> None:
        pause_s = AGAIN_S
        error: Exception | None = None
        while True:
            try:
                await self._write([done for done, _ in waiting])
                break
            except StorageError as failed:
                logger.error("answers of a batch wait to be written: %s", failed)
            except Exception as failed:
                error = failed
                break
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, MOST_AGAIN_S)
        for _, written in waiting:
            if written.done():
                continue
            if error is None:
                written.set_result(None)
            else:
                written.set_exception(error)
