"""Output of workers on the node's side, through real pipes; who listens is a fake, waited for by events."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from actorrt.config import Settings
from actorrt.core.loglines import Line
from actorrt.runtime.node.worker_output import CHUNK, MAX_PENDING, MAX_PENDING_BYTES, WorkerOutputs
from actorrt.types import Employer, JobKey, ProcessId
from actorrt.wire.messages import LogLines

DEADLINE_S = 30
OURS, THEIRS = (JobKey(ProcessId(bytes([number]) * 8)) for number in (2, 3))
EMPLOYER = Employer(OURS)


@dataclass
class Worker:
    process: bytes = b"\x01" * 8
    employer: Employer = EMPLOYER
    pid: int = 0


@dataclass
class Driver:
    congested: bool = False
    lines: list[Line] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)

    def send(self, message: LogLines) -> None:
        self.lines += message.lines
        self.came.set()

    async def wait_for(self, count: int) -> list[Line]:
        async with asyncio.timeout(DEADLINE_S):
            while len(self.lines) < count:
                self.came.clear()
                await self.came.wait()
        return self.lines


class Bench:
    """The outputs of one node, and one worker whose pipes the test writes to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.driver: Driver | None = Driver()
        self.outputs = WorkerOutputs(
            str(folder), Settings(log_rotation_bytes=10_000, log_rotation_count=2), lambda employer: self.driver
        )
        self.worker = Worker()
        self.out, self.err = self.outputs.open(self.worker)
        self.worker.pid = 123
        self.outputs.born(self.worker)

    @property
    def heard(self) -> Driver:
        assert self.driver is not None
        return self.driver

    def hang_up(self) -> None:
        for fd in (self.out, self.err):
            if fd >= 0:
                os.close(fd)
        self.out = self.err = -1

    def file(self, name: str) -> bytes:
        return (self.folder / f"worker-{self.worker.process.hex()}-123.{name}").read_bytes()

    async def flood(self, size: int) -> int:
        """Write lines of 100 bytes as fast as they are taken, from a thread; how many."""
        line = b"x" * 99 + b"\n"

        def write() -> int:
            for _ in range(size // 10_000):
                left = line * 100
                while left:
                    left = left[os.write(self.out, left) :]
            return size // 10_000 * 100

        async with asyncio.timeout(DEADLINE_S):
            return await asyncio.to_thread(write)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    before = set(os.listdir("/proc/self/fd"))
    made = Bench(tmp_path)
    yield made
    made.hang_up()
    await made.outputs.close()
    assert set(os.listdir("/proc/self/fd")) <= before


async def test_lines_are_sent_with_who_wrote_them_and_kept_in_files(bench: Bench) -> None:
    bench.outputs.rename(bench.worker, "Counter")
    os.write(bench.out, b"one\ntwo\n")
    os.write(bench.err, b"oh\n")
    lines = await bench.heard.wait_for(3)
    assert sorted(lines) == [
        ("Counter", 123, False, "one"),
        ("Counter", 123, False, "two"),
        ("Counter", 123, True, "oh"),
    ]
    assert bench.file("out") == b"one\ntwo\n"
    assert bench.file("err") == b"oh\n"


async def test_a_line_that_does_not_end_is_shown_after_a_while(bench: Bench) -> None:
    os.write(bench.out, b"your name? ")
    assert await bench.heard.wait_for(1) == [("worker", 123, False, "your name? ")]


async def test_what_was_printed_last_is_sent_when_the_worker_has_ended(bench: Bench) -> None:
    os.write(bench.out, b"full\npart")
    bench.hang_up()
    bench.outputs.ended(bench.worker)
    assert bench.heard.lines == [("worker", 123, False, "full"), ("worker", 123, False, "part")]
    assert bench.file("out") == b"full\npart"
    bench.outputs.ended(bench.worker)


async def test_the_end_is_not_held_up_by_another_process_that_has_the_pipe(bench: Bench) -> None:
    os.write(bench.out, b"last\n")
    bench.outputs.ended(bench.worker)
    assert bench.heard.lines == [("worker", 123, False, "last")]


async def test_a_flush_sends_at_once_what_is_in_the_pipes_of_a_job(bench: Bench) -> None:
    os.write(bench.out, b"now\n")
    bench.outputs.flush(THEIRS)
    assert bench.heard.lines == []
    bench.outputs.flush(OURS)
    assert bench.heard.lines == [("worker", 123, False, "now")]


async def test_lines_printed_under_an_old_name_keep_it(bench: Bench) -> None:
    bench.outputs.rename(bench.worker, "first")
    os.write(bench.out, b"a\n")
    bench.outputs.flush(OURS)
    os.write(bench.out, b"b\n")
    bench.outputs.rename(bench.worker, "second")
    assert await bench.heard.wait_for(2) == [("first", 123, False, "a"), ("second", 123, False, "b")]


async def test_without_a_driver_output_goes_to_the_files_only(bench: Bench) -> None:
    bench.driver = None
    os.write(bench.out, b"alone\npart")
    bench.outputs.flush(OURS)
    assert bench.file("out") == b"alone\npart"
    bench.driver = Driver()
    os.write(bench.out, b"heard\n")
    assert await bench.driver.wait_for(1) == [("worker", 123, False, "heard")]


async def test_a_flood_reaches_a_driver_that_keeps_up_whole(bench: Bench) -> None:
    count = await bench.flood(3_000_000)
    lines = await bench.heard.wait_for(count)
    assert lines == [("worker", 123, False, "x" * 99)] * count
    # Two old files and the new one, each within its size.
    sizes = [file.stat().st_size for file in bench.folder.iterdir()]
    assert len(sizes) == 3
    assert all(size <= 10_000 for size in sizes)


async def test_a_driver_that_does_not_keep_up_is_told_how_many_lines_it_missed(bench: Bench) -> None:
    bench.heard.congested = True
    count = await bench.flood(3_000_000)
    output = bench.outputs._outputs[bench.worker.process]
    # One chunk more: only at the next tick is it known that the driver does not keep up.
    assert len(output.pending) <= MAX_PENDING + CHUNK // 100 + 1
    assert output.pending_bytes <= MAX_PENDING_BYTES + CHUNK
    assert bench.heard.lines == []
    # Before the end it is told, late or not.
    bench.outputs.flush(OURS)
    *lines, note = bench.heard.lines
    assert note == (
        "worker",
        123,
        True,
        f"[{count - len(lines)} lines dropped: they came faster than they could be shown]",
    )
    assert 0 < len(lines) < count


async def test_a_worker_that_was_not_forked_leaves_nothing(bench: Bench) -> None:
    other = Worker(b"\x02" * 8)
    fds = bench.outputs.open(other)
    bench.outputs.abandon(other)
    for fd in fds:
        os.close(fd)
    bench.outputs.ended(other)
