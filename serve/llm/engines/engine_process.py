"""An engine's process as its replica sees it: started by a guardian, watched, asked to end, and never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from .interface import EngineError

# The log of an engine, and as much again for the one before it.
LOG_BYTES: Final = 32 * 1024 * 1024
LAST_BYTES: Final = 4096
# The mark by which a node finds what a worker leaves behind. A guardian goes without it: it has to outlive its replica.
_MARK: Final = "ACTORRT_WORKER_ID"
_GUARDIAN: Final = Path(__file__).with_name("guardian.py")


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start an engine, and where it will answer."""

    command: tuple[str, ...]
    log: Path
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    """Beside this process's own variables."""
    port: int = 0
    """Of 127.0.0.1; 0: it listens on the socket."""
    unix_socket: str = ""


class EngineProcess:
    """Made by `start`. `ended` is done once nothing of the engine is left, with how it ended in words."""

    def __init__(self, launch: Launch, control: socket.socket, guardian: subprocess.Popen[bytes]) -> None:
        self._launch = launch
        self._control = control
        self._guardian = guardian
        self.pid = 0
        self._because = ""
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._reader: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, launch: Launch) -> EngineProcess:
        """Returns when the program runs. EngineError if it cannot be run."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            guardian = _guardian(theirs)
        process = cls(launch, ours, guardian)
        try:
            await process._begin()
        except BaseException:
            process.kill()
            if process._reader is None:
                process._reader = asyncio.create_task(process._follow(b""))
            await asyncio.shield(process.ended)
            raise
        return process

    async def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        task = {
            "command": self._launch.command,
            "env": {**os.environ, **self._launch.env},
            "log": str(self._launch.log),
            "log_bytes": LOG_BYTES,
            "unix_socket": self._launch.unix_socket,
        }
        try:
            await loop.sock_sendall(self._control, json.dumps(task).encode() + b"\n")
            said = b""
            while b"\n" not in said and (more := await loop.sock_recv(self._control, 4096)):
                said += more
        except OSError as error:
            raise EngineError(f"the guardian of the engine has ended: {error}") from error
        line, _, rest = said.partition(b"\n")
        word, _, value = line.decode().partition(" ")
        if word == "failed":
            raise EngineError(f"{self._launch.command[0]} cannot be run: {value}")
        if word != "pid":
            raise EngineError("the guardian of the engine ended before it started it")
        self.pid = int(value)
        self._reader = asyncio.create_task(self._follow(rest))

    async def _follow(self, said: bytes) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while more := await loop.sock_recv(self._control, 4096):
                said += more
        self._control.close()
        # It has closed its side, so it is about to end, if it has not.
        await asyncio.to_thread(self._guardian.wait)
        word, _, status = said.decode().partition("\n")[0].partition(" ")
        if word != "exit" and self.pid:
            # Somebody has killed the guardian: the engine itself heard of that from the kernel.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        if not self.ended.done():
            ended = _in_words(status) if word == "exit" else "its guardian was killed"
            self.ended.set_result(self._because or ended)

    def terminate(self) -> None:
        """Ask it to end: SIGTERM to its process group."""
        with contextlib.suppress(OSError):
            self._control.send(b"t")

    def kill(self, because: str = "") -> None:
        """End it and all that it has started, now. `because`: what `ended` then says."""
        self._because = self._because or because
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)

    async def stop(self, grace_s: float) -> None:
        """Ask it to end, and after `grace_s` seconds kill what is left. Cancelled, it kills at once."""
        try:
            if grace_s > 0 and not self.ended.done():
                self.terminate()
                await asyncio.wait([self.ended], timeout=grace_s)
        finally:
            self.kill()
        await asyncio.shield(self.ended)

    def last_words(self, lines: int = 5) -> str:
        """The last lines that it printed, in one line."""
        found = [line.strip() for line in self._tail().splitlines() if line.strip()]
        return " | ".join(line[-300:] for line in found[-lines:])

    def _tail(self) -> str:
        for path in (self._launch.log, self._launch.log.with_name(self._launch.log.name + ".1")):
            with contextlib.suppress(OSError), path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - LAST_BYTES))
                if data := file.read():
                    return data.decode(errors="replace")
        return ""


def _guardian(control: socket.socket) -> subprocess.Popen[bytes]:
    variables = {name: value for name, value in os.environ.items() if name != _MARK}
    # -I and -S: nothing of the user's site runs in it, and it is there in 15 ms.
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(_GUARDIAN), str(os.getpid())],
        stdin=control.fileno(),
        stdout=subprocess.DEVNULL,
        env=variables,
        start_new_session=True,
    )


def _in_words(status: str) -> str:
    if not status.lstrip("-").isdecimal():
        return "for an unknown reason"
    number = int(status)
    if os.WIFSIGNALED(number):
        which = os.WTERMSIG(number)
        with contextlib.suppress(ValueError):
            return f"killed by signal {which} ({signal.Signals(which).name})"
        return f"killed by signal {which}"
    return f"exit code {os.waitstatus_to_exitcode(number)}"
