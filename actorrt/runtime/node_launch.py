"""Start a node as a child process with `posix_spawn`, and find the sessions that run on this machine.

Imports little: this runs before anything else of the runtime is loaded.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import sys
import tempfile
import time
from typing import Final

from actorrt.config import Settings
from actorrt.core.options import InitOptions

from .session_logs import INFO, LOGS, retire, sweep

UNIT: Final = 10_000


def sessions_folder(settings: Settings) -> str:
    """The folder below which all sessions of this user live, made if it is not there. Only the user may look in."""
    folder = settings.temp_dir or os.path.join(tempfile.gettempdir(), f"actorrt-{os.getuid()}")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    status = os.stat(folder)
    if status.st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user; set ACTORRT_TEMP_DIR to a folder of your own")
    if status.st_mode & 0o077 and not settings.temp_dir:
        os.chmod(folder, 0o700)
    return folder


class Launched:
    """A node that this process started. `ready` gets one byte when it listens, and ends when the node does."""

    def __init__(self, pid: int, head: bytes, session: str, ready: int, errors: str) -> None:
        self.pid = pid
        self._head = head
        self.session = session
        self.ready = ready
        self._errors = errors
        self._status: int | None = None

    def last_words(self) -> str:
        with contextlib.suppress(OSError), open(self._errors, encoding="utf-8", errors="replace") as file:
            lines = file.read().strip().splitlines()
            if lines:
                return lines[-1]
        return "it said nothing"

    def _reap(self) -> bool:
        if self._status is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                self._status = 0
            else:
                if pid:
                    self._status = status
        return self._status is not None

    def wait(self, timeout: float) -> None:
        """Wait for its end, and make it end after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        # The pipe ends when the last process of the session is gone.
        while not self._reap():
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                break
            self._wait_exit(remaining)
        self.kill()

    def _wait_exit(self, timeout: float) -> None:
        try:
            fd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            select.select([fd], [], [], timeout)
        finally:
            os.close(fd)

    def kill(self) -> None:
        """End it at once, and remove its session except for logs. Safe to call again."""
        if not self._reap():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                self._status = os.waitpid(self.pid, 0)[1]
        # The node ends its head; but the head outlives a node that was killed.
        _end_listener(os.path.join(self.session, f"{self._head.hex()}.sock"))
        if self.ready >= 0:
            os.close(self.ready)
            self.ready = -1
        retire(self.session)


def _end_listener(path: str) -> None:
    """Kill the process that listens at a Unix socket, if there is one."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        probe.connect(path)
        pid, _, _ = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
        os.kill(pid, signal.SIGKILL)


def launch(settings: Settings, options: InitOptions) -> Launched:
    """Spawn the node; it starts up while this process goes on."""
    folder = sessions_folder(settings)
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{os.urandom(3).hex()}"
    session = os.path.join(folder, name)
    node, head = os.urandom(8), os.urandom(8)
    os.mkdir(session, 0o700)
    with open(os.path.join(session, INFO), "w", encoding="utf-8") as file:
        json.dump({"node": node.hex(), "head": head.hex(), "pid": os.getpid()}, file)
    os.mkdir(os.path.join(session, LOGS), 0o700)
    read, write = os.pipe()
    os.set_inheritable(write, True)
    errors = os.path.join(session, LOGS, "node.err")
    config = {
        "node": node.hex(),
        "head": head.hex(),
        "session": session,
        "resources": resources_of(options),
        "store_limit": options.object_store_memory or settings.object_store_memory,
        "driver_pid": os.getpid(),
        "ready_fd": write,
    }
    arguments = [sys.executable, "-m", "actorrt.runtime.launcher", json.dumps(config)]
    environment = dict(os.environ)
    # The same actorrt as this process has, wherever it was found.
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environment.get("PYTHONPATH", ""))))
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, errors, flags, 0o600),
        (os.POSIX_SPAWN_OPEN, 2, errors, flags, 0o600),
    ]
    try:
        pid = os.posix_spawn(sys.executable, arguments, environment, file_actions=actions)
    finally:
        os.close(write)
    sweep(folder, _alive)
    return Launched(pid, head, session, read, errors)


def resources_of(options: InitOptions) -> dict[str, int]:
    """What the machine offers, in units of 1/10000; None for CPUs means all that this process may use."""
    amounts: dict[str, float] = dict(options.resources)
    if options.num_cpus is not None:
        amounts["CPU"] = options.num_cpus
    if options.num_gpus:
        amounts["GPU"] = options.num_gpus
    return {name: round(amount * UNIT) for name, amount in amounts.items()}


def find_session(settings: Settings, address: str) -> str:
    """The folder of a session that runs. Raises ConnectionError if there is none."""
    if address != "auto":
        if os.path.isdir(address) and _alive(address):
            return address
        raise ConnectionError(f"no cluster runs at {address!r}")
    folder = sessions_folder(settings)
    for name in sorted(os.listdir(folder), reverse=True):
        session = os.path.join(folder, name)
        if _alive(session):
            return session
    raise ConnectionError("no cluster runs on this machine; init() without an address starts one")


def node_of(session: str) -> bytes:
    """The id of a session's node."""
    with open(os.path.join(session, INFO), encoding="utf-8") as file:
        return bytes.fromhex(json.load(file)["node"])


def _alive(session: str) -> bool:
    try:
        path = os.path.join(session, f"{node_of(session).hex()}.sock")
    except (OSError, ValueError, KeyError):
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True
