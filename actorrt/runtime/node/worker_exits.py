"""Why processes ended, for those who ask later or too early."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

from actorrt.types import ProcessId
from actorrt.wire.messages import Exit

REMEMBERED: Final = 4096
UNKNOWN: Final = Exit("its process is not known to the node", known=False)


class WorkerExits:
    """The last ends of a node's workers, and who waits for one. Runs on the node's loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._exits: OrderedDict[ProcessId, Exit] = OrderedDict()
        self._waiters: dict[ProcessId, set[asyncio.Future[None]]] = {}

    def ended(self, process: ProcessId, end: Exit) -> None:
        self._exits[process] = end
        while len(self._exits) > REMEMBERED:
            self._exits.popitem(last=False)
        for future in self._waiters.pop(process, ()):
            if not future.done():
                future.set_result(None)

    async def wait(self, process: ProcessId) -> Exit:
        """The end of a process that has not been reaped yet."""
        if process not in self._exits:
            future: asyncio.Future[None] = self._loop.create_future()
            waiters = self._waiters.setdefault(process, set())
            waiters.add(future)
            try:
                await future
            finally:
                waiters.discard(future)
        return self.known(process)

    def known(self, process: ProcessId) -> Exit:
        """The end of a process that is not there any more. Of one that never was, or that ended long ago: UNKNOWN."""
        return self._exits.get(process, UNKNOWN)
