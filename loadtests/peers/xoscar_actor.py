# pyright: basic, reportMissingImports=false
"""xoscar: one actor in a pool of one process, called from an asyncio driver, the only kind it has."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import uvloop
import xoscar

from loadtests.peers.contract import Calls


class SmallValue(xoscar.Actor):
    async def small_value(self) -> bytes:
        return b"ok"


@contextmanager
def calls(name: str) -> Generator[Calls]:
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)

    async def start() -> tuple[Any, Any]:
        pool = await xoscar.create_actor_pool("127.0.0.1", n_process=1)
        strategy = xoscar.allocate_strategy.ProcessIndex(1)
        actor = await xoscar.create_actor(
            SmallValue, address=pool.external_address, uid="small", allocate_strategy=strategy
        )
        return pool, actor

    pool, actor = loop.run_until_complete(start())

    async def one_at_a_time(n: int) -> None:
        for _ in range(n):
            await actor.small_value()

    async def in_flight(n: int) -> None:
        await asyncio.gather(*[actor.small_value() for _ in range(n)])

    try:
        yield Calls(
            lambda n: loop.run_until_complete(one_at_a_time(n)),
            lambda n: loop.run_until_complete(in_flight(n)),
        )
    finally:
        loop.run_until_complete(pool.stop())
