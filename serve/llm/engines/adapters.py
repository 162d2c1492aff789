"""Which LoRA adapters an engine has, and how requests and a change of them keep out of each other's way."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from typing import Any, cast

from .interface import EngineError


class AdapterTable:
    """`known` is what is loaded, by name. Requests hold it by `use`; a change waits for them, and later ones for it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.known: dict[str, str] = {}
        self._users = 0
        self._free = asyncio.Event()
        self._changing = asyncio.Lock()

    @property
    def is_changing(self) -> bool:
        return self._changing.locked()

    def names(self) -> tuple[str, ...]:
        return tuple(self.known)

    def add(self, name: str, path: str) -> None:
        """ValueError if there is one of that name, EngineError if there are as many as may be."""
        if name in self.known:
            raise ValueError(f"an adapter {name!r} is loaded already")
        if len(self.known) >= self._most:
            raise EngineError(
                f"{len(self.known)} adapters are loaded, as many as max_adapters allows: unload one first"
            )
        self.known[name] = path

    def remove(self, name: str) -> None:
        """ValueError if there is none of that name."""
        if self.known.pop(name, None) is None:
            there = ", ".join(self.known) or "none"
            raise ValueError(f"there is no adapter {name!r}; loaded: {there}")

    def chosen_in(self, body: bytes) -> str:
        """The adapter that a request names as its model; "": none."""
        with contextlib.suppress(ValueError):
            found: Any = json.loads(body)
            if isinstance(found, dict) and (name := str(cast(dict[str, Any], found).get("model"))) in self.known:
                return name
        return ""

    @contextlib.asynccontextmanager
    async def use(self) -> AsyncGenerator[None]:
        if self._changing.locked():
            async with self._changing:
                pass
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            self._free.set()

    @contextlib.asynccontextmanager
    async def change(self) -> AsyncGenerator[None]:
        async with self._changing:
            while self._users:
                self._free.clear()
                await self._free.wait()
            yield


def with_field(body: bytes, name: str, value: bytes) -> bytes:
    """A JSON object with one more field, before its own; what is no object stays as it is."""
    start = body.find(b"{")
    if start < 0 or body[:start].strip():
        return body
    rest = body[start + 1 :].lstrip()
    comma = b"" if rest.startswith(b"}") else b", "
    return b'{"' + name.encode() + b'": ' + value + comma + rest
