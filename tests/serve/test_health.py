"""When a proxy says that it is healthy: from the first application on that is up, whatever comes after."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from actorrt import serve


@pytest.fixture
def url(node: None) -> Iterator[str]:
    yield serve.start({"port": 0})
    serve.shutdown()


def _says(url: str, path: str = "/-/healthz") -> tuple[int, str]:
    answer = httpx.get(url + path, timeout=20)
    return answer.status_code, answer.text


@serve.deployment
class Waits:
    """Its constructor says through one named pipe that it runs, and goes on when something comes through the other."""

    def __init__(self, folder: str, version: int) -> None:
        self.version = version
        Path(folder, "begun").write_text("x")
        if Path(folder, "go on").read_text() == "fail":
            raise RuntimeError("it was told to fail")

    async def __call__(self) -> str:
        return f"version {self.version}"


class Deploying:
    """`serve.run` in a thread of its own; made when the constructor runs."""

    def __init__(self, folder: Path, version: int, route_prefix: str = "/") -> None:
        self._go_on = folder / "go on"
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(folder, version, route_prefix))
        self._thread.start()
        assert (folder / "begun").read_text() == "x"

    def _run(self, folder: Path, version: int, route_prefix: str) -> None:
        try:
            app: Any = Waits.options(max_constructor_retry_count=1).bind(str(folder), version)
            serve.run(app, route_prefix=route_prefix)
        except serve.exceptions.DeployFailedError as error:
            self.error = error

    def end(self, how: str = "well") -> None:
        self._go_on.write_text(how)
        self._thread.join()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("begun", "go on"):
        os.mkfifo(tmp_path / name)
    return tmp_path


def test_a_proxy_is_healthy_from_its_first_application_on_and_through_all_that_comes_after(
    url: str, folder: Path
) -> None:
    starting = (503, "starting: no application has been deployed yet")
    assert _says(url) == _says(url, "/") == starting
    assert _says(url, "/-/routes") == (200, "{}")
    first = Deploying(folder, 1)
    assert _says(url) == (503, "starting: not up yet: application 'default'")
    first.end()
    assert _says(url) == (200, "success")
    for how, after in (("fail", "version 1"), ("well", "version 3")):
        update = Deploying(folder, 2 if how == "fail" else 3)
        assert _says(url) == (200, "success")
        update.end(how)
        assert (update.error is not None) == (how == "fail")
        assert _says(url) == (200, "success")
        assert _says(url, "/") == (200, after)
    serve.delete("default")
    assert _says(url) == (200, "success")
    assert _says(url, "/")[0] == 404


def test_one_that_did_not_come_up_leaves_it_unhealthy_and_the_next_one_makes_it_healthy(url: str, folder: Path) -> None:
    first = Deploying(folder, 1)
    first.end("fail")
    assert first.error is not None
    assert _says(url) == (503, "starting: not up yet: application 'default'")
    second = Deploying(folder, 2)
    second.end()
    assert _says(url) == (200, "success")
