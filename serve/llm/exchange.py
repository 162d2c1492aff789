"""One HTTP request and its response: the body read up to a limit, the response whole or in parts, and who has left.

A small shell around ASGI's three arguments, so that nothing is done for a token but to send it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from ..base.request_context import current_request
from ..http.root_path import encoded
from ..policies.policy import ONE_REQUEST, Cost
from .problems import Api, Problem, error_body, error_event, error_headers
from .wishes import NO_WISHES, Wishes

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from .generation import Generation

Headers = list[tuple[bytes, bytes]]

QUEUE_MS: Final = b"x-actorrt-queue-ms"
JSON: Final = (b"content-type", b"application/json")
_BODILESS: Final = frozenset({204, 304})


class ClientGone(Exception):
    """The client has left: nobody takes what would be sent."""


class Exchange:
    """What is found out of a request on its way, as its API and its tenant, is told by a method each."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, *, request_id: str | None = None, batch_of: str | None = None
    ) -> None:
        """`batch_of`: the tenant of a batch that it belongs to, for whose answer nobody waits."""
        self._receive, self._send = receive, send
        path: str = scope["path"]
        self.asked_path = path
        root: str = scope.get("root_path", "")
        self.method: str = scope["method"]
        # "" is the prefix itself, without a slash.
        self.path = path.removeprefix(root) if path == root or path.startswith(root + "/") else path
        self.query: bytes = scope["query_string"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.client: tuple[str, int] | None = scope.get("client")
        if request_id is None:
            context = current_request.get()
            request_id = context.request_id if context is not None else ""
        self.request_id = request_id
        self.came_at = monotonic()
        self.api = Api.OPENAI
        self.tenant = batch_of or ""
        self.is_of_batch = batch_of is not None
        # What it takes of a model's replica.
        self.cost: Cost = ONE_REQUEST
        self.wishes = NO_WISHES
        # Of each response of this request.
        self.always: Headers = []
        # What it asked of a model, for the log.
        self.generation: Generation | None = None
        self.status = 0
        self.gone = self.complete = False
        self._watch: asyncio.Task[None] | None = None

    # The request.

    def speak(self, api: Api) -> None:
        """Its errors have the shape of this API."""
        self.api = api

    def belong_to(self, tenant: str) -> None:
        self.tenant = tenant

    def wish(self, wishes: Wishes) -> None:
        self.wishes = wishes

    def take(self, cost: Cost) -> None:
        """It takes so much of a model's replica."""
        self.cost = cost

    def add_always(self, headers: Headers) -> None:
        """Each response of it has these."""
        self.always = headers

    def ask(self, generation: Generation) -> None:
        """This is what it asks of a model, for the log."""
        self.generation = generation

    def _leave(self) -> ClientGone:
        self.gone = True
        return ClientGone()

    @property
    def shown_path(self) -> str:
        """For logs: as clients write it, in one word."""
        return encoded(self.path).decode()

    async def body(self, limit: int) -> bytes:
        """All of the body. Problem 413 as soon as it is clear that it is longer, 415 if it is compressed."""
        parts = [part async for part in self.parts(limit)]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def parts(self, limit: int) -> AsyncGenerator[bytes]:
        """The body as it comes. Problem as `body`; ClientGone if its rest does not come."""
        encoding = self.headers.get(b"content-encoding", b"identity")
        if encoding.strip().lower() != b"identity":
            shown = encoding.decode("latin-1")[:64]
            message = f"the body is encoded as {shown!r}: send it as it is, without Content-Encoding"
            accepted = ((b"accept-encoding", b"identity"),)
            raise Problem(415, message, code="unsupported_content_encoding", headers=accepted)
        announced = self.headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced) > limit:
            raise self._too_large(limit)
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise self._leave()
            part: bytes = message.get("body", b"")
            size += len(part)
            if size > limit:
                raise self._too_large(limit)
            yield part
            if not message.get("more_body", False):
                return

    def _too_large(self, limit: int) -> Problem:
        return Problem(413, f"the body is larger than {limit} bytes", code="request_too_large")

    def cancel_when_gone(self) -> None:
        """Have this task cancelled when the client leaves. The body has been read."""
        task = asyncio.current_task()
        assert task is not None
        self._watch = asyncio.get_running_loop().create_task(self._until_gone(task))

    async def _until_gone(self, task: asyncio.Task[Any]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self.complete:
            self._leave()
            task.cancel()

    # The response.

    async def respond(self, status: int, headers: Headers, body: bytes) -> None:
        """A whole response."""
        if status not in _BODILESS:
            headers = [*headers, (b"content-length", b"%d" % len(body))]
        await self.begin(status, headers)
        await self._body(body, more=False)

    async def respond_json(self, body: bytes, status: int = 200) -> None:
        await self.respond(status, [JSON], body)

    async def begin(self, status: int, headers: Headers) -> None:
        """The head of a response whose body comes by `write`, up to `end`."""
        self.status = status
        headers = [*headers, *self.always]
        if self.generation is not None and (waited := self.generation.queue_ms) is not None:
            headers.append((QUEUE_MS, b"%d" % waited))
        if self.api is Api.ANTHROPIC:
            # What Anthropic's clients look for. The proxy adds the name that OpenAI's know.
            headers.append((b"request-id", self.request_id.encode()))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, data: bytes) -> None:
        """A part of the body; returns when there is room for the next. ClientGone if nobody takes it."""
        try:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
        except OSError:
            raise self._leave() from None

    async def end(self) -> None:
        await self._body(b"", more=False)

    async def _body(self, data: bytes, more: bool) -> None:
        self.complete = not more
        try:
            await self._send({"type": "http.response.body", "body": data, "more_body": more})
        except OSError:
            raise self._leave() from None

    async def fail(self, problem: Problem) -> None:
        """Say what is wrong in the shape of the API: as a response, or as the last event of one that has begun."""
        if self.complete:
            return
        if self.status:
            await self.write(error_event(problem, self.api, self.request_id))
            await self.end()
        else:
            body = error_body(problem, self.api, self.request_id)
            await self.respond(problem.status, error_headers(problem), body)

    def close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
