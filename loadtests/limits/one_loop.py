# pyright: basic, reportMissingImports=false
"""Coroutines of one loop that call each other through a queue: a future each, and arguments and results pickled.

No actors, no references, no order but the queue's, no errors and no cancellation: what a loop allows, not a system.
"""

import asyncio
import pickle
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager

import uvloop

from loadtests.peers.contract import Calls


async def small_value() -> bytes:
    return b"ok"


class Mailbox:
    """Runs what was put into it in the loop's next turn, as far as the first await of each."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[asyncio.Future[bytes], bytes]] = deque()

    def call(self, *arguments: object) -> asyncio.Future[bytes]:
        future = self._loop.create_future()
        if not self._waiting:
            self._loop.call_soon(self._run)
        self._waiting.append((future, pickle.dumps((arguments, {}))))
        return future

    def _run(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        for future, payload in waiting:
            arguments, named = pickle.loads(payload)
            try:
                small_value(*arguments, **named).send(None)
            except StopIteration as returned:
                future.set_result(pickle.dumps(returned.value))


@contextmanager
def inner_calls(name: str) -> Generator[Calls]:
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)

    async def make() -> Mailbox:
        return Mailbox()

    mailbox = loop.run_until_complete(make())

    async def one_at_a_time(n: int) -> None:
        for _ in range(n):
            pickle.loads(await mailbox.call())

    async def in_flight(n: int) -> None:
        for future in [mailbox.call() for _ in range(n)]:
            pickle.loads(await future)

    yield Calls(
        lambda n: loop.run_until_complete(one_at_a_time(n)),
        lambda n: loop.run_until_complete(in_flight(n)),
    )
