"""Connections between simulated processes: bytes that take a while, and that a cut loses from any byte on.

What is written on one connection arrives in order; what is written on different ones may cross. A cut loses the end of
what is under way, in each direction for itself, and both ends hear of it, each when it does. What a process has written
before it was killed arrives. Who listens, and which process lives, is known at once: that is the kernel's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from random import Random
from typing import Final, Protocol

from actorrt.types import ProcessId

from .schedule import Life, VirtualLoop

# A piece takes as long as one of these to arrive, in seconds: most are fast, some are not.
# A process that watches another one sees its end so much later.
END_SEEN_S: Final = 0.001
LATENCIES: Final = (0.0001, 0.0001, 0.0002, 0.0002, 0.0005, 0.001, 0.005)


class Ear(Protocol):
    """Who reads one end of a connection."""

    def heard(self, data: bytes) -> None: ...
    def broke(self) -> None: ...


class WayState(Enum):
    OPEN = auto()
    # Nothing more is written; what is left arrives.
    ENDING = auto()
    # The reader hears, or has heard, of the end.
    ENDED = auto()


class Way:
    """One direction of a connection."""

    def __init__(self, wire: Wire, network: Network, to: VirtualLoop) -> None:
        self._wire = wire
        self._network = network
        self._to = to
        self.ear: Ear | None = None
        self._pieces: deque[bytes] = deque()
        # What came before anybody read.
        self._unread: list[bytes] = []
        # No piece overtakes one that was written before it.
        self._last_at = 0.0
        self._state = WayState.OPEN

    def write(self, data: bytes) -> None:
        """Have these bytes arrive, unless the connection is cut first."""
        if self._state is not WayState.OPEN:
            return
        for piece in self._network.pieces(data):
            self._pieces.append(piece)
            self._schedule(self._arrive)

    def _schedule(self, what: Callable[[], None]) -> None:
        self._last_at = max(self._last_at, self._to.time() + self._network.latency(self._wire))
        self._to.call_at(self._last_at, what)

    def _arrive(self) -> None:
        if not self._pieces:
            # It was lost.
            return
        piece = self._pieces.popleft()
        if self.ear is None:
            self._unread.append(piece)
        else:
            self.ear.heard(piece)

    def read_by(self, ear: Ear) -> None:
        """From now on what arrives is read by `ear`, from whom on it was not."""
        self.ear = ear
        unread, self._unread = self._unread, []
        for piece in unread:
            if self.ear is ear:
                ear.heard(piece)
            else:
                self._unread.append(piece)
        if self._state is WayState.ENDED and self.ear is ear:
            ear.broke()

    def break_off(self) -> None:
        """Lose what is under way from any byte on; the reader hears of the end behind what is left."""
        if self._state is not WayState.OPEN:
            return
        kept: deque[bytes] = deque()
        left = self._network.keeps(sum(map(len, self._pieces)))
        while self._pieces and left:
            piece = self._pieces.popleft()[:left]
            left -= len(piece)
            kept.append(piece)
        self._pieces = kept
        self.finish()

    def finish(self) -> None:
        """The writer closes: all that was written arrives, then the end."""
        if self._state is WayState.OPEN:
            self._state = WayState.ENDING
            self._schedule(self._end)

    def _end(self) -> None:
        self._state = WayState.ENDED
        while self._pieces:
            self._arrive()
        if self.ear is not None:
            self.ear.broke()

    def drop(self) -> None:
        """Its reader has closed it: it hears nothing more."""
        self._pieces.clear()
        self.ear = _NOBODY


class _Nobody:
    def heard(self, data: bytes) -> None: ...
    def broke(self) -> None: ...


_NOBODY: Final = _Nobody()


class Wire:
    """One connection. `ways[0]` leads to who listens, `ways[1]` to who dialled."""

    def __init__(self, network: Network, dialler: ProcessId, listener: ProcessId) -> None:
        self.network = network
        self.ends = (dialler, listener)
        loops = network.loops
        self.ways = (Way(self, network, loops[listener]), Way(self, network, loops[dialler]))

    def close_politely(self, way: Way) -> None:
        """One end closes: what it wrote, by this way, arrives first."""
        self.network.close_politely(self, way)

    def cut(self) -> None:
        """Both ends hear of it, each when it does."""
        if self.network.forget(self):
            for way in self.ways:
                way.break_off()


class Plug:
    """One process's end of a wire."""

    def __init__(self, wire: Wire, is_dialler: bool) -> None:
        self._wire = wire
        self._in = wire.ways[1 if is_dialler else 0]
        self._out = wire.ways[0 if is_dialler else 1]

    @property
    def wire(self) -> Wire:
        return self._wire

    def write(self, data: bytes) -> None:
        self._out.write(data)

    def read_by(self, ear: Ear) -> None:
        self._in.read_by(ear)

    def close(self) -> None:
        """What was written arrives; the peer hears of the end behind it."""
        self._in.drop()
        self._wire.close_politely(self._out)


