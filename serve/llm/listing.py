"""`/v1/models`: which models there are, in OpenAI's shape, or Anthropic's for who speaks that."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

import msgspec

from .problems import Api, Problem

# Models on a page of Anthropic's, where the client does not say, and at most.
PAGE: Final = 20
MOST_ON_PAGE: Final = 1000

if TYPE_CHECKING:
    from .catalogue import Chosen
    from .exchange import Exchange
    from .services import Services


async def models(services: Services, exchange: Exchange, name: str) -> None:
    names = services.catalogue.names()
    if exchange.api is Api.ANTHROPIC:
        shown, more = page_of(list(names), exchange.query.decode("latin-1"))
        data = [_for_anthropic(each, services.catalogue.since) for each in shown]
        first, last = (shown[0], shown[-1]) if shown else (None, None)
        page = {"data": data, "has_more": more, "first_id": first, "last_id": last}
        await exchange.respond_json(msgspec.json.encode(page))
        return
    data = [_for_openai(each, chosen, services.catalogue.since) for each, chosen in names.items()]
    await exchange.respond_json(msgspec.json.encode({"object": "list", "data": data}))


def page_of(names: Sequence[str], query: str) -> tuple[Sequence[str], bool]:
    """The part of the names that a query of Anthropic's asks for, and whether there is more in its direction.

    Problem 400 for a limit that is none, or for an id that is not in the list.
    """
    asked = dict(parse_qsl(query, keep_blank_values=True))
    limit = PAGE
    if (given := asked.get("limit")) is not None:
        if not given.isascii() or not given.isdecimal() or len(given) > 4 or not 1 <= int(given) <= MOST_ON_PAGE:
            raise Problem(400, f"limit: must be an integer between 1 and {MOST_ON_PAGE}, not {given[:64]!r}")
        limit = int(given)
    if "after_id" in asked and "before_id" in asked:
        raise Problem(400, "after_id: may not be given together with before_id")
    if "before_id" in asked:
        end = _index(names, "before_id", asked["before_id"])
        return names[max(0, end - limit) : end], end > limit
    start = _index(names, "after_id", asked["after_id"]) + 1 if "after_id" in asked else 0
    return names[start : start + limit], len(names) > start + limit


def _index(names: Sequence[str], field: str, id: str) -> int:
    if id not in names:
        raise Problem(400, f"{field}: there is no model {id[:256]!r}")
    return names.index(id)


async def model(services: Services, exchange: Exchange, name: str) -> None:
    chosen = services.catalogue.choose(name)
    since = services.catalogue.since
    shown = _for_anthropic(name, since) if exchange.api is Api.ANTHROPIC else _for_openai(name, chosen, since)
    await exchange.respond_json(msgspec.json.encode(shown))


def speak_as_asked(exchange: Exchange) -> None:
    """A path that both APIs have is Anthropic's for who says which version of it he speaks."""
    if b"anthropic-version" in exchange.headers:
        exchange.speak(Api.ANTHROPIC)


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
