"""OpenAI's Responses API before a model that has chat/completions only: what is made, kept, found, cancelled."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from actorrt.serve.llm import ApiKey, FrontConfig
from actorrt.serve.llm.problems import LONGEST

from .conftest import ScriptedApp, run_scripted
from .scripted import chunk

EVENTS = ["head", 200, "text/event-stream"]
JSON = ["head", 200, "application/json"]
USAGE = {"prompt_tokens": 31, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 30}}
LAST = f"data: {json.dumps({'choices': [], 'usage': USAGE})}\n\ndata: [DONE]\n\n"


def _say(text: str, finish: str = "stop", **message: Any) -> list[Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
    return [JSON, ["say", json.dumps({"choices": [choice], "usage": USAGE}), 2]]


def _stream(*texts: str) -> list[Any]:
    return [
        EVENTS,
        ["say", chunk(), 0],
        *(["say", chunk(text), 1] for text in texts),
        ["say", chunk(finish="stop") + LAST, 0],
    ]


def _post(app: ScriptedApp, script: list[Any], **fields: Any) -> httpx.Response:
    return app.client.post("/v1/responses", json={"model": "scripted", "input": "hello", "script": script, **fields})


def _events(body: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for each in body.removesuffix("\n\n").split("\n\n"):
        name, data = each.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def _asked(app: ScriptedApp) -> list[dict[str, Any]]:
    return json.loads(app.last_call()[1])["messages"]


def test_an_answer_is_a_response_and_is_kept(scripted_app: ScriptedApp) -> None:
    response = _post(scripted_app, _say("Hello!"), instructions="Be brief.", metadata={"a": "b"})
    assert response.status_code == 200
    made = response.json()
    assert made["output"][0]["content"][0]["text"] == "Hello!"
    assert made["usage"]["total_tokens"] == 33
    assert (made["model"], made["status"], made["store"], made["metadata"]) == (
        "scripted",
        "completed",
        True,
        {"a": "b"},
    )
    assert _asked(scripted_app) == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
    assert scripted_app.client.get(f"/v1/responses/{made['id']}").json() == made


def test_a_conversation_goes_on_by_the_id_of_its_last_response(scripted_app: ScriptedApp) -> None:
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "time", "arguments": "{}"}}
    tools = [{"type": "function", "name": "time"}]
    first = _post(scripted_app, _say("", "tool_calls", tool_calls=[call]), tools=tools, instructions="Be brief.").json()
    output = [{"type": "function_call_output", "call_id": "c1", "output": "noon"}]
    second = _post(
        scripted_app, _stream("It is", " noon."), previous_response_id=first["id"], input=output, stream=True
    )
    last = _events(second.text)[-1]["response"]
    third = _post(scripted_app, _say("Bye."), previous_response_id=last["id"], input="Bye").json()
    # Instructions are those of each request.
    assert _asked(scripted_app) == [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": None, "tool_calls": [{k: v for k, v in call.items() if k != "index"}]},
        {"role": "tool", "tool_call_id": "c1", "content": "noon"},
        {"role": "assistant", "content": "It is noon."},
        {"role": "user", "content": "Bye"},
    ]
    assert third["previous_response_id"] == last["id"]


def test_a_conversation_goes_on_when_its_first_response_was_deleted(scripted_app: ScriptedApp) -> None:
    first = _post(scripted_app, _say("one")).json()["id"]
    second = _post(scripted_app, _say("two"), previous_response_id=first).json()["id"]
    assert scripted_app.client.delete(f"/v1/responses/{first}").json() == {
        "id": first,
        "object": "response",
        "deleted": True,
    }
    assert scripted_app.client.get(f"/v1/responses/{first}").status_code == 404
    _post(scripted_app, _say("three"), previous_response_id=second)
    assert [turn["content"] for turn in _asked(scripted_app)] == ["hello", "one", "hello", "two", "hello"]


def test_an_item_is_referred_to_by_its_id(scripted_app: ScriptedApp) -> None:
    item = _post(scripted_app, _say("one")).json()["output"][0]
    reference = {"type": "item_reference", "id": item["id"]}
    _post(scripted_app, _say("two"), input=[reference, {"role": "user", "content": "so?"}])
    assert [turn["content"] for turn in _asked(scripted_app)] == ["one", "so?"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_x"}, "previous_response_id"),
        ({"input": [{"type": "item_reference", "id": "msg_x"}]}, "input[0].id"),
    ],
)
def test_what_is_not_kept_is_named(scripted_app: ScriptedApp, fields: dict[str, Any], param: str) -> None:
    response = _post(scripted_app, _say("x"), **fields)
    assert response.status_code == 404
    assert response.json()["error"]["param"] == param
    assert "was not stored, was deleted, or has made room" in response.json()["error"]["message"]


@pytest.mark.parametrize("method", ["get", "delete"])
def test_an_unknown_response_is_404(scripted_app: ScriptedApp, method: str) -> None:
    assert getattr(scripted_app.client, method)("/v1/responses/resp_x").status_code == 404
    assert scripted_app.client.post("/v1/responses/resp_x/cancel").status_code == 404
    assert scripted_app.client.get("/v1/responses/resp_x/input_items").status_code == 404


def test_store_false_keeps_nothing(scripted_app: ScriptedApp) -> None:
    made = _post(scripted_app, _say("x"), store=False).json()
    assert made["store"] is False
    assert scripted_app.client.get(f"/v1/responses/{made['id']}").status_code == 404


def test_the_items_that_went_in_are_listed_page_by_page(scripted_app: ScriptedApp) -> None:
    first = _post(scripted_app, _say("one"), input=[{"role": "user", "content": text} for text in "abc"]).json()
    second = _post(scripted_app, _say("two"), previous_response_id=first["id"], input="d").json()["id"]
    url = f"/v1/responses/{second}/input_items"
    whole = scripted_app.client.get(url, params={"order": "asc"}).json()
    assert [item["content"][0]["text"] for item in whole["data"]] == ["a", "b", "c", "one", "d"]
    assert whole["has_more"] is False
    page = scripted_app.client.get(url, params={"limit": 2}).json()
    assert [item["content"][0]["text"] for item in page["data"]] == ["d", "one"]
    assert page["has_more"] is True
    rest = scripted_app.client.get(url, params={"after": page["last_id"]}).json()
    assert [item["content"][0]["text"] for item in rest["data"]] == ["c", "b", "a"]
    refused = scripted_app.client.get(url, params={"limit": 0})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "limit")


@pytest.mark.parametrize("stream", [False, True])
def test_an_engines_error_is_an_error_before_any_event(scripted_app: ScriptedApp, stream: bool) -> None:
    said = json.dumps({"error": {"code": 400, "message": "too long", "type": "exceed_context_size_error"}})
    response = _post(scripted_app, [["head", 400, "application/json"], ["say", said, 0]], stream=stream)
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["message"], error["type"]) == ("too long", "exceed_context_size_error")


def test_what_fails_in_the_midst_is_a_failed_response_and_not_kept(scripted_app: ScriptedApp) -> None:
    response = _post(scripted_app, [EVENTS, ["say", chunk("Hel"), 1], ["raise"]], stream=True)
    last = _events(response.text)[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["error"] == {"code": "server_error", "message": "the model's engine failed"}
    assert last["response"]["store"] is False
    assert scripted_app.client.get(f"/v1/responses/{last['response']['id']}").status_code == 404


def test_an_engine_that_refuses_after_a_sign_of_life_is_a_failed_response(pinged_app: ScriptedApp) -> None:
    said = json.dumps({"error": {"code": 400, "message": "too long"}})
    script = [["wait", "pinged"], ["head", 400, "application/json"], ["say", said, 0]]
    body = {"model": "scripted", "input": "hello", "script": script, "stream": True}
    received = ""
    with pinged_app.client.stream("POST", "/v1/responses", json=body) as response:
        for part in response.iter_text():
            received += part
            pinged_app.tell("pinged")
    events = _events(received.replace(": ping\n\n", ""))
    assert [event["type"] for event in events] == ["response.created", "response.in_progress", "response.failed"]
    assert events[-1]["response"]["error"]["message"] == "too long"


def test_of_what_a_client_wrote_little_is_said_back(scripted_app: ScriptedApp) -> None:
    response = _post(scripted_app, _say("x"), input=[{"type": "long " * 100_000}])
    assert response.status_code == 400
    message = response.json()["error"]["message"]
    assert message.startswith("input[0]: an item of type 'long long ")
    assert len(message) == LONGEST


def test_a_mistake_names_its_field(scripted_app: ScriptedApp) -> None:
    response = _post(scripted_app, _say("x"), tools=[{"type": "web_search"}])
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "tools[0].type"


def test_what_an_engine_says_more_of_an_error_is_handed_on(scripted_app: ScriptedApp) -> None:
    error = {"code": 400, "message": "too long", "type": "exceed_context_size_error", "n_prompt_tokens": 9, "n_ctx": 8}
    script = [["head", 400, "application/json"], ["say", json.dumps({"error": error}), 0]]
    for stream in (False, True):
        response = _post(scripted_app, script, stream=stream)
        assert response.status_code == 400
        assert response.json()["error"] == {**error, "code": None, "param": None}


def test_fields_of_the_chat_that_it_is_made_from_are_checked_as_those_of_a_chat(scripted_app: ScriptedApp) -> None:
    for wrong in ({"stop": 5}, {"n": 2}, {"logit_bias": 1}):
        response = _post(scripted_app, _say("x"), **wrong)
        assert (response.status_code, response.json()["error"]["param"]) == (400, *wrong), response.text


def _poll(app: ScriptedApp, id: str) -> dict[str, Any]:
    return app.client.get(f"/v1/responses/{id}").json()


def _follow(app: ScriptedApp, id: str, after: int | None = None) -> list[dict[str, Any]]:
    params = {"stream": "true"} | ({} if after is None else {"starting_after": str(after)})
    return _events(app.client.get(f"/v1/responses/{id}", params=params).text)


def test_a_response_in_the_background_is_polled(scripted_app: ScriptedApp) -> None:
    script = [["wait", "polled"], *_say("Hello!")]
    queued = _post(scripted_app, script, background=True, user="poll").json()
    assert queued["status"] == "queued"
    scripted_app.until("poll began")
    assert _poll(scripted_app, queued["id"])["status"] == "in_progress"
    scripted_app.tell("polled")
    scripted_app.until("poll ended")
    while (made := _poll(scripted_app, queued["id"]))["status"] == "in_progress":
        pass
    assert (made["status"], made["background"]) == ("completed", True)
    assert made["output"][0]["content"][0]["text"] == "Hello!"
    _post(scripted_app, _say("x"), previous_response_id=queued["id"])
    assert [turn["content"] for turn in _asked(scripted_app)] == ["hello", "Hello!", "hello"]


def test_a_stream_in_the_background_goes_on_without_its_client_and_is_replayed(scripted_app: ScriptedApp) -> None:
    script = [EVENTS, ["say", chunk("Hel"), 1], ["wait", "left"], ["say", chunk("lo", "stop") + LAST, 1]]
    body = {"model": "scripted", "input": "hello", "script": script, "stream": True, "background": True}
    received = ""
    with scripted_app.client.stream("POST", "/v1/responses", json=body) as response:
        for part in response.iter_text():
            received += part
            if '"Hel"' in received:
                break
    seen = _events(received)
    id = seen[0]["response"]["id"]
    scripted_app.tell("left")
    events = _follow(scripted_app, id)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[: len(seen)] == seen
    assert [event["type"].removeprefix("response.") for event in events][:3] == ["created", "queued", "in_progress"]
    assert events[-1]["type"] == "response.completed"
    assert events[-1]["response"] == _poll(scripted_app, id)
    assert _follow(scripted_app, id, 4) == events[5:]
    assert _follow(scripted_app, id, len(events) - 2) == events[-1:]


def test_a_response_without_events_is_not_streamed(scripted_app: ScriptedApp) -> None:
    id = _post(scripted_app, _say("x")).json()["id"]
    response = scripted_app.client.get(f"/v1/responses/{id}", params={"stream": "true"})
    assert response.status_code == 400
    assert "only one that was created with background and stream has" in response.json()["error"]["message"]
    assert scripted_app.client.get("/v1/responses/resp_x", params={"stream": "true"}).status_code == 404


@pytest.mark.parametrize("stream", [False, True])
def test_a_cancelled_response_is_stopped_at_its_engine(scripted_app: ScriptedApp, stream: bool) -> None:
    name = f"cancel {stream}"
    script = [EVENTS, ["say", chunk("Hel"), 1], ["wait", "never"]] if stream else [["wait", "never"]]
    body = {"model": "scripted", "input": "hello", "script": script, "user": name}
    if stream:
        with scripted_app.client.stream(
            "POST", "/v1/responses", json={**body, "stream": True, "background": True}
        ) as it:
            id = _events(next(part for part in it.iter_text()))[0]["response"]["id"]
    else:
        id = _post(scripted_app, script, background=True, user=name).json()["id"]
    scripted_app.until(f"{name} began")
    cancelled = scripted_app.client.post(f"/v1/responses/{id}/cancel").json()
    assert (cancelled["id"], cancelled["status"]) == (id, "cancelled")
    scripted_app.until(f"{name} ended")
    assert _poll(scripted_app, id)["status"] == "cancelled"
    if stream:
        assert _follow(scripted_app, id)[-1]["response"]["status"] == "cancelled"


def test_deleting_stops_what_is_being_made(scripted_app: ScriptedApp) -> None:
    id = _post(scripted_app, [["wait", "never"]], background=True, user="delete").json()["id"]
    scripted_app.until("delete began")
    assert scripted_app.client.delete(f"/v1/responses/{id}").status_code == 200
    scripted_app.until("delete ended")
    assert scripted_app.client.get(f"/v1/responses/{id}").status_code == 404


def test_what_was_not_made_in_the_background_is_not_cancelled(scripted_app: ScriptedApp) -> None:
    id = _post(scripted_app, _say("x")).json()["id"]
    assert scripted_app.client.post(f"/v1/responses/{id}/cancel").status_code == 400


@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_in_the_background_is_a_failed_response(scripted_app: ScriptedApp, stream: bool) -> None:
    script = [EVENTS if stream else JSON, ["say", chunk("Hel") if stream else "{", 1], ["raise"]]
    answer = _post(scripted_app, script, background=True, stream=stream, user=f"fails {stream}")
    if stream:
        last = _events(answer.text)[-1]
        assert last["type"] == "response.failed"
        id = last["response"]["id"]
    else:
        id = answer.json()["id"]
        while _poll(scripted_app, id)["status"] in ("queued", "in_progress"):
            pass
    failed = _poll(scripted_app, id)
    assert failed["status"] == "failed"
    assert failed["error"] == {"code": "server_error", "message": "the model's engine failed"}


@pytest.fixture(scope="module")
def pinged_app(serve_url: str) -> Iterator[ScriptedApp]:
    app = run_scripted(serve_url, "pinged", FrontConfig(ping_s=0.05, stored_responses=0))
    with app.client:
        yield app


def test_a_server_that_keeps_nothing_says_so(pinged_app: ScriptedApp) -> None:
    made = _post(pinged_app, _say("x")).json()
    assert (made["store"], made["output"][0]["content"][0]["text"]) == (False, "x")
    assert pinged_app.client.get(f"/v1/responses/{made['id']}").status_code == 404
    assert _post(pinged_app, _say("x"), previous_response_id=made["id"]).status_code == 404
    refused = _post(pinged_app, _say("x"), background=True)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "background")


@pytest.fixture(scope="module")
def small_app(serve_url: str) -> Iterator[ScriptedApp]:
    """Two tenants, and room for two responses."""
    keys = [ApiKey.of("sk-a", "a"), ApiKey.of("sk-b", "b")]
    app = run_scripted(serve_url, "small", FrontConfig(keys=keys, stored_responses=2), "/v1/responses")
    with app.client:
        app.client.headers["authorization"] = "Bearer sk-a"
        yield app


NATIVE = {
    "id": "resp_of_the_engine",
    "object": "response",
    "status": "completed",
    "of_tomorrow": [1],
    "output": [
        {"type": "message", "id": "msg_1", "role": "assistant", "content": [{"type": "output_text", "text": "x"}]}
    ],
}


@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_that_makes_responses_itself_is_handed_through_and_kept(small_app: ScriptedApp, stream: bool) -> None:
    made = {**NATIVE, "id": f"resp_{stream}"}
    said = json.dumps(made)
    if stream:
        said = f'event: response.completed\ndata: {{"type": "response.completed",  "response": {said}}}\n\n'
    tools = [{"type": "of_tomorrow"}]
    response = _post(small_app, [EVENTS if stream else JSON, ["say", said, 1]], stream=stream, tools=tools)
    assert response.text == said
    path, body, _, _ = small_app.last_call()
    assert path == "/v1/responses"
    assert (json.loads(body)["input"], json.loads(body)["tools"]) == ("hello", tools)
    assert small_app.client.get(f"/v1/responses/{made['id']}").json() == made
    _post(small_app, [JSON, ["say", json.dumps(NATIVE), 1]], previous_response_id=made["id"], input="and?")
    sent = json.loads(small_app.last_call()[1])
    assert "previous_response_id" not in sent
    assert [item["content"][0]["text"] for item in sent["input"]] == ["hello", "x", "and?"]


def test_what_one_tenant_keeps_is_not_there_for_another(small_app: ScriptedApp) -> None:
    _post(small_app, [JSON, ["say", json.dumps(NATIVE), 1]])
    url = f"/v1/responses/{NATIVE['id']}"
    other = {"authorization": "Bearer sk-b"}
    assert small_app.client.get(url).status_code == 200
    assert small_app.client.get(url, headers=other).status_code == 404
    assert small_app.client.delete(url, headers=other).status_code == 404
    assert small_app.client.get(url).status_code == 200


def test_the_oldest_make_room_but_not_those_that_are_being_made(small_app: ScriptedApp) -> None:
    running = [_post(small_app, [["wait", "never"]], background=True).json()["id"] for _ in range(2)]
    refused = _post(small_app, [["wait", "never"]], background=True)
    assert refused.status_code == 503
    assert "being made in the background" in refused.json()["error"]["message"]
    for id in running:
        assert small_app.client.post(f"/v1/responses/{id}/cancel").json()["status"] == "cancelled"
    ids: list[str] = []
    for number in range(3):
        made = {**NATIVE, "id": f"resp_{number}"}
        _post(small_app, [JSON, ["say", json.dumps(made), 1]])
        ids.append(made["id"])
    assert [small_app.client.get(f"/v1/responses/{id}").status_code for id in ids] == [404, 200, 200]
