"""Answer requests of the Responses API: those that make a response, and those about one that is kept."""

from __future__ import annotations

import uuid
from contextlib import aclosing
from time import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

import msgspec

from ..chat_answers import GO_ON, prefill_of
from ..counting import count_prompt
from ..event_stream import EVENTS
from ..exchange import ClientGone
from ..failures import problem_of
from ..fields import FieldError
from ..made_from_chat import answer_with, begin, chat_call, pieces, whole
from ..problems import Problem
from . import answer
from .background import make_in_background
from .events import ResponseEvents
from .listing import page_of, whole_number
from .native import hand_back_response, is_native
from .request import read_request

if TYPE_CHECKING:
    from ..catalogue import Chosen
    from ..engines.interface import EngineCall
    from ..exchange import Exchange
    from ..services import Services
    from .keeping import Context

_RESPONSES: Final = "/v1/responses"


def new_id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"


async def create(services: Services, exchange: Exchange, name: str) -> None:
    """POST /v1/responses."""
    asked = await services.read(exchange)
    chosen = services.catalogue.choose(asked.model)
    facts = await chosen.served.facts()
    if is_native(facts, asked.fields):
        await hand_back_response(services, exchange, chosen, asked, new_id)
        return
    request = read_request(asked.fields, new_id, ignore=services.config.unsupported == "ignore")
    if request.background and not services.keeping.keeps:
        raise FieldError(("background",), "needs a server that keeps responses, and this one does not")
    context = await services.keeping.context(exchange.tenant, request.previous, request.items)
    if request.store and services.keeping.keeps:
        exchange.wish(exchange.wishes.within(context.name))
    body = request.chat_body(context.items, chosen.name)
    prefill = prefill_of(body["messages"]) if facts.continues_chat else ""
    if prefill:
        body |= GO_ON
    call = chat_call(services, exchange, chosen, facts, _RESPONSES, body)
    response = answer.envelope(request, id=new_id("resp"), model=asked.model or chosen.name, created_at=int(time()))
    response["store"] = request.store and services.keeping.keeps
    if request.background:
        response["status"] = "queued"
        await make_in_background(services, exchange, chosen, call, response, context, prefill, new_id)
        if request.stream:
            await _follow(services, exchange, response["id"], -1)
        else:
            await exchange.respond_json(msgspec.json.encode(response))
    elif request.stream:
        await _stream(services, exchange, chosen, call, response, context)
    else:
        with services.generation(exchange, chosen, "chat") as generation:
            await begin(generation, call)
            piece = await whole(generation)
            piece = piece._replace(text=piece.text.removeprefix(prefill))
            response = answer.whole(response, piece, new_id, int(time()))
        if response["store"]:
            response["store"] = await services.keeping.keep(exchange.tenant, response, context)
        await answer_with(exchange, generation, response)


async def _stream(
    services: Services,
    exchange: Exchange,
    chosen: Chosen,
    call: EngineCall,
    response: dict[str, Any],
    context: Context,
) -> None:
    with services.generation(exchange, chosen, "chat") as generation, services.event_stream(exchange) as stream:
        events = ResponseEvents(response, new_id)
        rest: list[bytes] = []
        try:
            await begin(generation, call)
            await stream.begin(EVENTS)
            await stream.write(b"".join(events.start()))
            while came := await pieces(generation):
                if out := [event for piece in came for event in events.feed(piece)]:
                    await stream.write(b"".join(out))
            rest = events.end(int(time()))
        except ClientGone:
            raise
        except Exception as error:
            if not stream.begun:
                raise
            if not events.begun:
                await stream.write(b"".join(events.start()))
            events.fail(problem_of(error, exchange).message)
            events.response["store"] = False
        if events.response["store"]:
            events.response["store"] = await services.keeping.keep(exchange.tenant, events.response, context)
        await stream.write(b"".join([*rest, events.last()]))
        await stream.end()


async def _follow(services: Services, exchange: Exchange, id: str, after: int) -> None:
    """Send the events of a response that is, or was, made in the background."""
    async with aclosing(services.keeping.follow(exchange.tenant, id, after)) as events:
        with services.event_stream(exchange) as stream:
            async for data in events:
                await stream.begin(EVENTS)
                await stream.write(data)
            await stream.begin(EVENTS)
            await stream.end()


async def one(services: Services, exchange: Exchange, name: str) -> None:
    """GET and DELETE /v1/responses/ID."""
    if exchange.method == "DELETE":
        await services.keeping.delete(exchange.tenant, name)
        await exchange.respond_json(msgspec.json.encode({"id": name, "object": "response", "deleted": True}))
        return
    query = _query(exchange)
    if query.get("stream") not in ("true", "1"):
        await exchange.respond_json(await services.keeping.get(exchange.tenant, name))
        return
    exchange.cancel_when_gone()
    await _follow(services, exchange, name, whole_number(query, "starting_after", -1, least=-1))


async def cancel(services: Services, exchange: Exchange, name: str) -> None:
    """POST /v1/responses/ID/cancel."""
    response = msgspec.json.decode(await services.keeping.get(exchange.tenant, name))
    if not response.get("background"):
        raise Problem(400, "only a response that was created with background can be cancelled", code="invalid_value")
    await exchange.respond_json(await services.keeping.cancel(exchange.tenant, name))


async def input_items(services: Services, exchange: Exchange, name: str) -> None:
    """GET /v1/responses/ID/input_items."""
    items = await services.keeping.given(exchange.tenant, name)
    await exchange.respond_json(msgspec.json.encode(page_of(items, _query(exchange))))


async def input_tokens(services: Services, exchange: Exchange, name: str) -> None:
    """POST /v1/responses/input_tokens."""
    asked = await services.read(exchange)
    chosen = services.catalogue.choose(asked.model)
    request = read_request(asked.fields, new_id, ignore=services.config.unsupported == "ignore")
    context = await services.keeping.context(exchange.tenant, request.previous, request.items)
    count = await count_prompt(services, exchange, chosen, request.chat_body(context.items, chosen.name))
    await exchange.respond_json(msgspec.json.encode({"object": "response.input_tokens", "input_tokens": count}))


def _query(exchange: Exchange) -> dict[str, str]:
    return dict(parse_qsl(exchange.query.decode("latin-1")))
