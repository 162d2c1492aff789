"""Keep responses and find them again, for a replica of the front: what it asks of the store."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from ...exceptions import ServeError
from ..problems import Problem
from .items import Item
from .stored import ItemBytes

if TYPE_CHECKING:
    from ...routing.handle import DeploymentHandle

T = TypeVar("T")

logger = logging.getLogger("actorrt.serve.llm")


class Context(NamedTuple):
    """What a response is made from."""

    before: str | None
    """The response that it follows."""
    earlier: Sequence[Item]
    """The items of that one."""
    own: Sequence[Item]
    """The items of the request, none of them a reference any more."""

    @property
    def items(self) -> list[Item]:
        return [*self.earlier, *self.own]

    @property
    def name(self) -> str:
        """The same for all responses of a chain, by its first item; "" if it has no id."""
        first = next(iter(self.earlier or self.own), None)
        id = None if first is None else first.get("id")
        return id if isinstance(id, str) else ""


class Keeping:
    def __init__(self, store: DeploymentHandle[Any] | None) -> None:
        """Without a store nothing is kept."""
        self._store = store

    @property
    def keeps(self) -> bool:
        return self._store is not None

    @property
    def store(self) -> DeploymentHandle[Any]:
        if self._store is None:
            raise Problem(404, "responses are not kept by this server", code="not_found")
        return self._store

    async def _ask(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Problem 503 as long as there is no store that answers."""
        try:
            return await getattr(self.store, method).remote(*args, **kwargs)
        except ServeError as error:
            logger.warning("the store of responses did not answer: %s", error)
            raise no_store() from None

    async def context(self, tenant: str, previous: str | None, items: Sequence[Item]) -> Context:
        """Problem 404 for a response or an item that is not here."""
        references = [item["id"] for item in items if item["type"] == "item_reference"]
        if previous is None and not references:
            return Context(None, (), items)
        earlier, found = await self._ask("context", tenant, previous, references)
        if previous is not None and earlier is None:
            raise Problem(
                404, _gone("response", previous), param="previous_response_id", code="previous_response_not_found"
            )
        own: list[Item] = []
        for at, item in enumerate(items):
            if item["type"] != "item_reference":
                own.append(item)
            elif (data := found.get(item["id"])) is not None:
                own.append(msgspec.json.decode(data))
            else:
                raise Problem(404, _gone("item", item["id"]), param=f"input[{at}].id", code="item_not_found")
        return Context(previous, [msgspec.json.decode(data) for data in earlier or ()], own)

    async def keep(self, tenant: str, response: dict[str, Any], context: Context) -> bool:
        """Keep a response that is made. False if it could not be: its client has it all the same."""
        if self._store is None:
            return False
        put = self._store.put
        data, output = msgspec.json.encode(response), in_bytes(response["output"])
        try:
            kept = await put.remote(tenant, response["id"], data, context.before, in_bytes(context.own), output)
            if not kept:
                await put.remote(tenant, response["id"], data, None, in_bytes(context.items), output)
        except ServeError as error:
            logger.warning("response %s was not kept: %s", response["id"], error)
            return False
        return True

    async def hold(
        self, tenant: str, response: dict[str, Any], context: Context, *, streams: bool
    ) -> AsyncGenerator[None, None]:
        """Keep a response while it is made: one value once it is kept, and the end when it need not be made any more.

        Problem 503 if there is no room, or no store.
        """
        own, data = in_bytes(context.items), msgspec.json.encode(response)
        held = self.store.hold.options(stream=True).remote(tenant, response["id"], data, own, streams=streams)
        kept = False
        try:
            while values := await held.next_values():
                if not values[0]:
                    raise Problem(
                        503, "as much as is kept of responses is being made in the background", code="overloaded"
                    )
                kept = True
                yield
            if not kept:
                raise no_store()
        except ServeError as error:
            logger.warning("the store of responses did not answer: %s", error)
            raise no_store() from None
        finally:
            held.close()

    async def add(self, tenant: str, id: str, events: Sequence[bytes], response: dict[str, Any] | None) -> None:
        data = None if response is None else msgspec.json.encode(response)
        await self.store.add.remote(tenant, id, list(events), data)

    async def finish(self, tenant: str, response: dict[str, Any], events: Sequence[bytes]) -> None:
        data, output = msgspec.json.encode(response), in_bytes(response["output"])
        await self.store.finish.remote(tenant, response["id"], data, list(events), output)

    async def get(self, tenant: str, id: str) -> bytes:
        """Problem 404 if it is not here."""
        return _found(await self._ask("get", tenant, id), id)

    async def given(self, tenant: str, id: str) -> list[Item]:
        """The items that went into a response, the oldest first."""
        return [msgspec.json.decode(data) for data in _found(await self._ask("given", tenant, id), id)]

    async def cancel(self, tenant: str, id: str) -> bytes:
        return _found(await self._ask("cancel", tenant, id), id)

    async def delete(self, tenant: str, id: str) -> None:
        if not await self._ask("delete", tenant, id):
            raise _not_here(id)

    async def follow(self, tenant: str, id: str, after: int) -> AsyncGenerator[bytes, None]:
        """The events of a response after that one, as they come. Problem 400 if it has none."""
        events = self.store.follow.options(stream=True).remote(tenant, id, after)
        try:
            while values := await events.next_values():
                if values[0] is None:
                    await self.get(tenant, id)
                    raise Problem(
                        400,
                        f"response {id!r} has no events: only one that was created with background and stream has",
                        param="stream",
                        code="invalid_value",
                    )
                if data := b"".join(values):
                    yield data
        finally:
            events.close()


def no_store() -> Problem:
    return Problem(503, "the store of responses is not available", retry_after_s=1)


def in_bytes(items: Iterable[Item]) -> list[ItemBytes]:
    return [ItemBytes(_id_of(item), msgspec.json.encode(item)) for item in items]


def _id_of(item: Item) -> str:
    """Of an engine of its own it may be anything."""
    id = item.get("id")
    return id if isinstance(id, str) else ""


def _found(value: T | None, id: str) -> T:
    if value is None:
        raise _not_here(id)
    return value


def _not_here(id: str) -> Problem:
    return Problem(404, _gone("response", id), code="response_not_found")


def _gone(kind: str, id: str) -> str:
    return f"there is no {kind} {id[:128]!r}: it was not stored, was deleted, or has made room for newer ones"
