"""Ask a model by chat/completions for an answer that another API gives: the call, its pieces, and what goes wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import msgspec

from .chat_answers import ChatError, Piece, read_answer, read_chunk
from .checks import check
from .engines.interface import EngineCall
from .exchange import JSON
from .problems import Api, Problem
from .resume.events import a_dict, a_list, events
from .routes import Kind
from .unsupported import check_supported

if TYPE_CHECKING:
    from .catalogue import Chosen
    from .config import FrontConfig
    from .costs import ModelCost
    from .engines.interface import EngineFacts, Head
    from .exchange import Exchange, Headers
    from .fields import FieldError
    from .generation import Generation

CHAT: Final = "/v1/chat/completions"
_MADE: Final = frozenset({"/v1/messages", "/v1/responses"})
RESUMES: Final = b"x-actorrt-resumes"
_OF_ERRORS: Final = frozenset({"message", "code", "type", "param", "detail", "error", "object"})
_OF_OTHER_SHAPES: Final = frozenset({"detail", "error", "message"})
_LONGEST_TEXT: Final = 1000
# What clients look for before they try again, OpenAI's and Anthropic's among them.
_WHEN_AGAIN: Final = frozenset({"retry-after", "retry-after-ms", "x-should-retry"})


def with_those_made(paths: frozenset[str]) -> frozenset[str]:
    """What there is of a model whose engine answers these."""
    return paths | _MADE if CHAT in paths else paths


class Caller(Protocol):
    """What a call needs of the front that makes it."""

    @property
    def config(self) -> FrontConfig: ...
    def cost(self, exchange: Exchange, chosen: Chosen, fields: Mapping[str, Any]) -> ModelCost: ...
    def call_headers(self, exchange: Exchange) -> tuple[tuple[str, str], ...]: ...


def chat_call(
    caller: Caller, exchange: Exchange, chosen: Chosen, facts: EngineFacts, api: str, body: Mapping[str, Any]
) -> EngineCall:
    """The call that stands for a request of `api`.

    Problem 501 where neither that nor chat/completions, of which it could be made, is there; 400 for a parameter that
    the engine lacks, where these are refused.
    """
    if CHAT not in facts.paths:
        raise Problem(
            501,
            f"the engine of model {chosen.served.model_id!r} ({facts.kind}) answers neither {api} nor {CHAT}, of which "
            "it could be made",
            param="model",
            code="not_supported_by_engine",
        )
    exchange.take(caller.cost(exchange, chosen, body))
    # Fields that `api` does not have are handed on as the client gave them.
    check(Kind.CHAT, body)
    if (body.get("n") or 1) > 1:
        raise Problem(400, f"'n' must be 1: {api} has one answer", param="n", code="invalid_value")
    check_supported(Kind.CHAT, body, facts, caller.config.unsupported)
    return EngineCall(CHAT, msgspec.json.encode(body), bool(body.get("stream")), "POST", caller.call_headers(exchange))


async def begin(generation: Generation, call: EngineCall) -> None:
    """Make the call and wait for its head. Raises Problem, with what the engine says, if that is an error."""
    head = await generation.open(call)
    if head.status >= 400:
        raise engine_problem(head, await generation.rest())
    if call.stream and not head.streams:
        raise ChatError("the engine answered a streamed request with something else than events")


async def answer_with(exchange: Exchange, generation: Generation, answer: Mapping[str, Any]) -> None:
    """Answer a request that is not streamed."""
    headers: Headers = [JSON]
    if generation.resumes:
        headers.append((RESUMES, b"%d" % generation.resumes))
    await exchange.respond(200, headers, msgspec.json.encode(answer))


async def whole(generation: Generation) -> Piece:
    """The answer to a call that is not streamed."""
    body = await generation.rest()
    try:
        return read_answer(a_dict(msgspec.json.decode(body)))
    except ValueError:
        raise ChatError("the engine's answer is no JSON") from None


async def pieces(generation: Generation) -> list[Piece]:
    """The pieces that are there, at least one; `[]` at the end."""
    found: list[Piece] = []
    while not found and (values := await generation.take()):
        for data, _ in values:
            found += _pieces_in(data)
    return found


def _pieces_in(data: bytes) -> list[Piece]:
    try:
        return [read_chunk(value) for event in events(data) if (value := event.value()) is not None]
    except ValueError:
        raise ChatError("the engine streams what is no JSON") from None


def engine_problem(head: Head, body: bytes) -> Problem:
    """An engine's error as one of ours, with its own sentence, and when it wants to be asked again."""
    said = _object_in(body)
    error = a_dict((said or {}).get("error")) or said or {}
    message: Any = _text_in(body) if said is None else error.get("message") or error.get("error")
    if message is None and (detail := error.get("detail")) is not None:
        message = _sentence_of(detail)
    code: Any = error.get("code")
    kind: Any = error.get("type")
    param: Any = error.get("param")
    again = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in head.headers if name in _WHEN_AGAIN]
    return Problem(
        head.status,
        message if isinstance(message, str) and message else f"the engine answered with status {head.status}",
        param=param if isinstance(param, str) else None,
        code=code if isinstance(code, str) else None,
        kind=kind if isinstance(kind, str) else None,
        # llama.cpp says how long a prompt is, and how long it may be.
        more={name: value for name, value in error.items() if name not in _OF_ERRORS},
        headers=tuple(again),
    )


def speaks_otherwise(body: bytes) -> bool:
    """Whether an engine's error is in a shape that OpenAI's clients do not read: SGLang's, FastAPI's, or no JSON."""
    said = _object_in(body)
    if said is None:
        return True
    return not isinstance(said.get("error"), dict) and not _OF_OTHER_SHAPES.isdisjoint(said)


def _object_in(body: bytes) -> dict[str, Any] | None:
    try:
        value: object = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _text_in(body: bytes) -> str:
    """What an error without JSON says; nothing of a page."""
    text = body[:_LONGEST_TEXT].decode("utf-8", "replace").strip()
    return "" if text.startswith("<") else text


def _sentence_of(detail: Any) -> str:
    """FastAPI's `detail`: a sentence, or what is wrong with each field."""
    wrong = [a_dict(each) for each in a_list(detail)]
    if not wrong:
        return detail if isinstance(detail, str) else json.dumps(detail)
    return "; ".join(f"{'.'.join(map(str, a_list(each.get('loc'))))}: {each.get('msg')}" for each in wrong)


def chat_problem(error: ChatError) -> Problem:
    return Problem(error.status, error.message, code="engine_error" if error.status >= 500 else None)


def field_problem(error: FieldError, api: Api) -> Problem:
    if api is Api.ANTHROPIC:
        return Problem(400, str(error))
    missing = error.problem == "the field is required"
    code = "missing_required_parameter" if missing else "invalid_value"
    return Problem(400, f"{error.bracketed}: {error.problem}", param=error.bracketed, code=code)
