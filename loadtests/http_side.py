"""Runs an HTTP server and loads it from outside: wrk for requests and streams, chunk_delay for single chunks.

Every load is bounded: wrk by its duration, the chunk reader by its number of streams; all of it goes to 127.0.0.1.
"""

import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from loadtests import processes
from loadtests.catalogue import OURS
from loadtests.running import Run, RunError, last_words
from loadtests.venvs import ROOT

WRK_MARK: Final = "@wrk "
_START_LIMIT_S: Final = 90.0
_POLL_S: Final = 0.01
_SETTLE_S: Final = 2.0
_LUA: Final = ROOT / "loadtests" / "wrk_report.lua"
# A server that answers errors is fast; more than this share of them and the figure does not count.
_TOLERATED: Final = 0.001


_MB: Final = 1024 * 1024
# Measure, path, size of the request's body (0: GET), connections.
_BODIES: Final = (
    ("bodies.get_100k", "/100k", 0, 16),
    ("bodies.get_1m", "/1m", 0, 4),
    ("bodies.get_10m", "/10m", 0, 4),
    ("bodies.post_1m", "/taken", _MB, 4),
    ("bodies.post_10m", "/taken", 10 * _MB, 4),
)
_SAMPLE_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Server:
    """How a side's server is started on a port, and what is asked of it."""

    command: Callable[[Run, int], list[str]]
    path: str = "/"
    body: str | None = None
    streams: bool = True


def _module(name: str) -> Callable[[Run, int], list[str]]:
    return lambda run, port: [str(run.python), "-m", f"loadtests.servers.{name}", str(port)]


def _ours(run: Run, port: int) -> list[str]:
    command = [str(run.python.parent / "actorrt"), "serve", "loadtests.servers.actorrt_app:graph"]
    return [*command, "--host", "127.0.0.1", "--port", str(port), "--app-dir", str(run.folder)]


