"""A write into shared memory whose thread is interrupted, beside what the node answers. No process is started."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType, SimpleNamespace
from typing import Any, cast

import pytest

from actorrt import exceptions
from actorrt.core.own_segment import OwnSegmentLife
from actorrt.runtime.base.loop_thread import LoopThread
from actorrt.runtime.memory import segment_writer
from actorrt.runtime.memory.segment_writer import OwnSegment, SegmentWriter
from actorrt.runtime.owner.segments_client import SegmentsClient
from actorrt.types import ProcessId
from actorrt.wire import codec
from actorrt.wire.messages import Done, FreeSegment, LetGo, Reserve, Seal, Unreserve

HERE = ProcessId(b"process1")
SIZE = 200_000


class ImpatientThread(LoopThread):
    """Whoever waits for the loop is interrupted if the node does not answer at once."""

    def call_sync(self, work: Coroutine[Any, Any, Any], timeout: float | None = None) -> Any:
        return super().call_sync(work, 0.2)


class Node:
    closed = False

    def __init__(self) -> None:
        self.posted: list[Any] = []
        self.slow: type | None = None
        self.refuses: type | None = None
        self.answer: Callable[[], None] = lambda: None

    async def ask(self, question: Any) -> Done:
        if type(question) is self.slow:
            answered = asyncio.Event()
            loop = asyncio.get_running_loop()
            self.answer = lambda: loop.call_soon_threadsafe(answered.set)
            await answered.wait()
        if type(question) is self.refuses:
            raise exceptions.ObjectStoreFullError(1, 1, "the node says so")
        return Done()

    def post(self, message: Any) -> None:
        self.posted.append(message)

    push = post

    def post_flush(self) -> None: ...


class Process:
    def __init__(self) -> None:
        self.process = HERE
        self.node = Node()
        self.thread = ImpatientThread("test")
        self.membership = SimpleNamespace(store_limit=1 << 30)
        self.exits = SimpleNamespace()
        self.client = SegmentsClient(cast(Any, self))

    def put(self, seq: int) -> None:
        self.client.write(HERE, seq, codec.serialize(bytes(SIZE)))

    def settle(self) -> None:
        """Return when the loop has done what it was handed."""

        async def turns() -> None:
            for _ in range(5):
                await asyncio.sleep(0)

        self.thread.call_sync(turns())


@pytest.fixture
def process() -> Iterator[Process]:
    process = Process()
    process.thread.start()
    yield process
    process.client.close()
    process.thread.stop(5.0)


def test_a_write_that_ends_leaves_its_object_there(process: Process) -> None:
    process.put(1)
    process.settle()
    assert process.node.posted == []


def test_room_that_comes_after_an_interruption_is_given_back(process: Process) -> None:
    process.node.slow = Reserve
    with pytest.raises(TimeoutError):
        process.put(1)
    process.settle()
    assert process.node.posted == []
    process.node.answer()
    process.settle()
    assert [type(message) for message in process.node.posted] == [Unreserve]


def test_an_object_that_is_taken_in_after_an_interruption_is_freed_and_its_room_is_not_given_back(
    process: Process,
) -> None:
    process.node.slow = Seal
    with pytest.raises(TimeoutError):
        process.put(1)
    process.settle()
    # The node may be using up the room just now.
    assert process.node.posted == []
    process.node.answer()
    process.settle()
    assert process.node.posted == [FreeSegment(HERE, 1)]


def test_an_object_that_is_refused_after_an_interruption_leaves_no_room_behind(process: Process) -> None:
    process.node.slow = process.node.refuses = Seal
    with pytest.raises(TimeoutError):
        process.put(1)
    process.node.answer()
    process.settle()
    assert [type(message) for message in process.node.posted] == [Unreserve]


def test_an_object_that_is_refused_leaves_no_room_behind(process: Process) -> None:
    process.node.refuses = Seal
    with pytest.raises(exceptions.ObjectStoreFullError):
        process.put(1)
    process.settle()
    assert [type(message) for message in process.node.posted] == [Unreserve]


def test_a_segment_of_a_write_that_was_given_up_is_used_again(process: Process) -> None:
    process.node.slow = Seal
    with pytest.raises(TimeoutError):
        process.put(1)
    process.node.answer()
    process.node.slow = None
    process.settle()
    process.client.back(1, True)
    process.put(2)
    sealed = [message for message in process.node.posted if isinstance(message, Seal)]
    assert [(seal.seq, seal.serial) for seal in sealed] == [(2, 1)]


class Ledger(Node):
    """A node that keeps what it is told of, and gives segments back whose objects are freed."""

    def __init__(self, client: SegmentsClient) -> None:
        super().__init__()
        self._client = client
        self.reserved = 0
        self.objects: dict[int, int] = {}
        self.segments: set[int] = set()

    async def ask(self, question: Any) -> Done:
        match question:
            case Reserve():
                self.reserved += question.size
            case Seal():
                self.reserved -= question.size
                self.segments.add(question.serial)
                self.objects[question.seq] = question.serial
            case _:
                pass
        return Done()

    def post(self, message: Any) -> None:
        match message:
            case Unreserve():
                self.reserved -= message.size
            case Seal():
                self.objects[message.seq] = message.serial
            case LetGo():
                self.segments.discard(message.serial)
            case FreeSegment():
                serial = self.objects.pop(message.seq, 0)
                if serial in self.segments:
                    self._client.back(serial, True)
            case _:
                pass

    push = post


making = [
    made.__code__ for made in (segment_writer.memfd, SegmentWriter.create, OwnSegment.__init__, OwnSegmentLife.__init__)
]


class Interrupt:
    """A Ctrl-C at the n-th point at which Python looks for one: it does so as functions are called and return."""

    def __init__(self, point: int) -> None:
        self._left = point
        self.came = False

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        # A descriptor that was just made is lost with the step that makes it: nothing can be done about that.
        if code in making:
            return
        if event in ("call", "c_return") and f"{os.sep}actorrt{os.sep}" in code.co_filename:
            self._left -= 1
            if not self._left:
                sys.setprofile(None)
                self.came = True
                raise KeyboardInterrupt


# A question that is interrupted before its loop has it.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize("segment", ["new", "used before"])
def test_nothing_stays_of_a_write_that_is_interrupted_wherever_that_is(process: Process, segment: str) -> None:
    client = process.client
    node = process.node = Ledger(client)
    data = codec.serialize(bytes(SIZE))

    def write(seq: int) -> None:
        client.write(HERE, seq, data)

    for seq in itertools.count(1):
        write(2 * seq)
        client.free(HERE, 2 * seq)
        process.settle()
        if segment == "new":
            for serial in tuple(node.segments):
                client.back(serial, False)
        interrupt = Interrupt(seq)
        try:
            sys.setprofile(interrupt)
            write(2 * seq + 1)
        except KeyboardInterrupt:
            # As its claim does.
            client.free(HERE, 2 * seq + 1)
        finally:
            sys.setprofile(None)
        if not interrupt.came:
            break
        process.settle()
        writer = client.statistics().writer
        assert writer is not None
        assert (seq, writer.segments - writer.pooled, client.statistics().own) == (seq, 0, 0)
        assert (seq, node.reserved, node.objects) == (seq, 0, {})
    assert seq > 20
