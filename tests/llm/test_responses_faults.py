"""Who keeps responses, or makes them, dies: what is then said of them."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from actorrt import serve
from actorrt.serve.declaration.declaration import Deployment
from actorrt.serve.declaration.options import DeploymentOptions
from actorrt.serve.llm import FrontConfig, LLMConfig, SimulatedEngine
from actorrt.serve.llm.front import Front
from actorrt.serve.llm.responses.store import GONE, ResponseStore
from actorrt.serve.llm.responses.stored import ItemBytes

from .scripted import scripted

JSON = ["head", 200, "application/json"]
SAID = [JSON, ["say", '{"choices": [{"message": {"content": "Hello!"}, "finish_reason": "stop"}]}', 1]]


class MortalStore(ResponseStore):
    """It fails to keep what a user "add" or "finish" asks for."""

    async def pid(self) -> int:
        return os.getpid()

    async def add(self, tenant: str, id: str, events: list[bytes], response: bytes | None) -> None:
        self._fail("add", response)
        await super().add(tenant, id, events, response)

    async def finish(self, tenant: str, id: str, response: bytes, events: list[bytes], output: list[ItemBytes]) -> None:
        self._fail("finish", response)
        await super().finish(tenant, id, response, events, output)

    @staticmethod
    def _fail(name: str, response: bytes | None) -> None:
        if response and b'"user":"%b"' % name.encode() in response:
            raise OSError("no space left")


class MortalFront(Front):
    async def pid(self) -> int:
        return os.getpid()


class App:
    def __init__(self, client: httpx.Client, name: str) -> None:
        self.client = client
        self.name = name

    def create(self, script: list[Any], **fields: Any) -> dict[str, Any]:
        body = {"model": "scripted", "input": "hello", "script": script, **fields}
        response = self.client.post("/v1/responses", json=body)
        assert response.status_code == 200, response.text
        return response.json()

    def get(self, id: str) -> httpx.Response:
        """The first answer that is not that of a server which starts."""
        while True:
            try:
                response = self.client.get(f"/v1/responses/{id}")
            except httpx.TransportError:
                continue
            if response.status_code < 500:
                return response

    def kill(self, deployment: str) -> None:
        handle = serve.get_deployment_handle(deployment, self.name)
        os.kill(handle.pid.remote().result(timeout_s=20), signal.SIGKILL)

    def until(self, name: str) -> None:
        serve.get_deployment_handle("scripted", self.name).until.remote(name).result(timeout_s=20)


def deploy(ping_s: float = 10) -> None:
    store = Deployment[MortalStore](MortalStore, DeploymentOptions(name="store", max_ongoing_requests=100))
    front = Deployment[MortalFront](MortalFront, DeploymentOptions(name="front", max_ongoing_requests=100))
    model = LLMConfig(model_id="scripted", engine=SimulatedEngine())
    serve.run(
        front.bind(FrontConfig(ping_s=ping_s), [(model, scripted())], store.bind(100, 1_000_000)),
        name="mortal",
        route_prefix="/mortal",
    )


@pytest.fixture
def app(serve_url: str) -> Iterator[App]:
    deploy()
    with httpx.Client(base_url=f"{serve_url}/mortal", timeout=20, trust_env=False) as client:
        yield App(client, "mortal")
    serve.delete("mortal")


def test_when_the_store_dies_what_it_kept_is_gone_and_the_next_is_kept(app: App) -> None:
    id = app.create(SAID)["id"]
    assert app.get(id).status_code == 200
    app.kill("store")
    gone = app.get(id)
    assert gone.status_code == 404
    assert "was not stored" in gone.json()["error"]["message"]
    again = app.create(SAID)
    assert again["store"] is True
    assert app.get(again["id"]).json() == again


def test_when_the_store_dies_what_is_made_in_the_background_is_stopped(app: App) -> None:
    id = app.create([["wait", "never"]], background=True, user="orphan")["id"]
    app.until("orphan began")
    app.kill("store")
    app.until("orphan ended")
    assert app.get(id).status_code == 404


def test_when_a_front_dies_what_it_made_in_the_background_has_failed(app: App) -> None:
    id = app.create([["wait", "never"]], background=True, user="front")["id"]
    app.until("front began")
    app.kill("front")
    while (response := app.get(id).json())["status"] in ("queued", "in_progress"):
        pass
    assert response["status"] == "failed"
    assert response["error"] == {"code": "server_error", "message": GONE}
    app.until("front ended")


@pytest.mark.parametrize("fails", ["add", "finish"])
def test_what_could_not_be_kept_in_the_background_has_failed(app: App, fails: str) -> None:
    id = app.create(SAID, background=True, user=fails)["id"]
    assert ended(app, id)["error"] == {"code": "server_error", "message": GONE}


def test_when_a_front_is_replaced_what_it_made_in_the_background_has_failed(app: App) -> None:
    id = app.create([["wait", "never"]], background=True, user="replaced")["id"]
    app.until("replaced began")
    deploy(ping_s=9)
    assert ended(app, id)["error"] == {"code": "server_error", "message": GONE}
    app.until("replaced ended")


def ended(app: App, id: str) -> Any:
    while (response := app.get(id).json())["status"] in ("queued", "in_progress"):
        pass
    assert response["status"] == "failed"
    return response
