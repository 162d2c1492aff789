"""How many requests of batches run at once: each holds a place, and gives it back while it waits to be made again."""

import asyncio


class Place:
    """One of them, held at first."""

    def __init__(self, free: asyncio.Semaphore) -> None:
        self._free = free
        self._is_held = True

    async def take_again(self) -> None:
        await self._free.acquire()
        self._is_held = True

    def give_back(self) -> None:
        if self._is_held:
            self._is_held = False
            self._free.release()


class Places:
    def __init__(self, number: int) -> None:
        self.number = number
        self._free = asyncio.Semaphore(number)

    async def take(self) -> Place:
        """Who asks first gets one first."""
        await self._free.acquire()
        return Place(self._free)
