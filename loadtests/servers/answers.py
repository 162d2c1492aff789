# pyright: basic, reportMissingImports=false
"""What every server of the comparison answers, as Starlette responses. Imported in several environments.

`/` answers "ok"; `/stream` sends 100 chunks, each in a loop turn of its own; `/paced` sends 100 chunks 5 ms apart, each
of them the time at which it was handed over (`time.monotonic_ns`, one clock for all processes of the machine).
The paths of BODIES are answered with so many bytes; a POST to `/taken` with how long the body was that it read whole.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final

CHUNKS: Final = 100
PACE_S: Final = 0.005
CHUNK: Final = b"data: a token maybe\n"
BODIES: Final = {"/100k": bytes(100 * 1024), "/1m": bytes(1024 * 1024), "/10m": bytes(10 * 1024 * 1024)}
TAKEN: Final = "/taken"


async def turns() -> AsyncIterator[bytes]:
    for _ in range(CHUNKS):
        yield CHUNK
        await asyncio.sleep(0)


async def paced() -> AsyncIterator[bytes]:
    for _ in range(CHUNKS):
        await asyncio.sleep(PACE_S)
        yield b"%019d\n" % time.monotonic_ns()
