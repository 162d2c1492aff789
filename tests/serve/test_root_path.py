"""A proxy behind a server that takes a part of the path."""

from typing import Any

import fastapi
import httpx
import pytest
from websockets.sync.client import connect

from actorrt import serve


@pytest.mark.usefixtures("node")
def test_websockets_and_requests_are_matched_in_one_way_below_a_root_path() -> None:
    api = fastapi.FastAPI()

    @serve.deployment
    @serve.ingress(api)
    class Says:
        @api.get("/path")
        async def http(self, request: fastapi.Request) -> Any:
            return [request.scope["root_path"], request.scope["path"], request.url.path]

        @api.websocket("/path")
        async def websocket(self, websocket: fastapi.WebSocket) -> None:
            await websocket.accept()
            await websocket.send_json([websocket.scope["root_path"], websocket.scope["path"], websocket.url.path])
            await websocket.close()

    url = serve.start({"port": 0, "root_path": "/api"}) + "/v1/path"
    serve.run(Says.bind(), route_prefix="/v1")
    said = httpx.get(url, timeout=20)
    assert said.json() == ["/api/v1", "/api/v1/path", "/api/v1/path"]
    with connect(url.replace("http:", "ws:")) as client:
        assert client.recv() == said.text
    serve.shutdown()
