"""What programs call, where it is wrong or there is nothing to do."""

import logging
import subprocess
import sys
from typing import Any

import pytest

import actorrt
from actorrt import serve
from actorrt.serve.base import connection
from actorrt.serve.control.drain_watch import DrainWatch


@serve.deployment
class Hello:
    def __call__(self) -> str:
        return "hello"


class Nobody:
    pass


@pytest.mark.parametrize("wrong", [Hello, int, 3, None])
def test_what_is_no_application_is_refused_before_a_node_is_started(wrong: Any) -> None:
    with pytest.raises(TypeError, match="bind"):
        serve.run(wrong)
    assert not actorrt.is_initialized()


def test_a_wrong_option_is_refused_before_a_node_is_started() -> None:
    with pytest.raises(ValueError, match="did you mean 'port'"):
        serve.run(Hello.bind(), http_options={"prot": 1})
    with pytest.raises(ValueError, match="route_prefix"):
        serve.run(Hello.bind(), route_prefix="hello")
    assert not actorrt.is_initialized()


def test_looking_for_serve_where_nothing_runs_leaves_nothing_running() -> None:
    with pytest.raises(serve.exceptions.ServeError, match="not running"):
        serve.delete("default")
    assert not actorrt.is_initialized()
    assert serve.status().applications == {}
    serve.shutdown()
    assert not actorrt.is_initialized()


def test_looking_for_serve_once_its_session_has_ended_leaves_nothing_running() -> None:
    with actorrt.init(local_mode=True):
        connection.set_controller(actorrt.remote(Nobody).remote())
    with pytest.raises(serve.exceptions.ServeError, match="not running"):
        serve.delete("default")
    assert not actorrt.is_initialized()


def test_deleting_what_is_not_there_does_nothing_and_is_logged(node: None, caplog: pytest.LogCaptureFixture) -> None:
    serve.run(Hello.bind(), name="there", route_prefix=None)
    with caplog.at_level(logging.INFO, "actorrt.serve"):
        serve.delete("elsewhere")
    assert "no application 'elsewhere'" in caplog.text
    assert set(serve.status().applications) == {"there"}
    serve.shutdown()


def test_who_watches_a_shutdown_has_the_program_connected_to_nothing_when_it_is_over(
    node: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    class Watch(DrainWatch):
        def __init__(self, say: Any, status: Any) -> None:
            asked.append(status)
            super().__init__(say, status)

    def kill_while_it_looks(controller: Any) -> None:
        asked[0]()
        actorrt.kill(controller)

    monkeypatch.setattr("actorrt.serve.api.DrainWatch", Watch)
    monkeypatch.setattr("actorrt.serve.api.kill", kill_while_it_looks)
    serve.run(Hello.bind(), name="watched", route_prefix=None)
    serve.shutdown(say=print)
    assert connection.connected() is None
    assert serve.status().applications == {}


ENDS = """
import sys
import actorrt
import pydantic
from fastapi import FastAPI
from actorrt import serve

class Item(pydantic.BaseModel):
    name: str

api = FastAPI()

@serve.deployment
@serve.ingress(api)
class Front:
    @api.post("/")
    async def create(self, item: Item) -> str:
        return item.name

if __name__ == "__main__":
    actorrt.init(log_to_driver=False)
    serve.start({"port": 0})
    serve.run(Front.bind())
"""


def test_a_program_that_ends_without_a_shutdown_says_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", ENDS], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
