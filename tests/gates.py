"""A gate where requests stand until it is opened, so that a test and not a clock says how long they run."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request


class Gate:
    """An actor. It knows how many stand at it, and how many did at the most."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.came = asyncio.Event()
        self.waiting = self.most = 0

    async def passed(self) -> None:
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        self.came.set()
        try:
            await self.opened.wait()
        finally:
            self.waiting -= 1

    async def until(self, count: int) -> None:
        """Until so many stand here."""
        while self.waiting < count:
            self.came.clear()
            await self.came.wait()

    async def count(self) -> int:
        return self.waiting

    async def open(self) -> int:
        """Lets all pass, from now on; how many stood here at the most."""
        self.opened.set()
        return self.most


class Held:
    """For deployments whose requests can be held; each says which replica it is."""

    async def __call__(self, request: Request) -> int:
        return os.getpid()

    async def pid(self) -> int:
        return os.getpid()

    async def hold(self, gate: Any) -> int:
        await gate.passed.remote()
        return os.getpid()

    async def numbers(self, end: int, gate: Any = None) -> AsyncIterator[int]:
        """Those below `end`; where there is a gate, the second one has to pass it."""
        for number in range(end):
            if number == 1 and gate is not None:
                await gate.passed.remote()
            yield number
