"""Applications of well-known packages, unchanged, each with the feature that the package is for (`make apps`)."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture
def url_of(start_server: Any, tmp_path: Path) -> Callable[[str], str]:
    def serve(name: str) -> str:
        shutil.copy(PROGRAMS / f"{name}.py", tmp_path)
        return start_server(f"{name}:app").url.rstrip("/")

    return serve


def test_django_answers_and_streams(url_of: Any) -> None:
    url = url_of("django_app")
    assert httpx.post(url + "/show?a=1", content="sent").json() == {"body": "sent", "query": {"a": "1"}}
    assert httpx.get(url + "/stream").text == "0 1 2 "


async def test_quart_answers_and_talks(url_of: Any) -> None:
    import websockets

    url = await asyncio.to_thread(url_of, "quart_app")
    async with httpx.AsyncClient() as client:
        assert (await client.post(url + "/show", json=[1])).json() == {"body": [1], "started": True}
    async with websockets.connect(url.replace("http", "ws") + "/echo") as websocket:
        await websocket.send("x")
        assert await websocket.recv() == "echo x"


def test_litestar_reads_and_writes_its_types(url_of: Any) -> None:
    answer = httpx.post(url_of("litestar_app") + "/show", json={"name": "a"})
    assert (answer.status_code, answer.json()) == (201, {"name": "A"})


def test_flask_answers_below_a2wsgi(url_of: Any) -> None:
    answer = httpx.post(url_of("flask_app") + "/show", json={"a": 1})
    assert answer.json() == {"body": {"a": 1}, "scheme": "http"}


def test_strawberry_answers_a_query(url_of: Any) -> None:
    answer = httpx.post(url_of("strawberry_app") + "/", json={"query": "{ double(number: 21) }"})
    assert answer.json()["data"] == {"double": 42}


def test_prometheus_counts(url_of: Any) -> None:
    url = url_of("prometheus_app")
    assert [httpx.get(url + "/call").text for _ in range(3)] == ["counted"] * 3
    assert "calls_total 3.0" in httpx.get(url + "/metrics/").text


async def test_a_tool_of_mcp_is_called_by_streamable_http(url_of: Any) -> None:
    from mcp import Client

    url = await asyncio.to_thread(url_of, "mcp_app")
    async with Client(url + "/mcp") as client:
        result = await client.call_tool("add", {"a": 2, "b": 3})
    assert result.content[0].text == "5"


@pytest.mark.parametrize("transport", ["polling", "websocket"])
async def test_socketio_answers_an_event(transport: str, url_of: Any) -> None:
    import socketio

    url = await asyncio.to_thread(url_of, "socketio_app")
    async with socketio.AsyncSimpleClient() as client:
        await client.connect(url, transports=[transport])
        assert await client.call("double", 21, timeout=20) == 42


def test_gradio_shows_its_page_and_calls_its_function(url_of: Any) -> None:
    url = url_of("gradio_app")
    assert "gradio" in httpx.get(url + "/ui/").text
    event = httpx.post(url + "/ui/gradio_api/call/double", json={"data": [21]}).json()["event_id"]
    assert "data: [42]" in httpx.get(f"{url}/ui/gradio_api/call/double/{event}", timeout=20).text


def test_datasette_shows_its_rows(url_of: Any) -> None:
    answer = httpx.get(url_of("datasette_app") + "/datasette_app/numbers.json?_shape=array")
    assert answer.json() == [{"number": 7}]


def test_sse_starlette_sends_its_events(url_of: Any) -> None:
    text = httpx.get(url_of("sse_app") + "/events").text
    assert [line for line in text.splitlines() if line.startswith("data")] == ["data: 0", "data: 1", "data: 2"]


def test_slowapi_limits_each_client(url_of: Any) -> None:
    url = url_of("slowapi_app")
    assert [httpx.get(url + "/limited").status_code for _ in range(3)] == [200, 200, 429]


def test_asgi_correlation_id_keeps_the_id_of_the_client(url_of: Any) -> None:
    url = url_of("correlation_app")
    id_of_client = "0f9c0dc6d5c944d3a3e7f0a0c2f3e0aa"
    answer = httpx.get(url + "/show", headers={"X-Request-ID": id_of_client})
    assert (answer.json(), answer.headers["x-request-id"]) == (id_of_client, id_of_client)
    assert len(httpx.get(url + "/show").json()) == 32
