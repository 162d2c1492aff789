"""What /metrics and /load tell of requests, by model and tenant."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from actorrt.serve.llm import ApiKey, FrontConfig
from actorrt.serve.llm.tallies import OTHER, Bounded, Histogram

from .conftest import HELLO, ScriptedApp, run_scripted
from .scripted import chunk

JSON = ["head", 200, "application/json"]
EVENTS = ["head", 200, "text/event-stream"]
USAGE = (
    '"usage":{"prompt_tokens":10,"completion_tokens":3,"total_tokens":13,"prompt_tokens_details":{"cached_tokens":4}}'
)


@pytest.fixture(scope="module")
def counted(serve_url: str) -> Iterator[ScriptedApp]:
    app = run_scripted(serve_url, "counted", FrontConfig(keys=[ApiKey.of("sk-a", "a"), ApiKey.of("sk-b", "b")]))
    with app.client:
        yield app


def scrape(app: ScriptedApp) -> dict[tuple[str, ...], float]:
    """Each sample by its name and its labels' values."""
    response = app.client.get("/metrics")
    assert response.status_code == 200
    samples: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(response.text):
        for sample in family.samples:
            if "le" not in sample.labels:
                labels = [value for name, value in sample.labels.items() if name != "front"]
                samples[(sample.name, *sorted(labels))] = sample.value
    return samples


def test_a_streamed_answer_is_counted_by_its_usage(counted: ScriptedApp) -> None:
    counted.client.headers["x-api-key"] = "sk-a"
    last = f'data: {{"choices":[],{USAGE}}}\n\ndata: [DONE]\n\n'
    script: list[Any] = [EVENTS, *(["say", chunk(each), 1] for each in "abc"), ["say", last, 0]]
    assert counted.chat(*script, stream=True).text.endswith(last)
    seen = scrape(counted)
    by = ("a", "chat", "scripted")
    assert seen["gen_ai_server_time_to_first_token_seconds_count", *by] == 1
    assert seen["gen_ai_server_request_duration_seconds_count", "", *by] == 1
    assert seen["gen_ai_client_token_usage_sum", *by[:2], "input", by[2]] == 10
    assert seen["gen_ai_client_token_usage_sum", *by[:2], "output", by[2]] == 3
    assert seen["actorrt_llm_cached_tokens_total", "a", "scripted"] == 4
    assert seen["actorrt_llm_running", "a", "scripted"] == 0


def test_an_answer_in_one_piece_is_counted_by_its_usage_for_its_tenant(counted: ScriptedApp) -> None:
    counted.client.headers["x-api-key"] = "sk-b"
    counted.chat(JSON, ["say", '{"x":"\\"usage\\":{",' + USAGE.replace(":{", ": {") + "}", 3], model="other/name")
    seen = scrape(counted)
    assert seen["gen_ai_client_token_usage_sum", "b", "chat", "input", "scripted"] == 10


def test_what_an_engine_refuses_is_counted_alike_whatever_api_was_spoken(counted: ScriptedApp) -> None:
    counted.client.headers["x-api-key"] = "sk-b"
    asked = [
        ("/v1/messages", {"messages": HELLO, "max_tokens": 1}),
        ("/v1/responses", {"input": "hello"}),
        ("/v1/chat/completions", {"messages": HELLO}),
    ]
    for path, body in asked:
        for status, stream in ((422, False), (422, True), (501, False)):
            script = [["head", status, "application/json"], ["say", "{}", 0]]
            request = {"model": "scripted", "script": script, "stream": stream, **body}
            assert counted.client.post(path, json=request).status_code == status
    seen = scrape(counted)
    assert seen["gen_ai_server_request_duration_seconds_count", "422", "b", "chat", "scripted"] == 6
    assert seen["gen_ai_server_request_duration_seconds_count", "501", "b", "chat", "scripted"] == 3


def test_what_went_wrong_is_counted_by_its_kind(counted: ScriptedApp) -> None:
    counted.client.headers["x-api-key"] = "sk-a"
    before = scrape(counted)
    counted.chat(["raise"])
    counted.chat(["head", 400, "application/json"], ["say", "{}", 0])
    counted.client.post("/v1/chat/completions", content=b"{")
    seen = scrape(counted)
    assert seen["gen_ai_server_request_duration_seconds_count", "a", "chat", "engine_failed", "scripted"] == 1
    assert seen["gen_ai_server_request_duration_seconds_count", "400", "a", "chat", "scripted"] == 1
    assert seen["actorrt_llm_refused_total", "400"] == before.get(("actorrt_llm_refused_total", "400"), 0) + 1


def test_what_runs_is_shown_while_it_runs(counted: ScriptedApp) -> None:
    assert counted.client.get("/load").json() == {"running": 0, "waiting": 0}
    script: list[Any] = [JSON, ["wait", "looked"], ["say", "{}", 0]]
    asking = threading.Thread(target=counted.chat, args=script, kwargs={"user": "runs"})
    asking.start()
    try:
        counted.until("runs began")
        assert counted.client.get("/load").json() == {"running": 1, "waiting": 0}
        seen = scrape(counted)
        assert seen["actorrt_llm_running", "a", "scripted"] == 1
        assert seen["actorrt_llm_engine_running", "scripted"] == 1
    finally:
        counted.tell("looked")
        asking.join()
    assert counted.client.get("/load").json() == {"running": 0, "waiting": 0}


def test_labels_have_a_bound() -> None:
    label = Bounded(2)
    assert [label(each) for each in ("a", "b", "c", "a", "d")] == ["a", "b", OTHER, "a", OTHER]


def test_a_value_on_a_bound_belongs_to_it() -> None:
    histogram = Histogram((1, 2))
    for value in (0.5, 1, 1.5, 2, 3):
        histogram.add(("x",), value)
    assert histogram.series["x",] == ([2, 2, 1], [8.0])
