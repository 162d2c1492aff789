"""What one end writes over a connection: why nothing at the moment, what is left of a frame, what a frame has.

The shell writes to the socket and says how much it took; what is to be done then is answered. For one thread at a time.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Final, Protocol, TypeVar

from .frames import MAX_FRAME_BYTES, encode_frame
from .link import Buffer, End, State, behind
from .messages import AnyMessage, Reply, encode_batch
from .pipe_end import PIECE, Frame

# Of what one system call takes (1,024 on Linux), less what one more piece has.
MOST_BUFFERS: Final = 512
# In place of how many bytes a connection took: all that is written goes to the next one.
BROKEN: Final = -1


class Obstacle(enum.Enum):
    """Why nothing is written at the moment."""

    SOCKET = "the socket takes nothing more"
    WINDOW = "too much is not acknowledged"
    CONNECTION = "there is no connection, or its other end does not read yet"


class Event(enum.Enum):
    TOOK_ALL = "the socket took all"
    TOOK_PART = "the socket took a part"
    FAILED = "the socket takes nothing any more"
    ACKNOWLEDGED = "the peer has acknowledged some"
    LET_GO = "the connection is the link's no more"
    GOES_ON = "the peer reads from a connection"


class Do(enum.Enum):
    """What is left to the shell."""

    AWAIT_ROOM = "write the rest once the socket takes bytes"
    STOP_AWAITING = "the rest is written"
    # Where nothing can be written any more, what the peer has written is read to its end: a goodbye may be there.
    READ_ON = "read to the end, and close the way out"


# Bound here, since looking up a member of an Enum takes long.
_SOCKET: Final = Obstacle.SOCKET
_WINDOW: Final = Obstacle.WINDOW
_CONNECTION: Final = Obstacle.CONNECTION

# The obstacle after an event; WINDOW only where the window is full then, else there is none.
TABLE: Final[Mapping[tuple[Obstacle | None, Event], Obstacle | None]] = {
    **{
        (before, event): after
        for before in (None, *Obstacle)
        for event, after in ((Event.FAILED, _CONNECTION), (Event.LET_GO, _CONNECTION))
    },
    (None, Event.TOOK_ALL): _WINDOW,
    (None, Event.TOOK_PART): _SOCKET,
    (None, Event.ACKNOWLEDGED): None,
    (_SOCKET, Event.TOOK_ALL): _WINDOW,
    (_SOCKET, Event.TOOK_PART): _SOCKET,
    (_SOCKET, Event.ACKNOWLEDGED): _SOCKET,
    # What is not counted (acknowledgements) is written all the same.
    (_WINDOW, Event.TOOK_ALL): _WINDOW,
    (_WINDOW, Event.TOOK_PART): _SOCKET,
    (_WINDOW, Event.ACKNOWLEDGED): _WINDOW,
    (_CONNECTION, Event.ACKNOWLEDGED): _CONNECTION,
    (_CONNECTION, Event.GOES_ON): _WINDOW,
}


class Outlet:
    """Where the writing of one end stands."""

    __slots__ = ("_end", "_kept", "_missed", "_window", "obstacle", "rest")

    def __init__(self, end: End) -> None:
        self._end = end
        self._kept = end.kept
        self._window = end.window_bytes
        self.obstacle: Obstacle | None = None if end.state is State.OPEN else _CONNECTION
        # What the socket has not taken of a frame: pieces, in order.
        self.rest: list[Buffer] | None = None
        # What the peer misses of what was written to an earlier connection.
        self._missed: list[Buffer] = []

    def _on(self, event: Event) -> None:
        after = TABLE[self.obstacle, event]
        self.obstacle = None if after is _WINDOW and self._end.may_write else after

    # ---- frames

    def wrote(self, buffers: Sequence[Buffer], count: int, size: int) -> Do | None:
        """Of a frame of `size` bytes the socket has taken `count`, or is BROKEN; again, if an interrupt came: the same.

        TOOK_ALL is written out here: each write takes that row.
        """
        kept = self._kept.add(buffers, size)
        if count < size:
            return self._stops(buffers, count)
        if kept >= self._window:
            self.obstacle = _WINDOW
        return None

    def _stops(self, buffers: Sequence[Buffer], count: int) -> Do:
        if count == BROKEN:
            return self._fails()
        self.rest = behind(buffers, count)
        self._on(Event.TOOK_PART)
        return Do.AWAIT_ROOM

    def _fails(self) -> Do:
        self.rest = None
        self._on(Event.FAILED)
        return Do.READ_ON

    def wrote_rest(self, count: int) -> Do:
        """Of `rest` the socket has taken `count` bytes, or is BROKEN."""
        if count == BROKEN:
            return self._fails()
        left = behind(self.rest or (), count)
        self.rest = left or None
        self._on(Event.TOOK_PART if left else Event.TOOK_ALL)
        return Do.AWAIT_ROOM if left else Do.STOP_AWAITING

    # ---- what is not counted

    def acknowledge(self) -> bytes:
        """What is to be written now to say what has come, if anything is."""
        said = b"" if self.obstacle is _CONNECTION else self._end.acknowledge()
        if said and self.rest is not None:
            # Between two frames: the rest is that of a whole one.
            self.rest.append(said)
            return b""
        return said

    def wrote_aside(self, said: bytes, count: int) -> Do | None:
        """Of what is not counted the socket has taken `count` bytes, or is BROKEN."""
        return self._stops((said,), count) if count < len(said) else None

    @property
    def takes_goodbye(self) -> bool:
        """It may be written now: behind whole frames, to a peer that reads."""
        return self.rest is None and self.obstacle is not _CONNECTION

    # ---- what is heard, and other connections

    def acknowledged(self, position: int) -> None:
        """The peer has so many bytes. Raises LinkStateError."""
        self._kept.acknowledge(position)
        if self.obstacle is _WINDOW:
            self._on(Event.ACKNOWLEDGED)

    def let_go(self) -> bool:
        """The connection is the link's no more. True if room was awaited there."""
        awaited, self.rest = self.rest is not None, None
        self._on(Event.LET_GO)
        return awaited

    def rejoin(self, peer_received: int) -> None:
        """Another connection takes its place; nothing is written before the peer reads from it. LinkStateError: it
        misses what is gone."""
        missed = self._end.rejoin(peer_received)
        self._missed = [b"".join(missed)] if len(missed) > MOST_BUFFERS else missed

    def go_on(self) -> None:
        """The peer reads. What it misses is the `rest`, to be written first."""
        missed, self._missed = self._missed, []
        self._on(Event.GOES_ON)
        if missed:
            self.rest, self.obstacle = missed, _SOCKET

    def end(self) -> None:
        """Nothing is written any more."""
        self._kept.acknowledge(self._kept.written)
        self._missed.clear()


