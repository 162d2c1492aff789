"""The runtime's link over connections in memory. What is written over it and what comes is noted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from actorrt.runtime.links.connection import Connection
from actorrt.runtime.links.link import Keeper, Link, Receiver
from actorrt.runtime.links.loopback import Loopback, TakeHere
from actorrt.runtime.links.pipes import Pipe
from actorrt.types import ProcessId
from actorrt.wire.frames import HEADER_BYTES, TRAILER, Acknowledged, FrameParser, RawPart
from actorrt.wire.link import End, State
from actorrt.wire.messages import AnyMessage, Hello
from actorrt.wire.outlet import frame_of
from actorrt.wire.pipe_end import Frame

from .deliveries import Deliveries
from .network import Plug
from .stage import Stage

# Small, so that histories of a few hundred messages come to them.
ACKNOWLEDGE_BYTES: Final = 2 * 1024
WINDOW_BYTES: Final = 32 * 1024
NO_PIPES: Final = "bytes beside a call (pipes) cannot be simulated"


class _Out:
    """Takes the place of a socket: what it takes arrives, or is lost with the connection."""

    def __init__(self, plug: Plug) -> None:
        self._plug = plug

    def send(self, data: bytes | memoryview) -> int:
        self._plug.write(bytes(data))
        return len(data)

    def sendmsg(self, buffers: Sequence[bytes | memoryview]) -> int:
        return self.send(b"".join(buffers))


class VirtualConnection(Connection):
    """One connection of a link, which takes all that is written."""

    def __init__(self, plug: Plug) -> None:
        self._plug = plug
        self.is_remote = False
        self.out = cast("Any", _Out(plug))
        self.over = asyncio.Event()

    def read_for(self, link: Link) -> None:
        self._plug.read_by(_Reader(link, self))

    def await_room(self, tell: Callable[[], None]) -> None: ...

    def stop_awaiting_room(self) -> None: ...

    def end_writing(self) -> None: ...

    def close(self) -> None:
        self._plug.close()
        self.over.set()

    def abandon(self) -> None:
        raise RuntimeError("a simulated process cannot fork")


class _Reader:
    """Reads one connection of a link."""

    def __init__(self, link: Link, connection: VirtualConnection) -> None:
        self._link = link
        self._connection = connection

    def heard(self, data: bytes) -> None:
        self._link.feed_data(data)

    def broke(self) -> None:
        self._link.broke(self._connection)


class _NotingParser(FrameParser):
    """Notes each frame of messages that has come."""

    def __init__(self, link: bytes, by_dialler: bool, deliveries: Deliveries) -> None:
        super().__init__()
        self._link = link
        self._by_dialler = by_dialler
        self._deliveries = deliveries

    def feed(self, data: bytes | memoryview) -> list[bytes | RawPart | Acknowledged]:
        found = super().feed(data)
        for frame in found:
            if isinstance(frame, bytes):
                self._deliveries.came(self._link, self._by_dialler, frame)
        return found


class VirtualEnd(End):
    """One end of a link whose frames are noted."""

    def __init__(self, link: bytes, state: State, deliveries: Deliveries) -> None:
        super().__init__(link, state, ACKNOWLEDGE_BYTES, WINDOW_BYTES)
        self.parser = _NotingParser(link, state is not State.OPEN, deliveries)


class _Numbered(Link):
    """A link of a simulated process. It has a number, so that sets of links are gone through in the same order in each
    run."""

    # Set before all else.
    _number: int

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other

    def take_along(self, seq: int, frame: Frame) -> None:
        raise RuntimeError(NO_PIPES)

    def push_pipe(self, pipe: Pipe) -> None:
        raise RuntimeError(NO_PIPES)


class VirtualLoopback(_Numbered, Loopback):
    """The link of a simulated process to itself."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        receiver: Receiver,
        keeper: Keeper,
        hello: Hello,
        link: bytes,
        take_here: TakeHere,
        stage: Stage,
    ) -> None:
        self._number = stage.story.next_number()
        super().__init__(loop, receiver, keeper, hello, link, take_here)
        self._story = stage.story

    def flush(self) -> None:
        if self._queue and self._outlet.obstacle is None:
            self._story.sent(self.peer, self.peer, list(self._queue))
        super().flush()


class VirtualLink(_Numbered):
    """A link between two simulated processes."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        receiver: Receiver,
        keeper: Keeper,
        hello: Hello,
        end: VirtualEnd,
        connection: Connection,
        path: str,
        stage: Stage,
        mine: ProcessId,
    ) -> None:
        self._number = stage.story.next_number()
        super().__init__(loop, receiver, keeper, hello, end, connection, path)
        self._mine = mine
        self._story = stage.story
        self._deliveries = stage.deliveries

    def _frame(self, batch: list[AnyMessage]) -> tuple[bytes, int, str]:
        data, count, why = frame_of(batch)
        if data:
            self._story.sent(self._mine, self.peer, batch[:count])
            self._deliveries.sent(self.end.link, bool(self.path), data[HEADER_BYTES : -len(TRAILER)])
        return data, count, why
