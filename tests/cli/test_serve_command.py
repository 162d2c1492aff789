"""`actorrt serve` as a person meets it: what it prints, how it ends, and that it leaves nothing behind.

That nothing is left is looked at by the leak check after each of these tests.
"""

import contextlib
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from actorrt.runtime.machine.process import children_of

HELLO = """
from actorrt import serve

@serve.deployment
class Hello:
    def __call__(self, request):
        return "hello"

app = Hello.bind()
"""

# Says through one named pipe that a request has arrived, and answers when something comes through the other.
SLOW = """
import asyncio
from pathlib import Path
from actorrt import serve

HERE = Path(__file__).parent

@serve.deployment
class Slow:
    async def __call__(self, request):
        await asyncio.to_thread((HERE / "arrived").write_text, "x")
        return await asyncio.to_thread((HERE / "answer").read_text)

app = Slow.bind()
"""

ENDLESS = """
import asyncio
from actorrt import serve

@serve.deployment(graceful_shutdown_timeout_s=0.5)
class Endless:
    async def __call__(self, request):
        while True:
            yield "x"
            await asyncio.sleep(0.01)

app = Endless.bind()
"""

STUCK = """
from pathlib import Path
from actorrt import serve

HERE = Path(__file__).parent

@serve.deployment
class Stuck:
    def __init__(self):
        (HERE / "arrived").write_text("x")
        (HERE / "answer").read_text()

    def __call__(self, request):
        return "never"

app = Stuck.bind()
"""

# The same; says where the proxy listens.
LATE = """
import asyncio
from pathlib import Path
from actorrt import serve

HERE = Path(__file__).parent

@serve.deployment
class Late:
    async def __init__(self):
        (url,) = (await asyncio.to_thread(serve.status)).proxies
        await asyncio.to_thread((HERE / "arrived").write_text, url)
        await asyncio.to_thread((HERE / "answer").read_text)

    def __call__(self, request):
        return "up at last"

app = Late.bind()
"""

FAILING = """
from actorrt import serve

@serve.deployment
class Failing:
    def __init__(self):
        raise RuntimeError("the model file is not there")

    def __call__(self, request):
        return "never"

app = Failing.bind()
"""

# The application holds what cannot be sent, and the class below it its own decorated name.
BARE = """
from __future__ import annotations

import sqlite3
from fastapi import FastAPI, Request
from starlette.responses import PlainTextResponse
from actorrt import serve

app = FastAPI()
app.state.database = sqlite3.connect(":memory:")

@app.get("/", response_class=PlainTextResponse)
async def show(request: Request) -> str:
    return f"{type(request.app.state.database).__name__} {serve.get_replica_context().deployment}"

@serve.deployment
class Named:
    LIMIT = 3

    def __init__(self):
        super(Named, self).__init__()

    def __call__(self):
        return [isinstance(self, Named), Named.LIMIT]

named = Named.bind()
"""


@pytest.fixture(autouse=True)
def _programs(tmp_path: Path) -> None:
    sources = {
        "hello": HELLO,
        "slow": SLOW,
        "endless": ENDLESS,
        "stuck": STUCK,
        "late": LATE,
        "failing": FAILING,
        "bare": BARE,
    }
    for name, source in sources.items():
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
    for name in ("arrived", "answer"):
        os.mkfifo(tmp_path / name)


class Asking:
    """A GET in a thread of its own."""

    def __init__(self, url: str) -> None:
        self.answer: httpx.Response | None = None
        self.error: httpx.TransportError | None = None
        self._thread = threading.Thread(target=self._ask, args=(url,))
        self._thread.start()

    def _ask(self, url: str) -> None:
        try:
            self.answer = httpx.get(url, timeout=50)
        except httpx.TransportError as error:
            self.error = error

    def join(self) -> None:
        self._thread.join()


def _refused(*args: str, cwd: Path) -> tuple[int, str]:
    command = [str(Path(sys.executable).with_name("actorrt")), "serve", *args]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=50, check=False)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def test_it_prints_its_url_and_answers(start_server: Any) -> None:
    server = start_server("hello:app")
    assert httpx.get(server.url).text == "hello"
    assert httpx.get(server.url + "/-/healthz").status_code == 200
    server.process.send_signal(signal.SIGINT)
    assert server.wait() == 0
    assert "GET" not in "".join(server.said)


def test_it_serves_a_bare_application_and_says_that_it_is_one_deployment(start_server: Any) -> None:
    server = start_server("bare:app")
    assert httpx.get(server.url).text == "Connection FastAPI"
    assert "bare:app is an application of fastapi: it is one deployment" in "".join(server.said)


