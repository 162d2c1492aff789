"""Every mistake is a status and a sentence in the shape of the API that was spoken, and the next request is served."""

import gzip
import json
from typing import Any

import pytest

from actorrt.serve.llm.reading import read

from .conftest import HELLO, ScriptedApp

CHAT = "/v1/chat/completions"
GOOD = {"model": "scripted", "messages": HELLO, "script": [["head", 200, "application/json"], ["say", "{}", 0]]}


def body(**fields: Any) -> bytes:
    return json.dumps({**GOOD, **fields}).encode()


def with_text(text: bytes) -> bytes:
    return b'{"model":"scripted","messages":[{"role":"user","content":%b}]}' % text


WRONG: list[tuple[str, bytes, int, str | None, str]] = [
    # path, body, status, the field that is named, words of the sentence
    (CHAT, b"", 400, None, "empty"),
    (CHAT, b"{", 400, None, "not valid JSON"),
    (CHAT, b"[]", 400, None, "a JSON object, not an array"),
    (CHAT, b"null", 400, None, "a JSON object, not null"),
    (CHAT, b"\xef\xbb\xbf{}", 400, None, "not valid JSON"),
    (CHAT, body() + b"x", 400, None, "trailing"),
    (CHAT, with_text(b'"\xff"'), 400, None, "not UTF-8"),
    (CHAT, with_text(b'"\\ud800"'), 400, None, "surrogate"),
    (CHAT, with_text(b"NaN"), 400, None, "not valid JSON"),
    (CHAT, with_text(b"1e999"), 400, None, "not valid JSON"),
    (CHAT, with_text(b"9" * 5000), 400, None, "not valid JSON"),
    (CHAT, with_text(b"[" * 100_000), 400, None, "nested too deeply"),
    (CHAT, b'{"model":"scripted","model":"other"}', 400, "model", "stands twice"),
    (CHAT, b'{"model":"scripted","mod\\u0065l":"other"}', 400, "model", "stands twice"),
    (CHAT, b'{"stream":true,"model":"scripted","stream":false}', 400, "stream", "stands twice"),
    (CHAT, body(model=1), 400, "model", "a string, not an integer"),
    (CHAT, body(model="nobody"), 404, "model", "other/name, scripted"),
    (CHAT, body(stream="yes"), 400, "stream", "true or false, not a string"),
    (CHAT, body(messages=None), 400, "messages", "missing"),
    (CHAT, body(messages=[]), 400, "messages", "empty"),
    (CHAT, body(messages="hello"), 400, "messages", "an array, not a string"),
    (CHAT, body(messages=["hello"]), 400, "messages[0]", "an object, not a string"),
    (CHAT, body(messages=[*HELLO, {"content": "x"}]), 400, "messages[1].role", "missing"),
    (CHAT, body(messages=[{"role": 1}]), 400, "messages[0].role", "a string, not an integer"),
    (CHAT, body(max_tokens=-1), 400, "max_tokens", "at least 0, not -1"),
    (CHAT, body(service_tier=5), 400, "service_tier", "a string, not an integer"),
    (CHAT, body(service_tier="nonsense"), 400, "service_tier", "must be one of 'auto'"),
    (CHAT, body(user={"a": 1}), 400, "user", "a string, not an object"),
    (CHAT, body(max_tokens="5"), 400, "max_tokens", "an integer, not a string"),
    (CHAT, body(max_tokens=2.5), 400, "max_tokens", "an integer, not a number"),
    (CHAT, body(max_tokens=True), 400, "max_tokens", "an integer, not a boolean"),
    (CHAT, body(max_completion_tokens=2**80), 400, "max_completion_tokens", "more than 64 bits"),
    (CHAT, body(max_tokens=2**32 + 3), 400, "max_tokens", "at most 2147483647"),
    (CHAT, body(n=2**31), 400, "n", "at most 2147483647"),
    (CHAT, body(n=0), 400, "n", "at least 1"),
    (CHAT, body(temperature=-0.1), 400, "temperature", "at least 0"),
    (CHAT, body(top_p=1.5), 400, "top_p", "between 0 and 1"),
    (CHAT, body(top_p=10**400), 400, "top_p", "a number, not an integer of more than 64 bits"),
    (CHAT, body(temperature=10**400), 400, "temperature", "a number, not an integer of more than 64 bits"),
    (CHAT, body(tools={}), 400, "tools", "an array, not an object"),
    (CHAT, body(stop=""), 400, "stop", "empty"),
    (CHAT, body(stop=["a", ""]), 400, "stop[1]", "empty"),
    (CHAT, body(stop=["a", 1]), 400, "stop[1]", "a string, not an integer"),
    (CHAT, body(stop=1), 400, "stop", "a string or an array of strings, not an integer"),
    ("/v1/completions", b'{"model":"scripted"}', 400, "prompt", "missing"),
    ("/v1/completions", b'{"model":"scripted","prompt":{}}', 400, "prompt", "not an object"),
    ("/v1/completions", b'{"model":"scripted","prompt":[]}', 400, "prompt", "empty"),
    ("/v1/embeddings", b'{"model":"scripted"}', 400, "input", "missing"),
    ("/v1/embeddings", b'{"model":"scripted","input":[]}', 400, "input", "empty"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "content", "status", "param", "words"), WRONG)
