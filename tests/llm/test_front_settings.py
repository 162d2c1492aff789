"""What FrontConfig changes: keys and tenants, origins, signs of life, the log."""

from collections.abc import Iterator

import pytest

from actorrt.serve.llm import ApiKey, FrontConfig
from actorrt.serve.llm.cors import Cors

from .conftest import ScriptedApp, run_scripted
from .scripted import chunk

JSON = ["head", 200, "application/json"]
EVENTS = ["head", 200, "text/event-stream"]
PING = ": ping\n\n"


@pytest.fixture(scope="module")
def strict_app(serve_url: str) -> Iterator[ScriptedApp]:
    front = FrontConfig(
        keys=[ApiKey.of("sk-a", "tenant-a"), ApiKey.of("sk-b", "tenant-b")],
        cors_origins=["http://page.example"],
        ping_s=0.05,
    )
    app = run_scripted(serve_url, "strict", front)
    with app.client:
        yield app


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer sk-c"},
        {"authorization": "Basic sk-a"},
        {"authorization": "Bearer"},
        {"x-api-key": ""},
    ],
)
def test_without_a_known_key_all_but_health_is_401(strict_app: ScriptedApp, headers: dict[str, str]) -> None:
    for method, path in (("GET", "/v1/models"), ("POST", "/v1/chat/completions")):
        response = strict_app.client.request(method, path, headers=headers)
        assert response.status_code == 401
        assert response.json()["error"]["type"] == "authentication_error"
        assert response.headers["www-authenticate"] == "Bearer"
    response = strict_app.client.post("/v1/messages", headers=headers)
    assert (response.status_code, response.json()["type"]) == (401, "error")
    assert strict_app.client.get("/health", headers=headers).status_code == 200


@pytest.mark.parametrize("headers", [{"authorization": "bearer  sk-a"}, {"x-api-key": "sk-b"}])
def test_either_header_brings_a_key(strict_app: ScriptedApp, headers: dict[str, str]) -> None:
    assert strict_app.client.get("/v1/models", headers=headers).status_code == 200


def test_only_pages_of_the_named_origins_may_call(strict_app: ScriptedApp) -> None:
    named = strict_app.client.options("/v1/models", headers={"origin": "http://page.example"})
    assert named.headers["access-control-allow-origin"] == "http://page.example"
    assert named.headers["vary"] == "origin"
    other = strict_app.client.options("/v1/models", headers={"origin": "http://other.example"})
    assert "access-control-allow-origin" not in other.headers


def test_a_page_of_a_named_origin_may_call_into_a_private_network(strict_app: ScriptedApp) -> None:
    asks = {"access-control-request-method": "POST", "access-control-request-private-network": "true"}
    name = "access-control-allow-private-network"
    named = strict_app.client.options("/v1/models", headers={"origin": "http://page.example", **asks})
    assert named.headers[name] == "true"
    other = strict_app.client.options("/v1/models", headers={"origin": "http://other.example", **asks})
    unasked = strict_app.client.options("/v1/models", headers={"origin": "http://page.example"})
    assert name not in other.headers
    assert name not in unasked.headers
    # "*" names nobody.
    assert name.encode() not in dict(Cors(["*"]).preflight(b"http://page.example", b"GET", None, private=True))


def test_a_silent_stream_gives_signs_of_life_between_its_events(strict_app: ScriptedApp) -> None:
    request = strict_app.request(
        EVENTS, ["say", chunk("a"), 1], ["wait", "pinged"], ["say", chunk("b"), 1], stream=True
    )
    came = ""
    headers = {"x-api-key": "sk-a"}
    with strict_app.client.stream("POST", "/v1/chat/completions", json=request, headers=headers) as response:
        for text in response.iter_text():
            came += text
            if came.count(PING) == 2:
                strict_app.tell("pinged")
    assert came.replace(PING, "") == chunk("a") + chunk("b")
    assert came.startswith(chunk("a") + PING * 2)


def test_an_engine_that_is_silent_from_the_start_has_the_stream_opened(strict_app: ScriptedApp) -> None:
    """What goes wrong after that is an event, whatever status the engine gives it."""
    said = '{"error":{"code":400,"message":"too long"}}'
    scripts = {
        "opened": [["wait", "opened"], EVENTS, ["say", chunk("a"), 1]],
        "refused": [["wait", "refused"], ["head", 400, "application/json"], ["say", said, 0]],
        "failed": [["wait", "failed"], ["raise"]],
    }
    ends: dict[str, str] = {}
    for name, script in scripts.items():
        request = strict_app.request(*script, stream=True)
        headers = {"x-api-key": "sk-a"}
        with strict_app.client.stream("POST", "/v1/chat/completions", json=request, headers=headers) as response:
            assert response.status_code == 200
            assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
            came = ""
            for text in response.iter_text():
                if not came:
                    assert text == PING
                    strict_app.tell(name)
                came += text
        ends[name] = came.replace(PING, "")
    assert ends["opened"] == chunk("a")
    assert ends["refused"] == f"data: {said}\n\n"
    assert ends["failed"].startswith('data: {"error":{"message":"the model\'s engine failed"')
