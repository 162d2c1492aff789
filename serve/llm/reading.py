"""Read a request's JSON once, for what routing needs. The bytes themselves go on as they came.

Engines are of many minds about JSON that is none: here all of it is a sentence and a status of 400.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, cast

import msgspec

from .json_kinds import kind_of
from .problems import Problem

# What two readers must not take differently: which model is asked, in which form the answer comes, what it follows.
_ONCE: Final = (b'"model"', b'"stream"', b'"previous_response_id"')
# Far below what Python's readers and writers of JSON can take: who has a request next has less of its stack left.
_DEEPEST: Final = 256
# How a letter of theirs can be written in another way.
_ESCAPED: Final = (b"\\u005", b"\\u006", b"\\u007")


class Asked(NamedTuple):
    """A request's body: as it came, and what it says."""

    body: bytes
    fields: Mapping[str, Any]
    model: str | None
    stream: bool


def read(body: bytes) -> Asked:
    """Problem 400 if it is no JSON object, or one of which readers could disagree."""
    fields = parse(body)
    if any(body.count(name) > 1 for name in _ONCE) or (b"\\u00" in body and any(each in body for each in _ESCAPED)):
        _refuse_twice(body)
    model = fields.get("model")
    if model is not None and not isinstance(model, str):
        raise wrong_type("model", "a string", model)
    stream = fields.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise wrong_type("stream", "true or false", stream)
    return Asked(body, fields, model or None, bool(stream))


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object that a body is."""
    if not body:
        raise Problem(400, "the body is empty: it must be a JSON object", code="invalid_json")
    try:
        value: Any = msgspec.json.decode(body)
    except UnicodeDecodeError:
        raise Problem(400, "the body is not UTF-8", code="invalid_json") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:
        raise Problem(400, f"the body is not valid JSON: {_reason(body, error)}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise Problem(400, f"the body must be a JSON object, not {kind_of(value)}", code="invalid_json")
    fields = cast("dict[str, Any]", value)
    if body.count(b"[") + body.count(b"{") > _DEEPEST and _is_too_deep(fields):
        raise _too_deep()
    return fields


def _is_too_deep(fields: dict[str, Any]) -> bool:
    level: list[dict[str, Any] | list[Any]] = [fields]
    for _ in range(_DEEPEST):
        within = (each.values() if isinstance(each, dict) else each for each in level)
        level = [value for values in within for value in values if type(value) in (dict, list)]
    return bool(level)


def _too_deep() -> Problem:
    return Problem(400, f"the body is nested too deeply: {_DEEPEST} levels are the most", code="invalid_json")


def _reason(body: bytes, error: ValueError) -> str:
    if re.search(rb"\\u[dD][89a-fA-F]", body):
        return "half of a surrogate pair stands alone"
    return str(error).removeprefix("JSON is malformed: ")


def _refuse_twice(body: bytes) -> None:
    last: list[tuple[str, Any]] = []

    def keep(pairs: list[tuple[str, Any]]) -> None:
        # The outermost object comes last.
        nonlocal last
        last = pairs

    try:
        json.loads(body, object_pairs_hook=keep)
    except RecursionError:
        raise _too_deep() from None
    seen: set[str] = set()
    for name, _ in last:
        if name in seen:
            raise Problem(400, f"{name[:64]!r} stands twice in the body", param=name[:64], code="invalid_json")
        seen.add(name)


def renamed(body: bytes, model: str) -> bytes:
    """The body with another model; every other value keeps its bytes."""
    parts = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    parts["model"] = msgspec.Raw(msgspec.json.encode(model))
    return msgspec.json.encode(parts)


def wrong_type(name: str, expected: str, value: object) -> Problem:
    return Problem(400, f"{name!r} must be {expected}, not {kind_of(value)}", param=name, code="invalid_type")
