"""`/v1/models`: which models there are, in OpenAI's shape, or Anthropic's for who speaks that."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from .problems import Api

if TYPE_CHECKING:
    from .catalogue import Chosen
    from .exchange import Exchange
    from .services import Services


async def models(services: Services, exchange: Exchange, name: str) -> None:
    names = services.catalogue.names()
    speak_as_asked(exchange)
    if exchange.api is Api.ANTHROPIC:
        data = [_for_anthropic(each, services.catalogue.since) for each in names]
        page = {"data": data, "has_more": False, "first_id": next(iter(names), None), "last_id": [*names, None][-2]}
        await exchange.respond_json(msgspec.json.encode(page))
        return
    data = [_for_openai(each, chosen, services.catalogue.since) for each, chosen in names.items()]
    await exchange.respond_json(msgspec.json.encode({"object": "list", "data": data}))


async def model(services: Services, exchange: Exchange, name: str) -> None:
    speak_as_asked(exchange)
    chosen = services.catalogue.choose(name)
    since = services.catalogue.since
    shown = _for_anthropic(name, since) if exchange.api is Api.ANTHROPIC else _for_openai(name, chosen, since)
    await exchange.respond_json(msgspec.json.encode(shown))


def speak_as_asked(exchange: Exchange) -> None:
    """A path that both APIs have is Anthropic's for who says which version of it he speaks."""
    if b"anthropic-version" in exchange.headers:
        exchange.api = Api.ANTHROPIC


def _for_openai(name: str, chosen: Chosen, since: int) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": name,
        "object": "model",
        "created": since,
        "owned_by": chosen.served.config.owned_by,
        "root": chosen.name,
        "parent": chosen.served.model_id if chosen.name != chosen.served.model_id else None,
    }
    return shown


def _for_anthropic(name: str, since: int) -> dict[str, Any]:
    created = datetime.fromtimestamp(since, UTC).isoformat().replace("+00:00", "Z")
    return {"type": "model", "id": name, "display_name": name, "created_at": created}
