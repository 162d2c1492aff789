"""Errors that engines put into their streams: those that tell of an engine that failed, those of the request itself.

An error names its status (llama.cpp, vLLM, SGLang) or a kind (Anthropic's, OpenAI's Responses). What names neither, or
one that is not known, is taken for the engine's: to ask again is cheap and has a limit. An engine may also say no more
than that an answer ends because it gave it up.
"""

import re
from collections.abc import Sequence
from typing import Any, Final

from ..chat_answers import GIVEN_UP
from ..engines.interface import Delta
from .events import Event, a_dict, a_list, events

# In a text the quotes would have backslashes.
_MARKS: Final = (b'"error"', b'"abort"')
_GIVEN_UP: Final = re.compile(rb'"finish_reason"\s?:\s?"(%b)"' % "|".join(sorted(GIVEN_UP)).encode())
# Of a busy engine, which another one need not be.
_BUSY: Final = (408, 429)
_OF_THE_REQUEST: Final = frozenset(
    {"invalid_request_error", "authentication_error", "permission_error", "not_found_error", "request_too_large"}
    | {"billing_error", "not_supported_error", "exceed_context_size_error", "context_length_exceeded", "invalid_prompt"}
    | {"BadRequestError", "NotFoundError", "UnprocessableEntityError", "ValidationError"}
)


def until_failure(deltas: Sequence[Delta]) -> tuple[Sequence[Delta], str | None]:
    """The events before one that tells of an engine that failed, and what it says; else all, and None."""
    for at, delta in enumerate(deltas):
        if _MARKS[0] not in delta.data and _MARKS[1] not in delta.data:
            continue
        sound: list[bytes] = []
        for each in events(delta.data):
            if (said := _failure_in(each)) is not None:
                rest = [Delta(b"".join(sound), delta.tokens)] if sound else []
                return [*deltas[:at], *rest], said
            sound.append(each.raw)
    return deltas, None


def giving_up_in(body: bytes) -> str | None:
    """How a whole answer ended that its engine gave up, in the engine's own word."""
    found = _GIVEN_UP.search(body)
    return None if found is None else found[1].decode()


def _failure_in(each: Event) -> str | None:
    if not any(mark in each.data for mark in _MARKS) or (value := each.value()) is None:
        return None
    for choice in a_list(value.get("choices")):
        finish: Any = a_dict(choice).get("finish_reason")
        if isinstance(finish, str) and finish in GIVEN_UP:
            return f"it gave its answer up ({finish})"
    error = _error_in(value)
    if not error or _blames_request(error):
        return None
    return str(error.get("message") or error)[:500]


def _error_in(value: dict[str, Any]) -> dict[str, Any]:
    """Empty where an event is no error."""
    found = a_dict(value.get("response")).get("error") or value.get("error")
    if found is None and "error" in (value.get("type"), value.get("object")):
        return value
    return {"message": found} if isinstance(found, str) else a_dict(found)


def _blames_request(error: dict[str, Any]) -> bool:
    status = error.get("code")
    if isinstance(status, int):
        return 400 <= status < 500 and status not in _BUSY
    return not _OF_THE_REQUEST.isdisjoint(str(error.get(name)) for name in ("type", "code"))
