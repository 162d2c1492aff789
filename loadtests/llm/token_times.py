"""How long tokens are on their way: reads streams of chat completions over several connections.

Run as `python -m loadtests.llm.token_times PORT MODEL CONNECTIONS STREAMS TOKENS`; prints one line of JSON: the times
to first token, and, where the server stamps its events (`timings_per_token` of the simulated engine), how long after
its stamp each came. A process of its own, so that its loop delays nothing but itself. Only loopback; all is bounded.
"""

import asyncio
import json
import re
import sys
import time
from typing import Final

from loadtests.chunk_delay import Chunks
from loadtests.llm.tally import quantile

_LIMIT_S: Final = 120.0
_STAMP: Final = re.compile(rb'"emitted_ns":(\d+)')
_TEXT: Final = re.compile(rb'"(?:content|text)":"(?!")')


async def read_stream(reader: asyncio.StreamReader, asked_at: float, first: list[float], held: list[float]) -> None:
    chunks, begun = Chunks(), False
    while not chunks.ended:
        data = await reader.read(262_144)
        now = time.monotonic_ns()
        if not data:
            raise ValueError("the stream was cut short")
        events = chunks.feed(data)
        if not begun and _TEXT.search(events):
            begun = True
            first.append(now / 1e9 - asked_at)
        held.extend((now - int(stamp)) / 1e9 for stamp in _STAMP.findall(events))
    if not begun:
        raise ValueError("there was no text in the stream")


async def connection(port: int, body: bytes, streams: int, first: list[float], held: list[float]) -> None:
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    for _ in range(streams):
        # A connection each: some servers close theirs after a number of requests.
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            asked_at = time.monotonic()
            writer.write(request)
            await read_stream(reader, asked_at, first, held)
        finally:
            writer.close()


async def measure(
    port: int, model: str, connections: int, streams: int, tokens: int
) -> tuple[list[float], list[float]]:
    """Seconds to the first text, and those that stamped tokens were on their way, after one round to warm up."""
    asked = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": tokens}
    body = json.dumps(asked | {"stream": True, "ignore_eos": True, "timings_per_token": True}).encode()
    first: list[float] = []
    held: list[float] = []
    async with asyncio.timeout(_LIMIT_S):
        await asyncio.gather(*[connection(port, body, 1, [], []) for _ in range(connections)])
        await asyncio.gather(*[connection(port, body, streams, first, held) for _ in range(connections)])
    return first, held


def main() -> None:
    port, connections, streams, tokens = int(sys.argv[1]), *map(int, sys.argv[3:6])
    first, held = asyncio.run(measure(port, sys.argv[2], connections, streams, tokens))
    told = {
        "ttft_p50_ms": quantile(first, 0.5),
        "ttft_p95_ms": quantile(first, 0.95),
        "held_p50_ms": quantile(held, 0.5),
        "held_p99_ms": quantile(held, 0.99),
    }
    print(json.dumps({name: None if value is None else value * 1000 for name, value in told.items()}))


if __name__ == "__main__":
    main()
