"""What stands between a link and its socket: each row, what a frame has, and bytes that come once whatever is taken."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actorrt.wire.frames import TO_CALLER, FrameParser, RawPart, encode_frame
from actorrt.wire.link import Action, End, State
from actorrt.wire.link import Event as LinkEvent
from actorrt.wire.messages import AnyMessage, Ask, Borrow, Ping, Reply, decode_batch
from actorrt.wire.outlet import (
    BROKEN,
    TABLE,
    Do,
    Event,
    Obstacle,
    Outlet,
    frame_of,
    next_pieces,
    with_frames,
    within_a_piece,
)
from actorrt.wire.pipe_end import PIECE, Frame, PipeEnd

from ..depth import DEPTH

WINDOW: Final = 300


def outlet_of(state: State = State.OPEN, window: int = WINDOW) -> Outlet:
    return Outlet(End(b"the link", state, acknowledge_bytes=1, window_bytes=window))


# -- the table


def test_without_a_connection_nothing_is_written_before_another_one_s_peer_reads() -> None:
    assert {after for (_, event), after in TABLE.items() if event in (Event.LET_GO, Event.FAILED)} == {
        Obstacle.CONNECTION
    }
    leaves = {event for (before, event), after in TABLE.items() if before is Obstacle.CONNECTION is not after}
    assert leaves == {Event.GOES_ON}


@pytest.mark.parametrize("window", [5, 50])
def test_a_write_that_the_socket_takes_is_the_row_of_the_table(window: int) -> None:
    """It is written out in `wrote`."""
    outlet = outlet_of(window=window)
    assert outlet.wrote([bytes(10)], 10, 10) is None
    after = TABLE[None, Event.TOOK_ALL]
    assert after is Obstacle.WINDOW
    assert outlet.obstacle is (after if window <= 10 else None)
    for count, event, left in ((3, Event.TOOK_PART, Do.AWAIT_ROOM), (BROKEN, Event.FAILED, Do.READ_ON)):
        outlet = outlet_of(window=window)
        assert outlet.wrote([bytes(10)], count, 10) is left
        assert outlet.obstacle is TABLE[None, event]


def test_a_write_that_is_said_twice_counts_once() -> None:
    outlet, buffers = outlet_of(), [b"abcdef"]
    for _ in range(2):
        assert outlet.wrote(buffers, 2, 6) is Do.AWAIT_ROOM
    assert [bytes(each) for each in outlet.rest or ()] == [b"cdef"]


def test_an_acknowledgement_goes_between_two_frames() -> None:
    end = End(b"the link", State.OPEN, acknowledge_bytes=1)
    outlet = Outlet(end)
    end.parser.feed(encode_frame(b"came"))
    outlet.wrote([b"whole frame"], 4, 11)
    assert outlet.acknowledge() == b""
    assert b"".join(outlet.rest or ()).startswith(b"e frame0000000a\r\n")
    assert not outlet.takes_goodbye


# -- frames


@given(sizes=st.lists(st.integers(min_value=0, max_value=40), min_size=1, max_size=8))
def test_a_frame_has_the_first_messages_that_fit(sizes: list[int]) -> None:
    # What cannot be written at all stands for what is too large.
    batch: list[AnyMessage] = [Ask(1, Ping()) if size < 30 else Reply(size, "\ud800") for size in sizes]  # type: ignore[arg-type]
    data, count, why = frame_of(batch)
    good = [size < 30 for size in sizes]
    if data:
        assert good[:count] == [True] * count
        assert decode_batch(data[10:-2]) == batch[:count]
        assert count == len(batch) or count >= 1
    else:
        assert (count, good[0]) == (1, False)
        assert "UnicodeEncodeError" in why


def test_a_message_that_is_too_large_says_how_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actorrt.wire.outlet.MAX_FRAME_BYTES", 20)
    data, count, why = frame_of([Borrow(1), Reply(1, bytes(100))])
    assert (len(data) > 0, count) == (True, 1)
    data, count, why = frame_of([Reply(1, bytes(100))])
    assert (data, count) == (b"", 1)
    assert "and a frame holds 20: put large values" in why


@given(sizes=st.lists(st.one_of(st.none(), st.integers(min_value=1, max_value=PIECE)), min_size=1, max_size=6))
def test_frames_go_along_up_to_a_piece_and_with_their_replies(sizes: list[int | None]) -> None:
    batch: list[AnyMessage] = [Reply(seq, b"") for seq in range(len(sizes))]
    along = {seq: Frame([bytes(size)], size) for seq, size in enumerate(sizes) if size is not None}
    count = within_a_piece(batch, along)
    taken = [size for size in sizes[:count] if size is not None]
    assert count >= 1
    assert sum(taken) <= PIECE or len(taken) == 1
    if count < len(batch):
        assert sum(taken) + (sizes[count] or 0) > PIECE
    buffers, size = with_frames(batch[:count], along, b"data")
    assert [len(each) for each in buffers] == [*taken, 4]
    assert size == sum(taken) + 4
    assert set(along) == {seq for seq, size in enumerate(sizes) if size is not None and seq >= count}


class Piped:
    def __init__(self, end: PipeEnd) -> None:
        self.held, self.next_piece = end.held, end.take_piece


@given(sizes=st.lists(st.integers(min_value=1, max_value=2 * PIECE), min_size=1, max_size=6))
def test_pipes_take_turns_and_small_pieces_leave_together(sizes: list[int]) -> None:
    turns: deque[Any] = deque()
    for seq, size in enumerate(sizes):
        end = PipeEnd(seq, TO_CALLER, 4 * PIECE)
        end.add((bytes(size),), True)
        turns.append(Piped(end))
    came = [0] * len(sizes)
    parser, ended = FrameParser(), 0
    while turns:
        buffers, size, last = next_pieces(turns)
        data = b"".join(map(bytes, buffers))
        assert len(data) == size
        ended += len(last)
        for part in parser.feed(data):
            assert isinstance(part, RawPart)
            came[part.seq] += len(part.data)
    assert came == sizes
    assert ended == len(sizes)
    assert next_pieces(turns) == ([], 0, [])


# -- one end over sockets that take some


class Sockets(RuleBasedStateMachine):
    """Whatever sockets take, and however often they break, the reader gets each frame once and in order."""

    def __init__(self) -> None:
        super().__init__()
        self.end = End(b"the link", State.OPEN, acknowledge_bytes=1, window_bytes=WINDOW)
        self.outlet = Outlet(self.end)
        self.reader = FrameParser()
        self.number = 0
        self.came: list[bytes] = []
        self.connected = True
        self.awaited = False

    def put(self, data: bytes, count: int) -> None:
        if count == BROKEN:
            self.connected = False
        for found in self.reader.feed(data[: max(count, 0)]):
            if isinstance(found, bytes):
                self.came.append(found)

    def todo(self, left: Do | None) -> None:
        match left:
            case Do.AWAIT_ROOM:
                self.awaited = True
            case Do.STOP_AWAITING:
                self.awaited = False
            case Do.READ_ON:
                self.awaited = False
                assert not self.connected
            case None:
                pass

    @precondition(lambda self: self.outlet.obstacle is None)
    @rule(taken=st.integers(min_value=BROKEN, max_value=60), cut=st.integers(min_value=0, max_value=12))
    def write(self, taken: int, cut: int) -> None:
        self.number += 1
        data = encode_frame(b"frame %d" % self.number)
        count = min(taken, len(data))
        self.put(data, count)
        self.todo(self.outlet.wrote([data[:cut], data[cut:]] if cut else [data], count, len(data)))

    @precondition(lambda self: self.awaited)
    @rule(taken=st.integers(min_value=BROKEN, max_value=100))
    def has_room(self, taken: int) -> None:
        assert self.outlet.rest is not None
        data = b"".join(self.outlet.rest)
        count = min(taken, len(data))
        self.put(data, count)
        self.todo(self.outlet.wrote_rest(count))

    @rule(taken=st.integers(min_value=BROKEN, max_value=40))
    def acknowledges(self, taken: int) -> None:
        self.end.parser.feed(encode_frame(b"x"))
        if said := self.outlet.acknowledge():
            count = min(taken, len(said))
            self.put(said, count)
            self.todo(self.outlet.wrote_aside(said, count))

    @rule()
    def is_acknowledged(self) -> None:
        self.outlet.acknowledged(self.reader.position)

    @rule()
    def another_connection(self) -> None:
        assert self.outlet.let_go() is self.awaited
        self.awaited, self.connected = False, True
        self.end.apply(LinkEvent.BROKEN)
        self.reader.break_off()
        self.outlet.rejoin(self.reader.position)
        assert self.outlet.acknowledge() == b""
        assert self.outlet.obstacle is Obstacle.CONNECTION
        assert self.end.apply(LinkEvent.HEARD) == (Action.WRITE,)
        self.outlet.go_on()
        # It is written at once, or the socket is full.
        self.awaited = True
        self.has_room(0)

    @invariant()
    def frames_come_once_and_in_order(self) -> None:
        assert self.came == [b"frame %d" % number for number in range(1, len(self.came) + 1)]

    @invariant()
    def it_is_known_why_nothing_is_written(self) -> None:
        outlet = self.outlet
        assert self.awaited is (outlet.rest is not None)
        assert (outlet.obstacle is Obstacle.SOCKET) is self.awaited
        assert (outlet.obstacle is Obstacle.CONNECTION) is not self.connected
        if outlet.obstacle is Obstacle.WINDOW:
            assert not self.end.may_write
        assert outlet.takes_goodbye is (self.connected and not self.awaited)

    def teardown(self) -> None:
        self.another_connection()
        while self.awaited:
            self.has_room(1000)
        self.is_acknowledged()
        assert len(self.came) == self.number
        assert self.outlet.obstacle is None
        assert self.end.kept.size == 0


TestSockets = Sockets.TestCase
TestSockets.settings = settings(max_examples=100 * DEPTH, stateful_step_count=40, deadline=None)
