"""Answer requests of the Messages API: by the engine's own, as the bytes come, or by its chat/completions."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..counting import count_prompt
from ..event_stream import EVENTS
from ..fields import FieldError
from ..made_from_chat import answer_with, begin, chat_call, pieces, whole
from ..pass_through import hand_back
from ..unsupported import check_tools
from .answer import message
from .events import MessageEvents
from .request import ChatRequest, chat_request, check

if TYPE_CHECKING:
    from ..engines.interface import EngineCall, EngineFacts
    from ..exchange import Exchange
    from ..generation import Generation
    from ..services import Services

_MESSAGES: Final = "/v1/messages"
_COUNT: Final = "/v1/messages/count_tokens"
# A path that llama.cpp alone has.
_IS_LLAMACPP: Final = "/props"


async def create(services: Services, exchange: Exchange, name: str) -> None:
    """POST /v1/messages."""
    asked = await services.read(exchange)
    chosen = services.catalogue.choose(asked.model)
    check(asked.fields)
    facts = await chosen.served.facts()
    if _is_native(facts, asked.fields):
        check_tools(asked.fields, facts, services.config.unsupported)
        call = services.call(exchange, chosen, _MESSAGES, asked)
        with services.generation(exchange, chosen, "chat") as generation:
            await hand_back(services, exchange, generation, call)
        return
    ignore = services.config.unsupported == "ignore"
    request = chat_request(asked.fields, chosen.name, ignore=ignore)
    if request.prefill and not facts.continues_chat:
        at = len(asked.fields["messages"]) - 1
        raise FieldError(
            ("messages", at), "the engine cannot go on with a message of the assistant: end with the user's"
        )
    shown = asked.model or chosen.name
    # Where others read prompts, what is in the engine's cache says nothing of what was read before.
    if asked.stream and _IS_LLAMACPP in facts.paths and chosen.served.config.prefill is None:
        request.body.setdefault("return_progress", True)
    call = chat_call(services, exchange, chosen, facts, _MESSAGES, request.body)
    with services.generation(exchange, chosen, "chat") as generation:
        if asked.stream:
            await _stream(services, exchange, generation, call, request, shown)
        else:
            await begin(generation, call)
            piece = await whole(generation)
            answer = message(
                piece, id=_id(), model=shown, stop_sequences=request.stop_sequences, prefill=request.prefill
            )
            await answer_with(exchange, generation, answer)


def _is_native(facts: EngineFacts, fields: Mapping[str, Any]) -> bool:
    """Whether the engine is to make the message itself. llama.cpp, which has /props, takes a tool that is named there
    for any, and leaves `input` out of the events of a call.
    """
    return _MESSAGES in facts.paths and not (_IS_LLAMACPP in facts.paths and fields.get("tools"))


async def _stream(
    services: Services,
    exchange: Exchange,
    generation: Generation,
    call: EngineCall,
    request: ChatRequest,
    model: str,
) -> None:
    with services.event_stream(exchange) as stream:
        await begin(generation, call)
        events = MessageEvents(id=_id(), model=model, stop_sequences=request.stop_sequences)
        await stream.begin(EVENTS)
        # How long the prompt is comes as it begins to be read.
        came = await pieces(generation) if request.body.get("return_progress") is True else []
        await stream.write(events.start(came[0].read if came else None))
        while came or (came := await pieces(generation)):
            if out := b"".join([events.feed(piece) for piece in came]):
                await stream.write(out)
            came = []
        await stream.write(events.end())
        await stream.end()


async def count_tokens(services: Services, exchange: Exchange, name: str) -> None:
    """POST /v1/messages/count_tokens."""
    asked = await services.read(exchange)
    chosen = services.catalogue.choose(asked.model)
    check(asked.fields, counting=True)
    if _COUNT in (await chosen.served.facts()).paths:
        call = services.call(exchange, chosen, _COUNT, asked)
        with services.generation(exchange, chosen, "count_tokens") as generation:
            await hand_back(services, exchange, generation, call)
        return
    request = chat_request(asked.fields, chosen.name, counting=True, ignore=services.config.unsupported == "ignore")
    count = await count_prompt(services, exchange, chosen, request.body)
    await exchange.respond_json(msgspec.json.encode({"input_tokens": count}))


def _id() -> str:
    return f"msg_{uuid.uuid4().hex}"
