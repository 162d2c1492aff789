"""A replica that fails when its client has been sent the whole answer: nothing more is asked or sent."""

from collections.abc import Iterator

import pytest

from actorrt.serve.llm import FrontConfig

from .conftest import ScriptedApp, run_scripted
from .scripted import chunk

EVENTS = ["head", 200, "text/event-stream"]
DONE = "data: [DONE]\n\n"


@pytest.fixture(scope="module")
def app(serve_url: str) -> Iterator[ScriptedApp]:
    app = run_scripted(serve_url, "ends", FrontConfig(), max_resumes=2)
    with app.client:
        yield app


def test_an_answer_that_is_whole_is_not_gone_on_with(app: ScriptedApp) -> None:
    end = chunk(finish="stop")
    response = app.chat(EVENTS, ["say", chunk("a"), 1], ["say", end, 0], ["say", DONE, 0], ["raise"], stream=True)
    assert response.text == chunk("a") + end + DONE
    assert len(app.model.calls.remote().result()) == 1


def test_one_whose_last_token_comes_with_its_end_is_whole_too(app: ScriptedApp) -> None:
    whole = chunk("b", finish="stop") + DONE
    before = len(app.ask("calls"))
    response = app.chat(EVENTS, ["say", whole, 1], ["raise"], stream=True)
    assert response.text == whole
    assert len(app.ask("calls")) == before + 1


def test_an_answer_that_is_no_json_cannot_go_on_and_says_so(app: ScriptedApp) -> None:
    for broken in ('data: {"choices\n\n', 'data: {"choices": [7]}\n\n'):
        response = app.chat(EVENTS, ["say", broken, 1], ["raise"], stream=True)
        assert response.text.startswith(broken)
        assert response.text.endswith('"code":"engine_error"}}\n\n')
