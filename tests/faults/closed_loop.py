"""Clients that ask again and again while something is killed."""

import asyncio
from collections import Counter

import httpx


class Load:
    """Each over a connection that it keeps. `broken` counts answers that were cut short; with `may_break` off they fail
    the test."""

    def __init__(self, url: str, clients: int = 12, *, may_break: bool = False) -> None:
        self.url = url
        self.answers: list[httpx.Response] = []
        self.broken = 0
        self.stop = False
        self._clients = clients
        self._may_break = may_break
        self._more = asyncio.Event()

    async def __aenter__(self) -> "Load":
        self._client = httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=self._clients))
        self._tasks = [asyncio.ensure_future(self._ask()) for _ in range(self._clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop = True
        await asyncio.gather(*self._tasks)
        await self._client.aclose()

    async def _ask(self) -> None:
        while not self.stop:
            try:
                self.answers.append(await self._client.get(self.url))
            except httpx.TransportError:
                if not self._may_break:
                    raise
                self.broken += 1
            self._more.set()

    async def until(self, answers: int) -> None:
        """So many more answers."""
        wanted = len(self.answers) + answers
        while len(self.answers) < wanted:
            self._more.clear()
            more = asyncio.ensure_future(self._more.wait())
            # One that has failed says so here.
            done, _ = await asyncio.wait([more, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
            more.cancel()
            for task in done - {more}:
                await task

    def statuses(self) -> Counter[int]:
        return Counter(answer.status_code for answer in self.answers)
