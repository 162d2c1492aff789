"""Make a response after the request that asked for it has been answered.

The store is told what there is of it and says when it need not be made any further. It notices the end of this process
by the stream that is read there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from time import time
from typing import TYPE_CHECKING, Any

from ...base.background import spawn
from ...exceptions import ServeError
from ..failures import problem_of
from ..made_from_chat import begin, pieces, whole
from ..problems import Problem
from . import answer
from .events import ResponseEvents

if TYPE_CHECKING:
    from ..catalogue import Chosen
    from ..engines.interface import EngineCall
    from ..exchange import Exchange
    from ..generation import Generation
    from ..services import Services
    from .items import NewId
    from .keeping import Context

logger = logging.getLogger("actorrt.serve.llm")


async def make_in_background(
    services: Services,
    exchange: Exchange,
    chosen: Chosen,
    call: EngineCall,
    response: dict[str, Any],
    context: Context,
    prefill: str,
    new_id: NewId,
) -> None:
    """Return when the response is kept. Problem 503 if it cannot be.

    `prefill`: what the engine may repeat before its answer.
    """
    begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    spawn(_held(services, exchange, chosen, call, response, context, prefill, new_id, begun))
    await begun


async def _held(
    services: Services,
    exchange: Exchange,
    chosen: Chosen,
    call: EngineCall,
    response: dict[str, Any],
    context: Context,
    prefill: str,
    new_id: NewId,
    begun: asyncio.Future[None],
) -> None:
    """Make it as long as the store holds it."""
    async with aclosing(services.keeping.hold(exchange.tenant, response, context, streams=call.stream)) as held:
        try:
            await anext(held)
        except Exception as error:
            if not begun.done():
                begun.set_exception(error)
            return
        if begun.done():
            # Its client has left before it could know its id.
            return
        begun.set_result(None)
        making = asyncio.get_running_loop().create_task(
            _make(services, exchange, chosen, call, response, prefill, new_id)
        )
        holding = asyncio.get_running_loop().create_task(_until_end(held, response["id"]))
        try:
            await asyncio.wait({making, holding}, return_when=asyncio.FIRST_COMPLETED)
            # One that could not be kept is never at its end there: it is let go, and thereby failed.
            if making.done() and not making.cancelled() and making.exception() is None:
                await holding
        finally:
            making.cancel()
            holding.cancel()
            await asyncio.wait({making, holding})
    if not making.cancelled() and isinstance(error := making.exception(), ServeError):
        logger.warning("response %s was not kept: %s", response["id"], error)
    elif not making.cancelled():
        making.result()


async def _until_end(held: AsyncGenerator[None], id: str) -> None:
    try:
        async for _ in held:
            pass
    except Problem as problem:
        logger.warning("response %s is not made any further: %s", id, problem.message)


async def _make(
    services: Services,
    exchange: Exchange,
    chosen: Chosen,
    call: EngineCall,
    response: dict[str, Any],
    prefill: str,
    new_id: NewId,
) -> None:
    keeping, tenant = services.keeping, exchange.tenant
    response = {**response, "status": "in_progress"}
    events = ResponseEvents(response, new_id)
    rest: list[bytes] = []
    await keeping.add(tenant, response["id"], events.start(queued=True) if call.stream else [], response)
    try:
        with services.generation(exchange, chosen, "chat") as generation:
            await begin(generation, call)
            if call.stream:
                rest = await _streamed(services, tenant, generation, events)
            else:
                piece = await whole(generation)
                piece = piece._replace(text=piece.text.removeprefix(prefill))
                events.response = answer.whole(response, piece, new_id, int(time()))
    except Exception as error:
        events.fail(problem_of(error, exchange).message)
    await keeping.finish(tenant, events.response, [*rest, events.last()] if call.stream else [])


async def _streamed(services: Services, tenant: str, generation: Generation, events: ResponseEvents) -> list[bytes]:
    while came := await pieces(generation):
        if out := [event for piece in came for event in events.feed(piece)]:
            await services.keeping.add(tenant, events.response["id"], out, None)
    return events.end(int(time()))
