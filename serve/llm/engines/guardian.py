"""The program that stands between a replica and its engine, so that nothing of the engine outlives the replica.

It starts the engine in a session of its own, writes what it prints to a log file of bounded size, and tells the
replica how it ends. When the replica ends, however that happens, or closes its side, every process that came from the
engine is killed: those that left its process group too, since orphans become children of this process. It is run as a
program, with the standard library only, and reads what to do as one line of JSON from the socket that is its stdin.

To the replica it says, a line each: `pid N`; `failed REASON`, if the program could not be run; `exit STATUS`, a wait
status, once all that came from the engine has ended. From the replica comes `t`: ask the engine to end (SIGTERM).
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import sys
from typing import Any, Final

PR_SET_PDEATHSIG: Final = 1
PR_SET_CHILD_SUBREAPER: Final = 36
STARTED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Log:
    """A file of at most `most` bytes, and the one before it. A disk that is full loses lines and stops nobody."""

    def __init__(self, path: str, most: int) -> None:
        self._path, self._most = path, most
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size

    def write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            if self._size + len(data) > self._most:
                os.replace(self._path, self._path + ".1")
                os.close(self._fd)
                self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
                self._size = 0
            self._size += os.write(self._fd, data)


class Guardian:
    def __init__(self, replica: socket.socket, owner: int, task: dict[str, Any]) -> None:
        self._replica = replica
        self._owner = owner
        self._command: list[str] = task["command"]
        self._env: dict[str, str] = task["env"]
        self._log = Log(task["log"], task["log_bytes"])
        self._socket: str = task["unix_socket"]
        self._pid = 0
        self._status: int | None = None

    def run(self) -> None:
        alarms, wake = socket.socketpair()
        for each in (alarms, wake):
            each.setblocking(False)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _nothing)
        owner = os.pidfd_open(self._owner)
        output = self._start()
        if output is None:
            return
        poll = select.poll()
        for fd in (self._replica.fileno(), owner, output, alarms.fileno()):
            poll.register(fd, select.POLLIN)
        while self._status is None:
            ready = {fd for fd, _ in poll.poll()}
            if owner in ready or (self._replica.fileno() in ready and not self._obey()):
                break
            if output in ready and not self._copy(output):
                poll.unregister(output)
            if alarms.fileno() in ready:
                alarms.recv(4096)
                self._reap()
        self._end_everything()
        os.set_blocking(output, False)
        with contextlib.suppress(BlockingIOError):
            while self._copy(output):
                pass
        self._drop_socket()
        self._say(f"exit {self._status}")

    def _start(self) -> int | None:
        """Where the engine's output comes out."""
        # One that was killed has left it, and the engine could not listen there.
        self._drop_socket()
        output, theirs = os.pipe()
        trouble, theirs_too = os.pipe()
        guardian = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                self._become_engine(theirs, guardian)
            except BaseException as error:
                os.write(theirs_too, str(getattr(error, "strerror", None) or error).encode())
            finally:
                os._exit(127)
        os.close(theirs)
        os.close(theirs_too)
        with os.fdopen(trouble, "rb") as pipe:
            reason = pipe.read()
        if reason:
            os.waitpid(self._pid, 0)
            self._say("failed " + reason.decode(errors="replace").replace("\n", " "))
            return None
        self._say(f"pid {self._pid}")
        return output

    def _become_engine(self, output: int, guardian: int) -> None:
        os.setsid()
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guardian:
            os._exit(127)
        for number in (*STARTED, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.execvpe(self._command[0], self._command, self._env)

    def _obey(self) -> bool:
        """False once the replica has closed its side."""
        try:
            orders = self._replica.recv(64)
        except OSError:
            return False
        if b"t" in orders:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, signal.SIGTERM)
        return bool(orders)

    def _copy(self, output: int) -> bool:
        data = os.read(output, 1 << 16)
        self._log.write(data)
        return bool(data)

    def _reap(self) -> None:
        """Of the engine, and of orphans that it has left."""
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self._pid:
                    self._status = ended[1]

    def _end_everything(self) -> None:
        while True:
            if self._status is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._pid, signal.SIGKILL)
            for pid in _children():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            # The children of the one that ends now become ours, and are found in the next round.
            try:
                pid, status = os.waitpid(-1, 0)
            except ChildProcessError:
                return
            if pid == self._pid:
                self._status = status

    def _drop_socket(self) -> None:
        if self._socket:
            with contextlib.suppress(OSError):
                os.unlink(self._socket)

    def _say(self, line: str) -> None:
        with contextlib.suppress(OSError):
            self._replica.sendall(line.encode() + b"\n")


def _nothing(_number: int, _frame: object) -> None:
    """Being called ends a wait."""


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:  # a kernel without that file
        return [int(name) for name in os.listdir("/proc") if name.isdecimal() and _parent(name) == os.getpid()]


def _parent(pid: str) -> int:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), 0, 0, 0)


def main() -> None:
    for number in STARTED:
        signal.signal(number, signal.SIG_IGN)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    replica = socket.socket(fileno=os.dup(0))
    line = b""
    while not line.endswith(b"\n"):
        more = replica.recv(1 << 16)
        if not more:
            return
        line += more
    owner = int(sys.argv[1])
    # The replica may have ended already, and its number be somebody else's by now.
    if os.getppid() == owner:
        Guardian(replica, owner, json.loads(line)).run()


if __name__ == "__main__":
    main()
