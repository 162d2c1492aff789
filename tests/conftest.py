"""What every test shares: a private place for sessions, and the check that a test leaves nothing behind.

After each test there must be no process, session folder, socket, memfd, runtime thread or pending asyncio task that
was not there before. While a node is shared by the tests of a module, its part is looked at when the module ends.
"""

import asyncio
import contextlib
import gc
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings

# Every process that a test starts inherits this variable, so its value finds them, however they were re-parented.
TEMP_DIR: Final = Path(tempfile.mkdtemp(prefix="art-"))
os.environ["ACTORRT_TEMP_DIR"] = str(TEMP_DIR)
SESSIONS: Final = TEMP_DIR / f"actorrt-{os.getuid()}"

# Hundreds of processes start in a run, and each would compile all that it imports where none may keep the bytecode.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Whoever runs the tests in the background may have them ignore Ctrl-C; what they start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What a test ended may take this long to be gone; only a test that leaks waits for it.
SETTLE_S: Final = 10.0

# A slow machine is no failure: the suite asserts no wall-clock figure.
settings.register_profile(
    "actorrt",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=40 * int(os.environ.get("ACTORRT_TEST_DEPTH", "1")),
)
settings.load_profile("actorrt")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--count-processes", action="store_true", help="say which tests start a process or a socket")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--count-processes"):
        from .process_count import ProcessCount

        config.pluginmanager.register(ProcessCount())


def pytest_collection_finish() -> None:
    # What all tests together have imported is there to the end, and no collection of garbage in a test need look at it.
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    shutil.rmtree(TEMP_DIR, ignore_errors=True)


# The newest process of the machine when none of ours was there.
_newest_of_none = ""


def _processes() -> set[str]:
    """Live processes that inherited this run's environment, as "pid: command line"."""
    global _newest_of_none
    newest = Path("/proc/loadavg").read_text(encoding="ascii").split()[-1]
    if newest == _newest_of_none:
        return set()  # the machine has begun no process since then
    found = _marked_processes()
    if not found:
        _newest_of_none = newest
    return found


def _marked_processes() -> set[str]:
    mark = b"ACTORRT_TEMP_DIR=" + os.fsencode(TEMP_DIR) + b"\0"
    own = str(os.getpid())
    found: set[str] = set()
    for pid in os.listdir("/proc"):
        if not pid.isdecimal() or pid == own:
            continue
        with contextlib.suppress(OSError):  # it ended meanwhile, or is another user's
            # A process that has ended and was not waited for has no environment any more.
            if mark in Path(f"/proc/{pid}/environ").read_bytes():
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
                found.add(f"{pid}: {command.decode(errors='replace')[:200]}")
    return found


def _memfds() -> set[str]:
    found: set[str] = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the descriptor of the listing itself
            target = os.readlink(f"/proc/self/fd/{fd}")
            if target.startswith("/memfd:"):
                found.add(f"{fd}: {target}")
    return found


def _threads() -> set[str]:
    return {f"{thread.ident}: {thread.name}" for thread in threading.enumerate() if thread.name.startswith("actorrt")}


def _sessions() -> set[str]:
    """Files of sessions, as "session/file". The logs of a program that was killed are kept for whoever asks why."""
    found: set[str] = set()
    with contextlib.suppress(FileNotFoundError):  # there was no session yet, or one is being removed
        for session in os.listdir(SESSIONS):
            with contextlib.suppress(FileNotFoundError):
                files = set(os.listdir(SESSIONS / session))
                kept = {"logs", "session.json"} if "logs" in files else set[str]()
                found |= {f"{session}/{name}" for name in (files or {""}) - kept}
    return found


KINDS: Final[dict[str, Callable[[], set[str]]]] = {
    "process": _processes,
    "memfd": _memfds,
    "thread": _threads,
    "session file": _sessions,
}


def _look() -> dict[str, set[str]]:
    return {kind: find() for kind, find in KINDS.items()}


def _is_initialized() -> bool:
    # Without importing what a test of pure code has no need of.
    current = sys.modules.get("actorrt.runtime.owner.current")
    return current is not None and current.maybe_runtime() is not None