def test_a_mistake_is_named(
    scripted_app: ScriptedApp, path: str, content: bytes, status: int, param: str | None, words: str
) -> None:
    response = scripted_app.client.post(path, content=content)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert words in error["message"]
    assert scripted_app.client.post(CHAT, content=body()).status_code == 200


def test_nulls_are_as_if_they_were_not_there(scripted_app: ScriptedApp) -> None:
    fields = dict.fromkeys(("stream", "max_tokens", "n", "stop", "temperature", "tools", "seed"))
    assert scripted_app.client.post(CHAT, content=body(**fields)).status_code == 200


def test_a_body_over_the_limit_is_413_whether_or_not_it_was_announced(scripted_app: ScriptedApp) -> None:
    large = body(padding="x" * 1_000_000)
    announced = scripted_app.client.post(CHAT, content=large)
    in_parts = scripted_app.client.post(CHAT, content=iter([large[:500_000], large[500_000:]]))
    for response in (announced, in_parts):
        assert (response.status_code, response.json()["error"]["code"]) == (413, "request_too_large")
    assert scripted_app.client.post(CHAT, content=body(padding="x" * 900_000)).status_code == 200


def test_a_compressed_body_is_415_and_says_so(scripted_app: ScriptedApp) -> None:
    client = scripted_app.client
    for encoding in ("gzip", "zstd"):
        response = client.post(CHAT, content=gzip.compress(body()), headers={"content-encoding": encoding})
        assert (response.status_code, response.headers["accept-encoding"]) == (415, "identity")
        assert f"encoded as '{encoding}'" in response.json()["error"]["message"]
    assert client.post(CHAT, content=body(), headers={"content-encoding": "identity"}).status_code == 200


def test_a_method_that_is_not_there_is_405_and_says_which_are(scripted_app: ScriptedApp) -> None:
    response = scripted_app.client.put(CHAT, content=body())
    assert (response.status_code, response.headers["allow"]) == (405, "OPTIONS, POST")
    assert "POST" in response.json()["error"]["message"]


def test_a_path_that_is_not_there_is_404_and_names_those_that_are(scripted_app: ScriptedApp) -> None:
    response = scripted_app.client.post("/v1/chat/completion", content=body())
    assert response.status_code == 404
    assert CHAT in response.json()["error"]["message"]


def test_who_speaks_anthropics_is_told_in_their_shape_of_a_path_that_is_not_there(scripted_app: ScriptedApp) -> None:
    response = scripted_app.client.post("/v1/message", headers={"anthropic-version": "2023-06-01"})
    assert (response.status_code, response.json()["error"]["type"]) == (404, "not_found_error")


def test_anthropics_paths_say_it_in_anthropics_shape(scripted_app: ScriptedApp) -> None:
    response = scripted_app.client.get("/v1/messages")
    assert response.status_code == 405
    assert response.json() == {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "/v1/messages is asked by POST, not by GET"},
        "request_id": response.headers["request-id"],
    }


def nested(depth: int) -> bytes:
    """A request of any API, this many levels deep."""
    levels = depth - 1
    return b'{"model":"other/name","messages":[{"role":"user","content":"x"}],"input":"x","max_tokens":1,"x":%b%b}' % (
        b"[" * levels,
        b"]" * levels,
    )


def test_no_depth_of_nesting_is_more_than_a_mistake(scripted_app: ScriptedApp) -> None:
    assert read(nested(256)).model == "other/name"
    for depth in (257, *range(880, 1020, 7), 100_000):
        for path in (CHAT, "/v1/messages", "/v1/responses"):
            response = scripted_app.client.post(path, content=nested(depth))
            assert (response.status_code, "nested too deeply" in response.text) == (400, True), response.text
