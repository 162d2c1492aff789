"""The deployment that keeps responses: one replica, asked by all replicas of the front.

It is memory and nothing else. When its process ends, what it kept is gone: who asks for it is told that it is not
there, and the next response is kept by its successor.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ...declaration.declaration import Application, Deployment
from ...declaration.options import DeploymentOptions
from .stored import ItemBytes, Key, NoRoomError, Record, ResponseTable

if TYPE_CHECKING:
    from ..config import FrontConfig

GONE: Final = "the server that made it has ended, or could not keep it"


class ResponseStore:
    def __init__(self, most: int, most_bytes: int) -> None:
        self._table = ResponseTable(most, most_bytes)
        # Set, and forgotten, at the next change of a response.
        self._news: dict[Key, asyncio.Event] = {}

    async def context(
        self, tenant: str, id: str | None, references: Sequence[str]
    ) -> tuple[list[bytes] | None, dict[str, bytes]]:
        """The items of a response, of its context and its own (None: it is not here), and items by their ids."""
        items: list[bytes] | None = None
        if id is not None and (record := self._table.get((tenant, id))) is not None:
            items = [kept.data for kept in record.given + record.output]
        found = {name: data for name in references if (data := self._table.item((tenant, name))) is not None}
        return items, found

    async def put(
        self, tenant: str, id: str, response: bytes, before: str | None, own: list[ItemBytes], output: list[ItemBytes]
    ) -> bool:
        """Keep a response. False if `before` is not here: then its items must come along."""
        return self._table.put((tenant, id), response, before=before, own=own, output=output)

    async def hold(
        self, tenant: str, id: str, response: bytes, own: list[ItemBytes], *, streams: bool
    ) -> AsyncGenerator[bool, None]:
        """Keep a response while it is made in the background. First whether there is room for one more of these.

        It ends as soon as the response need not be made any more: it was cancelled, deleted, or is made. Whoever makes
        it reads here all the while: if that process ends, the response has failed.
        """
        key = tenant, id
        try:
            self._table.put(key, response, before=None, own=own, running=True, streams=streams)
        except NoRoomError:
            yield False
            return
        try:
            yield True
            while (record := self._table.get(key)) is not None and record.running:
                await self._change(key)
        finally:
            self._end(key, "response.failed", status="failed", error={"code": "server_error", "message": GONE})

    async def add(self, tenant: str, id: str, events: list[bytes], response: bytes | None) -> None:
        if self._table.add_events((tenant, id), events, response):
            self._changed((tenant, id))

    async def finish(self, tenant: str, id: str, response: bytes, events: list[bytes], output: list[ItemBytes]) -> None:
        key = tenant, id
        self._table.add_events(key, events)
        if self._table.finish(key, response, output):
            self._changed(key)

    async def get(self, tenant: str, id: str) -> bytes | None:
        record = self._table.get((tenant, id))
        return None if record is None else record.response

    async def given(self, tenant: str, id: str) -> list[bytes] | None:
        """The items that went into a response."""
        record = self._table.get((tenant, id))
        return None if record is None else [kept.data for kept in record.given]

    async def delete(self, tenant: str, id: str) -> bool:
        removed = self._table.remove((tenant, id))
        self._changed((tenant, id))
        return removed

    async def cancel(self, tenant: str, id: str) -> bytes | None:
        """The response, which is not made any further if it was being made."""
        # There is no event of its own for this.
        self._end((tenant, id), "response.incomplete", status="cancelled")
        return await self.get(tenant, id)

    async def follow(self, tenant: str, id: str, after: int) -> AsyncGenerator[bytes | None, None]:
        """None if it has no events; else b"", and then the events after that one, up to the last, as they come."""
        key = tenant, id
        record = self._table.get(key)
        if record is None or not record.streams:
            yield None
            return
        at = after + 1
        yield b""
        while True:
            running = record.running
            if events := record.events[at:]:
                at += len(events)
                yield b"".join(events)
            if not running:
                return
            if len(record.events) <= at:
                await self._change(key)

    def _end(self, key: Key, event: str, **fields: Any) -> None:
        record = self._table.get(key)
        if record is None or not record.running:
            return
        response = {**msgspec.json.decode(record.response), **fields}
        events = [_event(event, response, record)] if record.streams else []
        self._table.add_events(key, events)
        self._table.finish(key, msgspec.json.encode(response), ())
        self._changed(key)

    async def _change(self, key: Key) -> None:
        await self._news.setdefault(key, asyncio.Event()).wait()

    def _changed(self, key: Key) -> None:
        if (news := self._news.pop(key, None)) is not None:
            news.set()


def _event(kind: str, response: dict[str, Any], record: Record) -> bytes:
    data = {"type": kind, "sequence_number": len(record.events), "response": response}
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), msgspec.json.encode(data))


def bind_store(config: FrontConfig) -> Application[ResponseStore] | None:
    """The store of a front; None where nothing is to be kept."""
    if not config.stored_responses:
        return None
    # Each response in the background waits in it.
    options = DeploymentOptions(name="response-store", max_ongoing_requests=10_000 + config.stored_responses)
    deployment: Deployment[ResponseStore] = Deployment(ResponseStore, options)
    return deployment.bind(config.stored_responses, config.stored_response_bytes)
