"""How long tokens are on their way, and how many come: reads streams of chat completions over several connections.

Run as `python -m loadtests.llm.token_times PORT MODEL CONNECTIONS STREAMS TOKENS`; prints one line of JSON: the times
to first token, tokens a second, and, where the server stamps its events (`timings_per_token` of the simulated engine),
how long after its stamp each came. While bytes come they are only kept, with the time: they are read when all of them
are there, so that one stream does not wait for another's to be read. What was measured while this process, or the
machine, had no time left is no figure: it ends with an error then. Only loopback; all is bounded.
"""

import json
import re
import select
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from loadtests.chunk_delay import Chunks
from loadtests.llm.own_loop import BUSY
from loadtests.llm.tally import quantile

_LIMIT_S: Final = 120.0
_STAMP: Final = re.compile(rb'"emitted_ns":(\d+)')
_TEXT: Final = re.compile(rb'"(?:content|text)":"(?!")')
# Behind the line of a chunk: a header may end with a nought.
_END: Final = b"\r\n0\r\n\r\n"
# Where less of the machine is idle, what waits waits for a processor and not for the server.
_LEAST_IDLE: Final = 0.05


@dataclass(slots=True)
class Arrivals:
    """One stream as it came: pieces with the time of each, in nanoseconds of CLOCK_MONOTONIC."""

    asked_at: int
    pieces: list[tuple[int, bytes]] = field(default_factory=list[tuple[int, bytes]])

    def add(self, came_at: int, data: bytes) -> bool:
        """Whether these are the last bytes."""
        self.pieces.append((came_at, data))
        if len(data) < len(_END):
            data = b"".join([each for _, each in self.pieces[-len(_END) :]])
        return data.endswith(_END)

    @property
    def ended_at(self) -> int:
        return self.pieces[-1][0]

    def read(self) -> tuple[float, list[float]]:
        """Seconds to the first text, and those that stamped tokens were on their way. ValueError for no whole answer.

        An event counts as come when its last byte has.
        """
        chunks, begun_at = Chunks(), 0
        held: list[float] = []
        for came_at, data in self.pieces:
            events = chunks.feed(data)
            if not begun_at and _TEXT.search(events):
                begun_at = came_at
            held.extend((came_at - int(stamp)) / 1e9 for stamp in _STAMP.findall(events))
        if not chunks.ended:
            raise ValueError("the stream was cut short")
        if not begun_at:
            raise ValueError("there was no text in the stream")
        return (begun_at - self.asked_at) / 1e9, held


def request_of(model: str, tokens: int) -> bytes:
    asked = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": tokens}
    body = json.dumps(asked | {"stream": True, "ignore_eos": True, "timings_per_token": True}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def streams_of(port: int, request: bytes, connections: int, streams: int) -> list[Arrivals]:
    """So many streams by each of so many clients, one after the other. TimeoutError when they take too long.

    A connection each: some servers close theirs after a number of requests.
    """
    deadline = time.monotonic() + _LIMIT_S
    left = [streams] * connections
    open_: dict[int, tuple[socket.socket, Arrivals, int]] = {}
    done: list[Arrivals] = []
    with select.epoll() as poll:

        def ask(client: int) -> None:
            left[client] -= 1
            connection = socket.create_connection(("127.0.0.1", port), timeout=10)
            arrivals = Arrivals(time.monotonic_ns())
            connection.sendall(request)
            open_[connection.fileno()] = connection, arrivals, client
            poll.register(connection, select.EPOLLIN)

        for client in range(connections):
            ask(client)
        while open_:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(open_)} streams did not end within {_LIMIT_S:.0f} s")
            for descriptor, _ in poll.poll(1.0):
                connection, arrivals, client = open_[descriptor]
                data = connection.recv(262_144)
                if arrivals.add(time.monotonic_ns(), data) or not data:
                    del open_[descriptor]
                    poll.unregister(connection)
                    connection.close()
                    done.append(arrivals)
                    if left[client]:
                        ask(client)
    return done


def idle_share(before: tuple[float, float], after: tuple[float, float]) -> float:
    """How much of the machine's time nobody used between two looks of `machine_times`."""
    spent = after[1] - before[1]
    return (after[0] - before[0]) / spent if spent else 1.0


def machine_times() -> tuple[float, float]:
    """Time in which processors were idle, and all time, in ticks."""
    ticks = [float(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def main() -> None:
    port, connections, streams, tokens = int(sys.argv[1]), *map(int, sys.argv[3:6])
    request = request_of(sys.argv[2], tokens)
    streams_of(port, request, connections, 1)
    machine, own, began = machine_times(), time.process_time(), time.monotonic()
    arrived = streams_of(port, request, connections, streams)
    took = time.monotonic() - began
    busy, idle = (time.process_time() - own) / took, idle_share(machine, machine_times())
    first: list[float] = []
    held: list[float] = []
    for each in arrived:
        begun, late = each.read()
        first.append(begun)
        held += late
    # One client and its server take turns: there, what waits does not wait for a processor.
    paced = bool(held) and connections > 1
    if paced and busy > BUSY:
        sys.exit(f"the reader was the bottleneck: it used {busy:.0%} of its core (up to {BUSY:.0%} can be trusted)")
    if paced and idle < _LEAST_IDLE:
        sys.exit(f"the machine was the bottleneck: {idle:.0%} of it was idle (from {_LEAST_IDLE:.0%} on delays count)")
    told = {
        "ttft_p50_ms": quantile(first, 0.5),
        "ttft_p95_ms": quantile(first, 0.95),
        "held_p50_ms": quantile(held, 0.5),
        "held_p99_ms": quantile(held, 0.99),
    }
    figures: dict[str, float | None] = {name: None if each is None else each * 1000 for name, each in told.items()}
    lasted = (max(each.ended_at for each in arrived) - min(each.asked_at for each in arrived)) / 1e9
    print(json.dumps(figures | {"tokens_per_s": len(arrived) * tokens / lasted, "idle": idle, "reader_busy": busy}))


if __name__ == "__main__":
    main()
