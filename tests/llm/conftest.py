"""Applications of models that the tests of a module share, and a client that knows no proxy."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

import actorrt
from actorrt import serve
from actorrt.serve.declaration.declaration import Deployment
from actorrt.serve.declaration.options import DeploymentOptions
from actorrt.serve.llm import FrontConfig, LLMConfig, SimulatedEngine
from actorrt.serve.llm.front import Front
from actorrt.serve.llm.responses.store import bind_store
from actorrt.serve.routing.broadcast import ask_all

from .scripted import scripted

HELLO = [{"role": "user", "content": "hello"}]


@dataclass
class ScriptedApp:
    """The front before a model that does what a request says; `model` is the handle of that."""

    url: str
    client: httpx.Client
    model: Any

    def chat(self, *script: Any, **fields: Any) -> httpx.Response:
        return self.client.post("/v1/chat/completions", json=self.request(*script, **fields))

    def request(self, *script: Any, **fields: Any) -> dict[str, Any]:
        return {"model": "scripted", "messages": HELLO, "script": script, **fields}

    def last_call(self) -> Any:
        """What the model was called with: path, body, whether it streams, headers."""
        return self.ask("calls")[-1]

    def tell(self, name: str) -> None:
        self.ask("tell", name)

    def until(self, name: str) -> None:
        self.ask("until", name)

    def ask(self, method: str, *args: Any) -> Any:
        """Ask the model's replica aside of requests, also if it has room for none."""
        (answer,) = asyncio.run(ask_all(self.model, method, *args, timeout_s=20)).values()
        if isinstance(answer, Exception):
            raise answer
        return answer


def run_scripted(
    url: str,
    name: str,
    front: FrontConfig,
    *paths: str,
    kind: type[Front] = Front,
    takes_tools: bool = True,
    **config: Any,
) -> ScriptedApp:
    """Deploy it as an application under a prefix of that name. `paths`: what the model answers besides.

    `config` are fields of LLMConfig, "deployment" with options of the model's.
    """
    model = LLMConfig(model_id="scripted", aliases=["other/name"], engine=SimulatedEngine(), **config)
    options = DeploymentOptions(name="front", num_replicas=front.num_replicas, max_ongoing_requests=1000)
    app = Deployment[Front](kind, options).bind(
        front, [(model, scripted(*paths, takes_tools=takes_tools, **model.deployment))], bind_store(front)
    )
    serve.run(app, name=name, route_prefix=f"/{name}")
    client = httpx.Client(base_url=f"{url}/{name}", timeout=20, trust_env=False)
    return ScriptedApp(f"{url}/{name}", client, serve.get_deployment_handle("scripted", name))


@pytest.fixture(scope="module")
def node() -> Iterator[None]:
    """One node with two CPUs, whose workers are born with what these tests import, Serve and fronts of models."""
    modules = ["pytest", "httpx", *serve.WORKER_MODULES, Front.__module__]
    with actorrt.init(num_cpus=2, preload_modules=modules):
        yield


@pytest.fixture(scope="module")
def serve_url(node: None) -> Iterator[str]:
    yield serve.start({"port": 0})
    serve.shutdown()


@pytest.fixture(scope="module")
def scripted_app(serve_url: str) -> Iterator[ScriptedApp]:
    app = run_scripted(serve_url, "scripted", FrontConfig(max_body_bytes=1_000_000), max_resumes=0)
    with app.client:
        yield app
