"""The process that forks workers: single-threaded, with everything imported, so that a worker costs milliseconds.

It answers one node over a SOCK_SEQPACKET socket, one msgspec message a packet, the pipes for a worker's output beside
a `Fork` (SCM_RIGHTS). It reaps what it forked and tells the node. When the node's end of the socket closes, for
whatever reason, it kills everything below it and ends. It knows nothing of what workers do, and has no event loop:
a thread would make PDEATHSIG and fork itself unsafe.

A worker is born as the leader of a process group of its own. Once it has ended, its whole group is killed, so what
it started and left behind ends with it. What has left the group for a session of its own and was orphaned is known by a
variable of its environment, which names the worker.

Between forks it imports the modules that the session has named, so that workers are born with them.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

import msgspec

from actorrt.runtime.base.surroundings import DEFAULT, SIGNALS, handler_of, set_handler, set_mask
from actorrt.runtime.machine.named_output import NamedOutput
from actorrt.runtime.machine.process import (
    children_of,
    flush_output,
    kill_group,
    kill_process,
    run_and_exit,
    set_child_subreaper,
    set_oom_score,
    set_pdeathsig,
    set_process_name,
    thread_count,
    variable_of,
)
from actorrt.wire.any_text import as_text

MAX_PACKET: Final = 128 * 1024
WORKER_ID: Final = "ACTORRT_WORKER_ID"  # the variable that tells whose descendant a process is
WORKER_OOM_SCORE: Final = 500  # when memory runs out, the kernel takes a worker before the node or the driver


class Fork(msgspec.Struct, frozen=True, tag="fork", array_like=True):
    """Make a worker; two descriptors come with it: its stdout and its stderr."""

    request_id: int
    params: bytes  # for worker_main, not looked into here
    env: dict[str, str]  # laid over the zygote's environment
    cwd: bytes | None  # as `any_text` makes it


class Forked(msgspec.Struct, frozen=True, tag="forked", array_like=True):
    request_id: int
    pid: int


class ForkFailed(msgspec.Struct, frozen=True, tag="fork_failed", array_like=True):
    request_id: int
    error: str


class Exited(msgspec.Struct, frozen=True, tag="exited", array_like=True):
    """A worker has ended and was reaped; `status` is a wait status (`os.waitstatus_to_exitcode`)."""

    pid: int
    status: int


class NotLoaded(msgspec.Struct, frozen=True, tag="not_loaded", array_like=True):
    """A module that workers were to be born with, and why each has to import it by itself."""

    module: str
    error: str


ZygoteReply = Forked | ForkFailed | Exited | NotLoaded


class WorkerStart(msgspec.Struct, frozen=True):
    """What a newborn worker knows. Its environment, folder, output and signals are in place already."""

    params: bytes


def run_zygote(
    sock: socket.socket, worker_main: Callable[[WorkerStart], object], modules: Sequence[str] = ()
) -> NoReturn:
    """Serve forks until the node's end of `sock` closes, then end with all that was forked.

    `modules` are imported meanwhile, one whenever there is nothing else to do.

    To be called in a freshly forked process with one thread; never returns, runs no exit handlers. Every other
    descriptor above 2 is closed: a copy in a long-lived process would keep others from seeing an end of file.
    """
    run_and_exit(lambda: _Zygote(sock, worker_main, modules).run())


class _Zygote:
    def __init__(
        self, sock: socket.socket, worker_main: Callable[[WorkerStart], object], modules: Sequence[str]
    ) -> None:
        if (threads := thread_count(os.getpid())) != 1:
            raise RuntimeError(f"the zygote must be forked where only one thread goes on, and has {threads}")
        self._pid = os.getpid()
        self._sock = sock
        self._worker_main = worker_main
        self._modules = deque(modules)
        self._workers: dict[int, str] = {}  # by pid: its WORKER_ID
        self._encode: Callable[[ZygoteReply], bytes] = msgspec.msgpack.Encoder().encode
        self._decode: Callable[[bytes], Fork] = msgspec.msgpack.Decoder(Fork).decode
        _close_all_but(sock.fileno())
        flush_output()
        self._streams = _Streams()
        set_process_name("actorrt-zygote")
        set_child_subreaper()  # daemons that a worker leaves behind come to us and end with us
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the driver to act on
        signal.signal(signal.SIGCHLD, lambda number, frame: None)  # only so that the wake-up byte is written
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        # What a worker has to set back; nothing here changes any from now on.
        self._handled = [number for number in SIGNALS if callable(handler_of(number))]
        # What is imported by now is never freed: leaving it out of collections keeps its pages shared.
        gc.collect()
        gc.freeze()

    def run(self) -> None:
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll(0 if self._modules else None)}
            if not ready:
                self._load(self._modules.popleft())
            if self._wake_read in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_read, 4096)
                self._reap()
            if self._sock.fileno() in ready and not self._answer():
                break
        self._end_everything()

    def _load(self, module: str) -> None:
        before = thread_count(self._pid)
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:
            self._tell(NotLoaded(module, f"{type(error).__name__}: {error}"))
        else:
            if started := thread_count(self._pid) - before:
                self._tell(NotLoaded(module, f"its import starts threads ({started}), which no fork takes along"))
        if not self._modules:
            gc.collect()
            gc.freeze()

    def _answer(self) -> bool:
        """Handle one packet; False at the end of the node."""
        try:
            packet, fds, _, _ = socket.recv_fds(self._sock, MAX_PACKET, 8)
        except ConnectionError:
            return False
        if not packet:
            return False
        try:
            request = self._decode(packet)
            try:
                if len(fds) != 2:
                    raise ValueError(f"a fork needs 2 descriptors, and {len(fds)} came")
                pid = self._fork(request, fds[0], fds[1])
            except (OSError, ValueError) as error:
                self._tell(ForkFailed(request.request_id, str(error)))
            else:
                self._tell(Forked(request.request_id, pid))
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _fork(self, request: Fork, stdout: int, stderr: int) -> int:
        pid = os.fork()
        if pid == 0:
            run_and_exit(lambda: self._become_worker(request, stdout, stderr))
        # Parent and child both ask, so that whoever comes first, the group is there when the node hears of it.
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.setpgid(pid, pid)
        self._workers[pid] = request.env.get(WORKER_ID, "")
        return pid

    def _become_worker(self, request: Fork, stdout: int, stderr: int) -> None:
        os.setpgid(0, 0)
        set_pdeathsig(signal.SIGKILL)
        if os.getppid() != self._pid:  # it ended before the line above could count
            os._exit(1)
        _restore_signals(self._handled)
        self._streams.begin(stdout, stderr)
        _close_all_but()
        self._sock.detach()
        atexit._clear()
        set_oom_score(WORKER_OOM_SCORE)
        set_process_name("actorrt-worker")
        # `random` re-seeds itself after a fork.
        for name, value in request.env.items():
            os.environ[name] = value
        if request.cwd is not None:
            _enter(as_text(request.cwd))
        self._worker_main(WorkerStart(request.params))

    def _reap(self) -> None:
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is None:
                return
            self._bury(ended.si_pid)

    def _bury(self, pid: int) -> None:
        """Reap a child that has ended, after the rest of its group: until it is reaped, nobody else can have its id."""
        if pid in self._workers:
            _kill_worker(pid)
        _, status = os.waitpid(pid, 0)
        if pid in self._workers:
            del self._workers[pid]
            self._tell(Exited(pid, status))
        self._end_leftovers()

    def _end_leftovers(self) -> None:
        """Kill the orphans of workers that have ended."""
        living = set(self._workers.values())
        for pid in children_of(self._pid):
            if pid not in self._workers and (worker := variable_of(pid, WORKER_ID)) and worker not in living:
                with contextlib.suppress(PermissionError):
                    kill_process(pid, signal.SIGKILL)

    def _end_everything(self) -> None:
        while True:
            for pid in self._workers:
                _kill_worker(pid)
            for pid in children_of(self._pid):
                with contextlib.suppress(PermissionError):
                    kill_process(pid, signal.SIGKILL)
            # Whatever the one that ends now leaves behind becomes our child, and is found in the next round.
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            except ChildProcessError:
                return
            if ended is not None:
                self._bury(ended.si_pid)

    def _tell(self, reply: ZygoteReply) -> None:
        # A node that is gone is found by reading.
        with contextlib.suppress(ConnectionError):
            self._sock.send(self._encode(reply))


def _kill_worker(pid: int) -> None:
    with contextlib.suppress(PermissionError):  # a program with another user's rights is beyond us
        kill_group(pid, signal.SIGKILL)


def _restore_signals(handled: list[int]) -> None:
    signal.set_wakeup_fd(-1)
    for number in handled:
        set_handler(number, DEFAULT)
    set_handler(signal.SIGINT, signal.default_int_handler)
    set_mask(signal.SIG_SETMASK, ())


def _enter(folder: str) -> None:
    try:
        os.chdir(folder)
    except OSError as error:
        os.chdir("/")
        print(f"this worker runs in /: {folder} cannot be entered ({error.strerror})", file=sys.stderr)


class _Streams:
    """The standard streams of workers, made once for all of them."""

    def __init__(self) -> None:
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        self._stdin = open(0, closefd=False, encoding="utf-8")  # noqa: SIM115
        self._stdout, self._stderr = NamedOutput.before_fork(1), NamedOutput.before_fork(2)

    def begin(self, stdout: int, stderr: int) -> None:
        """Be those of this process, with its pipes."""
        sys.stdin = sys.__stdin__ = self._stdin
        for fd, source, stream in ((1, stdout, self._stdout), (2, stderr, self._stderr)):
            os.dup2(source, fd)
            stream.begin()
        sys.stdout = sys.__stdout__ = self._stdout
        sys.stderr = sys.__stderr__ = self._stderr


def _close_all_but(*keep: int) -> None:
    first = 3
    # The highest is that of the listing itself, or above it.
    last = max(map(int, os.listdir("/proc/self/fd")))
    for fd in (*sorted(keep), last + 1):
        os.closerange(first, fd)
        first = fd + 1
