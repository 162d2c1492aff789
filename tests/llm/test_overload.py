"""More requests than a model takes: they wait, up to limits, and then learn when to come again."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from actorrt.serve.llm import FrontConfig

from .conftest import ScriptedApp, run_scripted

JSON = ["head", 200, "application/json"]
ONE = {"max_ongoing_requests": 1}


@pytest.fixture(scope="module")
def crowded(serve_url: str) -> Iterator[ScriptedApp]:
    """Room for one request, and nobody may wait."""
    app = run_scripted(serve_url, "crowded", FrontConfig(), deployment={**ONE, "max_queued_requests": 0}, max_resumes=0)
    with app.client:
        yield app


@pytest.fixture(scope="module")
def impatient(serve_url: str) -> Iterator[ScriptedApp]:
    """Room for one request, and others wait for a moment."""
    app = run_scripted(serve_url, "impatient", FrontConfig(), deployment=ONE, queue_timeout_s=0.2, max_resumes=0)
    with app.client:
        yield app


@contextmanager
def one_that_runs(app: ScriptedApp) -> Iterator[None]:
    # The front has asked for the model's facts before there is no room for that.
    assert app.chat(JSON, ["say", "{}", 0]).status_code == 200
    script: list[Any] = [["wait", "over"], JSON, ["say", "{}", 0]]
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(app.chat(*script, user="first").status_code))
    asking.start()
    try:
        app.until("first began")
        yield
    finally:
        app.tell("over")
        asking.join()
    assert answers == [200]


def check_refused(app: ScriptedApp, code: str) -> None:
    for stream in (False, True):
        refused = app.chat(JSON, ["say", "{}", 0], stream=stream)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, code)
        assert refused.headers["retry-after"] == "1"


def test_a_full_queue_is_503_at_once_and_says_when_to_come_again(crowded: ScriptedApp) -> None:
    with one_that_runs(crowded):
        check_refused(crowded, "overloaded")


def test_who_waits_too_long_for_room_is_503(impatient: ScriptedApp) -> None:
    with one_that_runs(impatient):
        check_refused(impatient, "model_unavailable")
