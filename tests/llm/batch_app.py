"""Applications with batches, and a client that goes through them by plain HTTP."""

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import httpx

from actorrt import serve
from actorrt.serve.declaration.declaration import Deployment
from actorrt.serve.declaration.options import DeploymentOptions
from actorrt.serve.llm import BatchConfig, FrontConfig, LLMConfig, SimulatedEngine, build_openai_app
from actorrt.serve.llm.front import Front
from actorrt.serve.llm.responses.store import bind_store

from .scripted import scripted

CHAT: Final = "/v1/chat/completions"
ENDED: Final = ("completed", "failed", "expired", "cancelled")


def line(custom_id: str, url: str = CHAT, **body: Any) -> str:
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body})


def chat(custom_id: str, **fields: Any) -> str:
    asked = {"model": "fake", "messages": [{"role": "user", "content": f"say {custom_id}"}], "max_tokens": 3}
    return line(custom_id, **{**asked, **fields})


class BatchClient:
    def __init__(self, url: str, key: str = "") -> None:
        self.key = key
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self.http = httpx.Client(base_url=url, timeout=30, trust_env=False, headers=headers)

    def upload(self, content: str | bytes | Iterable[str], **fields: str) -> httpx.Response:
        if not isinstance(content, str | bytes):
            content = "".join(f"{each}\n" for each in content)
        files = {"file": ("requests.jsonl", content)}
        return self.http.post("/v1/files", files=files, data={"purpose": "batch", **fields})

    def create(self, content: str | bytes | Iterable[str], endpoint: str = CHAT, **fields: Any) -> dict[str, Any]:
        """A batch of what is uploaded for it."""
        uploaded = self.upload(content)
        assert uploaded.status_code == 200, uploaded.text
        asked = {"input_file_id": uploaded.json()["id"], "endpoint": endpoint, "completion_window": "24h", **fields}
        made = self.http.post("/v1/batches", json=asked)
        assert made.status_code == 200, made.text
        return made.json()

    def get(self, id: str) -> dict[str, Any]:
        response = self.http.get(f"/v1/batches/{id}")
        assert response.status_code == 200, response.text
        return response.json()

    def until(self, id: str, *statuses: str) -> dict[str, Any]:
        """Until it is so, through whatever restarts meanwhile."""
        while True:
            try:
                response = self.http.get(f"/v1/batches/{id}")
            except httpx.TransportError:
                continue
            if response.status_code == 200 and (found := response.json())["status"] in statuses:
                return found
            time.sleep(0)

    def ended(self, id: str) -> dict[str, Any]:
        return self.until(id, *ENDED)

    def lines(self, id: str | None) -> list[dict[str, Any]]:
        """What is in a file of answers."""
        if id is None:
            return []
        response = self.http.get(f"/v1/files/{id}/content")
        assert response.status_code == 200, response.text
        return [json.loads(each) for each in response.text.splitlines()]

    def answers(self, batch: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        return self.lines(batch["output_file_id"]), self.lines(batch["error_file_id"])


def run_simulated(url: str, name: str, folder: Path, front: dict[str, Any] | None = None, **settings: Any) -> str:
    """Deploy a model "fake" that is fast, and one of words. `settings` of BatchConfig; gives the URL."""
    model = LLMConfig(model_id="fake", engine=SimulatedEngine(speed=100), **(settings.pop("model", None) or {}))
    config = FrontConfig(batches=BatchConfig(folder=str(folder), **settings), **(front or {}))
    serve.run(build_openai_app(model, config), name=name, route_prefix=f"/{name}")
    return f"{url}/{name}"


def run_scripted_batches(
    url: str,
    name: str,
    folder: Path,
    kind: type[Front] = Front,
    num_replicas: int = 1,
    deployment: dict[str, Any] | None = None,
    **settings: Any,
) -> str:
    """The same with a model that does what a request says. `deployment`: its options."""
    deployment = deployment or {}
    model = LLMConfig(model_id="scripted", engine=SimulatedEngine(), max_resumes=0, deployment=deployment)
    config = FrontConfig(batches=BatchConfig(folder=str(folder), **settings), num_replicas=num_replicas)
    options = DeploymentOptions(name="front", num_replicas=num_replicas, max_ongoing_requests=1000)
    app = Deployment[Front](kind, options).bind(
        config, [(model, scripted("/v1/responses", **deployment))], bind_store(config)
    )
    serve.run(app, name=name, route_prefix=f"/{name}")
    return f"{url}/{name}"
