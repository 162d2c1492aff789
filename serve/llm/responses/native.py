"""Responses of engines that make them themselves: handed on as they are, and kept beside.

Only an engine whose own are complete is trusted with them. llama.cpp's leave out what its clients rely on (sequence
numbers, indices, text.format, why an answer is incomplete), so those are made from its chat/completions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..pass_through import hand_back
from ..resume.events import a_dict, events

if TYPE_CHECKING:
    from ..catalogue import Chosen
    from ..engines.interface import EngineCall, EngineFacts
    from ..exchange import Exchange
    from ..reading import Asked
    from ..services import Services
    from .keeping import Context
    from .request import ResponsesRequest

_RESPONSES: Final = "/v1/responses"
_LAST: Final = (b"response.completed", b"response.incomplete")


def is_native(facts: EngineFacts) -> bool:
    # llama.cpp, in whatever process, is what has /props.
    return _RESPONSES in facts.paths and "/props" not in facts.paths


async def hand_back_response(
    services: Services,
    exchange: Exchange,
    chosen: Chosen,
    asked: Asked,
    request: ResponsesRequest,
    context: Context,
) -> None:
    call = services.call(exchange, chosen, _RESPONSES, asked)
    if context.before is not None or context.own != request.items:
        call = _with_items(call, context)

    async def keep(data: bytes) -> None:
        if (response := _last(data) if call.stream else a_dict(msgspec.json.decode(data))) and "id" in response:
            await services.keeping.keep(exchange.tenant, response, context)

    with services.generation(exchange, chosen, "chat") as generation:
        await hand_back(services, exchange, generation, call, keep if request.store else None)


def _with_items(call: EngineCall, context: Context) -> EngineCall:
    """The call with all that the engine would have to look up."""
    fields = msgspec.json.decode(call.body, type=dict[str, msgspec.Raw])
    fields.pop("previous_response_id", None)
    fields["input"] = msgspec.Raw(msgspec.json.encode(context.items))
    return call._replace(body=msgspec.json.encode(fields))


def _last(data: bytes) -> dict[str, Any] | None:
    if not any(mark in data for mark in _LAST):
        return None
    for event in events(data):
        value = event.value() or {}
        if value.get("type") in ("response.completed", "response.incomplete"):
            return a_dict(value.get("response"))
    return None
