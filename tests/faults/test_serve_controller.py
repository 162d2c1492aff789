"""What becomes of applications when the controller dies and what it relies on is gone too, with real processes."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request

import actorrt
from actorrt import serve
from actorrt.serve.exceptions import DeployFailedError

from .processes_of_serve import end, pid_of, pid_of_head, until_gone


@pytest.fixture
def url() -> Iterator[str]:
    """A node of its own: what dies here would be missed by the tests after this one."""
    with actorrt.init(num_cpus=2, preload_modules=["pytest", "httpx", *serve.WORKER_MODULES]):
        yield serve.start({"port": 0})
        serve.shutdown()


@serve.deployment(name="works", ray_actor_options={"num_cpus": 2})
class Works:
    def __init__(self, version: str = "v1") -> None:
        self.version = version

    async def __call__(self, request: Request) -> Any:
        return [self.version, os.getpid()]


def test_requests_go_on_when_the_head_and_then_the_controller_die(url: str) -> None:
    serve.run(Works.bind(), name="kept", route_prefix="/kept")
    before = httpx.get(url + "/kept", timeout=20).json()
    controller = pid_of("controller")
    end(pid_of_head())
    assert httpx.get(url + "/kept", timeout=20).json() == before
    end(controller)
    # The new one answers when it knows what runs.
    assert serve.status().applications["kept"].status == "RUNNING"
    assert httpx.get(url + "/kept", timeout=20).json() == before
    assert list(serve.status().proxies.values()) == ["HEALTHY"]


def test_replicas_are_replaced_and_applications_come_and_go_after_the_head_was_killed(url: str) -> None:
    serve.run(Works.bind(), name="kept", route_prefix="/kept")
    _, replica = httpx.get(url + "/kept", timeout=20).json()
    end(pid_of_head(), replica)
    assert httpx.get(url + "/kept", timeout=20).json()[1] != replica
    end(pid_of_head())
    serve.run(Works.bind("v2"), name="kept", route_prefix="/kept")
    assert httpx.get(url + "/kept", timeout=20).json()[0] == "v2"
    end(pid_of_head())
    serve.delete("kept")
    assert serve.status().applications == {}


def test_what_is_lost_with_controller_and_proxy_is_ended_and_can_be_deployed_again(url: str) -> None:
    serve.run(Works.bind(), name="lost", route_prefix="/lost")
    _, replica = httpx.get(url + "/lost", timeout=20).json()
    end(pid_of("proxy"), pid_of("controller"))
    assert serve.status().applications == {}
    until_gone(replica)
    # The CPUs and names are free again.
    serve.run(Works.bind("v2"), name="lost", route_prefix="/lost")
    assert [*serve.status().proxies] == [url]
    assert httpx.get(url + "/lost", timeout=20).json()[0] == "v2"


@serve.deployment(name="works", ray_actor_options={"num_cpus": 0})
class Broken:
    def __init__(self) -> None:
        raise OSError("never")

    async def __call__(self, request: Request) -> str:
        return "never"


def test_what_stands_in_after_a_failed_update_does_so_under_the_next_controller(url: str) -> None:
    serve.run(Works.bind(), name="failed", route_prefix="/failed")
    with pytest.raises(DeployFailedError):
        serve.run(Broken.bind(), name="failed", route_prefix="/failed")
    _, replica = httpx.get(url + "/failed", timeout=20).json()
    end(pid_of("controller"))
    assert serve.status().applications["failed"].status == "DEPLOY_FAILED"
    end(replica)
    assert httpx.get(url + "/failed", timeout=20).json()[0] == "v1"


@serve.deployment(name="light", ray_actor_options={"num_cpus": 0})
class Light:
    def __init__(self, version: str) -> None:
        self.version = version

    async def __call__(self) -> str:
        return self.version


def test_what_a_program_asks_of_serve_is_asked_again_when_the_controller_dies_meanwhile(url: str) -> None:
    def deploy() -> str:
        handle: Any = serve.run(Light.bind("new"), name="new", route_prefix=None)
        return handle.remote().result(timeout_s=60)

    asked: list[tuple[Callable[[], Any], Any]] = [
        (deploy, "new"),
        (lambda: sorted(serve.status().applications), ["new"]),
        (lambda: serve.get_app_handle("new").remote().result(timeout_s=60), "new"),
        (lambda: serve.start({"port": 0}), url),
        (lambda: serve.delete("new"), None),
        (lambda: sorted(serve.status().applications), []),
    ]
    with ThreadPoolExecutor(1) as beside:
        for ask, answer in asked:
            controller = pid_of("controller")
            os.kill(controller, signal.SIGSTOP)  # so that it has the question when it is killed, and not answered it
            asking = beside.submit(ask)
            os.kill(controller, signal.SIGKILL)
            assert asking.result(timeout=60) == answer


class Asked:
    """A request in a thread of its own."""

    def __init__(self, ask: Callable[[], httpx.Response]) -> None:
        self._thread = threading.Thread(target=self._run, args=(ask,))
        self._thread.start()

    def _run(self, ask: Callable[[], httpx.Response]) -> None:
        self._answer = ask()

    def answer(self) -> httpx.Response:
        self._thread.join()
        return self._answer


@serve.deployment(name="slow", graceful_shutdown_timeout_s=60)
class Slow:
    """Says through one named pipe that a request is here, and answers when something comes through the other."""

    def __init__(self, version: str, folder: str) -> None:
        self.version = version
        self.folder = Path(folder)

    async def __call__(self, request: Request) -> str:
        if request.url.path.endswith("/slow"):
            await asyncio.to_thread((self.folder / "begun").write_text, "x")
            await asyncio.to_thread((self.folder / "go on").read_text)
        return self.version


def test_a_replica_that_drains_goes_on_doing_so_when_the_controller_dies(url: str, tmp_path: Path) -> None:
    for name in ("begun", "go on"):
        os.mkfifo(tmp_path / name)
    serve.run(Slow.bind("v1", str(tmp_path)), name="slow", route_prefix="/drains")
    slow = Asked(lambda: httpx.get(url + "/drains/slow", timeout=60))
    (tmp_path / "begun").read_text()
    serve.run(Slow.bind("v2", str(tmp_path)), name="slow", route_prefix="/drains")
    end(pid_of("controller"))
    assert serve.status().applications["slow"].deployments["slow"].replica_states == {"RUNNING": 1, "DRAINING": 1}
    assert httpx.get(url + "/drains", timeout=20).text == "v2"
    (tmp_path / "go on").write_text("x")
    answer = slow.answer()
    assert (answer.status_code, answer.text) == (200, "v1")
    while serve.status().applications["slow"].deployments["slow"].replica_states != {"RUNNING": 1}:
        pass
