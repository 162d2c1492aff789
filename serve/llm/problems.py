"""What goes wrong with a request, and how each API says so. Nothing here decides that something is wrong.

OpenAI: `{"error": {"message", "type", "param", "code"}}`. Anthropic: `{"type": "error", "error": {"type", "message"},
"request_id"}`.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

import msgspec

from ..http.retry import retry_headers

LONGEST: Final = 2000
"""Characters of a sentence that says what is wrong."""


class Api(Enum):
    """Whose protocol a request speaks."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"


class Problem(Exception):
    """A request that cannot be answered, and what its client is told."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        kind: str | None = None,
        retry_after_s: float | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        more: Mapping[str, Any] | None = None,
    ) -> None:
        """`kind` is the `type` of OpenAI's shape, None: the one that the status has there. `more` are further fields.

        What a client wrote may stand in `message`, of which so much is told that a person can read it.
        """
        message = shortened(message)
        super().__init__(status, message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.kind, self.retry_after_s, self.headers, self.more = kind, retry_after_s, headers, more or {}

    def __str__(self) -> str:
        return f"{self.status}: {self.message}"


def shortened(message: str) -> str:
    return message if len(message) <= LONGEST else f"{message[: LONGEST - 4]} ..."


OPENAI_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    501: "not_implemented_error",
    502: "server_error",
    503: "service_unavailable_error",
    504: "server_error",
}
ANTHROPIC_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    501: "api_error",
    502: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
# Of every other mistake of a client's, in both.
INVALID: Final = "invalid_request_error"


def error_body(problem: Problem, api: Api, request_id: str) -> bytes:
    """The JSON of a response."""
    if api is Api.ANTHROPIC:
        kind = ANTHROPIC_TYPES.get(problem.status, INVALID)
        error = {"type": kind, "message": problem.message}
        return msgspec.json.encode({"type": "error", "error": error, "request_id": request_id})
    kind = problem.kind or OPENAI_TYPES.get(problem.status, INVALID)
    named = {"message": problem.message, "type": kind, "param": problem.param, "code": problem.code}
    error = {**problem.more, **named}
    return msgspec.json.encode({"error": error})


def error_event(problem: Problem, api: Api, request_id: str) -> bytes:
    """The same as the last event of a stream that has begun."""
    before = b"event: error\n" if api is Api.ANTHROPIC else b""
    return b"%bdata: %b\n\n" % (before, error_body(problem, api, request_id))


def error_headers(problem: Problem) -> list[tuple[bytes, bytes]]:
    """Without those that every response has."""
    return [(b"content-type", b"application/json"), *problem.headers, *retry_headers(problem.retry_after_s)]
