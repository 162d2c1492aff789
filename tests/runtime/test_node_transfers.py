"""Nodes that take objects from each other over real sockets: the bytes, breaks, parts that are served, and the end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop

from actorrt import exceptions
from actorrt.runtime.links.link import Link
from actorrt.runtime.links.peers import Peers
from actorrt.runtime.memory.incoming import IncomingSegment
from actorrt.runtime.node import node_transfers
from actorrt.runtime.node.node_segments import NodeSegments
from actorrt.types import ObjectKey, ProcessId
from actorrt.wire.messages import SEGMENT, AnyMessage, GetObject, ObjectIs, OpenSegment, Question, SegmentAt, Value

SIZE = 24 << 20


class Host:
    """A node, as far as it holds objects; and an owner on it."""

    def __init__(self, folder: Path, name: str, limit: int = 1 << 28) -> None:
        self.process = ProcessId(name.encode().ljust(8, b"."))
        self.peers = Peers(cast("Any", self), self.process, "node", str(folder), "0")
        self.segments = NodeSegments(self.peers, limit, str(folder / name))
        self.places: dict[int, ProcessId] = {}

    def receive(self, link: Link, messages: list[AnyMessage]) -> None:
        for message in messages:
            self.segments.transfers.take(link.peer, cast("Any", message))

    async def answer(self, link: Link, question: Question) -> ObjectIs:
        assert isinstance(question, GetObject)
        if question.seq not in self.places:
            raise exceptions.ObjectFreedError("it", "its last ref is gone")
        return ObjectIs(Value(SEGMENT, b"", self.process, question.seq, SIZE, None, self.places[question.seq]))

    def unwanted(self, link: Link, body: object) -> None: ...
    def link_lost(self, link: Link) -> None:
        self.segments.transfers.link_lost(link.peer)

    def put(self, key: ObjectKey, data: bytes) -> None:
        serial = 1000 + key[1]
        incoming = IncomingSegment(len(data))
        incoming.at(0, len(data))[:] = data
        self.segments.adopt_copy(serial, incoming)
        self.segments.seal_copy(key, serial, incoming.size, len(data))
        incoming.close()

    async def open(self, key: ObjectKey, home: ProcessId) -> bytes:
        """What a process of this node reads."""
        reader = cast("Any", Reader())
        place: SegmentAt = await self.segments.open(reader, OpenSegment(*key, SIZE, home))
        with open(place.path, "rb") as file:
            data = file.read(place.length)
        self.segments._act(self.segments._ledger.closed(cast("Any", (place.creator, place.serial)), Reader.peer, 0.0))
        return data

    @property
    def memory(self) -> tuple[int, int]:
        known = self.segments.statistics()
        return known.memory, known.reserved


class Reader:
    peer = ProcessId(b"a reader")
    closed = False


@contextlib.asynccontextmanager
async def hosts(folder: Path, *names: str, limit: int = 1 << 28) -> AsyncGenerator[list[Host]]:
    made = [Host(folder, name, limit) for name in names]
    try:
        for host in made:
            await host.peers.listen()
        yield made
    finally:
        for host in made:
            host.segments.close()
        for host in made:
            await host.peers.close()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110  what is waited for is told to nobody
            await asyncio.sleep(0.002)


DATA = bytes(range(256)) * (SIZE // 256)


async def test_a_node_reads_what_lies_at_another_once_however_many_ask(tmp_path: Path) -> None:
    async with hosts(tmp_path, "a", "b") as (a, b):
        key = (a.process, 1)
        a.places[1] = a.process
        a.put(key, DATA)
        assert await asyncio.gather(*(b.open(key, a.process) for _ in range(5))) == [DATA] * 5
        assert b.segments.statistics().segments == 1
        assert b.segments.transfers.facts()["copies"] == 1


def test_the_same_on_the_loop_that_nodes_have(tmp_path: Path) -> None:
    uvloop.run(test_a_node_reads_what_lies_at_another_once_however_many_ask(tmp_path))


async def test_what_its_owner_frees_is_freed_by_all_who_have_it(tmp_path: Path) -> None:
    async with hosts(tmp_path, "a", "b", "c") as (a, b, c):
        key = (a.process, 1)
        a.places[1] = a.process
        a.put(key, DATA)
        await asyncio.gather(b.open(key, a.process), c.open(key, a.process))
        a.segments.free(key)
        a.segments.transfers.freed(key, a.process)
        await until(lambda: all(host.memory == (0, 0) for host in (a, b, c)))
        with pytest.raises(exceptions.ObjectLostError):
            del a.places[1]
            await b.open(key, a.process)
        assert [host.segments.transfers.facts()["copies"] for host in (a, b, c)] == [0, 0, 0]


async def test_a_result_that_lies_elsewhere_is_read_by_the_node_of_its_owner(tmp_path: Path) -> None:
    async with hosts(tmp_path, "a", "b") as (a, b):
        key = (a.process, 1)
        a.places[1] = b.process
        b.put(key, DATA)
        assert await a.open(key, a.process) == DATA
        a.segments.free(key)
        a.segments.transfers.freed(key, b.process)
        await until(lambda: a.memory == b.memory == (0, 0))


async def test_many_nodes_read_one_object_and_its_node_serves_two_at_most(tmp_path: Path) -> None:
    async with hosts(tmp_path, "a", "b", "c", "d", "e", "f") as (a, *others):
        key = (a.process, 1)
        a.places[1] = a.process
        a.put(key, DATA)
        served: list[str] = []
        at_once: list[int] = []
        whole = a.segments.transfers._serve_whole

        async def counted(request: Any, wanted: Any) -> Any:
            served.append(request.path)
            at_once.append(len(served))
            try:
                return await whole(request, wanted)
            finally:
                served.pop()

        a.segments.transfers._serve_whole = counted
        assert await asyncio.gather(*(one.open(key, a.process) for one in others)) == [DATA] * 5
        assert max(at_once) <= 2


@pytest.mark.parametrize("times", [1, 5])
async def test_a_connection_that_breaks_is_gone_on_with_at_the_byte_where_it_stopped(
    tmp_path: Path, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hosts(tmp_path, "a", "b") as (a, b):
        key = (a.process, 1)
        a.places[1] = a.process
        a.put(key, DATA)
        starts: list[int] = []
        transfers = b.segments.transfers
        came, begins = transfers.came, transfers.begins

        def begun(copy: Any, start: int, head: Any) -> None:
            starts.append(start)
            begins(copy, start, head)

        def breaking(copy: Any, nbytes: int) -> None:
            came(copy, nbytes)
            if len(starts) <= times and copy.got > len(starts) * (2 << 20):
                transfers.broke(copy, missing=False)

        monkeypatch.setattr(transfers, "begins", begun)
        monkeypatch.setattr(transfers, "came", breaking)
        assert await b.open(key, a.process) == DATA
        assert len(starts) == times + 1
        assert starts == sorted(set(starts))


async def test_one_that_nobody_waits_for_any_more_leaves_nothing(tmp_path: Path) -> None:
    async with hosts(tmp_path, "a", "b") as (a, b):
        key = (a.process, 1)
        a.places[1] = a.process
        a.put(key, DATA)
        reading = asyncio.create_task(b.open(key, a.process))
        await until(lambda: b.segments.transfers.facts()["fetching"] == 1 and b.memory[1] > 0)
        reading.cancel()
        await until(lambda: b.segments.transfers.facts()["fetching"] == 0 and b.memory == (0, 0))
        assert await b.open(key, a.process) == DATA


async def test_a_memory_that_is_full_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    async with hosts(tmp_path, "a", "b") as (a, _), hosts(tmp_path, "c", limit=SIZE // 2) as (c,):
        key = (a.process, 1)
        a.places[1] = a.process
        a.put(key, DATA)
        with pytest.raises(exceptions.ObjectStoreFullError):
            await c.open(key, a.process)
        assert c.memory == (0, 0)


async def test_memory_that_is_short_is_made_by_spilling_and_what_was_spilled_is_served(tmp_path: Path) -> None:
    async with hosts(tmp_path, "a", "b", limit=SIZE * 3 // 2) as (a, b):
        for number in range(4):
            a.places[number] = b.process
            b.put((a.process, number), bytes([number]) * SIZE)
            await until(lambda: b.memory[0] <= SIZE * 3 // 2)
        for number in range(4):
            assert await a.open((a.process, number), a.process) == bytes([number]) * SIZE
        assert a.segments.statistics().disk > 0


async def test_a_source_that_ends_in_the_middle_has_its_takers_go_on_from_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Less is on its way at once.
    monkeypatch.setattr(node_transfers, "PIECE", 1 << 16)
    async with hosts(tmp_path, "a", "c") as (a, c), hosts(tmp_path, "b") as (b,):
        key = (a.process, 1)
        a.places[1] = a.process
        a.put(key, DATA)
        first = asyncio.create_task(b.open(key, a.process))
        await until(lambda: b.segments.transfers.facts()["fetching"] == 1 and b.memory[1] > 0)
        second = asyncio.create_task(c.open(key, a.process))
        await until(lambda: b.segments.transfers.facts()["serving"] == 1 or first.done())
        b.segments.close()
        await b.peers.close()
        a.segments.transfers.node_died(b.process)
        first.cancel()
        assert await second == DATA


async def test_what_belongs_to_an_owner_that_has_ended_is_freed_and_its_readers_are_told(tmp_path: Path) -> None:
    async with hosts(tmp_path, "a", "b") as (a, b):
        key = (a.process, 1)
        a.places[1] = a.process
        a.put(key, DATA)
        await b.open(key, a.process)
        a.segments.process_died(a.process)
        await until(lambda: a.memory == b.memory == (0, 0))


async def test_a_request_that_is_none_for_an_object_is_refused(tmp_path: Path) -> None:
    async with hosts(tmp_path, "a") as (a,):
        for line, status in (("GET /", 400), ("POST /objects/1", 400), (f"GET /objects/{a.process.hex()}/1/1", 404)):
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / f"{a.process.hex()}.sock"))
            writer.write(f"{line} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            assert (await reader.readline()).split()[1] == str(status).encode()
            writer.close()
