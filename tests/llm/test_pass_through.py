"""Requests go to an engine as they came, and its answers come back as they are."""

import json
from typing import Any

import pytest

from .conftest import HELLO, ScriptedApp
from .scripted import chunk

JSON = ["head", 200, "application/json"]
EVENTS = ["head", 200, "text/event-stream"]


def test_the_bytes_of_a_request_are_what_the_engine_gets(scripted_app: ScriptedApp) -> None:
    body = (
        b'{ "model":"scripted","messages" : [{"role":"user","content":"h\\u00e9 \xc3\xa9","x":1.50}],'
        b'"odd":{"a":[1e2]},"script":[["head",200,"application/json"]]}\n'
    )
    response = scripted_app.client.post("/v1/chat/completions", content=body)
    assert response.status_code == 200
    assert scripted_app.last_call()[:3] == ("/v1/chat/completions", body, False)


def test_an_alias_is_replaced_and_every_other_value_keeps_its_bytes(scripted_app: ScriptedApp) -> None:
    body = (
        b'{"messages":[{"role":"user","content":"\\u00e9","x":1.50}],"model" : "other/name",'
        b'"script":[["head",200,"application/json"]], "big":123456789012345678901234567890}'
    )
    assert scripted_app.client.post("/v1/chat/completions", content=body).status_code == 200
    expected = body.replace(b'"model" : "other/name"', b'"model":"scripted"').replace(b', "big"', b',"big"')
    assert scripted_app.last_call()[1] == expected


def test_an_answer_keeps_its_bytes_status_and_unknown_headers(scripted_app: ScriptedApp) -> None:
    response = scripted_app.chat(["head", 418, "application/json"], ["say", '{ "a" :1,\n"b":2.50}', 3])
    assert (response.status_code, response.text) == (418, '{ "a" :1,\n"b":2.50}')
    assert response.headers["x-engine"] == "scripted"
    assert response.headers["content-type"] == "application/json"
    assert response.headers["content-length"] == str(len(response.content))
    assert "server" not in response.headers


def test_events_keep_their_bytes(scripted_app: ScriptedApp) -> None:
    said = [": comment\n\n", 'data: {"x":  1}\r\n\r\n', chunk("é"), "data: [DONE]\n\n"]
    response = scripted_app.chat(EVENTS, *(["say", each, 1] for each in said), stream=True)
    assert response.text == "".join(said)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["x-accel-buffering"] == "no"


def test_each_event_comes_before_the_engine_has_the_next(scripted_app: ScriptedApp) -> None:
    steps: list[Any] = [["say", chunk("a"), 1], ["wait", "a"], ["say", chunk("b"), 1], ["wait", "b"]]
    request = scripted_app.request(EVENTS, *steps, ["say", "data: [DONE]\n\n", 0], stream=True)
    came: list[str] = []
    with scripted_app.client.stream("POST", "/v1/chat/completions", json=request) as response:
        for line in response.iter_lines():
            if '"content": "a"' in line:
                scripted_app.tell("a")
            if '"content": "b"' in line:
                scripted_app.tell("b")
            came.append(line)
    assert came[-2] == "data: [DONE]"


def test_an_error_before_any_event_is_a_status_and_json(scripted_app: ScriptedApp) -> None:
    said = '{"error":{"code":400,"message":"too long","type":"exceed_context_size_error","n_ctx":5}}'
    response = scripted_app.chat(["head", 400, "application/json"], ["say", said, 0], stream=True)
    assert (response.status_code, response.text) == (400, said)
    assert response.headers["content-type"] == "application/json"


FIELDS = [{"loc": ["body", "messages"], "msg": "Field required"}, {"loc": ["body", "n", 0], "msg": "too small"}]


@pytest.mark.parametrize(
    ("kind", "said", "sentence"),
    [
        ("application/json", '{"object":"error","message":"too long","type":"BadRequestError","code":400}', "too long"),
        ("application/json", '{"error":"no such model"}', "no such model"),
        ("application/json", '{"detail":"Not Found"}', "Not Found"),
        (
            "application/json",
            json.dumps({"detail": FIELDS}),
            "body.messages: Field required; body.n.0: too small",
        ),
        ("text/plain", "Internal Server Error", "Internal Server Error"),
        ("text/html", "<html><h1>Bad Gateway</h1></html>", "the engine answered with status 422"),
        ("text/plain", "", "the engine answered with status 422"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_error_in_another_shape_is_put_in_openais(
    scripted_app: ScriptedApp, stream: bool, kind: str, said: str, sentence: str
) -> None:
    response = scripted_app.chat(["head", 422, kind], ["say", said, 0], stream=stream)
    assert (response.status_code, response.headers["content-type"]) == (422, "application/json")
    error = response.json()["error"]
    assert error["message"] == sentence
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == ("BadRequestError" if "object" in said else "invalid_request_error")


def test_an_engine_that_fails_is_a_502_without_its_reasons(scripted_app: ScriptedApp) -> None:
    response = scripted_app.chat(["raise"], stream=True)
    assert response.status_code == 502
    assert response.json() == {
        "error": {"message": "the model's engine failed", "type": "server_error", "param": None, "code": "engine_error"}
    }
    assert scripted_app.chat(JSON, ["say", "{}", 1]).json() == {}


def test_an_engine_that_fails_in_the_midst_is_an_event(scripted_app: ScriptedApp) -> None:
    response = scripted_app.chat(EVENTS, ["say", chunk("a"), 1], ["raise"], stream=True)
    assert response.status_code == 200
    assert response.text == chunk("a") + (
        'data: {"error":{"message":"the model\'s engine failed","type":"server_error","param":null,'
        '"code":"engine_error"}}\n\n'
    )


def test_what_the_engine_lacks_is_a_501_that_says_so(scripted_app: ScriptedApp) -> None:
    for path, fields in (
        ("/v1/rerank", {"query": "a", "documents": ["b"]}),
        ("/v1/tokenize", {"prompt": "a"}),
        ("/v1/detokenize", {"tokens": [1]}),
    ):
        response = scripted_app.client.post(path, json={"model": "scripted", **fields})
        assert response.status_code == 501
        error = response.json()["error"]
        assert error["code"] == "not_supported_by_engine"
        # Of these two are made from its chat.
        assert error["message"].endswith(
            "/v1/chat/completions, /v1/completions, /v1/embeddings, /v1/messages, /v1/responses"
        )


def test_headers_that_are_the_clients_own_stay_here(scripted_app: ScriptedApp) -> None:
    request = scripted_app.request(JSON, ["say", "{}", 0], messages=HELLO)
    headers = {"traceparent": "00-1", "authorization": "Bearer secret", "cookie": "secret", "x-request-id": "mine"}
    response = scripted_app.client.post("/v1/chat/completions", json=request, headers=headers)
    assert response.headers["x-request-id"] == "mine"
    assert scripted_app.last_call()[3] == (("x-request-id", "mine"), ("traceparent", "00-1"))
