"""How long a chunk is on its way: reads `/paced` over several connections and sets each time stamp beside the clock.

Run as `python -m loadtests.chunk_delay PORT CONNECTIONS STREAMS`; prints one line of JSON. A process of its own, so
that its loop delays nothing but itself. Only loopback; the number of streams is bounded and so is the time.
"""

import asyncio
import json
import statistics
import sys
import time
from typing import Final

STAMP: Final = 20  # nineteen digits and a line feed
_LIMIT_S: Final = 60.0
_REQUEST: Final = b"GET /paced HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


class Chunks:
    """Takes bytes of a chunked HTTP/1.1 response, cut anywhere, and gives the data of its chunks. Nothing here waits.

    A response with a content-length, or one that ends with its connection, is refused with ValueError.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._in_head = True
        self.ended = False

    def feed(self, data: bytes) -> bytes:
        buffer = self._buffer
        buffer += data
        if self._in_head:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                return b""
            head = bytes(buffer[:end]).lower()
            if not head.startswith(b"http/1.1 200") or b"transfer-encoding: chunked" not in head:
                raise ValueError(f"not a chunked answer: {head[:200]!r}")
            del buffer[: end + 4]
            self._in_head = False
        found = bytearray()
        while not self.ended:
            line = buffer.find(b"\r\n")
            if line < 0:
                break
            size = int(bytes(buffer[:line]).split(b";")[0], 16)
            begin = line + 2
            if len(buffer) < begin + size + 2:
                break
            found += buffer[begin : begin + size]
            del buffer[: begin + size + 2]
            self.ended = size == 0
        return bytes(found)


async def read_stream(reader: asyncio.StreamReader, delays: list[float]) -> None:
    chunks, rest = Chunks(), b""
    while not chunks.ended:
        data = await reader.read(65536)
        now = time.monotonic_ns()
        if not data:
            raise ValueError("the stream was cut short")
        rest += chunks.feed(data)
        whole = len(rest) - len(rest) % STAMP
        delays.extend((now - int(rest[at : at + STAMP])) / 1e6 for at in range(0, whole, STAMP))
        rest = rest[whole:]


async def connection(port: int, streams: int, delays: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for _ in range(streams):
            writer.write(_REQUEST)
            await read_stream(reader, delays)
    finally:
        writer.close()


async def measure(port: int, connections: int, streams: int) -> list[float]:
    """Milliseconds from each chunk's time stamp to its arrival, of all streams after a first one per connection."""
    delays: list[float] = []
    async with asyncio.timeout(_LIMIT_S):
        await asyncio.gather(*[connection(port, 1, []) for _ in range(connections)])
        await asyncio.gather(*[connection(port, streams, delays) for _ in range(connections)])
    return delays


def main() -> None:
    port, connections, streams = map(int, sys.argv[1:4])
    delays = asyncio.run(measure(port, connections, streams))
    cuts = statistics.quantiles(delays, n=100)
    print(json.dumps({"chunks": len(delays), "p50_ms": cuts[49], "p99_ms": cuts[98]}))


if __name__ == "__main__":
    main()