def _left_over(before: dict[str, set[str]]) -> list[str]:
    """What is there now and was not before, once it had time to go; then it is removed, for the next test's sake."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        new = {kind: found - before[kind] for kind, found in _look().items()}
        if not any(new.values()) or time.monotonic() > deadline:
            break
        time.sleep(0.01)
    for process in new["process"]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(process.partition(":")[0]), signal.SIGKILL)
    for name in new["session file"]:
        shutil.rmtree(SESSIONS / name.partition("/")[0], ignore_errors=True)
    return [f"{kind} {one}" for kind, found in new.items() for one in sorted(found)]


@pytest.fixture(autouse=True, scope="module")
def _no_leak_of_a_module() -> Iterator[None]:
    before = _look()
    yield
    # Garbage that is finalized while the next module parses sources would fail that: a finalizer that logs a traceback
    # parses too, and CPython 3.11 then raises "SystemError: AST constructor recursion depth mismatch".
    gc.collect()
    if left := _left_over(before):
        pytest.fail("this module left behind:\n  " + "\n  ".join(left), pytrace=False)


@pytest.fixture(autouse=True)
def _no_leak_of_a_test(request: pytest.FixtureRequest) -> Iterator[None]:
    # The loop of an asyncio test ends, and cancels what is left on it, only after this fixture.
    runner: Any = None
    if request.node.get_closest_marker("asyncio"):
        runner = request.getfixturevalue("_function_scoped_runner")
    shared = _is_initialized()
    before = {} if shared else _look()
    yield
    left: list[str] = []
    if runner is not None:
        left = [f"task {task}" for task in asyncio.all_tasks(runner.get_loop()) if not task.done()]
    if not shared:
        left += _left_over(before)
    if left:
        pytest.fail("this test left behind:\n  " + "\n  ".join(left), pytrace=False)


@pytest.fixture(scope="module")
def node(request: pytest.FixtureRequest) -> Iterator[None]:
    """One node with two CPUs, shared by the tests of a module; this process is its driver.

    Each worker imports the module, and is born with what takes long of that.
    """
    import actorrt

    names: dict[str, Any] = vars(request.module)
    packages = [name for name in ("pytest", "httpx", "fastapi") if name in names]
    of_serve: tuple[str, ...] = names["serve"].WORKER_MODULES if "serve" in names else ()
    with actorrt.init(num_cpus=2, preload_modules=[*packages, *of_serve]):
        yield


RunProgram = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run_program(tmp_path: Path) -> RunProgram:
    """Run Python source as a program of its own in an empty folder, and return what it printed and how it ended."""

    def run(source: str, *args: str, timeout: float = 50, **variables: str) -> subprocess.CompletedProcess[str]:
        path = tmp_path / "program.py"
        path.write_text(source, encoding="utf-8")
        return subprocess.run(
            [sys.executable, str(path), *args],
            cwd=tmp_path,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


class Server:
    """A running `actorrt serve`: its process, its URL, and what it said on stderr until it ended."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.url = ""
        self.said: list[str] = []
        assert process.stderr is not None
        for line in process.stderr:
            self.said.append(line)
            if found := re.search(r"http://\S+", line):
                self.url = found[0].rstrip("/")
                break
        self._said_more = threading.Condition()
        # Somebody has to read on, else a talkative replica would stand still on a full pipe.
        self._reader = threading.Thread(target=self._read, args=(process.stderr,))
        self._reader.start()

    def _read(self, lines: Iterable[str]) -> None:
        for line in lines:
            with self._said_more:
                self.said.append(line)
                self._said_more.notify_all()

    def wait_for(self, text: str) -> None:
        """Until it has said this on stderr."""
        with self._said_more:
            self._said_more.wait_for(lambda: any(text in line for line in self.said))

    def wait(self) -> int:
        code = self.process.wait()
        self._reader.join()
        return code

    def stop(self) -> None:
        """As Ctrl-C does; after a test that has ended it already, nothing."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()


StartServer = Callable[..., Server]


@contextlib.contextmanager
def _servers(folder: Path) -> Generator[StartServer]:
    servers: list[Server] = []

    def start(*args: str, cwd: Path = folder) -> Server:
        command = [str(Path(sys.executable).with_name("actorrt")), "serve", *args]
        if "--port" not in args:
            command += ["--port", "0"]
        server = Server(subprocess.Popen(command, cwd=cwd, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True))
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Run `actorrt serve` with these arguments on a free port; returns when it has printed its URL or has ended."""
    with _servers(tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def start_shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """The same, for a server that the tests of a module share: it ends after the last of them."""
    with _servers(tmp_path_factory.mktemp("servers")) as start:
        yield start