class Network:
    """All connections, who listens, and how long things take."""

    def __init__(self, dice: Random) -> None:
        self._dice = dice
        self.loops: dict[ProcessId, VirtualLoop] = {}
        self.wires: dict[Wire, None] = {}
        self._listeners: dict[str, tuple[ProcessId, Callable[[Plug], None]]] = {}
        self._ends: dict[ProcessId, list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]]] = {}
        self._awaited: dict[str, list[asyncio.Future[None]]] = {}
        # What comes to a slow process takes so many times as long.
        self.slowness: dict[ProcessId, float] = {}
        # Pairs of processes between which nothing goes.
        self.apart: dict[frozenset[ProcessId], None] = {}
        self._latencies = LATENCIES

    # ---- how long, and how much

    def latency(self, wire: Wire) -> float:
        slow = max((self.slowness.get(end, 1.0) for end in wire.ends), default=1.0)
        return self._dice.choice(self._latencies) * (0.5 + self._dice.random()) * slow

    def pieces(self, data: bytes) -> list[bytes]:
        """How the bytes of one write arrive: most often at once."""
        if len(data) < 2 or self._dice.random() > 0.05:
            return [data]
        at = self._dice.randrange(1, len(data))
        return [data[:at], data[at:]]

    def keeps(self, size: int) -> int:
        """How many of the bytes under way a cut lets through."""
        return self._dice.randint(0, size) if self._dice.random() < 0.7 else size

    def calm(self) -> None:
        """From now on nothing is slow or apart."""
        self._latencies = LATENCIES[:1]
        self.slowness.clear()
        self.apart.clear()

    # ---- connections

    def forget(self, wire: Wire) -> bool:
        """A connection ends; False if it has ended before."""
        there = wire in self.wires
        self.wires.pop(wire, None)
        return there

    def lives(self, process: ProcessId) -> bool:
        loop = self.loops.get(process)
        return loop is not None and loop.life is not Life.ENDED

    def end_of(self, process: ProcessId) -> asyncio.Future[None]:
        """Done once the process that has this id now has ended; for the loop that runs now."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        if self.lives(process):
            waiting = self._ends.setdefault(process, [])
            waiting.append((loop, future))
            future.add_done_callback(lambda _: waiting.remove((loop, future)))
        else:
            future.set_result(None)
        return future

    def listen(self, process: ProcessId, path: str, accept: Callable[[Plug], None]) -> None:
        self._listeners[path] = (process, accept)
        for future in self._awaited.pop(path, ()):
            if not future.done():
                future.set_result(None)

    async def listening(self, path: str) -> None:
        """Return once somebody listens there."""
        if path not in self._listeners:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._awaited.setdefault(path, []).append(future)
            await future

    def listens(self, path: str) -> bool:
        return path in self._listeners

    def dial(self, process: ProcessId, path: str) -> Plug | None:
        """A connection to who listens there; None where nobody does, or can be reached."""
        to, accept = self._listeners.get(path, (None, None))
        if to is None or accept is None or frozenset((process, to)) in self.apart:
            return None
        wire = Wire(self, process, to)
        self.wires[wire] = None
        # A process that is stopped accepts once it goes on.
        loop = self.loops[to]
        loop.call_later(self.latency(wire), accept, Plug(wire, False))
        return Plug(wire, True)

    def close_politely(self, wire: Wire, out: Way) -> None:
        """One end closes: the other reads to the end."""
        if self.forget(wire):
            out.finish()

    def end(self, process: ProcessId) -> None:
        """A process has ended: nobody listens for it, and its connections end behind what it has written."""
        self._listeners = {path: found for path, found in self._listeners.items() if found[0] != process}
        for wire in list(self.wires):
            if process in wire.ends and self.forget(wire):
                for way in wire.ways:
                    way.finish()
        for loop, future in self._ends.pop(process, ()):
            loop.call_later(END_SEEN_S, _resolve, future)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
