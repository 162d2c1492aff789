"""Responses of engines that make them themselves: handed on as they are, and kept beside.

Only an engine whose own are complete is trusted with them. llama.cpp's leave out what its clients rely on (sequence
numbers, indices, text.format, why an answer is incomplete), so those are made from its chat/completions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..fields import FieldError
from ..pass_through import hand_back
from ..resume.events import a_dict, events
from .items import items_as_they_are

if TYPE_CHECKING:
    from ..catalogue import Chosen
    from ..engines.interface import EngineCall, EngineFacts
    from ..exchange import Exchange
    from ..reading import Asked
    from ..services import Services
    from .items import NewId
    from .keeping import Context

_RESPONSES: Final = "/v1/responses"
_LAST: Final = (b"response.completed", b"response.incomplete")


def is_native(facts: EngineFacts, fields: Mapping[str, Any]) -> bool:
    """Whether the engine is to make this one. One in the background is made here: its id must be known at once."""
    # llama.cpp, in whatever process, is what has /props.
    return _RESPONSES in facts.paths and "/props" not in facts.paths and fields.get("background") is not True


async def hand_back_response(
    services: Services,
    exchange: Exchange,
    chosen: Chosen,
    asked: Asked,
    new_id: NewId,
) -> None:
    previous, store = asked.fields.get("previous_response_id"), asked.fields.get("store") is not False
    if previous is not None and not isinstance(previous, str):
        raise FieldError(("previous_response_id",), "must be a string")
    items = items_as_they_are(asked.fields.get("input"), new_id)
    context = await services.keeping.context(exchange.tenant, previous, items)
    if store and services.keeping.keeps:
        exchange.wish(exchange.wishes.within(context.name))
    call = services.call(exchange, chosen, _RESPONSES, asked)
    if previous is not None or context.own != items:
        call = _with_items(call, context)

    async def keep(data: bytes) -> None:
        if (response := _last(data) if call.stream else a_dict(msgspec.json.decode(data))) and "id" in response:
            await services.keeping.keep(exchange.tenant, response, context)

    with services.generation(exchange, chosen, "chat") as generation:
        await hand_back(services, exchange, generation, call, keep if store else None)


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
