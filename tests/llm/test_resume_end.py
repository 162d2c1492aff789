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
