"""What llama.cpp says of requests that it refuses, as OpenAI's API says it."""

import json
from typing import Any

import pytest

from actorrt.serve.llm.engines.llamacpp_errors import as_openai


def told(status: int, **error: Any) -> tuple[int, dict[str, Any]]:
    status, body = as_openai(status, json.dumps({"error": {"code": status, **error}}).encode())
    return status, json.loads(body)["error"]


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ("image input is not supported - hint: if this is unexpected, you may need to provide the mmproj", "messages"),
        ("Failed to parse messages: [json.exception.type_error.302] type must be string, but is null", "messages"),
        ("Failed to parse tool call arguments as JSON: [json.exception.parse_error.101] parse error", "messages"),
        ("input (6001 tokens) is too large to process. increase the physical batch size", "input"),
        ("Failed to parse tools: Missing tool type: {}; tools = [\n  {}\n]", "tools"),
        ("Unknown reasoning format: x", "reasoning_format"),
    ],
)
def test_what_it_cannot_read_is_a_mistake_of_the_client(message: str, field: str) -> None:
    status, error = told(500, message=message, type="server_error")
    assert status == 400
    assert error == {"message": message, "type": "invalid_request_error", "param": field, "code": None}


def test_where_it_failed_it_failed() -> None:
    status, error = told(500, message="Compute error.", type="server_error")
    assert (status, error["type"], error["code"]) == (500, "server_error", None)


def test_a_prompt_that_is_too_long_has_openais_code_and_keeps_its_numbers() -> None:
    status, error = told(400, message="too long", type="exceed_context_size_error", n_prompt_tokens=9, n_ctx=5)
    assert status == 400
    assert error == {
        "message": "too long",
        "type": "exceed_context_size_error",
        "param": None,
        "code": "context_length_exceeded",
        "n_prompt_tokens": 9,
        "n_ctx": 5,
    }


@pytest.mark.parametrize("body", [b"", b"no JSON", b"[]", b'{"error": "x"}', b'{"error": {"code": 500}}'])
def test_what_is_no_error_of_its_stays(body: bytes) -> None:
    assert as_openai(500, body) == (500, body)
