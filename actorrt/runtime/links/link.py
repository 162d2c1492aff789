"""One link: the full-duplex stream of messages to one other process.

Messages may be queued from any thread; whoever finds the moment right calls `flush`, which writes everything that is
ready in as few frames as possible, straight to the socket. Reading happens on the runtime loop alone. Dialling and
accepting are in transport.py; what messages mean is up to the `Receiver`.

In the main thread of a program a KeyboardInterrupt may come after any call that Python code makes. What it must not
tear apart is one call of C functions here (`extend` of a `map`), whose list tells afterwards how far it came.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import repeat, starmap
from typing import Any, Final, Protocol

import msgspec

from actorrt import exceptions
from actorrt.types import FunctionKey
from actorrt.wire.frames import GOODBYE, MAX_FRAME_BYTES, Acknowledged, FrameError, FrameParser, RawPart, encode_frame
from actorrt.wire.messages import (
    Answer,
    AnswerBody,
    AnyMessage,
    Ask,
    Hello,
    Question,
    Refusal,
    Reply,
    Unreadable,
    Withdraw,
    decode_batch,
    decode_each,
    encode_batch,
    tag_of,
)

from .pipes import PIECE, Frame, Pipe, caller_end

# A frame is never longer than so many messages, so that no batch holds the wire for long.
BATCH: Final = 256
ASK: Final = tag_of(Ask)
ANSWER: Final = tag_of(Answer)
REFUSAL: Final = tag_of(Refusal)
# What a link answers, or hands to who has asked; all else is the receiver's.
_DIALOGUE: Final = frozenset({Answer, Refusal, Ask, Withdraw})
# What the socket takes at once, so that a piece of a pipe leaves in one go. The system may allow less.
SEND_BUFFER_BYTES: Final = 512 * 1024
_NOT_WAITING: Final = (False,)
# Of what one system call takes (1,024 on Linux), less what one more piece has.
_MOST_BUFFERS: Final = 512


class Receiver(Protocol):
    """Who a link belongs to. All methods run on the runtime loop and must not raise."""

    def receive(self, link: Link, messages: list[AnyMessage]) -> None: ...

    async def answer(self, link: Link, question: Question) -> AnswerBody: ...

    def unwanted(self, link: Link, body: AnswerBody) -> None: ...

    def unsendable(self, link: Link, message: AnyMessage, why: str) -> None: ...

    def unreadable(self, link: Link, message: Unreadable) -> None: ...

    def link_lost(self, link: Link) -> None: ...


class Link:
    """An open link. `closed` is true once nothing can be sent any more; `farewell` if the peer closed on purpose."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        receiver: Receiver,
        hello: Hello,
        transport: asyncio.Transport,
    ) -> None:
        self.loop = loop
        self.peer = hello.process
        self.role = hello.role
        self.pid = hello.pid
        self.closed = False
        self.farewell = False
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
        self._transport = transport
        sock = transport.get_extra_info("socket")
        # A descriptor of our own: uvloop does not let others watch the one that its transport reads.
        self._out = socket.socket(fileno=os.dup(sock.fileno()))
        self._out.setblocking(False)
        self._out.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self.parser = FrameParser()
        self._queue: deque[AnyMessage] = deque()
        self._lock = threading.Lock()
        # What the socket has not taken of a frame: pieces, in order.
        self._rest: list[memoryview] | None = None
        # Frames that the reply of a call takes along, by the call's sequence number.
        self._along: dict[int, Frame] = {}
        # Pipes that have something to send, in the order of their turns. Messages go before them.
        self._piped: deque[Pipe] = deque()
        # Those that would have, but for the link.
        self._crowded_out: deque[Pipe] = deque()
        self._flush_due = False
        self._held = False
        # Told of an accepted link once its dialler has sent a frame; until then nobody knows of the link.
        self._on_open: Callable[[Link], None] | None = None
        self._asks: dict[int, asyncio.Future[AnswerBody]] = {}
        self._last_rid = 0
        self._answering: dict[int, asyncio.Task[None]] = {}

    def __repr__(self) -> str:
        return f"<Link to {self.role} {self.peer.hex()} pid={self.pid}{' closed' if self.closed else ''}>"

    @property
    def congested(self) -> bool:
        """The peer does not read as fast as this process writes."""
        return self._rest is not None

    @property
    def queued(self) -> int:
        """How many messages wait to be written."""
        return len(self._queue)

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

    def hold(self, on_open: Callable[[Link], None]) -> None:
        """Write nothing until the peer has sent its first frame: until then it still reads through aiohttp.

        `on_open(link)` is called then. A link that ends before was never open: its receiver hears nothing of it.
        """
        self._held = True
        self._on_open = on_open

    def greet(self) -> None:
        """Send an empty frame: the peer's hello was read, it may write now."""
        with contextlib.suppress(OSError):
            self._out.send(encode_frame(encode_batch([])))

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
        while (queue or piped) and self._rest is None and not self.closed and not self._held:
            locked: list[bool] = []
            try:
                locked.extend(map(self._lock.acquire, _NOT_WAITING))
                if not locked[0]:
                    return
                if self._rest is None and not self.closed:
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
                self._schedule_loss()
                return
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
        buffers: list[bytes | memoryview] = []
        size = 0
        ended: list[Pipe] = []
        while len(buffers) < _MOST_BUFFERS:
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
            count = self._out.sendmsg(buffers)
        except BlockingIOError:
            count = 0
        except OSError:
            self._schedule_loss()
            return
        except KeyboardInterrupt:
            # Whether it was sent nobody knows: what comes behind it would be read as part of it.
            self._schedule_loss()
            raise
        self._sent(buffers, count, size)
        for pipe in ended:
            pipe.sent()

    def _sent(self, buffers: Sequence[bytes | memoryview], count: int, size: int) -> None:
        if count < size:
            self._rest = _behind(buffers, count)
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._wait_writable)

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
        if isinstance(message, Ask):
            self._fail(message.rid, exceptions.NotSentError(f"the question {type(message.body).__name__}", why))
        elif isinstance(message, Answer | Refusal):
            self.send(Refusal(message.rid, "NotSentError", ["the answer", why.encode(errors="replace").decode()]))
        else:
            self._receiver.unsendable(self, message, why)

    def _unreadable(self, message: Unreadable) -> None:
        """The same for one that came and means nothing here."""
        why = f"{self!r} sent what cannot be read: {message.why}"
        if message.tag == ASK:
            self.send(Refusal(message.number, "NotSentError", ["the question", message.why]))
        elif message.tag in (ANSWER, REFUSAL):
            self._fail(message.number, exceptions.ActorrtError(why))
        else:
            self._receiver.unreadable(self, message)

    def _fail(self, rid: int, error: Exception) -> None:
        future = self._asks.pop(rid, None)
        if future is not None and not future.done():
            future.set_exception(error)

    def _wait_writable(self) -> None:
        if not self.closed:
            self.loop.add_writer(self._out.fileno(), self._writable)

    def _writable(self) -> None:
        with self._lock:
            rest = self._rest
            if rest is not None and not self.closed:
                try:
                    sent = self._out.sendmsg(rest)
                except BlockingIOError:
                    return
                except OSError:
                    self._schedule_loss()
                    return
                if left := _behind(rest, sent):
                    self._rest = left
                    return
            self._rest = None
            if not self.closed:
                self.loop.remove_writer(self._out.fileno())
        self.flush()
        while self._crowded_out and self._rest is None and not self.closed:
            self._crowded_out.popleft().link_is_free()

    def _schedule_loss(self) -> None:
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._lost)

    # ---- receiving (runtime loop only); aiohttp calls these two as the connection's payload parser

    def feed_data(self, data: bytes | memoryview) -> tuple[bool, bytes]:
        """Bytes from the peer. What is no frame ends this link and nothing else, what is no message costs itself."""
        try:
            for found in self.parser.feed(data):
                if self._held:
                    self._first_frame()
                if isinstance(found, RawPart):
                    self._take_raw(found)
                    continue
                if isinstance(found, Acknowledged):
                    continue
                try:
                    messages = decode_batch(found)
                except msgspec.DecodeError:
                    self._take_each(decode_each(found))
                else:
                    self._take(messages)
            if self.parser.ended:
                self.farewell = True
                self._lost()
        except (FrameError, msgspec.DecodeError) as error:
            self.loop.call_exception_handler({"message": f"{self!r} sent bytes that make no sense", "exception": error})
            self._lost()
        return False, b""

    def _first_frame(self) -> None:
        self._held = False
        if self._on_open is not None:
            self._on_open(self)
        self.flush()

    def feed_eof(self) -> None:
        self._lost()

    def _take_raw(self, part: RawPart) -> None:
        """Bytes of a pipe. Those of a call that has ended are nobody's."""
        pipe = caller_end(self.inflight.get(part.seq), self) if part.to_caller else self.pipes.get(part.seq)
        if pipe is not None:
            pipe.arrived(part.data, part.last)

    def _take(self, messages: list[AnyMessage]) -> None:
        # Most frames bring calls or their outcomes and nothing else.
        for message in messages:
            if type(message) in _DIALOGUE:
                self._take_in_parts(messages)
                return
        if messages:
            self._receiver.receive(self, messages)

    def _take_in_parts(self, messages: list[AnyMessage]) -> None:
        rest: list[AnyMessage] = []
        for message in messages:
            if type(message) in _DIALOGUE:
                # Order counts between questions and other messages.
                if rest:
                    self._receiver.receive(self, rest)
                    rest = []
                self._dialogue(message)
            else:
                rest.append(message)
        if rest:
            self._receiver.receive(self, rest)

    def _take_each(self, messages: list[AnyMessage | Unreadable]) -> None:
        for message in messages:
            if isinstance(message, Unreadable):
                self._unreadable(message)
            else:
                self._take([message])

    def _dialogue(self, message: AnyMessage) -> None:
        if isinstance(message, Answer):
            future = self._asks.pop(message.rid, None)
            if future is None or future.done():
                # The asker was cancelled meanwhile; what it was granted has to be given back.
                self._receiver.unwanted(self, message.body)
            else:
                future.set_result(message.body)
        elif isinstance(message, Refusal):
            future = self._asks.pop(message.rid, None)
            if future is not None and not future.done():
                future.set_exception(_rebuild_error(message))
        elif isinstance(message, Ask):
            task = self.loop.create_task(self._answer(message))
            self._answering[message.rid] = task
            task.add_done_callback(lambda _: self._answering.pop(message.rid, None))
        elif isinstance(message, Withdraw):
            task = self._answering.get(message.rid)
            if task is not None:
                task.cancel()

    async def _answer(self, ask: Ask) -> None:
        try:
            body = await self._receiver.answer(self, ask.body)
        except exceptions.ActorrtError as error:
            self.send(_refusal(ask.rid, error))
        except Exception as error:
            self.loop.call_exception_handler({"message": f"{ask.body!r} could not be answered", "exception": error})
            self.send(Refusal(ask.rid, "ActorrtError", [f"{type(error).__name__}: {error}"]))
        else:
            self.send(Answer(ask.rid, body))

    # ---- questions

    async def ask(self, question: Question) -> Any:
        """The peer's answer. Raises its refusal, or LinkError when the link ends first."""
        if self.closed:
            raise exceptions.LinkError(f"the link to {self.role} {self.peer.hex()} is closed")
        self._last_rid += 1
        rid = self._last_rid
        future: asyncio.Future[AnswerBody] = self.loop.create_future()
        self._asks[rid] = future
        self.send(Ask(rid, question))
        try:
            return await future
        except asyncio.CancelledError:
            if self._asks.pop(rid, None) is not None:
                if not self.closed:
                    self.send(Withdraw(rid))
            elif future.done() and not future.cancelled() and future.exception() is None:
                # The answer came in this very turn; nobody will look at it.
                self._receiver.unwanted(self, future.result())
            raise
        finally:
            # An error would keep itself alive through this frame, and with it all that the frames above hold.
            del future

    # ---- the end

    def close(self) -> None:
        """Say goodbye and close. Queued messages leave first where the socket takes them at once."""
        if self.closed:
            return
        self.flush()
        with self._lock:
            if self._rest is None:
                with contextlib.suppress(OSError):
                    self._out.send(GOODBYE)
        self.farewell = True
        self._lost()

    def drop(self) -> None:
        """End it without a word: the peer is known to be dead, though something else may hold its socket open."""
        self._lost()

    def abandon(self) -> None:
        """Close the sockets that a fork has inherited; the link itself is its parent's."""
        self.closed = True
        let_go(self._transport.get_extra_info("socket").fileno())
        self._out.close()

    def _lost(self) -> None:
        if self.closed:
            return
        with self._lock:
            self.closed = True
            if self._rest is not None:
                self.loop.remove_writer(self._out.fileno())
            self._out.close()
        self._transport.abort()
        self._queue.clear()
        self._piped.clear()
        self._along.clear()
        self._crowded_out.clear()
        error = exceptions.LinkError(f"the link to {self.role} {self.peer.hex()} ended")
        asks, self._asks = self._asks, {}
        for future in asks.values():
            if not future.done():
                future.set_exception(error)
        for task in list(self._answering.values()):
            task.cancel()
        try:
            if not self._held:
                self._receiver.link_lost(self)
        finally:
            self.gone.set()


def _behind(buffers: Sequence[bytes | memoryview], count: int) -> list[memoryview]:
    """What of the buffers comes behind their first `count` bytes."""
    left: list[memoryview] = []
    for buffer in buffers:
        if count < len(buffer):
            left.append(memoryview(buffer)[count:])
            count = 0
        else:
            count -= len(buffer)
    return left


def let_go(fd: int) -> None:
    """Have a descriptor that a fork has inherited lead nowhere; whoever has its number may still close it."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, fd)
    os.close(null)


def _refusal(rid: int, error: exceptions.ActorrtError) -> Refusal:
    refusal = Refusal(rid, type(error).__name__, list(error.args))
    try:
        encode_batch([refusal])
    except Exception:  # an error that holds what is no plain value
        return Refusal(rid, "ActorrtError", [f"{type(error).__name__}: {error}".encode(errors="replace").decode()])
    return refusal


def _rebuild_error(refusal: Refusal) -> Exception:
    kind = getattr(exceptions, refusal.error, exceptions.ActorrtError)
    try:
        return kind(*refusal.args)
    except TypeError:
        return exceptions.ActorrtError(f"{refusal.error}: {refusal.args}")
