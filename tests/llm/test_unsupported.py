"""The one rule for parameters that an engine would leave unread."""

from typing import Any

import pytest

from actorrt.serve.llm.problems import Problem
from actorrt.serve.llm.routes import Kind
from actorrt.serve.llm.unsupported import check_supported

ASKS: list[dict[str, Any]] = [
    {"suffix": "x"},
    {"best_of": 2},
    {"modalities": ["text", "audio"]},
    {"functions": [{"name": "f"}]},
    {"web_search_options": {"x": 1}},
]
ASKS_NOTHING: list[dict[str, Any]] = [
    {},
    {"suffix": None, "audio": None, "functions": [], "echo": False},
    {"best_of": 1, "modalities": ["text"]},
    {"unknown": 1, "temperature": 0},
]


@pytest.mark.parametrize("fields", ASKS)
def test_what_llama_cpp_would_leave_unread_is_refused_by_name_or_ignored(fields: dict[str, Any]) -> None:
    with pytest.raises(Problem) as caught:
        check_supported(Kind.COMPLETION, fields, "llamacpp", "refuse")
    assert (caught.value.status, caught.value.param) == (400, next(iter(fields)))
    check_supported(Kind.COMPLETION, fields, "llamacpp", "ignore")
    # A server checks for itself what it is sent.
    check_supported(Kind.COMPLETION, fields, "server", "refuse")


@pytest.mark.parametrize("fields", ASKS_NOTHING)
def test_what_asks_for_nothing_is_not_refused(fields: dict[str, Any]) -> None:
    check_supported(Kind.CHAT, fields, "llamacpp", "refuse")
