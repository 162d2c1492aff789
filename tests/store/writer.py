"""Write to a store without end and say what it has acknowledged: for tests that kill this."""

from __future__ import annotations

import asyncio
import sys

from actorrt.core.durable import Durable, Verdict, take_over
from actorrt.store.store import open_store


async def write_on(address: str, writer: str) -> None:
    store = open_store(address)
    first = take_over(await store.load(), "blue", writer)
    assert await store.write(first, "blue") == first.mark
    durable = Durable(first.mark, {})
    number = 0
    while True:
        number += 1
        for key in ("a", "b", f"many/{number % 50}"):
            durable.put(key, str(number).encode() * 200)
        write = durable.next()
        assert durable.answered(write, await store.write(write, "blue")) is Verdict.WRITTEN
        print(number, flush=True)


asyncio.run(write_on(sys.argv[1], sys.argv[2]))