def test_a_class_of_a_module_uses_its_own_decorated_name(start_server: Any) -> None:
    assert httpx.get(start_server("bare:named").url).json() == [True, 3]


@pytest.fixture(scope="module")
def with_options(start_shared_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server with the options of which each of the next tests holds one."""
    folder = tmp_path_factory.mktemp("options")
    (folder / "hello.py").write_text(HELLO, encoding="utf-8")
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    options = ("--app-dir", "..", "--access-log", "--route-prefix", "/greet", "--name", "greeter")
    return start_shared_server("hello:app", *options, cwd=elsewhere)


def test_it_logs_requests_when_asked_to(with_options: Any) -> None:
    assert httpx.get(_root(with_options) + "/greet/some/where").text == "hello"
    with_options.wait_for("GET /greet/some/where")
    assert re.search(r"GET /greet/some/where.* 200", "".join(with_options.said))


def test_it_answers_below_its_prefix_only(with_options: Any) -> None:
    assert httpx.get(_root(with_options) + "/greet").text == "hello"
    assert httpx.get(_root(with_options) + "/other").status_code == 404


def test_it_imports_from_the_folder_it_is_given(with_options: Any) -> None:
    assert httpx.get(_root(with_options) + "/greet").text == "hello"


def _root(server: Any) -> str:
    return re.sub(r"/greet$", "", server.url)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_lets_a_running_request_end(number: int, start_server: Any, tmp_path: Path) -> None:
    server = start_server("slow:app")
    asking = Asking(server.url)
    assert (tmp_path / "arrived").read_text() == "x"
    server.process.send_signal(number)
    (tmp_path / "answer").write_text("late but whole")
    asking.join()
    assert asking.answer is not None
    assert asking.answer.text == "late but whole"
    assert server.wait() == 0


def test_it_says_what_it_still_waits_for_until_that_has_ended(start_server: Any, tmp_path: Path) -> None:
    server = start_server("slow:app")
    asking = Asking(server.url)
    assert (tmp_path / "arrived").read_text() == "x"
    server.process.send_signal(signal.SIGINT)
    server.wait_for("stopping: 1 request is left, cut off in")
    (tmp_path / "answer").write_text("late but whole")
    asking.join()
    assert asking.answer is not None
    assert asking.answer.text == "late but whole"
    assert server.wait() == 0


def test_a_response_without_an_end_is_cut_off_when_the_time_to_end_in_is_over(start_server: Any) -> None:
    server = start_server("endless:app")
    with httpx.stream("GET", server.url) as response:
        parts = response.iter_raw()
        assert next(parts)
        server.process.send_signal(signal.SIGINT)
        with pytest.raises(httpx.HTTPError):
            for _ in parts:
                pass
    assert server.wait() == 0


def test_the_second_ctrl_c_stops_at_once(start_server: Any, tmp_path: Path) -> None:
    server = start_server("slow:app")
    asking = Asking(server.url)
    assert (tmp_path / "arrived").read_text() == "x"
    server.process.send_signal(signal.SIGINT)
    server.wait_for("stopping")
    server.process.send_signal(signal.SIGINT)
    assert server.wait() == 128 + signal.SIGINT
    assert server.said[-1] == "actorrt: stopped at once, what was running is cut off\n"
    asking.join()
    # Which of the two ends first is chance: the proxy, or the replica and then the proxy says so.
    assert asking.answer is None or asking.answer.status_code == 503


def test_ctrl_c_during_the_start_stops_it(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("actorrt")), "serve", "stuck:app", "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert (tmp_path / "arrived").read_text() == "x"
        process.send_signal(signal.SIGINT)
        assert process.wait() == 128 + signal.SIGINT
        assert process.stderr is not None
        assert process.stderr.read() == "actorrt: interrupted\n"


@contextlib.contextmanager
def _starting(folder: Path) -> Generator[tuple[subprocess.Popen[str], str]]:
    """The command whose application is not up yet, and where its proxy listens."""
    command = [str(Path(sys.executable).with_name("actorrt")), "serve", "late:app", "--port", "0"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        yield process, (folder / "arrived").read_text()


def test_it_is_not_healthy_before_its_application_is_up(tmp_path: Path) -> None:
    with _starting(tmp_path) as (process, url):
        early = httpx.get(url + "/-/healthz")
        assert (early.status_code, early.text) == (503, "starting: not up yet: application 'default'")
        (tmp_path / "answer").write_text("go on")
        assert process.stderr is not None
        assert url in process.stderr.readline()
        assert (httpx.get(url + "/-/healthz").status_code, httpx.get(url).text) == (200, "up at last")
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_waits_for_an_application_is_answered_when_its_start_is_interrupted(number: int, tmp_path: Path) -> None:
    with _starting(tmp_path) as (process, url):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=50) as waiting:
            waiting.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            # The proxy has read what came before this.
            assert httpx.get(url + "/-/healthz").status_code == 503
            process.send_signal(number)
            assert waiting.makefile("rb").readline() == b"HTTP/1.1 503 Service Unavailable\r\n"
        assert process.wait() == 128 + number
        assert process.stderr is not None
        assert process.stderr.read() == "actorrt: interrupted\n"


def test_nothing_outlives_a_killed_command(start_server: Any) -> None:
    server = start_server("hello:app")
    assert httpx.get(server.url).text == "hello"
    server.process.kill()
    assert server.wait() == -signal.SIGKILL


def test_it_says_so_when_its_node_is_killed(start_server: Any) -> None:
    server = start_server("hello:app")
    (node,) = children_of(server.process.pid)
    os.kill(node, signal.SIGKILL)
    assert server.wait() == 1
    assert "actorrt: the node has ended" in server.said[-1]
    assert "Traceback" not in "".join(server.said)


def test_it_serves_again_what_was_lost_with_a_zygote(start_server: Any) -> None:
    server = start_server("hello:app")
    (node,) = children_of(server.process.pid)
    for _ in range(2):
        zygote = next(pid for pid in children_of(node) if Path(f"/proc/{pid}/comm").read_text() == "actorrt-zygote\n")
        server.said.clear()
        os.kill(zygote, signal.SIGKILL)
        server.wait_for("serving hello:app again")
        assert httpx.get(server.url).text == "hello"
    server.process.send_signal(signal.SIGINT)
    assert server.wait() == 0


def test_a_terminal_is_shown_progress(tmp_path: Path) -> None:
    main, other = pty.openpty()
    command = [str(Path(sys.executable).with_name("actorrt")), "serve", "hello:app", "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stdin=other, stdout=other, stderr=other) as process:
        os.close(other)
        shown = b""
        try:
            while b"http://" not in shown:
                shown += os.read(main, 4096)
            os.write(main, b"\x03")  # the terminal would send SIGINT to its foreground group; here it is no such one
            process.send_signal(signal.SIGINT)
            while chunk := _read(main):
                shown += chunk
        finally:
            os.close(main)
        assert process.wait() == 0
    # A step that takes less than a turn of the spinner is not seen.
    assert b"starting the " in shown or b"importing hello" in shown


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 4096)
    except OSError:  # nobody holds the other end any more
        return b""


@pytest.mark.parametrize("target", ["no_such_module:app", "hello:no_such_name", "hello:Hello", "hello", "hello.py:app"])
def test_a_wrong_target_is_answered_with_one_paragraph(target: str, tmp_path: Path) -> None:
    code, said = _refused(target, "--port", "0", cwd=tmp_path)
    assert code == 2
    assert said.startswith("actorrt: ")
    assert said.count("\n") == 1


def test_a_constructor_that_raises_is_named_with_its_error(tmp_path: Path) -> None:
    code, said = _refused("failing:app", "--port", "0", cwd=tmp_path)
    assert code == 1
    assert "Failing" in said
    assert "RuntimeError: the model file is not there" in said
    assert "failing.py, line 7" in said


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


def test_a_port_in_use_is_named(taken_port: int, tmp_path: Path) -> None:
    code, said = _refused("hello:app", "--port", str(taken_port), cwd=tmp_path)
    assert code == 1
    assert said.startswith(f"actorrt: port {taken_port} of 127.0.0.1 is in use")
    assert said.count("\n") == 1


def test_a_host_that_is_none_is_named(tmp_path: Path) -> None:
    code, said = _refused("hello:app", "--host", "192.0.2.1", cwd=tmp_path)
    assert code == 1
    assert "192.0.2.1 is not an address of this machine" in said


def test_a_deployment_that_cannot_be_placed_is_named_with_what_is_missing(tmp_path: Path) -> None:
    program = (tmp_path / "hello.py").read_text()
    (tmp_path / "big.py").write_text(program.replace("deployment\n", "deployment(actor_options={'num_gpus': 3})\n"))
    code, said = _refused("big:app", "--port", "0", cwd=tmp_path)
    assert code == 1
    assert "Hello" in said
    assert "GPU" in said
