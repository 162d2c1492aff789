"""`/`: a page to chat on in a browser, where the settings ask for it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from .routes import no_such_path

if TYPE_CHECKING:
    from .exchange import Exchange
    from .services import Services

_PAGE: Final = Path(__file__).with_name("chat_page.html")


async def show(services: Services, exchange: Exchange, name: str) -> None:
    if not services.config.chat_page:
        raise no_such_path(exchange.path or "/")
    if not exchange.path:
        # What the page asks for lies below the prefix.
        last = quote(exchange.asked_path.rpartition("/")[2])
        await exchange.respond(307, [(b"location", f"./{last}/".encode())], b"")
        return
    html = await asyncio.to_thread(_PAGE.read_bytes)
    await exchange.respond(200, [(b"content-type", b"text/html; charset=utf-8"), (b"cache-control", b"no-cache")], html)
