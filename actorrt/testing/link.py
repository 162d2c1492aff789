"""The runtime's link over connections in memory: what is a message, an answer or a loss is decided where it always is.

Of `Link` this replaces what touches a socket. The end of wire/link.py says what is written, kept, written again, and
when the link is lost.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgspec

from actorrt import exceptions
from actorrt.runtime.links.link import BATCH, Link, Receiver
from actorrt.runtime.links.pipes import Frame, Pipe
from actorrt.types import ProcessId
from actorrt.wire.frames import GOODBYE, HEADER_BYTES, TRAILER, Acknowledged, FrameError, RawPart
from actorrt.wire.link import Action, End, Event, State
from actorrt.wire.messages import AnyMessage, Hello, decode_batch

from .network import Plug
from .stage import Stage

# Small, so that histories of a few hundred messages come to them.
ACKNOWLEDGE_BYTES: Final = 2 * 1024
WINDOW_BYTES: Final = 32 * 1024
# What has come and was not acknowledged is, after so long.
ACKNOWLEDGE_S: Final = 1.0
NO_PIPES: Final = "bytes beside a call (pipes) cannot be simulated"


class VirtualLink(Link):
    """A link between two simulated processes."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        receiver: Receiver,
        hello: Hello,
        end: End,
        stage: Stage,
        restore: Callable[[VirtualLink], None],
        mine: ProcessId,
    ) -> None:
        """`restore` is called when its connection broke and it is to have another."""
        self.loop = loop
        self.peer = hello.process
        self.role = hello.role
        self.pid = hello.pid
        self.closed = False
        self.farewell = False
        self.inflight = {}
        self.serving = {}
        self.waiting = {}
        self.defined = set()
        self.pipes = {}
        self.gone = asyncio.Event()
        self.end = end
        self.parser = end.parser
        self.dialled = end.state is State.OPEN
        self._mine = mine
        self._receiver = receiver
        self._queue = deque[AnyMessage]()
        self._lock = threading.Lock()
        self._rest = None
        self._along = {}
        self._piped = deque[Pipe]()
        self._crowded_out = deque[Pipe]()
        self._flush_due = False
        self._held = False
        self._on_open: Callable[[Any], None] | None = None
        self._asks = {}
        self._last_rid = 0
        self._answering = {}
        self._story = stage.story
        self._deliveries = stage.deliveries
        self._restore = restore
        self._plug: Plug | None = None
        # Of a link that goes on: what the peer misses, written once it has been heard.
        self._missed: list[bytes | memoryview] = []
        self._acknowledges = False
        # Sets of links are gone through in the same order in each run.
        self._number = stage.story.next_number()

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other

    # ---- its connections

    def plug_in(self, plug: Plug) -> None:
        """Its first connection. A dialler greets over it."""
        self._plug = plug
        if self.dialled:
            plug.write(self.end.greet())
        plug.read_by(self)

    def hold(self, on_open: Callable[[Any], None]) -> None:
        """`on_open(link)` is called once its dialler has been heard; until then nobody knows of the link."""
        self._on_open = on_open

    def rejoin(self, plug: Plug, peer_received: int) -> None:
        """Go on over another connection. The dialler has read the peer's hello, who was dialled will hear one."""
        if self._plug is not None:
            self._plug.close()
        missed = self.end.rejoin(peer_received)
        self._plug = plug
        if self.dialled:
            plug.write(b"".join(missed))
            self._do(self.end.apply(Event.HEARD))
        else:
            self._missed = missed
        plug.read_by(self)

    def give_up(self) -> None:
        """Who knows says that it has ended."""
        self._do(self.end.apply(Event.ENDED))

    def broke(self) -> None:
        """Its connection has ended without a goodbye."""
        if not self.closed:
            self._plug = None
            self._do(self.end.apply(Event.BROKEN))

    def _do(self, actions: tuple[Action, ...]) -> None:
        for action in actions:
            match action:
                case Action.TELL_OPEN:
                    if self._on_open is not None:
                        self._on_open(self)
                case Action.WRITE:
                    missed, self._missed = self._missed, []
                    if missed and self._plug is not None:
                        self._plug.write(b"".join(missed))
                    self.flush()
                case Action.RESTORE:
                    self._restore(self)
                case Action.TELL_LOST:
                    self._lost()
        if self.end.state is State.CLOSED and not self.closed:
            # Nobody ever heard of it.
            self.closed = True
            self.gone.set()

    # ---- writing

    @property
    def congested(self) -> bool:
        return self.end.kept.size >= self.end.window_bytes

    def take_along(self, seq: int, frame: Frame) -> None:
        raise RuntimeError(NO_PIPES)

    def push_pipe(self, pipe: Pipe) -> None:
        raise RuntimeError(NO_PIPES)

    def wake(self) -> None:
        self.loop.call_soon(self._flush_now)

    def flush(self) -> None:
        queue = self._queue
        while queue and not self.closed and self.end.may_write and self._plug is not None:
            batch = [queue.popleft() for _ in range(min(BATCH, len(queue)))]
            data = self._encode(batch)
            if data:
                self._story.sent(self._mine, self.peer, batch)
                self._deliveries.sent(self.end.link, self.dialled, data[HEADER_BYTES : -len(TRAILER)])
                self.end.kept.add([data], len(data))
                self._plug.write(data)

    # ---- reading

    def heard(self, data: bytes) -> None:
        """Bytes from the peer."""
        if self.closed:
            return
        end = self.end
        try:
            for found in end.parser.feed(data):
                if end.state is State.OPENING or end.state is State.RESUMING:
                    self._do(end.apply(Event.HEARD))
                if isinstance(found, Acknowledged):
                    end.kept.acknowledge(found.position)
                    self.flush()
                elif isinstance(found, RawPart):
                    raise RuntimeError(NO_PIPES)
                else:
                    self._deliveries.came(end.link, not self.dialled, found)
                    self._take(decode_batch(found))
            if end.parser.ended:
                self.farewell = True
                self.give_up()
        except (FrameError, msgspec.DecodeError) as error:
            self.loop.call_exception_handler({"message": f"{self!r} sent bytes that make no sense", "exception": error})
            self.give_up()
            return
        self._acknowledge_soon()

    def _acknowledge_soon(self) -> None:
        if self.closed:
            return
        if self.end.acknowledgement_is_due:
            self._acknowledge()
        elif not self._acknowledges and self.end.received:
            self._acknowledges = True
            self.loop.call_later(ACKNOWLEDGE_S, self._acknowledge)

    def _acknowledge(self) -> None:
        self._acknowledges = False
        if not self.closed and self._plug is not None:
            data = self.end.acknowledge()
            if data:
                self._plug.write(data)

    # ---- the end

    def close(self) -> None:
        if self.closed:
            return
        self.flush()
        if self._plug is not None:
            self._plug.write(GOODBYE)
        self.farewell = True
        self.give_up()

    def drop(self) -> None:
        if not self.closed:
            self.give_up()

    def abandon(self) -> None:
        raise RuntimeError("a simulated process cannot fork")

    def _lost(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self._plug is not None:
            self._plug.close()
            self._plug = None
        self._queue.clear()
        error = exceptions.LinkError(f"the link to {self.role} {self.peer.hex()} ended")
        asks, self._asks = self._asks, {}
        for future in asks.values():
            if not future.done():
                future.set_exception(error)
        for task in list(self._answering.values()):
            task.cancel()
        try:
            self._receiver.link_lost(self)
        finally:
            self.gone.set()