# ---- what a frame has


def frame_of(batch: list[AnyMessage]) -> tuple[bytes, int, str]:
    """One frame, how many of the first messages are in it, and why none is: then the first one cannot be sent."""
    count = len(batch)
    while True:
        try:
            payload = encode_batch(batch if count == len(batch) else batch[:count])
        except Exception as error:  # a name that has no UTF-8, say
            why = f"{type(error).__name__}: {error}"
        else:
            if len(payload) <= MAX_FRAME_BYTES:
                return encode_frame(payload), count, ""
            why = (
                f"{len(payload):,} bytes, and a frame holds {MAX_FRAME_BYTES:,}: put large values and pass their "
                "refs in a list"
            )
        if count == 1:
            return b"", 1, why
        count //= 2


def within_a_piece(batch: Sequence[AnyMessage], along: Mapping[int, Frame]) -> int:
    """How many of the first messages fit into one write with the frames that replies take `along`: the socket takes no
    more than a piece at once."""
    size = 0
    for count, message in enumerate(batch):
        if type(message) is Reply and (frame := along.get(message.seq)) is not None:
            if size and size + frame.size > PIECE:
                return count
            size += frame.size
    return len(batch)


def with_frames(batch: Iterable[AnyMessage], along: MutableMapping[int, Frame], data: bytes) -> tuple[list[bytes], int]:
    """The frames that the replies of a batch take along, which `along` has no more, and the batch's own; their size."""
    buffers: list[bytes] = []
    size = len(data)
    for message in batch:
        if type(message) is Reply and (frame := along.pop(message.seq, None)) is not None:
            buffers += frame.buffers
            size += frame.size
    buffers.append(data)
    return buffers, size


class Source(Protocol):
    """A pipe that has its turn."""

    @property
    def held(self) -> int: ...

    def next_piece(self) -> tuple[list[bytes | memoryview], int, bool]: ...


S = TypeVar("S", bound=Source)


def next_pieces(turns: deque[S]) -> tuple[list[Buffer], int, list[S]]:
    """The next pieces of the pipes whose turn it is, so many small ones as make a large one; their size, and the pipes
    that have had their last turn. Those that have more get another turn behind all others."""
    buffers: list[Buffer] = []
    size = 0
    ended: list[S] = []
    while len(buffers) < MOST_BUFFERS:
        try:
            if buffers and size + turns[0].held > PIECE:
                break
            pipe = turns.popleft()
        except IndexError:  # there is none, or the link was lost a moment ago
            break
        parts, length, more = pipe.next_piece()
        if more:
            turns.append(pipe)
        elif parts:
            ended.append(pipe)
        buffers += parts
        size += length
    return buffers, size, ended
