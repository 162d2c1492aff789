"""More requests than a model takes: they wait, up to limits, and then learn when to come again."""

import itertools
import json
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from actorrt.serve.llm import FrontConfig
from actorrt.serve.llm.engines.interface import EngineCall
from actorrt.serve.request_router import LocalPolicy, Refused, Request

from .conftest import ScriptedApp, run_scripted

JSON = ["head", 200, "application/json"]
ONE = {"max_ongoing_requests": 1}
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def crowded(serve_url: str) -> Iterator[ScriptedApp]:
    """Room for one request, and nobody may wait."""
    app = run_scripted(serve_url, "crowded", FrontConfig(), deployment={**ONE, "max_queued_requests": 0}, max_resumes=0)
    with app.client:
        yield app


@pytest.fixture(scope="module")
def impatient(serve_url: str) -> Iterator[ScriptedApp]:
    """Room for one request, and others wait for a moment."""
    asides = ("/tokenize", "/detokenize")
    app = run_scripted(
        serve_url, "impatient", FrontConfig(), *asides, deployment=ONE, queue_timeout_s=0.2, max_resumes=0
    )
    with app.client:
        yield app


@contextmanager
def one_that_runs(app: ScriptedApp) -> Generator[None]:
    # The front has asked for the model's facts before there is no room for that.
    assert app.chat(JSON, ["say", "{}", 0]).status_code == 200
    name = f"number {next(NUMBERS)}"
    script: list[Any] = [["wait", f"{name} over"], JSON, ["say", "{}", 0]]
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(app.chat(*script, user=name).status_code))
    asking.start()
    try:
        app.until(f"{name} began")
        yield
    finally:
        app.tell(f"{name} over")
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


def test_who_is_refused_by_a_replica_that_others_have_filled_waits_no_longer_either(impatient: ScriptedApp) -> None:
    """As the other replicas of a front do."""
    assert impatient.chat(JSON, ["say", "{}", 0]).status_code == 200
    name = f"number {next(NUMBERS)}"
    script = json.dumps({"user": name, "script": [["wait", f"{name} over"], JSON]}).encode()
    generate = impatient.model.generate.options(stream=True)
    other = generate.remote(EngineCall("/v1/chat/completions", script))
    impatient.until(f"{name} began")
    try:
        check_refused(impatient, "model_unavailable")
    finally:
        impatient.tell(f"{name} over")
        assert len(list(other)) == 1


def test_what_is_asked_beside_waits_no_longer(impatient: ScriptedApp) -> None:
    with one_that_runs(impatient):
        for path, body in (("tokenize", {"prompt": "a"}), ("detokenize", {"tokens": [1]})):
            refused = impatient.client.post(f"/v1/{path}", json={"model": "scripted", **body})
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_unavailable")


class Strict(LocalPolicy):
    """Takes nothing but questions about the model."""

    def __init__(self, context: Any, status: int, wait_s: float | None) -> None:
        super().__init__(context)
        self.refused = Refused("not today", wait_s, status)
        self.taken = 0

    def choose(self, request: Request) -> Any:
        self.taken += 1
        if self.taken > 1:
            raise self.refused
        return self.live[0] if self.live else None


@pytest.mark.parametrize(
    ("status", "wait_s", "code"),
    [(429, 6.2, "overloaded"), (413, None, "context_length_exceeded"), (400, None, "request_refused")],
)
def test_what_a_request_router_refuses_has_its_status_and_its_time(
    serve_url: str, status: int, wait_s: float | None, code: str
) -> None:
    router = {"request_router_class": Strict, "request_router_kwargs": {"status": status, "wait_s": wait_s}}
    app = run_scripted(serve_url, f"strict{status}", FrontConfig(), deployment={"request_router": router})
    with app.client:
        refused = app.chat(JSON, ["say", "{}", 0])
    assert (refused.status_code, refused.json()["error"]["code"]) == (status, code)
    assert refused.headers.get("retry-after") == (None if wait_s is None else "7")
