"""The node's side of the zygote: ask for workers, hear of their ends.

It owns the socket and watches the zygote. When the zygote dies, its workers die with it (PDEATHSIG) and become
children of this process if it is a subreaper; the client kills what is left of them and reports each.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Collection, Mapping
from typing import Final

import msgspec

from actorrt.runtime.base.process_watch import wait_child
from actorrt.runtime.machine.process import children_of, describe_exit, kill_group, kill_process
from actorrt.runtime.machine.zygote import MAX_PACKET, Exited, Fork, Forked, ForkFailed, NotLoaded, ZygoteReply
from actorrt.wire.any_text import as_bytes

logger = logging.getLogger("actorrt")

MAX_FORKS_AT_ONCE: Final = 16
CLOSE_DEADLINE_S: Final = 10.0
KILLED: Final = int(signal.SIGKILL)  # as a wait status


class ForkError(RuntimeError):
    """No worker was made."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot fork a worker: {self.reason}"


class ZygoteLostError(ForkError):
    """The zygote has ended, so no worker can be made any more; one that it may have made has ended with it."""


class ZygoteClient:
    """Asks one zygote for workers. To be made and used on one running loop.

    `on_exit(pid, status)` is called once for each pid that `fork` has returned, never before it has, with the wait
    status (`describe_exit` puts it in words). `on_lost(reason)` is called if the zygote ends without `close`.

    `others` are this process's children besides the zygote, kept up to date by the caller: when the zygote dies, every
    further child is taken for an orphan of its workers and killed. None: those are left alone.
    """

    def __init__(
        self,
        sock: socket.socket,
        zygote_pid: int,
        *,
        on_exit: Callable[[int, int], None],
        on_lost: Callable[[str], None] = lambda reason: None,
        others: Collection[int] | None = None,
    ) -> None:
        self.zygote_pid = zygote_pid
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._on_exit = on_exit
        self._on_lost = on_lost
        self._others = others
        self._encode: Callable[[Fork], bytes] = msgspec.msgpack.Encoder().encode
        self._decode: Callable[[bytes], ZygoteReply] = msgspec.msgpack.Decoder(ZygoteReply).decode
        self._slots = asyncio.Semaphore(MAX_FORKS_AT_ONCE)
        self._next_id = 0
        self._pending: dict[int, asyncio.Future[int]] = {}
        self._unsent: dict[int, tuple[bytes, tuple[int, int]]] = {}
        self._alive: set[int] = set()
        self._unclaimed: dict[int, int | None] = {}  # forked, but fork() has not returned yet: None or its wait status
        self._discarded: set[int] = set()  # forked for a caller that was cancelled: killed, and not reported
        self._closing = False
        # How it has ended; empty while it lives.
        self.lost = ""
        # When it was made, or has answered last, in seconds of the loop.
        self.heard = self._loop.time()
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._readable)
        self._ended = self._loop.create_task(self._watch_zygote(), name="zygote watch")

    @property
    def pids(self) -> Collection[int]:
        """The workers that live, as far as is known."""
        return frozenset(self._alive)

    async def fork(
        self,
        params: bytes,
        *,
        stdout_fd: int,
        stderr_fd: int,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> int:
        """Make a worker and return its pid, which is also its process group's.

        The worker gets copies of the descriptors; the caller closes its own. Cancelling is safe at any point: a worker
        that was made for nobody is killed. Raises ForkError, ZygoteLostError if the zygote is gone, and ValueError for
        a request that does not fit into a packet.
        """
        async with self._slots:
            if self.lost:
                raise ZygoteLostError(self.lost)
            if self._closing:
                raise ForkError("the zygote is being closed")
            self._next_id += 1
            request_id = self._next_id
            packet = self._encode(Fork(request_id, params, dict(env or {}), None if cwd is None else as_bytes(cwd)))
            if len(packet) > MAX_PACKET:
                raise ValueError(f"what a worker is started with must fit into {MAX_PACKET} bytes, not {len(packet)}")
            # Copies, since the caller may be cancelled and close its own before the packet leaves.
            fds = _copies(stdout_fd, stderr_fd)
            future = self._pending[request_id] = self._loop.create_future()
            self._unsent[request_id] = (packet, fds)
            self._send()
            try:
                pid = await future
            except asyncio.CancelledError:
                if request_id in self._unsent:
                    _close(self._unsent.pop(request_id)[1])
                    del self._pending[request_id]
                elif not future.cancelled() and future.exception() is None:
                    self._discard(future.result())
                # Otherwise the answer will find a cancelled future, and discard.
                raise
            self._hand_over(pid)
            return pid

    def kill(self, pid: int, sig: int = signal.SIGKILL) -> bool:
        """Send a signal to a worker and all it has started; False if its end is known already."""
        return pid in self._alive and kill_group(pid, sig)

    async def close(self, deadline_s: float = CLOSE_DEADLINE_S) -> None:
        """Have the zygote kill every worker and end, and wait for that; each worker is reported before it returns.

        After the deadline the zygote itself is killed, and its workers with it.
        """
        if not self._closing and not self.lost:
            self._closing = True
            self._fail_pending(ForkError("the zygote is being closed"))
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)
        killer = self._loop.call_later(deadline_s, kill_process, self.zygote_pid, signal.SIGKILL)
        try:
            await asyncio.shield(self._ended)
        finally:
            if self._ended.done():
                killer.cancel()

    def _send(self) -> None:
        while self._unsent:
            request_id, (packet, fds) = next(iter(self._unsent.items()))
            try:
                socket.send_fds(self._sock, [packet], fds)
            except (BlockingIOError, InterruptedError):
                self._loop.add_writer(self._sock.fileno(), self._send)
                return
            except OSError:
                return  # the end of the zygote is found by watching it
            del self._unsent[request_id]
            _close(fds)
        self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        while True:
            try:
                packet = self._sock.recv(MAX_PACKET)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                packet = b""
            if not packet:
                self._loop.remove_reader(self._sock.fileno())
                return
            self.heard = self._loop.time()
            self._take(self._decode(packet))

    def _take(self, reply: ZygoteReply) -> None:
        match reply:
            case Forked(request_id, pid):
                self._alive.add(pid)
                self._unclaimed[pid] = None
                future = self._pending.pop(request_id, None)
                if future is None or future.done():
                    self._discard(pid)
                else:
                    future.set_result(pid)
            case ForkFailed(request_id, error):
                future = self._pending.pop(request_id, None)
                if future is not None and not future.done():
                    future.set_exception(ForkError(error))
            case Exited(pid, status):
                self._exited(pid, status)
            case NotLoaded(module, error):
                logger.warning("workers are not born with %s, and import it where they need it: %s", module, error)

    def _hand_over(self, pid: int) -> None:
        """The caller of fork knows the pid from here on; so it may hear of its end, in a later turn of the loop."""
        status = self._unclaimed.pop(pid)
        if status is not None:
            self._loop.call_soon(self._on_exit, pid, status)

    def _discard(self, pid: int) -> None:
        """Kill a worker that nobody waits for."""
        if self._unclaimed.pop(pid) is None:
            self._discarded.add(pid)
            self.kill(pid)

    def _exited(self, pid: int, status: int) -> None:
        self._alive.discard(pid)
        if pid in self._unclaimed:
            self._unclaimed[pid] = status
        elif pid in self._discarded:
            self._discarded.remove(pid)
        else:
            self._loop.call_soon(self._on_exit, pid, status)

    def _fail_pending(self, error: ForkError) -> None:
        pending, self._pending = self._pending, {}
        for future in pending.values():
            if not future.done():
                future.set_exception(error)

    async def _watch_zygote(self) -> None:
        status = await wait_child(self.zygote_pid)
        self._readable()  # what it said last
        how = "gone" if status is None else describe_exit(status)
        self.lost = f"the zygote (pid {self.zygote_pid}) has ended: {how}"
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        while self._unsent:
            _close(self._unsent.popitem()[1][1])
        self._fail_pending(ZygoteLostError(self.lost))
        await self._bury_workers()
        if not self._closing:
            self._loop.call_soon(self._on_lost, self.lost)

    async def _bury_workers(self) -> None:
        """After a death of the zygote: its workers, what they started, and what hid in groups of its own."""
        left = set(self._alive)
        for pid in left:
            with contextlib.suppress(PermissionError):
                kill_group(pid, signal.SIGKILL)
        for pid in left:
            status = await wait_child(pid)
            self._exited(pid, KILLED if status is None else status)
        if self._others is None:
            return
        while orphans := set(children_of(os.getpid())).difference(self._others):
            for pid in orphans:
                with contextlib.suppress(PermissionError):
                    kill_process(pid, signal.SIGKILL)
            for pid in orphans:
                await wait_child(pid)


def _copies(first: int, second: int) -> tuple[int, int]:
    copy = os.dup(first)
    try:
        return copy, os.dup(second)
    except OSError:
        os.close(copy)
        raise


def _close(fds: tuple[int, int]) -> None:
    for fd in fds:
        os.close(fd)
