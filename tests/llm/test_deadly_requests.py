"""A request of which engines die is given to no third one; one whose engines somebody else killed goes on."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from actorrt.serve.llm import FrontConfig

from .conftest import ScriptedApp, run_scripted
from .scripted import chunk
from .test_metrics import scrape

HEAD: list[Any] = ["head", 200, "text/event-stream"]
DONE = chunk(finish="stop") + "data: [DONE]\n\n"
CRASH = [["crash"]]
WHOLE = [["head", 200, "application/json"], ["say", '{"choices": []}', 1]]
MESSAGE = "the model's engine died of this request twice: it is not tried again"


@pytest.fixture(scope="module")
def app(serve_url: str) -> Iterator[ScriptedApp]:
    app = run_scripted(serve_url, "deadly", FrontConfig(), max_resumes=5)
    with app.client:
        yield app


def asked(app: ScriptedApp, *scripts: list[Any], stream: bool) -> tuple[httpx.Response, int]:
    """The answer, and how many engines had the request."""
    user = uuid.uuid4().hex
    request = app.request(stream=stream, user=user, scripts=[*scripts, *[CRASH] * 9])
    response = app.client.post("/v1/chat/completions", json=request)
    return response, sum(user.encode() in body for _, body, _, _ in app.ask("calls"))


def given_up(app: ScriptedApp) -> float:
    return scrape(app).get(("actorrt_llm_given_up_total", "default", "scripted"), 0)


@pytest.mark.parametrize("stream", [True, False])
def test_a_request_of_which_two_engines_die_before_they_answer_is_given_to_no_third(
    app: ScriptedApp, stream: bool
) -> None:
    before = given_up(app)
    response, engines = asked(app, stream=stream)
    assert engines == 2
    assert (response.status_code, response.headers["x-should-retry"]) == (502, "false")
    error = {"message": MESSAGE, "type": "server_error", "param": None, "code": "engine_died"}
    assert response.json()["error"] == error
    assert given_up(app) == before + 1
    by = ("gen_ai_server_request_duration_seconds_count", "chat", "default", "engine_died", "scripted")
    assert scrape(app)[by] == before + 1


def test_one_of_which_they_die_at_the_same_token_ends_with_an_error(app: ScriptedApp) -> None:
    first = [HEAD, ["say", chunk("a"), 1], ["say", chunk("b"), 1], ["crash"]]
    # The engine of this model does not go on with a begun answer, so it begins anew.
    response, engines = asked(app, first, first, stream=True)
    assert engines == 2
    assert response.text.count('"content"') == 2
    assert f'"message":"{MESSAGE}"' in response.text


def test_one_that_comes_further_each_time_goes_on_as_often_as_is_set(app: ScriptedApp) -> None:
    said = [["say", chunk(each), 1] for each in "abcd"]
    runs = [[HEAD, *said[:upto], ["crash"]] for upto in range(4)]
    response, engines = asked(app, *runs, [HEAD, *said, ["say", DONE, 0]], stream=True)
    assert engines == 5
    assert response.text.endswith("data: [DONE]\n\n")
    assert "error" not in response.text


@pytest.mark.parametrize("stream", [True, False])
def test_an_engine_that_died_once_is_followed_by_another(app: ScriptedApp, stream: bool) -> None:
    end = [HEAD, ["say", DONE, 0]] if stream else WHOLE
    # What fails otherwise in between says nothing of the request.
    response, engines = asked(app, [["raise"]], CRASH, [["raise"]], end, stream=stream)
    assert (response.status_code, engines) == (200, 4)
