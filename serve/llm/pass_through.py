"""Hand a request on to its model's engine as it came, and the answer back as it comes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

import msgspec

from .checks import check
from .event_stream import EVENTS, EventStream
from .made_from_chat import RESUMES, engine_problem, speaks_otherwise
from .problems import Api, Problem
from .routes import Kind
from .unsupported import check_supported

if TYPE_CHECKING:
    from .engines.interface import EngineCall, Head
    from .exchange import Exchange, Headers
    from .generation import Generation
    from .services import Handler, Services

# By which names metrics know them (OpenTelemetry's semantic conventions for generative AI, where they have one).
OPERATIONS: Final = {
    Kind.CHAT: "chat",
    Kind.COMPLETION: "text_completion",
    Kind.EMBEDDINGS: "embeddings",
    Kind.RERANK: "rerank",
    Kind.SCORE: "score",
}
# Of an engine's head: what is said anew here, or is a matter between the two of us.
_NOT_HANDED_BACK: Final = frozenset(
    {"access-control-allow-origin", "cache-control", "connection", "content-length", "content-type", "date"}
    | {"keep-alive", "request-id", "server", "transfer-encoding", "vary", "x-accel-buffering", "x-request-id"}
)
Shown = Callable[[bytes], Awaitable[None]]


def pass_through(kind: Kind) -> Handler:
    operation = OPERATIONS[kind]

    async def handle(services: Services, exchange: Exchange, name: str) -> None:
        asked = await services.read(exchange)
        chosen = services.catalogue.choose(asked.model)
        check(kind, asked.fields)
        facts = await services.check_path(chosen, exchange.path)
        check_supported(kind, asked.fields, facts, services.config.unsupported)
        call = services.call(exchange, chosen, exchange.path, asked)
        with services.generation(exchange, chosen, operation) as generation:
            await hand_back(services, exchange, generation, call)

    return handle


async def hand_back(
    services: Services, exchange: Exchange, generation: Generation, call: EngineCall, shown: Shown | None = None
) -> None:
    """Make the call and give the client its answer, each part of which, if it is no error, is first `shown`."""
    with services.event_stream(exchange) if call.stream else nullcontext() as stream:
        head = await generation.open(call)
        if stream is not None and head.streams and head.status < 300:
            await _stream(generation, stream, head, shown)
            return
        body = await generation.rest()
        # Engines that have an API do not all have its errors.
        if head.status >= 400 and (exchange.api is Api.ANTHROPIC or speaks_otherwise(body)):
            raise engine_problem(head, body)
        if stream is not None and stream.begun:
            await stream.write(b"data: %b\n\n" % _in_a_line(body))
            await stream.end()
        else:
            if shown is not None and head.status < 300:
                await shown(body)
            await exchange.respond(head.status, [*content_type(head), *_handed_back(head, generation)], body)


async def _stream(generation: Generation, stream: EventStream, head: Head, shown: Shown | None) -> None:
    await stream.begin([*EVENTS, *_handed_back(head, generation)])
    while values := await generation.take():
        data = values[0][0] if len(values) == 1 else b"".join([data for data, _ in values])
        if shown is not None:
            await shown(data)
        await stream.write(data)
    await stream.end()


def content_type(head: Head) -> Headers:
    kinds = [value.encode("latin-1") for name, value in head.headers if name == "content-type"]
    return [(b"content-type", kinds[0] if kinds else b"application/json")]


def _handed_back(head: Head, generation: Generation) -> Headers:
    headers = [
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in head.headers
        if name not in _NOT_HANDED_BACK
    ]
    if generation.resumes:
        headers.append((RESUMES, b"%d" % generation.resumes))
    return headers


def _in_a_line(body: bytes) -> bytes:
    """An engine's error as the data of an event."""
    try:
        value: Any = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        text = body[:1000].decode("utf-8", "replace")
        raise Problem(502, f"the engine answered {text!r}", code="engine_error") from None
    return msgspec.json.encode(value)