def _mosec(run: Run, port: int) -> list[str]:
    own = ["--address", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    return [str(run.python), "-m", "loadtests.servers.mosec_app", *own]


SERVERS: Final[Mapping[str, Server]] = {
    OURS: Server(_ours),
    "uvicorn": Server(_module("starlette_app")),
    "ray_serve": Server(_module("ray_app")),
    "ray_serve_throughput": Server(_module("ray_app")),
    "ray_serve_haproxy": Server(_module("ray_app")),
    "litserve": Server(_module("litserve_app"), path="/predict", body="{}", streams=False),
    "mosec": Server(_mosec, path="/inference", body="{}", streams=False),
}


def measure(run: Run, wanted: frozenset[str]) -> Mapping[str, float]:
    """The figures of one run; `wanted` says which groups of measures matter. Raises RunError."""
    server = SERVERS[run.side]
    port = free_port()
    figures: dict[str, float] = {}
    begin = time.perf_counter()
    with processes.started(
        server.command(run, port), variables=run.variables, log=run.log, folder=run.folder, talks=False
    ) as process:
        try:
            wait_for_200(process, port, server, begin + _START_LIMIT_S)
            figures["serve.first_200"] = time.perf_counter() - begin
            if "serve.memory" in wanted:
                time.sleep(_SETTLE_S)
                figures["serve.memory"] = processes.memory_of(processes.descendants()).pss / 1e6
            _load(run, server, port, wanted, figures)
            if any(measure.startswith("bodies.") for measure in wanted):
                _load_with_bodies(port, 1 if run.quick else 5, figures)
        except RunError as error:
            raise RunError(f"{error}: {last_words(run.log)}") from error
    return figures


def _load(run: Run, server: Server, port: int, wanted: frozenset[str], figures: dict[str, float]) -> None:
    seconds = 1 if run.quick else 5
    groups = {measure.partition(".")[0] for measure in wanted}
    if "http" in groups:
        run_wrk(port, server.path, server.body, 16, 1)  # warm-up
        for connections in (1, 16, 64):
            result = run_wrk(port, server.path, server.body, connections, seconds)
            figures[f"http.c{connections}"] = result.rate
            figures[f"http.c{connections}_{'p50' if connections == 1 else 'p99'}"] = (
                result.p50_ms if connections == 1 else result.p99_ms
            )
    if "streams" in groups and server.streams:
        run_wrk(port, "/stream", None, 16, 1)
        for connections in (1, 16):
            figures[f"streams.c{connections}"] = run_wrk(port, "/stream", None, connections, seconds).rate
        figures["streams.delay_p50"], figures["streams.delay_p99"] = _chunk_delay(port, 2 if run.quick else 10)


def _load_with_bodies(port: int, seconds: int, figures: dict[str, float]) -> None:
    # First, while nothing large has gone through the server yet.
    with _growth(figures):
        for path, size in (("/1m", 0), ("/taken", _MB)):
            run_wrk(port, path, f"#{size}" if size else None, 64, seconds)
    for measure, path, size, connections in _BODIES:
        figures[measure] = run_wrk(port, path, f"#{size}" if size else None, connections, seconds).rate


@contextmanager
def _growth(figures: dict[str, float]) -> Generator[None]:
    """By how much the memory of the server's processes grows at most while this lasts."""
    server = processes.descendants()
    before = processes.memory_of(server).pss
    most = before
    over = threading.Event()

    def watch() -> None:
        nonlocal most
        while not over.wait(_SAMPLE_S):
            most = max(most, processes.memory_of(server).pss)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()
    figures["bodies.memory"] = (most - before) / 1e6


@dataclass(frozen=True, slots=True)
class WrkResult:
    """What one run of wrk saw: requests a second, and latencies in milliseconds."""

    rate: float
    p50_ms: float
    p99_ms: float


def parse_wrk(output: str) -> WrkResult:
    """The line that wrk_report.lua prints. Raises RunError where it is missing or tells of failed requests."""
    for line in output.splitlines():
        if line.startswith(WRK_MARK):
            told = json.loads(line.removeprefix(WRK_MARK))
            if told["requests"] == 0 or told["failed"] > told["requests"] * _TOLERATED:
                raise RunError(f"{told['failed']} requests failed and {told['requests']} were answered")
            return WrkResult(told["requests"] / told["seconds"], told["p50_ms"], told["p99_ms"])
    raise RunError(f"wrk gave no result: {' '.join(output.split())[-200:]}")


def run_wrk(port: int, path: str, body: str | None, connections: int, seconds: int) -> WrkResult:
    """Requests by that many connections for that long; with a body they are POST. Raises RunError."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(_LUA)]
    command += [f"http://127.0.0.1:{port}{path}", *(["--", "POST", body] if body is not None else [])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=False)
    except FileNotFoundError as error:
        raise RunError("wrk is not installed (Debian: apt-get install wrk)") from error
    except subprocess.TimeoutExpired as error:
        raise RunError("wrk did not end") from error
    return parse_wrk(done.stdout + done.stderr)


def _chunk_delay(port: int, streams: int) -> tuple[float, float]:
    command = [sys.executable, "-m", "loadtests.chunk_delay", str(port), "16", str(streams)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True, cwd=ROOT)
    except subprocess.TimeoutExpired as error:
        raise RunError("the chunk reader did not end") from error
    except subprocess.CalledProcessError as error:
        raise RunError(f"the chunk reader failed: {' '.join(error.stderr.split())[-200:]}") from error
    told = json.loads(done.stdout)
    return told["p50_ms"], told["p99_ms"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_for_200(process: subprocess.Popen[str], port: int, server: Server, deadline: float) -> None:
    """Ask until the answer is 200; a refused connection and any other status mean not yet."""
    method = "GET" if server.body is None else "POST"
    while time.perf_counter() < deadline:
        if process.poll() is not None:
            raise RunError(f"the server ended with {process.returncode} before it answered")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request(method, server.path, server.body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()
            if response.status == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(_POLL_S)
    raise RunError(f"no 200 within {_START_LIMIT_S:.0f} s")
