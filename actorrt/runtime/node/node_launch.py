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
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from actorrt import version
from actorrt.config import Settings
from actorrt.core.options import InitOptions
from actorrt.types import PROCESS_ID_SIZE, ProcessId

from ..base.descriptors import high
from ..base.socket_paths import reachable, socket_path
from ..machine import gpus
from ..machine.session_folder import LOGS, begin, facts_of, is_name, node_of, sessions_folder
from ..machine.session_logs import retire, sweep

UNIT: Final = 10_000


class Launched:
    """A node that this process started. `ready` gets one byte when it listens, and ends when the node does."""

    def __init__(
        self, pid: int, node: ProcessId, head: ProcessId, session: str, ready: int, mark: int, errors: str
    ) -> None:
        self.pid = pid
        self.node = node
        self._head = head
        self.session = session
        self.ready = ready
        # Locked as long as it is open here or in the node: the session lives.
        self._mark = mark
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

    def leave(self) -> None:
        """Have it go on when this process ends: it is nobody's to end here."""
        os.close(self.ready)
        os.close(self._mark)
        self.ready = -1

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
        _end_listener(socket_path(self.session, self._head))
        if self.ready >= 0:
            os.close(self.ready)
            self.ready = -1
            retire(self.session)
            os.close(self._mark)


def _end_listener(path: str) -> None:
    """Kill the process that listens at a Unix socket, if there is one."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
        with reachable(path) as address:
            probe.connect(address)
        pid, _, _ = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
        os.kill(pid, signal.SIGKILL)


# The descriptors that a launcher is born with beside 0, 1 and 2.
READY_FD: Final = 3
MARK_FD: Final = 4


def launch(settings: Settings, options: InitOptions) -> Launched:
    """Spawn the node; it starts up while this process goes on. Raises OSError where no session can be begun."""
    head = ProcessId(os.urandom(PROCESS_ID_SIZE))
    return launch_with(settings, {"head": head.hex(), "driver_pid": os.getpid(), **facts_in(settings, options)})


def facts_in(settings: Settings, options: InitOptions) -> dict[str, Any]:
    """What a launcher has to know of the options of a node."""
    return {
        "resources": resources_of(options),
        "preload_modules": list(options.preload_modules),
        "store_limit": options.object_store_memory or settings.object_store_memory,
    }


def launch_with(settings: Settings, facts: Mapping[str, Any]) -> Launched:
    """The same with all that the launcher has to know; a command line would not hold a long list of resources."""
    folder = sessions_folder(settings)
    node, head = ProcessId(os.urandom(PROCESS_ID_SIZE)), ProcessId(bytes.fromhex(facts["head"]))
    session, mark = begin(folder, node, {**facts, "node": node.hex()})
    errors = os.path.join(session, LOGS, "node.err")
    try:
        if far := facts.get("head_session"):
            # Its head listens in another session's folder.
            os.symlink(socket_path(far, head), socket_path(session, head))
        pid, ready = _spawn(session, mark, errors)
    except BaseException:
        retire(session)
        os.close(mark)
        raise
    launched = Launched(pid, node, head, session, ready, mark, errors)
    sweep(folder)
    return launched


def launch_again(settings: Settings) -> None:
    """Spawn a node in the place of this one, which its cluster has given up, and wait until it listens, or ends."""
    facts: dict[str, Any] = json.loads(facts_of(MARK_FD))
    launched = launch_with(settings, {**facts, "before": facts["node"]})
    select.select([launched.ready], [], [], settings.start_timeout_s)


def _spawn(session: str, mark: int, errors: str) -> tuple[int, int]:
    """Start a launcher; its pid, and the end of a pipe that it writes to when it is ready."""
    # -P: whatever lies in the folder of the program, its modules are not for the launcher.
    arguments = [sys.executable, "-P", "-m", "actorrt.runtime.api.start", session]
    environment = dict(os.environ)
    # The same actorrt as this process has, wherever it was found.
    root = os.path.dirname(os.path.dirname(os.path.abspath(version.__file__)))
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environment.get("PYTHONPATH", ""))))
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    # A program may have closed its standard streams, and gets their numbers for what it opens.
    read, write = map(high, os.pipe())
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, errors, flags, 0o600),
        (os.POSIX_SPAWN_OPEN, 2, errors, flags, 0o600),
        (os.POSIX_SPAWN_DUP2, write, READY_FD),
        (os.POSIX_SPAWN_DUP2, mark, MARK_FD),
    ]
    try:
        return os.posix_spawn(sys.executable, arguments, environment, file_actions=actions), read
    except BaseException:
        os.close(read)
        raise
    finally:
        os.close(write)


def resources_of(options: InitOptions) -> dict[str, int]:
    """What the machine offers, in units of 1/10000; None for CPUs means all that this process may use.

    Raises ValueError for more GPUs than this process may use.
    """
    amounts: dict[str, float] = dict(options.resources)
    if options.num_cpus is not None:
        amounts["CPU"] = options.num_cpus
    if options.num_gpus:
        gpus.check(options.num_gpus)
        amounts["GPU"] = options.num_gpus
    return {name: round(amount * UNIT) for name, amount in amounts.items()}


def find_session(settings: Settings, address: str) -> str:
    """The folder of a session that runs. Raises ConnectionError if there is none."""
    if address != "auto":
        if os.path.isdir(address) and _alive(address):
            return os.path.realpath(address)
        raise ConnectionError(f"no cluster runs at {address!r}")
    for session in live_sessions(settings):
        return session
    raise ConnectionError("no cluster runs on this machine; init() without an address starts one")


def live_sessions(settings: Settings) -> Iterator[str]:
    """The folders of the sessions that run here, newest first."""
    folder = sessions_folder(settings)
    for name in sorted(filter(is_name, os.listdir(folder)), reverse=True):
        session = os.path.join(folder, name)
        if _alive(session):
            yield session


def _alive(session: str) -> bool:
    try:
        path = socket_path(session, node_of(session))
    except ValueError:
        return False
    with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError), reachable(path) as address:
        probe.connect(address)
        return True
    return False
