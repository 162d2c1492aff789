"""What llama.cpp answers to requests that it refuses, in the shape of OpenAI's API. No I/O.

It says 500 where reading a request has thrown an exception, which is a mistake in the request, and 500 too where it has
failed: its sentence tells one from the other. Its codes are the status once more, and it names no field.
"""

import json
from typing import Any, Final, cast

# How the sentences of mistakes begin, and the field that each is about.
_MISTAKES: Final = {
    "Failed to parse messages:": "messages",
    "Failed to parse tool call arguments as JSON:": "messages",
    "Failed to parse tools:": "tools",
    "image input is not supported": "messages",
    "audio input is not supported": "messages",
    "video input is not supported": "messages",
    "input (": "input",
    "Unknown reasoning format:": "reasoning_format",
    "vector::_M_range_check:": "tokens",
    "[json.exception.": None,
}
_CODES: Final = {"exceed_context_size_error": "context_length_exceeded"}
_INVALID: Final = "invalid_request_error"


def is_mistake(status: int, message: str) -> bool:
    """Whether the request was wrong, and not the engine."""
    return 400 <= status < 500 or message.startswith(tuple(_MISTAKES))


def as_openai(status: int, body: bytes) -> tuple[int, bytes]:
    """Status and body of an error; all else that it says is kept. As it is, if it is no error of llama.cpp's."""
    try:
        said: Any = json.loads(body)
        error = dict(cast("dict[str, Any]", said["error"]))
        message = str(error["message"])
    except (ValueError, TypeError, KeyError):
        return status, body
    param = next((field for begin, field in _MISTAKES.items() if message.startswith(begin)), None)
    if status >= 500 and is_mistake(status, message):
        status, error["type"] = 400, _INVALID
    code = error.get("code")
    error["code"] = code if isinstance(code, str) else _CODES.get(str(error.get("type")))
    error.setdefault("param", param)
    return status, json.dumps({**said, "error": error}, ensure_ascii=False).encode()
