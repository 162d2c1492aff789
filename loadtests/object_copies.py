"""How fast an object comes from one node to another, beside a bare file download of aiohttp between two processes.

    python -m loadtests.object_copies [--mib 1024] [--rounds 5]

One process holds the object and the file, the other one takes them, over Unix sockets, in turn. The file lies in
memory, and what comes of it is written to memory, or (faster) thrown away.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, cast

import aiohttp
import uvloop
from aiohttp import web

from actorrt.runtime.links.link import Link
from actorrt.runtime.links.peers import Peers
from actorrt.runtime.memory.incoming import IncomingSegment
from actorrt.runtime.node.node_segments import NodeSegments
from actorrt.types import ProcessId, SegmentId
from actorrt.wire.messages import SEGMENT, AnyMessage, FreeCopy, ObjectIs, OpenSegment, Question, Value

MIB: Final = 1 << 20
HERE, THERE = ProcessId(b"the one."), ProcessId(b"another.")
KINDS: Final = ("copy", "download", "download, thrown away")


class Host:
    """A node, as far as it holds objects; and their owner."""

    def __init__(self, folder: Path, process: ProcessId, size: int) -> None:
        self.peers = Peers(cast("Any", self), process, "node", str(folder), "0")
        self.segments = NodeSegments(self.peers, 8 * size, str(folder / process.hex()))
        self._process, self._size = process, size

    def receive(self, link: Link, messages: list[AnyMessage]) -> None:
        for message in messages:
            self.segments.transfers.take(link.peer, cast("Any", message))

    async def answer(self, link: Link, question: Question) -> ObjectIs:
        return ObjectIs(Value(SEGMENT, b"", self._process, 1, self._size, None, self._process))

    def unwanted(self, link: Link, body: object) -> None: ...
    def link_lost(self, link: Link) -> None: ...


class _Reader:
    peer = ProcessId(b"a reader")
    closed = False


def _serve(folder: Path, size: int, ready: Connection) -> None:
    async def main() -> None:
        host = Host(folder, HERE, size)
        await host.peers.listen()
        made = IncomingSegment(size)
        for start in range(0, size, MIB):
            made.at(start, MIB)[:] = os.urandom(64) * (len(made.at(start, MIB)) // 64)
        host.segments.adopt_copy(1, made)
        host.segments.seal_copy((HERE, 1), 1, made.size, size)
        app = web.Application()
        app.router.add_get("/file", lambda request: _file(f"/proc/self/fd/{made.fd}", size))
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.UnixSite(runner, str(folder / "file.sock")).start()
        ready.send(True)
        await asyncio.to_thread(ready.recv)
        await runner.cleanup()
        host.segments.close()
        made.close()
        await host.peers.close()

    uvloop.run(main())


async def _file(path: str, size: int) -> web.StreamResponse:
    return web.FileResponse(path, chunk_size=MIB, headers={"Content-Type": "application/octet-stream"})


async def _copy(host: Host, size: int) -> float:
    reader = cast("Any", _Reader())
    began = time.perf_counter()
    place = await host.segments.open(reader, OpenSegment(HERE, 1, size, HERE))
    took = time.perf_counter() - began
    host.segments._act(
        host.segments._ledger.closed(SegmentId(place.creator, place.serial), _Reader.peer, 0.0)  # pyright: ignore[reportPrivateUsage]
    )
    host.segments.transfers.take(HERE, FreeCopy(HERE, 1, "measured"))
    await asyncio.sleep(0.05)
    return took


async def _download(folder: Path, size: int, *, keep: bool) -> float:
    connector = aiohttp.UnixConnector(str(folder / "file.sock"))
    async with aiohttp.ClientSession(connector=connector, read_bufsize=MIB) as session:
        began = time.perf_counter()
        target = os.memfd_create("download") if keep else -1
        try:
            at = 0
            async with session.get("http://node/file") as response:
                async for piece in response.content.iter_any():
                    if keep:
                        os.pwrite(target, piece, at)
                    at += len(piece)
            assert at == size
            return time.perf_counter() - began
        finally:
            if keep:
                os.close(target)


async def _measure(folder: Path, size: int, rounds: int) -> dict[str, list[float]]:
    host = Host(folder, THERE, size)
    took: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(rounds + 1):
        took["copy"].append(await _copy(host, size))
        took["download"].append(await _download(folder, size, keep=True))
        took["download, thrown away"].append(await _download(folder, size, keep=False))
    host.segments.close()
    await host.peers.close()
    # The first of each is to warm up.
    return {kind: times[1:] for kind, times in took.items()}


def measure(mib: int, rounds: int) -> dict[str, float]:
    """GiB a second, the median of each kind."""
    size = mib * MIB
    with tempfile.TemporaryDirectory() as name:
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=_serve, args=(Path(name), size, theirs))
        process.start()
        try:
            ours.recv()
            took = uvloop.run(_measure(Path(name), size, rounds))
        finally:
            ours.send(False)
            process.join(30)
    return {kind: mib / 1024 / statistics.median(times) for kind, times in took.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    found = measure(given.mib, given.rounds)
    for kind, speed in found.items():
        print(f"{kind:24} {speed:5.2f} GiB/s   {found['copy'] / speed:5.2f}")


if __name__ == "__main__":
    main()
