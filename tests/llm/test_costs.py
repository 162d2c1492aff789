"""What a model's request router is told of each request: how many tokens it may take, and how many it took."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actorrt.serve.llm import ApiKey, FrontConfig, ModelCost
from actorrt.serve.llm.costs import cost_of
from actorrt.serve.request_router import Cost, Grant, LeastRequests, PolicyContext, Request, Slots

from .conftest import HELLO, ScriptedApp, run_scripted
from .scripted import chunk

WORDS = "word" * 100


@pytest.mark.parametrize(
    ("fields", "prompt", "most"),
    [
        ({"messages": [{"role": "user", "content": WORDS}], "max_tokens": 9}, 105, 9),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": WORDS}]}]}, 106, None),
        ({"messages": [], "max_tokens": 9, "max_completion_tokens": 7, "n": 3}, 0, 21),
        ({"prompt": WORDS, "max_tokens": 0}, 100, 0),
        ({"prompt": [1, 2, 3], "max_tokens": 5}, 3, 5),
        ({"prompt": [[1, 2, 3], [4]], "max_tokens": 5, "n": 2}, 4, 20),
        ({"prompt": [WORDS, WORDS], "max_tokens": 5}, 200, 10),
        ({"system": WORDS, "messages": [], "max_tokens": 1}, 100, 1),
        ({"input": WORDS, "instructions": WORDS, "max_output_tokens": 4}, 200, 4),
        ({"query": WORDS, "documents": [WORDS, {"text": WORDS}]}, 300, None),
        ({"prompt": "\u65e5" * 100}, 75, None),
        ({"prompt": "\ud800" * 4}, 1, None),
        ({"input": [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + WORDS}}]}, 3, None),
        # Tools are read as the JSON that they are.
        ({"messages": [], "tools": [{"type": "function", "function": {"name": WORDS}}], "metadata": WORDS}, 111, None),
        ({"prompt": None, "max_tokens": "many", "n": -1, "messages": 7}, 0, None),
        ({"prompt": True, "max_tokens": True}, 0, None),
    ],
)
def test_a_request_costs_its_prompt_and_its_longest_answer(
    fields: dict[str, Any], prompt: int, most: int | None
) -> None:
    cost = cost_of(fields, model="m", tenant="t")
    assert cost == ModelCost(
        1, prompt + (most or 0), prompt, most, "m", "t", prompt_bytes=cost.prompt_bytes, prompt_ids=cost.prompt_ids
    )
    assert cost.prompt_tokens == cost.prompt_ids + -(-cost.prompt_bytes // 4)


class Noting(LeastRequests):
    """Writes what it is told of each request, a line each."""

    def __init__(self, context: PolicyContext, notes: str) -> None:
        super().__init__(context)
        self._notes = notes

    def _note(self, *what: Any) -> None:
        with open(self._notes, "a", encoding="utf-8") as file:
            print(json.dumps(what), file=file)

    def submit(self, request: Request) -> Slots | None:
        cost = request.cost
        if isinstance(cost, ModelCost):
            self._note("submit", cost.tokens, cost.prompt_tokens, cost.max_tokens, cost.model, cost.tenant)
        return super().submit(request)

    def release(self, grant: Grant, used: Cost | None) -> None:
        if used is not None and used.tokens:
            self._note("release", used.tokens)
        super().release(grant, used)


class Notes:
    """A named pipe, held open at both ends so that who writes never waits."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._lines = os.fdopen(os.open(path, os.O_RDWR), encoding="utf-8")

    def next(self, kind: str) -> list[Any]:
        """The next note of this kind."""
        while (found := json.loads(self._lines.readline()))[0] != kind:
            pass
        return found[1:]

    def close(self) -> None:
        self._lines.close()


@pytest.fixture
def notes(tmp_path: Path) -> Iterator[Notes]:
    notes = Notes(tmp_path / "notes")
    yield notes
    notes.close()


@pytest.fixture
def app(serve_url: str, notes: Notes) -> Iterator[ScriptedApp]:
    router = {"request_router_class": Noting, "request_router_kwargs": {"notes": str(notes.path)}}
    front = FrontConfig(keys=[ApiKey.of("sk-1", tenant="me")])
    app = run_scripted(serve_url, "costs", front, deployment={"request_router": router})
    app.client.headers["authorization"] = "Bearer sk-1"
    with app.client:
        yield app


def test_the_models_router_is_told_of_tokens_by_whatever_api_they_are_asked(app: ScriptedApp, notes: Notes) -> None:
    answer = [["head", 200, "application/json"], ["say", json.dumps({"choices": [{"message": {"content": "a"}}]}), 1]]
    app.chat(*answer, messages=[{"role": "user", "content": WORDS}], max_tokens=9, model="other/name")
    asked: dict[str, Any] = {"model": "scripted", "script": answer, "messages": HELLO, "system": WORDS}
    assert app.client.post("/v1/messages", json={**asked, "max_tokens": 8}).status_code == 200
    asked = {"model": "scripted", "script": answer, "input": WORDS, "max_output_tokens": 7}
    assert app.client.post("/v1/responses", json=asked).status_code == 200
    submitted = [notes.next("submit") for _ in range(3)]
    assert [(tokens - prompt, most, model, tenant) for tokens, prompt, most, model, tenant in submitted] == [
        (9, 9, "scripted", "me"),
        (8, 8, "scripted", "me"),
        (7, 7, "scripted", "me"),
    ]
    assert all(100 < prompt < 120 for _, prompt, *_ in submitted)


@pytest.mark.parametrize("usage", [True, False])
def test_and_of_what_was_really_used(usage: bool, app: ScriptedApp, notes: Notes) -> None:
    user = "used"
    end = chunk(finish="stop")
    if usage:
        end += 'data: {"choices": [], "usage": {"prompt_tokens": 50, "completion_tokens": 2}}\n\n'
    rest = [
        ["say", chunk("a"), 1],
        ["say", chunk("b"), 1],
        ["say", end, 0],
        ["wait", f"go {usage}"],
        ["say", "data: [DONE]\n\n", 0],
    ]
    asked = app.request(["head", 200, "text/event-stream"], *rest, stream=True, user=user)
    with app.client.stream("POST", "/v1/chat/completions", json=asked) as response:
        lines = response.iter_lines()
        while "prompt_tokens" not in (line := next(lines)) and (usage or "stop" not in line):
            pass
        app.tell(f"go {usage}")
        for _ in lines:
            pass
    _, prompt, *_ = notes.next("submit")
    assert notes.next("release") == [52 if usage else prompt + 2]
