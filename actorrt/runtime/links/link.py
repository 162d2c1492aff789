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
from functools import partial
from itertools import repeat, starmap
from typing import Any, ClassVar, Final, Protocol

import msgspec

from actorrt import exceptions
from actorrt.types import FunctionKey
from actorrt.wire.frames import GOODBYE, Acknowledged, FrameError, RawPart
from actorrt.wire.link import Action, Buffer, End, Ending, Event, LinkStateError, Parting, State
from actorrt.wire.messages import (
    AnswerBody,
    AnyMessage,
    Hello,
    Question,
    Reply,
    Unreadable,
    decode_batch,
    decode_each,
)
from actorrt.wire.outlet import BROKEN, MOST_BUFFERS, Do, Outlet, frame_of, next_pieces, with_frames, within_a_piece
from actorrt.wire.pipe_end import Frame
from actorrt.wire.questions import DIALOGUE, in_parts

from .connection import Connection
from .dialogue import Dialogue
from .pipes import Pipe, caller_end

# A frame is never longer than so many messages, so that no batch holds the wire for long.
BATCH: Final = 256
_NOT_WAITING: Final = (False,)
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


# Bound here, since looking up a member of an Enum takes long.
_OPEN: Final = State.OPEN


class LinkStatistics(msgspec.Struct, frozen=True):
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
        """`hello`: the peer's. `path`: where it was dialled, if this process has dialled."""
        self.loop = loop
        self.peer = hello.process
        self.role = hello.role
        # Of another machine, maybe: see `is_remote`.
        self.pid = hello.pid
        # Where it listens, as it says itself.
        self.address = hello.address
        # The two reach each other over a network.
        self.is_remote = connection is not None and connection.is_remote
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
        self._queue: deque[AnyMessage] = deque()
        # Who has it writes, or changes what is written to; and flushes once more behind it.
        self._lock = threading.Lock()
        self._outlet = Outlet(end)
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
        return self._outlet.obstacle is not None

    @property
    def queued(self) -> int:
        """How many messages wait to be written."""
        return len(self._queue)

    def statistics(self) -> LinkStatistics:
        return LinkStatistics(
            self.end.state,
            self._connections,
            self.end.kept.written,
            self.end.kept.size,
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
        outlet = self._outlet
        while (queue or piped) and outlet.obstacle is None:
            locked: list[bool] = []
            try:
                locked.extend(map(self._lock.acquire, _NOT_WAITING))
                if not locked[0]:
                    return
                if outlet.obstacle is None:
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
                self._put_back(batch, within_a_piece(batch, self._along))
            data, fit, why = self._frame(batch)
            if fit < len(batch):
                self._put_back(batch, fit)
            if not data:
                self._cannot_send(batch[0], why)
                return
            buffers, size = with_frames(batch, self._along, data) if self._along else ([data], len(data))
            try:
                if len(buffers) == 1:
                    sent.extend(map(self._out.send, buffers))
                else:
                    sent.extend(map(self._out.sendmsg, (buffers,)))
            except BlockingIOError:
                sent.append(0)
            except OSError:
                sent.append(BROKEN)
            if (left := self._outlet.wrote(buffers, sent[0], size)) is not None:
                self._do_soon(left)
        except KeyboardInterrupt:
            # Nothing is lost, and nothing is sent twice.
            if sent:
                self._wrote(buffers, sent[0], size)
            else:
                queue.extendleft(reversed(batch))
            self.wake()
            raise

    # One frame of a batch, how much of it is in that, and why nothing is.
    _frame = staticmethod(frame_of)

    def _put_back(self, batch: list[AnyMessage], count: int) -> None:
        """Have what comes behind so many messages of a batch wait."""
        rest = batch[: count - 1 : -1]
        del batch[count:]
        self._queue.extendleft(rest)

    def _cannot_send(self, message: AnyMessage, why: str) -> None:
        if type(message) is Reply:
            self._along.pop(message.seq, None)
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._unsendable, message, why)

    def _write_pieces(self) -> None:
        """Send the next pieces of the pipes whose turn it is, so many small ones as make a large one, in one write.

        Messages go before them and between the writes.
        """
        sent: list[int] = []
        buffers, size, ended = next_pieces(self._piped)
        if not buffers:
            return
        try:
            try:
                sent.extend(map(self._out.sendmsg, (buffers,)))
            except BlockingIOError:
                sent.append(0)
            except OSError:
                sent.append(BROKEN)
            self._wrote(buffers, sent[0], size)
        except KeyboardInterrupt:
            self._wrote(buffers, sent[0] if sent else 0, size)
            self.wake()
            raise
        for pipe in ended:
            pipe.sent()

    def _wrote(self, buffers: Sequence[Buffer], count: int, size: int) -> None:
        if (left := self._outlet.wrote(buffers, count, size)) is not None:
            self._do_soon(left)

    def _do_soon(self, left: Do) -> None:
        """Have the runtime loop do what is left to do; from any thread."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._do, left, self._connection)

    def _do(self, left: Do, connection: Connection | None) -> None:
        """If it is about the connection that the link has."""
        if connection is None or connection is not self._connection:
            return
        match left:
            case Do.AWAIT_ROOM if self._outlet.rest is not None:
                connection.await_room(self._writable)
            case Do.STOP_AWAITING:
                connection.stop_awaiting_room()
            case Do.READ_ON:
                self._read_on(connection)
            case _:
                pass

    def _read_on(self, connection: Connection) -> None:
        connection.end_writing()
        self.loop.call_later(READ_ON_S, self.broke, connection)

    def _unsendable(self, message: AnyMessage, why: str) -> None:
        """A message cannot be written: it costs itself, and who waits for it is told."""
        if not self._dialogue.unsendable(message, why):
            self._receiver.unsendable(self, message, why)

    def _unreadable(self, message: Unreadable) -> None:
        """The same for one that came and means nothing here."""
        if not self._dialogue.unreadable(message, f"{self!r} sent what cannot be read: {message.why}"):
            self._receiver.unreadable(self, message)

    def _writable(self) -> None:
        with self._lock:
            if self._outlet.rest is not None and (left := self._write_rest()) is not Do.AWAIT_ROOM:
                if left is Do.READ_ON and self._connection is not None:
                    self._connection.stop_awaiting_room()
                self._do(left, self._connection)
        self._go_on()

    def _write_rest(self) -> Do:
        """Write what the socket has not taken, with the lock held."""
        rest = self._outlet.rest or []
        try:
            count = self._out.sendmsg(rest[:MOST_BUFFERS])
        except BlockingIOError:
            count = 0
        except OSError:
            count = BROKEN
        return self._outlet.wrote_rest(count)

    def _go_on(self) -> None:
        """Write what has waited for an obstacle to go."""
        self.flush()
        while self._crowded_out and self._outlet.obstacle is None:
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
            self._outlet.acknowledged(position)
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
            if said := self._outlet.acknowledge():
                self._write_aside(said)
        # Whatever was said: another thread may have found the lock taken.
        self._go_on()

    def _write_aside(self, said: bytes) -> None:
        """Write what is not counted, with the lock held."""
        try:
            count = self._out.send(said)
        except BlockingIOError:
            count = 0
        except OSError:
            count = BROKEN
        if (left := self._outlet.wrote_aside(said, count)) is not None:
            self._do(left, self._connection)

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
            self._outlet.rejoin(peer_received)
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
            self._outlet.go_on()
            if self._outlet.rest is not None and (left := self._write_rest()) is not Do.STOP_AWAITING:
                self._do(left, self._connection)
        self._go_on()

    def _let_go_of_connection(self) -> None:
        connection = self._connection
        if connection is None:
            return
        with self._lock:
            self._connection = None
            self._look_at = 0
            if self._outlet.let_go():
                connection.stop_awaiting_room()
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
        if self._outlet.takes_goodbye:
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
        self._outlet.end()
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
        self._outlet.let_go()
        if self._connection is not None:
            self._connection.abandon()
