"""Who keeps responses, or makes them, dies: what is then said of them."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from actorrt import serve
from actorrt.serve.declaration import Deployment
from actorrt.serve.llm import FrontConfig, LLMConfig, SimulatedEngine
from actorrt.serve.llm.front import Front
from actorrt.serve.llm.responses.store import GONE, ResponseStore
from actorrt.serve.options import DeploymentOptions

from .scripted import scripted

JSON = ["head", 200, "application/json"]
SAID = [JSON, ["say", '{"choices": [{"message": {"content": "Hello!"}, "finish_reason": "stop"}]}', 1]]


class MortalStore(ResponseStore):
    async def pid(self) -> int:
        return os.getpid()


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


@pytest.fixture
def app(serve_url: str) -> Iterator[App]:
    store = Deployment[MortalStore](MortalStore, DeploymentOptions(name="store", max_ongoing_requests=100))
    front = Deployment[MortalFront](MortalFront, DeploymentOptions(name="front", max_ongoing_requests=100))
    model = LLMConfig(model_id="scripted", engine=SimulatedEngine())
    serve.run(
        front.bind(FrontConfig(), [(model, scripted())], store.bind(100, 1_000_000)),
        name="mortal",
        route_prefix="/mortal",
    )
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
