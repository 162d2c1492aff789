"""What must hold of a request's fields, whatever engine answers: types, ranges, and what must not be missing.

Only what every engine would refuse, or would take for something else than it is. All other fields are the engine's.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from .json_kinds import is_number, is_whole
from .problems import Problem
from .reading import wrong_type
from .routes import Kind

Check = Callable[[str, Any], None]

# Engines count in 32 bits, and some would take a larger number for what is left of it there.
MOST: Final = 2**31 - 1


def _whole(least: int | None = None, most: int | None = None) -> Check:
    def check(name: str, value: Any) -> None:
        if not is_whole(value):
            raise wrong_type(name, "an integer", value)
        if least is not None and value < least:
            raise _below(name, value, f"at least {least}")
        if most is not None and value > most:
            raise _below(name, value, f"at most {most}")

    return check


def _number(least: float, most: float | None = None) -> Check:
    def check(name: str, value: Any) -> None:
        if not is_number(value):
            raise wrong_type(name, "a number", value)
        if value < least or (most is not None and value > most):
            raise _below(name, value, f"at least {least:g}" if most is None else f"between {least:g} and {most:g}")

    return check


def _of(expected: str, *types: type) -> Check:
    def check(name: str, value: Any) -> None:
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise wrong_type(name, expected, value)

    return check


def _stop(name: str, value: Any) -> None:
    _of("a string or an array of strings", str, list)(name, value)
    named: dict[str, Any] = {name: value}
    if isinstance(value, list):
        named = {f"{name}[{number}]": each for number, each in enumerate(cast("list[Any]", value))}
    for where, each in named.items():
        if not isinstance(each, str):
            raise wrong_type(where, "a string", each)
        if not each:
            message = f"{where!r} is empty: every answer would stop before its first token"
            raise Problem(400, message, param=where, code="invalid_value")


def _below(name: str, value: object, allowed: str) -> Problem:
    return Problem(400, f"{name!r} must be {allowed}, not {value}", param=name, code="invalid_value")


# A null is as if it were not there.
_SAMPLING: Final[Mapping[str, Check]] = {
    "max_tokens": _whole(0, MOST),
    "max_completion_tokens": _whole(0, MOST),
    "n": _whole(1, MOST),
    "temperature": _number(0),
    "top_p": _number(0, 1),
    "presence_penalty": _number(-2, 2),
    "frequency_penalty": _number(-2, 2),
    "seed": _whole(),
    "stop": _stop,
    "stream_options": _of("an object", dict),
    "logit_bias": _of("an object or an array", dict, list),
}
_FIELDS: Final[Mapping[Kind, Mapping[str, Check]]] = {
    Kind.CHAT: {
        **_SAMPLING,
        "top_logprobs": _whole(0, MOST),
        "logprobs": _of("true or false", bool, int),
        "tools": _of("an array", list),
        "response_format": _of("an object", dict),
        "tool_choice": _of("a string or an object", str, dict),
    },
    Kind.COMPLETION: {**_SAMPLING, "logprobs": _of("an integer", int, bool), "best_of": _whole(1)},
    Kind.EMBEDDINGS: {"dimensions": _whole(1), "encoding_format": _of("a string", str)},
    Kind.RERANK: {
        "query": _of("a string or an object", str, dict),
        "documents": _of("an array", list),
        "top_n": _whole(0),
    },
    Kind.SCORE: {},
    Kind.TOKENIZE: {"add_special_tokens": _of("true or false", bool)},
    Kind.DETOKENIZE: {"tokens": _of("an array", list)},
}
# The first that is there counts.
_NEEDED: Final[Mapping[Kind, tuple[tuple[str, ...], ...]]] = {
    Kind.CHAT: (("messages",),),
    Kind.COMPLETION: (("prompt",),),
    Kind.EMBEDDINGS: (("input", "content"),),
    Kind.RERANK: (("query",), ("documents", "texts")),
    Kind.SCORE: (("text_1", "queries", "data_1"), ("text_2", "documents", "items", "data_2")),
    Kind.TOKENIZE: (("prompt", "messages", "content"),),
    Kind.DETOKENIZE: (("tokens",),),
}


def check(kind: Kind, fields: Mapping[str, Any]) -> None:
    """Problem 400 that names the field and what it should be."""
    for names in _NEEDED[kind]:
        if all(fields.get(name) is None for name in names):
            spelled = " or ".join(repr(name) for name in names)
            raise Problem(400, f"{spelled} is missing", param=names[0], code="missing_required_parameter")
    checks = _FIELDS[kind]
    for name, value in fields.items():
        if value is not None and (one := checks.get(name)) is not None:
            one(name, value)
    if kind is Kind.CHAT or (kind is Kind.TOKENIZE and fields.get("messages") is not None):
        check_messages(fields["messages"])
    if kind is Kind.COMPLETION:
        _check_prompt(fields["prompt"])
    if kind is Kind.EMBEDDINGS and fields.get("input") == []:
        raise Problem(400, "'input' is empty: it must hold at least one text", param="input", code="invalid_value")


def check_messages(messages: Any) -> None:
    """Problem 400 that names the message."""
    if not isinstance(messages, list):
        raise wrong_type("messages", "an array", messages)
    each_of = cast("list[Any]", messages)
    if not each_of:
        raise Problem(400, "'messages' is empty: it must hold at least one", param="messages", code="empty_array")
    for number, message in enumerate(each_of):
        where = f"messages[{number}]"
        if not isinstance(message, dict):
            raise wrong_type(where, "an object", message)
        role = cast("dict[str, Any]", message).get("role")
        if role is None:
            raise Problem(400, f"'{where}.role' is missing", param=f"{where}.role", code="missing_required_parameter")
        if not isinstance(role, str):
            raise wrong_type(f"{where}.role", "a string", role)


def _check_prompt(prompt: Any) -> None:
    if not isinstance(prompt, str | list):
        raise wrong_type("prompt", "a string, an array of strings, or an array of token ids", prompt)
    if prompt == []:
        raise Problem(400, "'prompt' is empty", param="prompt", code="empty_array")
