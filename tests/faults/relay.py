"""A relay between the processes of a session: it takes the place of their sockets, and cuts what goes through it."""

from __future__ import annotations

import contextlib
import os
import random
import selectors
import socket
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

from actorrt.runtime.base.socket_paths import reachable

LOOK_S: Final = 0.002
READ_BYTES: Final = 64 * 1024
# A connection of which one direction is closed brings nothing any more, and ends after so long at the latest.
HALF_CLOSED_S: Final = 0.1


class _Way:
    """One direction of a connection: what was read and is not written yet."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source, self.target = source, target
        self.held = bytearray()
        self.not_before = 0.0
        self.ended = False


class _Pair:
    """One connection, in both halves, and what is to become of it."""

    def __init__(self, dialler: socket.socket, listener: socket.socket, random_: random.Random, mean: float) -> None:
        self.ways = (_Way(dialler, listener), _Way(listener, dialler))
        self.random = random_
        # It is cut when so many bytes have gone through it, wherever that is.
        self.budget = int(random_.expovariate(1 / mean)) if mean else sys.maxsize
        self.how = random_.choice(["cut", "cut", "cut at once", "read end", "write end"])
        # From when on it is half closed and brings nothing any more; until it ends.
        self.half_closed = False
        self.ends_at = float("inf")


def _pid_of(peer: socket.socket) -> int:
    """The process at the other end, as the kernel has it."""
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return struct.unpack("3i", credentials)[0]


class Relay:
    """Runs in a thread of its own. `mean_bytes`: how many go through a connection before it is cut, on average."""

    def __init__(self, session: str, folder: Path, seed: int) -> None:
        self._session = session
        self._folder = folder
        self._random = random.Random(seed)
        self._selector = selectors.DefaultSelector()
        self._listening: dict[str, socket.socket] = {}
        self._pairs: set[_Pair] = set()
        self._orders: list[Any] = []
        self.mean_bytes = 0.0
        self.longest_delay_s = 0.0
        # Sockets to which this process does not get through: it is hung up on.
        self.refused: frozenset[str] = frozenset()
        self.refused_pid = os.getpid()
        self.cuts = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def cut_all(self) -> None:
        """Cut every connection that there is now."""
        done = threading.Event()
        self._orders.append(done)
        done.wait(10)

    # ---- in the thread

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._take_places()
                for key, events in self._selector.select(LOOK_S):
                    key.data(events)
                self._write_held()
                while self._orders:
                    for pair in list(self._pairs):
                        self._end(pair)
                    self._orders.pop().set()
        finally:
            for pair in list(self._pairs):
                self._end(pair)
            for name, listening in self._listening.items():
                listening.close()
                # So that the process can be dialled without this relay.
                with contextlib.suppress(OSError):
                    os.replace(self._folder / name, os.path.join(self._session, name))
            self._selector.close()

    def _take_places(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            names = {name for name in os.listdir(self._session) if name.endswith(".sock")}
            for name in names - self._listening.keys():
                self._take_place(name)

    def _take_place(self, name: str) -> None:
        own = socket.socket(socket.AF_UNIX)
        path = str(self._folder / f"{name}.own")
        with reachable(path) as address:
            own.bind(address)
        own.listen(100)
        own.setblocking(False)
        os.replace(os.path.join(self._session, name), self._folder / name)
        os.replace(path, os.path.join(self._session, name))
        self._listening[name] = own
        self._selector.register(own, selectors.EVENT_READ, lambda _: self._accept(name, own))

    def _accept(self, name: str, own: socket.socket) -> None:
        dialler, _ = own.accept()
        if name in self.refused and _pid_of(dialler) == self.refused_pid:
            dialler.close()
            return
        listener = socket.socket(socket.AF_UNIX)
        try:
            with reachable(str(self._folder / name)) as address:
                listener.connect(address)
        except OSError:
            # Its process has ended: nobody is to be dialled there.
            dialler.close()
            listener.close()
            self._selector.unregister(own)
            own.close()
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self._session, name))
            return
        pair = _Pair(dialler, listener, random.Random(self._random.random()), self.mean_bytes)
        self._pairs.add(pair)
        for way in pair.ways:
            way.source.setblocking(False)
            self._selector.register(way.source, selectors.EVENT_READ, lambda _, way=way: self._read(pair, way))

    def _read(self, pair: _Pair, way: _Way) -> None:
        if pair not in self._pairs or (len(way.held) > 4 * READ_BYTES and not pair.half_closed):
            return
        try:
            data = way.source.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            way.ended = True
            self._selector.unregister(way.source)
            return
        if pair.half_closed:
            return
        if not way.held and self.longest_delay_s:
            way.not_before = time.monotonic() + pair.random.random() * self.longest_delay_s
        way.held += data

    def _write_held(self) -> None:
        now = time.monotonic()
        for pair in list(self._pairs):
            if now >= pair.ends_at:
                self._end(pair)
            for way in pair.ways:
                if pair in self._pairs and now >= way.not_before and not pair.half_closed:
                    self._write(pair, way)

    def _write(self, pair: _Pair, way: _Way) -> None:
        if way.held:
            most = max(0, min(len(way.held), pair.budget))
            try:
                sent = way.target.send(way.held[:most]) if most else 0
            except BlockingIOError:
                return
            except OSError:
                self._end(pair)
                return
            pair.budget -= sent
            del way.held[:sent]
            if pair.budget < 1:
                self.cuts += 1
                self._cut(pair)
        if way.ended and not way.held:
            # As a connection without a relay: what was written is read, then its end.
            self._end(pair)

    def _cut(self, pair: _Pair) -> None:
        first, second = pair.ways
        sockets = (first.source, second.source)
        match pair.how:
            case "cut":
                # What was written to either is still read there.
                for way in pair.ways:
                    with contextlib.suppress(OSError):
                        way.target.send(way.held)
                self._end(pair)
            case "cut at once":
                self._end(pair)
            case _:
                # One end notices; the other one hears of it by what that does.
                pair.half_closed = True
                pair.ends_at = time.monotonic() + HALF_CLOSED_S
                for way in pair.ways:
                    way.held.clear()
                half = socket.SHUT_WR if pair.how == "read end" else socket.SHUT_RD
                with contextlib.suppress(OSError):
                    sockets[pair.random.randrange(2)].shutdown(half)

    def _end(self, pair: _Pair) -> None:
        self._pairs.discard(pair)
        for way in pair.ways:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(way.source)
            way.source.close()
