"""Engines that answer with a status that tells of a failure, before anything was sent to the client."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actorrt.serve.llm import FrontConfig

from .conftest import HELLO, ScriptedApp, run_scripted
from .scripted import chunk

RESUMES = 2
FAILED = json.dumps({"error": {"message": "CUDA error", "type": "server_error", "param": None, "code": None}})
CHAT = {
    "id": "1",
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}}],
}


@pytest.fixture(scope="module")
def app(serve_url: str) -> Iterator[ScriptedApp]:
    app = run_scripted(serve_url, "statuses", FrontConfig(), max_resumes=RESUMES, deployment={"num_replicas": 2})
    with app.client:
        yield app


def failing(folder: Path, times: int, status: int = 500) -> list[Any]:
    return ["fail", str(folder / "calls"), times, status, FAILED]


def calls(folder: Path) -> int:
    return (folder / "calls").stat().st_size


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_whole_answer_is_asked_for_at_another_replica(status: int, app: ScriptedApp, tmp_path: Path) -> None:
    whole = [["head", 200, "application/json"], ["say", json.dumps(CHAT), 1]]
    response = app.chat(failing(tmp_path, 1, status), *whole)
    assert (response.status_code, response.json()) == (200, CHAT)
    assert response.headers["x-actorrt-resumes"] == "1"
    assert calls(tmp_path) == 2


def test_a_stream_that_has_not_begun_is_too(app: ScriptedApp, tmp_path: Path) -> None:
    answer = chunk("a") + chunk(finish="stop") + "data: [DONE]\n\n"
    script = [failing(tmp_path, 2), ["head", 200, "text/event-stream"], ["say", answer, 1]]
    response = app.chat(*script, stream=True)
    assert (response.status_code, response.text) == (200, answer)
    assert response.headers["x-actorrt-resumes"] == "2"


def test_so_is_what_another_api_makes_of_it(app: ScriptedApp, tmp_path: Path) -> None:
    script = [failing(tmp_path, 1), ["head", 200, "application/json"], ["say", json.dumps(CHAT), 1]]
    asked = {"model": "scripted", "messages": HELLO, "script": script, "max_tokens": 9}
    response = app.client.post("/v1/messages", json=asked)
    assert response.json()["content"] == [{"type": "text", "text": "a"}]


@pytest.mark.parametrize("stream", [True, False])
def test_after_so_many_the_client_has_the_engines_own_answer(stream: bool, app: ScriptedApp, tmp_path: Path) -> None:
    response = app.chat(failing(tmp_path, 99, 503), stream=stream)
    assert (response.status_code, response.text) == (503, FAILED)
    assert response.headers["retry-after"] == "7"
    assert calls(tmp_path) == RESUMES + 1
    assert re.search(r"^actorrt_llm_resumes_total\{.*\} [1-9]", app.client.get("/metrics").text, re.MULTILINE)


@pytest.mark.parametrize("status", [400, 404, 429, 501])
def test_other_statuses_are_answers(status: int, app: ScriptedApp, tmp_path: Path) -> None:
    assert app.chat(failing(tmp_path, 99, status)).status_code == status
    assert calls(tmp_path) == 1


def test_where_there_is_no_other_replica_its_word_counts(serve_url: str, tmp_path: Path) -> None:
    app = run_scripted(serve_url, "lonely", FrontConfig())
    with app.client:
        assert app.chat(failing(tmp_path, 1, 503)).status_code == 503
    assert calls(tmp_path) == 1
