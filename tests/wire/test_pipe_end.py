"""One end of a pipe: what it may send, in which frames, and that each byte comes once, whatever is granted when."""

from __future__ import annotations

from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actorrt.wire.frames import TO_CALLER, FrameParser, RawPart
from actorrt.wire.pipe_end import PIECE, PipeEnd, Tells

from ..depth import DEPTH


def bytes_of(buffers: list[bytes | memoryview]) -> bytes:
    return b"".join(map(bytes, buffers))


def parts_in(data: bytes) -> list[RawPart]:
    return [part for part in FrameParser().feed(data) if isinstance(part, RawPart)]


def piece_of(end: PipeEnd) -> tuple[bytes, bool]:
    buffers, _, more = end.take_piece()
    return b"".join(bytes(part.data) for part in parts_in(bytes_of(buffers))), more


def test_a_little_more_than_a_piece_goes_with_it() -> None:
    end = PipeEnd(7, TO_CALLER, PIECE)
    assert end.add((bytes(PIECE + 4096),), last=True)
    data, more = piece_of(end)
    assert (len(data), more, end.drains) == (PIECE + 4096, False, False)


def test_an_end_without_bytes_needs_no_room() -> None:
    end = PipeEnd(7, TO_CALLER, 0)
    assert end.add((), last=True)
    buffers, size, more = end.take_piece()
    part = parts_in(bytes_of(buffers))[0]
    assert (bytes(part.data), part.last, len(bytes_of(buffers)), more) == (b"", True, size, False)


def test_memory_that_changes_is_copied() -> None:
    end, data = PipeEnd(7, TO_CALLER, 100), bytearray(b"as it was")
    end.add((memoryview(data),), last=False)
    data[:] = b"different"
    assert piece_of(end)[0] == b"as it was"


def test_a_frame_for_the_reply_has_what_waits_in_front_and_is_made_once() -> None:
    end = PipeEnd(7, TO_CALLER, 100)
    end.gather(b"before ")
    assert end.keep_for_reply((b"the ", b"end"))
    assert not end.keep_for_reply((b"more",))
    frame = end.cut_off()
    assert frame is not None
    part = parts_in(b"".join(frame.buffers))[0]
    assert (bytes(part.data), part.last, frame.size) == (b"before the end", True, len(b"".join(frame.buffers)))
    assert end.cut_off() is None


@given(size=st.integers(min_value=0, max_value=2 * PIECE), room=st.integers(min_value=0, max_value=2 * PIECE))
def test_a_frame_for_the_reply_is_no_more_than_a_piece_that_there_is_room_for(size: int, room: int) -> None:
    assert PipeEnd(7, TO_CALLER, room).keep_for_reply((bytes(size),)) == (0 < size <= min(PIECE, room))


def test_after_the_end_of_the_call_nothing_leaves() -> None:
    end = PipeEnd(7, TO_CALLER, 100)
    end.add((b"cut off",), last=True)
    end.cut_off()
    assert not end.add((b"late",), last=True)
    assert not end.turn()
    assert end.take_piece() == ([], 0, False)
    assert (end.is_closed, end.drains, end.held) == (True, False, 0)


LARGEST: Final = PIECE + PIECE // 2


class OneEnd(RuleBasedStateMachine):
    """Written by one thread, granted by the reader, sent when the link gives a turn."""

    def __init__(self) -> None:
        super().__init__()
        self.parser = FrameParser()
        self.written = bytearray()
        self.came = bytearray()
        self.ended = False
        self.finished = False
        self.granted = 0
        # It waits at the link for a turn; the writer, or somebody else, waits to be told.
        self.has_turn = False
        self.writer_waits = False
        self.awaited = False

    @initialize(room=st.integers(min_value=0, max_value=LARGEST))
    def begin(self, room: int) -> None:
        self.end = PipeEnd(7, TO_CALLER, room)
        self.granted = room

    def gets_turn(self, turn: bool) -> None:
        if turn:
            # Never twice at once.
            assert not self.has_turn
            self.has_turn = True

    @precondition(lambda self: not self.finished)
    @rule(sizes=st.lists(st.integers(min_value=0, max_value=LARGEST), max_size=3), last=st.booleans())
    def write(self, sizes: list[int], last: bool) -> None:
        parts = tuple(bytes([len(self.written) % 251]) * size for size in sizes)
        self.written += b"".join(parts)
        self.gets_turn(self.end.add(parts, last))
        self.finished = last
        self.writes_what_it_can()
        self.end.written()
        self.writer_waits = not self.end.free and self.end.drains

    @precondition(lambda self: not self.finished)
    @rule(size=st.integers(min_value=1, max_value=PIECE))
    def gather(self, size: int) -> None:
        data = bytes([len(self.written) % 251]) * size
        self.written += data
        if self.end.gather(data)[0]:
            self.turn()

    @rule()
    def turn(self) -> None:
        self.gets_turn(self.end.turn())

    @rule(count=st.integers(min_value=1, max_value=LARGEST))
    def grant(self, count: int) -> None:
        self.granted += count
        turn, told = self.end.has_more_room(count)
        self.gets_turn(turn)
        if told:
            assert not self.end.drains
            self.writer_waits = False

    @precondition(lambda self: self.has_turn)
    @rule()
    def sends(self) -> None:
        buffers, size, more = self.end.take_piece()
        data = bytes_of(buffers)
        assert len(data) == size
        for part in self.parser.feed(data):
            assert isinstance(part, RawPart)
            assert not self.ended
            assert len(part.data) <= PIECE + 4096
            self.came += part.data
            self.ended = part.last
        self.has_turn = more
        if data and not more:
            match self.end.gone(self.awaited):
                case Tells.WRITER:
                    self.writer_waits = self.awaited = False
                case Tells.WAITERS:
                    self.awaited = False
                case Tells.NOBODY:
                    assert self.end.drains or not self.awaited

    def writes_what_it_can(self) -> None:
        while self.has_turn:
            self.sends()

    @precondition(lambda self: self.end.drains)
    @rule()
    def awaits(self) -> None:
        self.awaited = True

    @invariant()
    def bytes_come_once_and_in_order_and_only_into_room(self) -> None:
        assert self.written.startswith(self.came)
        assert len(self.came) <= self.granted + 4096
        if self.ended:
            assert self.came == self.written

    @invariant()
    def what_there_is_room_for_has_a_turn(self) -> None:
        left = len(self.written) - len(self.came) - self.end.held
        assert left == 0
        if self.end.drains and len(self.came) < self.granted:
            assert self.has_turn

    @invariant()
    def nobody_waits_for_what_has_gone(self) -> None:
        if not self.end.drains:
            assert not self.awaited
            assert not self.writer_waits

    def teardown(self) -> None:
        if hasattr(self, "end"):
            self.turn()
            self.grant(len(self.written) + 1)
            self.writes_what_it_can()
            assert self.came == self.written
            assert self.ended is self.finished


TestOneEnd = OneEnd.TestCase
TestOneEnd.settings = settings(max_examples=60 * DEPTH, stateful_step_count=30, deadline=None)
