"""One link: the full-duplex stream of messages to one other process, over one connection after the other.

Messages may be queued from any thread; whoever finds the moment right calls `flush`, which writes everything that is
ready in as few frames as possible, straight to the socket. Reading happens on the runtime loop alone. What a connection
that breaks means is decided in wire/link.py; dialling, accepting and dialling again are in peers.py and transport.py;
what messages mean is up to the `Receiver`.

In the main thread of a program a KeyboardInterrupt may come after any call that Python code makes. What it must not
tear apart is one call of C functions here (`extend` of a `map`), whose list tells afterwards how far it came.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from itertools import repeat, starmap
from typing import Any, ClassVar, Final, Protocol

import msgspec

from actorrt import exceptions
from actorrt.types import FunctionKey
from actorrt.wire.frames import GOODBYE, MAX_FRAME_BYTES, Acknowledged, FrameError, RawPart, encode_frame
from actorrt.wire.link import Action, Buffer, End, Ending, Event, LinkStateError, Parting, State, behind
from actorrt.wire.messages import (
    AnswerBody,
    AnyMessage,
    Hello,
    Question,
    Reply,
    Unreadable,
    decode_batch,
    decode_each,
    encode_batch,
)
from actorrt.wire.pipe_end import PIECE, Frame
from actorrt.wire.questions import DIALOGUE, in_parts

from .connection import MOST_BUFFERS, Connection
from .dialogue import Dialogue
from .pipes import Pipe, caller_end

# A frame is never longer than so many messages, so that no batch holds the wire for long.
BATCH: Final = 256
_NOT_WAITING: Final = (False,)
# In place of how many bytes a connection took: all that is written goes to the next one.
_BROKEN: Final = -1
# What has come is acknowledged after so long at the latest.
ACKNOWLEDGE_S: Final = 1.0
# So long is read on from a connection that takes nothing any more.
READ_ON_S: Final = 1.0


class Receiver(Protocol):
    """Who a link belongs to. All methods run on the runtime loop and must not raise."""

    def receive(self, link: Link, messages: list[AnyMessage]) -> None: ...

    async def answer(self, link: Link, question: Question) -> AnswerBody: ...

    def unwanted(self, link: Link, body: AnswerBody) -> None: ...

    def unsendable(self, link: Link, message: AnyMessage, why: str) -> None: ...

    def unreadable(self, link: Link, message: Unreadable) -> None: ...

    def link_lost(self, link: Link) -> None: ...


class Keeper(Protocol):
    """Who sees to the connections of a link; runtime loop."""

    def opened(self, link: Link) -> None:
        """A link that was accepted counts from now on."""

    def restore(self, link: Link) -> None:
        """Its connection has broken: dial again, or wait for who dialled; end it where that is in vain."""

    def is_ending(self, link: Link) -> bool:
        """Whether its process runs no more, as the kernel has it."""
        ...

    def part(self, link: Link, parting: Parting) -> None:
        """It ends, and its goodbye could not be written."""

    def closed(self, link: Link) -> None:
        """It has ended."""


class _Obstacle(Enum):
    """Why nothing is written at the moment."""

    SOCKET = "the socket takes nothing more"
    WINDOW = "too much is not acknowledged"
    CONNECTION = "there is no connection, or its other end does not read yet"


# Bound here, since looking up a member of an Enum takes long.
_OPEN: Final = State.OPEN
_SOCKET: Final = _Obstacle.SOCKET
_WINDOW: Final = _Obstacle.WINDOW
_CONNECTION: Final = _Obstacle.CONNECTION


@dataclass(frozen=True, slots=True)
class LinkStatistics:
    """One moment of a link. Bytes are those of frames, since the link began."""

    state: State
    connections: int
    written: int
    # Of those, what the peer has not acknowledged.
    kept: int
    received: int
    messages_queued: int
    calls_inflight: int
    questions: int


class Link:
    """An open link, whether it has a connection at the moment or not.

    `closed` says how it has ended once nothing can be sent any more.
    """

    # What is sent comes to this very process, whose threads can take it.
    is_loopback: ClassVar[bool] = False

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        receiver: Receiver,
        keeper: Keeper,
        hello: Hello,
        end: End,
        connection: Connection | None,
        path: str = "",
    ) -> None:
        """`hello`: the peer's. `path`: where it listens, if this process has dialled."""
        self.loop = loop
        self.peer = hello.process
        self.role = hello.role
        self.pid = hello.pid
        self.path = path
        self.end = end
        self.closed: Ending | None = None
        # Calls that this process made over the link and that have no outcome yet, by sequence number.
        self.inflight: dict[int, Any] = {}
        # Calls of the peer that this process runs, and those that wait for their turn at an actor here.
        self.serving: dict[int, Any] = {}
        self.waiting: dict[int, Any] = {}
        # Definitions (functions, classes) that the peer already has.
        self.defined: set[FunctionKey] = set()
        # The pipes of calls of the peer that run here, by the call's sequence number.
        self.pipes: dict[int, Pipe] = {}
        self.gone: asyncio.Event = asyncio.Event()
        self._receiver = receiver
        self._keeper = keeper
        self._connection = connection
        self._connections = int(connection is not None)
        self._out: Any = None if connection is None else connection.out
        self._parser = end.parser
        self._kept = end.kept
        self._window_bytes = end.window_bytes
        self._queue: deque[AnyMessage] = deque()
        # Who has it writes, or changes what is written to; and flushes once more behind it.
        self._lock = threading.Lock()
        self._obstacle: _Obstacle | None = None if end.state is _OPEN else _CONNECTION
        # What the socket has not taken of a frame: pieces, in order.
        self._rest: list[Buffer] | None = None
        # What the peer misses of what was written to an earlier connection.
        self._missed: list[Buffer] = []
        # Until so many bytes were read, the link is open, and there is nothing to do about acknowledgements.
        self._look_at = 0
        self._acknowledging: asyncio.TimerHandle | None = None
        # Frames that the reply of a call takes along, by the call's sequence number.
        self._along: dict[int, Frame] = {}
        # Pipes that have something to send, in the order of their turns. Messages go before them.
        self._piped: deque[Pipe] = deque()
        # Those that would have, but for the link.
        self._crowded_out: deque[Pipe] = deque()
        # A flag and not the handle of the wake-up: that may run in the loop's thread before this one has the handle.
        self._flush_due = False
        self._dialogue = Dialogue(loop, self.send, partial(receiver.answer, self), partial(receiver.unwanted, self))

    def __repr__(self) -> str:
        state = "" if self.end.state is _OPEN else f" {self.end.state.value}"
        return f"<Link to {self.role} {self.peer.hex()} pid={self.pid}{state}>"

    @property
    def farewell(self) -> bool:
        """It was closed on purpose."""
        return self.closed is Ending.GOODBYE

    @property
    def unheard(self) -> bool:
        """The peer may have said what has not come, and will not come if the link has ended."""
        return self.end.unheard

    @property
    def congested(self) -> bool:
        """The peer does not read as fast as this process writes, or not at the moment."""
        return self._obstacle is not None

    @property
    def queued(self) -> int:
        """How many messages wait to be written."""
        return len(self._queue)

    def statistics(self) -> LinkStatistics:
        return LinkStatistics(
            self.end.state,
            self._connections,
            self._kept.written,
            self._kept.size,
            self.end.received,
            len(self._queue),
            len(self.inflight),
            len(self._dialogue),
        )

    # ---- sending

    def send(self, message: AnyMessage) -> None:
        """Queue a message from the runtime loop; it leaves at the end of this turn."""
        self._queue.append(message)
        self.flush_at_end_of_turn()

    def flush_at_end_of_turn(self) -> None:
        """Have what was pushed written with all else of this turn; on the runtime loop."""
        if not self._flush_due:
            self._flush_due = True
            self.loop.call_soon(self._flush_now)

    def post(self, message: AnyMessage) -> None:
        """Queue a message from any thread; the runtime loop is woken once for all that wait."""
        self._queue.append(message)
        self.post_flush()

    def post_flush(self) -> None:
        """Have the runtime loop flush what was pushed; from any thread, one wake-up for all that wait."""
        if not self._flush_due:
            self._flush_due = True
            try:
                self.wake()
            except BaseException:
                # Interrupted: whoever comes next wakes it.
                self._flush_due = False
                raise

    def push(self, message: AnyMessage) -> None:
        """Queue a message; the caller sees to the flush."""
        self._queue.append(message)

    def take_along(self, seq: int, frame: Frame) -> None:
        """Have this frame leave right before the Reply to call `seq`, which is pushed next, in one write with it."""
        self._along[seq] = frame

    def push_pipe(self, pipe: Pipe) -> None:
        """Have the pieces of this pipe sent, turn about with those of others; the caller sees to the flush."""
        self._piped.append(pipe)

    def tell_of_room(self, pipe: Pipe) -> None:
        """Tell this pipe, in its turn, once the link takes bytes again; runtime loop."""
        if pipe not in self._crowded_out:
            self._crowded_out.append(pipe)

    def wake(self) -> None:
        """Have the runtime loop flush soon; from any thread."""
        # The loop may be closed already: then there is nobody left to write to.
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._flush_now)

    def _flush_now(self) -> None:
        self._flush_due = False
        self.flush()

    def flush(self) -> None:
        """Write all that is queued, from any thread. Returns at once where another thread is writing: it goes on."""
        queue = self._queue
        piped = self._piped
        while (queue or piped) and self._obstacle is None:
            locked: list[bool] = []
            try:
                locked.extend(map(self._lock.acquire, _NOT_WAITING))
                if not locked[0]:
                    return
                if self._obstacle is None:
                    # Messages first: a piece of a body does not hold up a small answer.
                    if queue:
                        self._write_batch()
                    else:
                        self._write_pieces()
            finally:
                if locked and locked[0]:
                    self._lock.release()

    def _write_batch(self) -> None:
        queue = self._queue
        batch: list[AnyMessage] = []
        sent: list[int] = []
        buffers: list[bytes] = []
        size = 0
        try:
            try:
                batch.extend(starmap(queue.popleft, repeat((), min(BATCH, len(queue)))))
            except IndexError:
                if not batch:
                    return
            if self._along:
                self._keep_to_a_piece(batch)
            data = self._encode(batch)
            if not data:
                if type(batch[0]) is Reply:
                    self._along.pop(batch[0].seq, None)
                return
            buffers, size = self._with_frames(batch, data) if self._along else ([data], len(data))
            try:
                if len(buffers) == 1:
                    sent.extend(map(self._out.send, buffers))
                else:
                    sent.extend(map(self._out.sendmsg, (buffers,)))
            except BlockingIOError:
                sent.append(0)
            except OSError:
                sent.append(_BROKEN)
            self._sent(buffers, sent[0], size)
        except KeyboardInterrupt:
            # Nothing is lost, and nothing is sent twice.
            if sent:
                self._sent(buffers, sent[0], size)
            else:
                queue.extendleft(reversed(batch))
            self.wake()
            raise

    def _keep_to_a_piece(self, batch: list[AnyMessage]) -> None:
        """Put back what comes behind so many frames as fill a piece: the socket takes no more at once."""
        size = 0
        for at, message in enumerate(batch):
            if type(message) is Reply and (frame := self._along.get(message.seq)) is not None:
                if size and size + frame.size > PIECE:
                    self._queue.extendleft(reversed(batch[at:]))
                    del batch[at:]
                    return
                size += frame.size

    def _with_frames(self, batch: list[AnyMessage], data: bytes) -> tuple[list[bytes], int]:
        """The frames that the replies of a batch take along, and the batch."""
        buffers: list[bytes] = []
        size = len(data)
        for message in batch:
            if type(message) is Reply and (frame := self._along.pop(message.seq, None)) is not None:
                buffers += frame.buffers
                size += frame.size
        buffers.append(data)
        return buffers, size

    def _write_pieces(self) -> None:
        """Send the next pieces of the pipes whose turn it is, so many small ones as make a large one, in one write.

        Messages go before them and between the writes.
        """
        buffers: list[Buffer] = []
        sent: list[int] = []
        size = 0
        ended: list[Pipe] = []
        while len(buffers) < MOST_BUFFERS:
            try:
                if buffers and size + self._piped[0].held > PIECE:
                    break
                pipe = self._piped.popleft()
            except IndexError:  # there is none, or the link was lost a moment ago
                break
            parts, length, more = pipe.next_piece()
            if more:
                self._piped.append(pipe)
            elif parts:
                ended.append(pipe)
            buffers += parts
            size += length
        if not buffers:
            return
        try:
            try:
                sent.extend(map(self._out.sendmsg, (buffers,)))
            except BlockingIOError:
                sent.append(0)
            except OSError:
                sent.append(_BROKEN)
            self._sent(buffers, sent[0], size)
        except KeyboardInterrupt:
            self._sent(buffers, sent[0] if sent else 0, size)
            self.wake()
            raise
        for pipe in ended:
            pipe.sent()

    def _sent(self, buffers: Sequence[Buffer], count: int, size: int) -> None:
        """Of `size` bytes the socket has taken `count`, or is _BROKEN; again, if an interrupt came: the same."""
        kept = self._kept.add(buffers, size)
        if count < size:
            self._stop_writing(buffers, count)
        elif kept >= self._window_bytes:
            self._obstacle = _WINDOW

    def _stop_writing(self, buffers: Sequence[Buffer], count: int) -> None:
        if count == _BROKEN:
            self._write_failed()
            return
        self._rest = behind(buffers, count)
        self._obstacle = _SOCKET
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._wait_writable)

    def _write_failed(self) -> None:
        """Nothing can be written any more. What the peer has written is read to its end, where a goodbye may be."""
        self._obstacle = _CONNECTION
        self._rest = None
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._read_on, self._connection)

    def _read_on(self, connection: Connection | None) -> None:
        if connection is not None and connection is self._connection:
            connection.end_writing()
            self.loop.call_later(READ_ON_S, self.broke, connection)

    def _encode(self, batch: list[AnyMessage]) -> bytes:
        """One frame; what does not fit goes back into the queue. Empty if a single message cannot be sent."""
        while True:
            try:
                payload = encode_batch(batch)
            except Exception as error:  # a name that has no UTF-8, say
                why = f"{type(error).__name__}: {error}"
            else:
                if len(payload) <= MAX_FRAME_BYTES:
                    return encode_frame(payload)
                why = (
                    f"{len(payload):,} bytes, and a frame holds {MAX_FRAME_BYTES:,}: put large values and pass their "
                    "refs in a list"
                )
            if len(batch) == 1:
                with contextlib.suppress(RuntimeError):
                    self.loop.call_soon_threadsafe(self._unsendable, batch[0], why)
                return b""
            half = len(batch) // 2
            rest = batch[: half - 1 : -1]
            del batch[half:]
            self._queue.extendleft(rest)

    def _unsendable(self, message: AnyMessage, why: str) -> None:
        """A message cannot be written: it costs itself, and who waits for it is told."""
        if not self._dialogue.unsendable(message, why):
            self._receiver.unsendable(self, message, why)

    def _unreadable(self, message: Unreadable) -> None:
        """The same for one that came and means nothing here."""
        if not self._dialogue.unreadable(message, f"{self!r} sent what cannot be read: {message.why}"):
            self._receiver.unreadable(self, message)

    def _wait_writable(self) -> None:
        if self._rest is not None and self._connection is not None:
            self._connection.await_room(self._writable)

    def _writable(self) -> None:
        with self._lock:
            connection, rest = self._connection, self._rest
            if connection is not None and rest is not None and not self._write_rest(rest):
                connection.stop_awaiting_room()
        self._go_on()

    def _write_rest(self, rest: list[Buffer]) -> bool:
        """Write what the socket has not taken, with the lock held. True if some is left for later."""
        try:
            left = behind(rest, self._out.sendmsg(rest[:MOST_BUFFERS]))
        except BlockingIOError:
            left = rest
        except OSError:
            self._write_failed()
            return False
        self._rest = left or None
        if not left:
            self._obstacle = None if self.end.may_write else _WINDOW
        return bool(left)

    def _go_on(self) -> None:
        """Write what has waited for an obstacle to go."""
        self.flush()
        while self._crowded_out and self._obstacle is None:
            self._crowded_out.popleft().link_is_free()

    # ---- receiving (runtime loop only)

    def feed_data(self, data: bytes | memoryview) -> None:
        """Bytes from the peer. What is no frame ends this link and nothing else, what is no message costs itself."""
        parser = self._parser
        try:
            frames = parser.feed(data)
            looks = parser.fed >= self._look_at
            if looks and frames:
                if self.closed:
                    return
                self._perform(self.end.hears())
            for found in frames:
                if isinstance(found, RawPart):
                    self._take_raw(found)
                    continue
                if isinstance(found, Acknowledged):
                    self._let_go(found.position)
                    continue
                try:
                    messages = decode_batch(found)
                except msgspec.DecodeError:
                    self._take_each(decode_each(found))
                else:
                    self._take(messages)
            if looks:
                self._look()
            if parser.ended:
                self.finish(Ending.GOODBYE)
        except (FrameError, LinkStateError, msgspec.DecodeError) as error:
            self.loop.call_exception_handler({"message": f"{self!r} sent bytes that make no sense", "exception": error})
            self.finish(Ending.LOST)

    # ---- acknowledgements

    def _let_go(self, position: int) -> None:
        """The peer has so many bytes."""
        with self._lock:
            self._kept.acknowledge(position)
            if self._obstacle is _WINDOW and self.end.may_write:
                self._obstacle = None
        self._go_on()

    def _look(self) -> None:
        """Acknowledge what has come if it is enough, or see to it that it is done in a while."""
        if self.end.state is not _OPEN:
            return
        if self.end.acknowledgement_is_due:
            self._acknowledge()
        if self._acknowledging is None:
            self._acknowledging = self.loop.call_later(ACKNOWLEDGE_S, self._acknowledge_late)
        self._look_at = self.end.acknowledgement_not_before

    def _acknowledge_late(self) -> None:
        # With the next bytes that come it begins anew.
        self._acknowledging = None
        self._look_at = 0
        self._acknowledge()

    def _acknowledge(self) -> None:
        with self._lock:
            said = b"" if self._obstacle is _CONNECTION else self.end.acknowledge()
            if said and self._rest is not None:
                # Between two frames: the rest is that of a whole one.
                self._rest.append(said)
            elif said:
                self._write_aside(said)
        # Whatever was said: another thread may have found the lock taken.
        self._go_on()

    def _write_aside(self, said: bytes) -> None:
        """Write what is not counted, with the lock held."""
        try:
            sent = self._out.send(said)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._write_failed()
            return
        if sent < len(said):
            self._rest = [memoryview(said)[sent:]]
            self._obstacle = _SOCKET
            self._wait_writable()

    # ---- connections (runtime loop)

    def greet(self) -> None:
        """Have who was dialled know that its hello was read: it may write now."""
        with self._lock:
            self._write_aside(self.end.greet())

    def broke(self, connection: Connection) -> None:
        """This connection has ended without a goodbye. If it is not the link's any more: nothing."""
        if connection is self._connection:
            self._let_go_of_connection()
            self._perform(self.end.apply(Event.DIED if self._keeper.is_ending(self) else Event.BROKEN))

    def rejoin(self, connection: Connection, peer_received: int) -> None:
        """Go on over this connection, once the peer is heard there. LinkStateError: it misses what is gone.

        Of what comes over it, `feed_data` is told.
        """
        self._let_go_of_connection()
        with self._lock:
            missed = self.end.rejoin(peer_received)
            self._missed = [b"".join(missed)] if len(missed) > MOST_BUFFERS else missed
            self._connection = connection
            self._connections += 1
            self._out = connection.out

    def resume(self, connection: Connection, peer_received: int) -> None:
        """The same for who has dialled: its peer has answered, and reads."""
        self.rejoin(connection, peer_received)
        self._perform(self.end.apply(Event.HEARD))

    def _perform(self, actions: tuple[Action, ...]) -> None:
        for action in actions:
            match action:
                case Action.TELL_OPEN:
                    self._keeper.opened(self)
                case Action.WRITE:
                    self._write_on()
                case Action.RESTORE:
                    self._keeper.restore(self)
                case Action.TELL_LOST:
                    self._receiver.link_lost(self)

    def _write_on(self) -> None:
        with self._lock:
            missed, self._missed = self._missed, []
            self._obstacle = _SOCKET
            if missed and self._write_rest(missed):
                self._wait_writable()
            elif not missed:
                self._obstacle = None if self.end.may_write else _WINDOW
        self._go_on()

    def _let_go_of_connection(self) -> None:
        connection = self._connection
        if connection is None:
            return
        with self._lock:
            self._connection = None
            self._look_at = 0
            self._obstacle = _CONNECTION
            if self._rest is not None:
                connection.stop_awaiting_room()
                self._rest = None
            connection.close()

    def _take_raw(self, part: RawPart) -> None:
        """Bytes of a pipe. Those of a call that has ended are nobody's."""
        pipe = caller_end(self.inflight.get(part.seq), self) if part.to_caller else self.pipes.get(part.seq)
        if pipe is not None:
            pipe.arrived(part.data, part.last)

    def _take(self, messages: list[AnyMessage]) -> None:
        # Most frames bring calls or their outcomes and nothing else.
        for message in messages:
            if type(message) in DIALOGUE:
                self._take_parts(in_parts(messages))
                return
        if messages:
            self._receiver.receive(self, messages)

    def _take_parts(self, parts: list[AnyMessage | list[AnyMessage]]) -> None:
        for part in parts:
            if isinstance(part, list):
                self._receiver.receive(self, part)
            else:
                self._dialogue.take(part)

    def _take_each(self, messages: list[AnyMessage | Unreadable]) -> None:
        for message in messages:
            if isinstance(message, Unreadable):
                self._unreadable(message)
            else:
                self._take([message])

    # ---- questions

    async def ask(self, question: Question) -> Any:
        """The peer's answer. Raises its refusal, or LinkError when the link ends first."""
        if self.closed:
            raise exceptions.LinkError(f"the link to {self.role} {self.peer.hex()} is closed")
        return await self._dialogue.ask(question)

    # ---- the end

    def close(self) -> None:
        """Say goodbye and close. Queued messages leave first where the socket takes them at once."""
        if self.closed:
            return
        self.flush()
        with self._lock:
            said = self._say_goodbye()
        if not said and (parting := self.end.parts()) is not None:
            self._keeper.part(self, parting)
        self.finish(Ending.GOODBYE)

    def _say_goodbye(self) -> bool:
        if self._rest is None and self._obstacle is not _CONNECTION:
            with contextlib.suppress(OSError):
                return self._out.send(GOODBYE) == len(GOODBYE)
        return False

    def finish(self, ending: Ending) -> None:
        """End it without a word; `ending`: why. DIED is for who knows that the peer's process has ended."""
        if self.closed:
            return
        actions = self.end.end(ending)
        self.closed = ending
        self._let_go_of_connection()
        if self._acknowledging is not None:
            self._acknowledging.cancel()
        self._kept.acknowledge(self._kept.written)
        self._missed.clear()
        self._queue.clear()
        self._piped.clear()
        self._along.clear()
        self._crowded_out.clear()
        self._dialogue.close(exceptions.LinkError(f"the link to {self.role} {self.peer.hex()} ended"))
        self._keeper.closed(self)
        try:
            self._perform(actions)
        finally:
            self.gone.set()

    def abandon(self) -> None:
        """Close the sockets that a fork has inherited; the link itself is its parent's."""
        self.closed = Ending.LOST
        self._obstacle = _CONNECTION
        if self._connection is not None:
            self._connection.abandon()
