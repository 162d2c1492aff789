"""Ask a model by chat/completions for an answer that another API gives: the call, its pieces, and what goes wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from .chat_answers import ChatError, Piece, read_answer, read_chunk
from .checks import check
from .costs import cost_of
from .engines.interface import EngineCall
from .exchange import JSON
from .problems import Api, Problem
from .resume.events import a_dict, events
from .routes import Kind
from .unsupported import check_supported

if TYPE_CHECKING:
    from .catalogue import Chosen
    from .engines.interface import EngineFacts
    from .exchange import Exchange, Headers
    from .fields import FieldError
    from .generation import Generation
    from .services import Services

CHAT: Final = "/v1/chat/completions"
_OF_ERRORS: Final = frozenset({"message", "code", "type", "param", "detail", "error"})
RESUMES: Final = b"x-actorrt-resumes"


def chat_call(
    services: Services, exchange: Exchange, chosen: Chosen, facts: EngineFacts, api: str, body: Mapping[str, Any]
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
    exchange.cost = cost_of(body, model=chosen.name, tenant=exchange.tenant)
    # Fields that `api` does not have are handed on as the client gave them.
    check(Kind.CHAT, body)
    if (body.get("n") or 1) > 1:
        raise Problem(400, f"'n' must be 1: {api} has one answer", param="n", code="invalid_value")
    check_supported(Kind.CHAT, body, facts, services.config.unsupported)
    return EngineCall(
        CHAT, msgspec.json.encode(body), bool(body.get("stream")), "POST", services.call_headers(exchange)
    )


async def begin(generation: Generation, call: EngineCall) -> None:
    """Make the call and wait for its head. Raises Problem, with what the engine says, if that is an error."""
    head = await generation.open(call)
    if head.status >= 400:
        raise engine_problem(head.status, await generation.rest())
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


def engine_problem(status: int, body: bytes) -> Problem:
    """An engine's error as one of ours, with its own sentence."""
    try:
        said = a_dict(msgspec.json.decode(body))
    except ValueError:
        said = {}
    error = a_dict(said.get("error")) or said
    message: Any = error.get("message") or said.get("detail")
    code: Any = error.get("code")
    kind: Any = error.get("type")
    param: Any = error.get("param")
    return Problem(
        status,
        message if isinstance(message, str) else f"the engine answered with status {status}",
        param=param if isinstance(param, str) else None,
        code=code if isinstance(code, str) else None,
        kind=kind if isinstance(kind, str) else None,
        # llama.cpp says how long a prompt is, and how long it may be.
        more={name: value for name, value in error.items() if name not in _OF_ERRORS},
    )


def chat_problem(error: ChatError) -> Problem:
    return Problem(error.status, error.message, code="engine_error" if error.status >= 500 else None)


def field_problem(error: FieldError, api: Api) -> Problem:
    if api is Api.ANTHROPIC:
        return Problem(400, str(error))
    missing = error.problem == "the field is required"
    code = "missing_required_parameter" if missing else "invalid_value"
    return Problem(400, f"{error.bracketed}: {error.problem}", param=error.bracketed, code=code)
