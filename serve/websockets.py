"""Websockets through the proxy: uvicorn speaks with the client, a replica's application with us.

One streaming call a connection brings what the application sends; what the client sends goes to the replica message by
message, each acknowledged before the next, so that either side can be slow. Messages are never merged or split.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncGenerator
from typing import Any, Final

from actorrt import ObjectRefGenerator, cancel, exceptions

from .exceptions import BackPressureError, DeploymentUnavailableError
from .request_head import connection_line, pack_head
from .router import Router, Target
from .routing import Slots

logger = logging.getLogger("actorrt.serve.proxy")

# Close codes of RFC 6455.
INTERNAL_ERROR: Final = 1011
TRY_AGAIN_LATER: Final = 1013

DISCONNECT: Final = "websocket.disconnect"
# An application that has been told that its client has gone, and has not ended by then, is cancelled.
DISCONNECT_GRACE_S: Final = 2.0

_numbers = itertools.count(1)


class Tunnel:
    """One websocket of a client. `run` returns when it is over."""

    def __init__(self, router: Router, root_path: bytes, request_id: bytes) -> None:
        self._router = router
        self._root_path = root_path
        self._request_id = request_id
        self._placed: asyncio.Future[tuple[Target, Slots]] = asyncio.get_running_loop().create_future()
        # The client's next message, which no replica has been given yet.
        self._received: asyncio.Future[Any] | None = None

    # The router's side.

    def send(self, target: Target, slots: Slots) -> None:
        if self._placed.done():
            self._router.released(slots)
        else:
            self._placed.set_result((target, slots))

    def fail(self, error: Exception) -> None:
        if not self._placed.done():
            self._placed.set_exception(error)

    # The client's side, as an ASGI application has it.

    async def run(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()  # websocket.connect
        try:
            self._router.submit(self)
            while not await self._try(scope, receive, send):
                pass
        except (BackPressureError, DeploymentUnavailableError) as error:
            logger.info("a websocket was refused: %s", error)
            await send({"type": "websocket.close", "code": TRY_AGAIN_LATER, "reason": "try again later"})
        except asyncio.CancelledError:
            self._router.withdraw(self)
            raise
        except _ClientGoneError:
            self._router.withdraw(self)
        finally:
            if self._received is not None:
                self._received.cancel()
                await asyncio.wait([self._received])

    async def _place(self, receive: Any) -> tuple[Target, Slots]:
        """Wait for a replica as long as the client does."""
        if not self._placed.done():
            received = self._next_message(receive)
            while not self._placed.done():
                waits_for = {self._placed} if received.done() else {self._placed, received}
                await asyncio.wait(waits_for, return_when=asyncio.FIRST_COMPLETED)
                if received.done() and received.result()["type"] == DISCONNECT:
                    raise _ClientGoneError
        return await self._placed

    def _next_message(self, receive: Any) -> asyncio.Future[Any]:
        received: asyncio.Future[Any] = self._received or asyncio.ensure_future(receive())
        self._received = received
        return received

    def _give_back(self) -> None:
        """It may have been placed in the turn in which it was given up."""
        placed = self._placed
        if placed.done() and not placed.cancelled() and placed.exception() is None:
            self._router.released(placed.result()[1])
        placed.cancel()

    async def _try(self, scope: Any, receive: Any, send: Any) -> bool:
        """Run it on the replica that the router gave. False if that refused it and another is to be tried."""
        try:
            target, slots = await self._place(receive)
        except BaseException:
            self._give_back()
            raise
        key = f"{next(_numbers)}-{self._request_id.decode('latin-1')}"
        started: ObjectRefGenerator[Any] | None = None
        incoming: asyncio.Task[None] | None = None
        accepted = asyncio.Event()
        refused = False
        try:
            head = _head(scope, self._root_path, self._request_id)
            events: ObjectRefGenerator[Any] = target.websocket.remote(head, key)
            started = events
            # From now on: a client may go before it is accepted.
            incoming = asyncio.ensure_future(self._forward(receive, target, key, accepted))
            while batch := await events.next_values():
                for event in batch:
                    if isinstance(event, int):
                        refused = True
                        self._placed = asyncio.get_running_loop().create_future()
                        self._router.refused(self, target, slots, event)
                        return False
                    if event["type"] == "websocket.accept":
                        accepted.set()
                    await send(event)
        except exceptions.ActorrtError as error:
            logger.info("a websocket broke off: %s", error)
            await send({"type": "websocket.close", "code": INTERNAL_ERROR, "reason": ""})
        except BaseException:
            # This task is cancelled, the client has gone, or it was sent what no websocket takes.
            if started is not None:
                cancel(started)
            raise
        finally:
            if incoming is not None:
                incoming.cancel()
            if not refused:
                self._router.released(slots)
        return True

    async def _forward(self, receive: Any, target: Target, key: str, accepted: asyncio.Event) -> None:
        """What the client sends, until it has gone or nobody wants it. That it has gone waits for nothing before it."""
        gone = False
        try:
            while not gone:
                received = self._next_message(receive)
                await asyncio.wait([received])
                message = received.result()
                gone = message["type"] == DISCONNECT
                if not gone:
                    await accepted.wait()
                    # The end of a client is kept, for the next replica if this one refuses.
                    self._received = None
                taken: asyncio.Future[bool] = asyncio.ensure_future(target.websocket_message.remote(key, message))
                if not gone:
                    following = self._next_message(receive)
                    await asyncio.wait([taken, following], return_when=asyncio.FIRST_COMPLETED)
                    if following.done() and following.result()["type"] == DISCONNECT:
                        taken.add_done_callback(_ignore_failure)
                        continue
                if not await taken:
                    return
        except exceptions.ActorrtError:
            return  # the events break off, too


def _ignore_failure(future: asyncio.Future[bool]) -> None:
    if not future.cancelled():
        future.exception()


class _ClientGoneError(Exception):
    """The client left before there was a replica for it."""


def _head(scope: Any, root_path: bytes, request_id: bytes) -> bytes:
    fields = [part for header in scope["headers"] for part in header]
    line = connection_line(scope["scheme"], scope["client"], scope["server"])
    path = scope.get("raw_path") or scope["path"].encode("latin-1", "replace")
    return pack_head(line, root_path, b"GET", b"1.1", path, scope["query_string"], request_id, fields)


class WebsocketRun:
    """In the replica: one websocket's application with its two queues."""

    def __init__(self, app: Any, scope: dict[str, Any]) -> None:
        wanted = [value for name, value in scope["headers"] if name == b"sec-websocket-protocol"]
        subprotocols = [each.strip() for each in b",".join(wanted).decode("latin-1").split(",") if each.strip()]
        self._scope = {**scope, "type": "websocket", "subprotocols": subprotocols}
        self._scope.pop("method")
        self._app = app
        self._incoming: asyncio.Queue[Any] = asyncio.Queue()
        self._outgoing: asyncio.Queue[Any] = asyncio.Queue(64)
        self._incoming.put_nowait({"type": "websocket.connect"})
        self._read = asyncio.Event()
        self._closed = False
        self._task: asyncio.Task[None] | None = None
        self._grace: asyncio.TimerHandle | None = None

    async def put(self, message: Any) -> bool:
        """A message of the client; returns when the one before has been read. False if the application has ended."""
        if self._closed:
            return False
        self._incoming.put_nowait(message)
        if message["type"] == DISCONNECT:
            self._grace = asyncio.get_running_loop().call_later(DISCONNECT_GRACE_S, self.cancel)
            return True
        while self._incoming.qsize() > 1:
            self._read.clear()
            await self._read.wait()
        return True

    def cancel(self) -> list[asyncio.Task[None]]:
        """Cancel the application; gives its task."""
        if self._task is None:
            return []
        self._task.cancel()
        return [self._task]

    async def _receive(self) -> Any:
        message = await self._incoming.get()
        self._read.set()
        return message

    async def events(self) -> AsyncGenerator[dict[str, Any]]:
        """What the application sends, to its end."""
        self._task = task = asyncio.get_running_loop().create_task(self._run())
        try:
            while (event := await self._outgoing.get()) is not None:
                yield event
        finally:
            self._closed = True
            if self._grace is not None:
                self._grace.cancel()
            # Whoever waits to put a message gets room, and learns at the next one that nobody wants it.
            for queue in (self._incoming, self._outgoing):
                while not queue.empty():
                    queue.get_nowait()
            self._read.set()
            task.cancel()
            # How the application cleans up is part of the call.
            await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error

    async def _run(self) -> None:
        try:
            await self._app(self._scope, self._receive, self._send)
        finally:
            if not self._closed:
                await self._outgoing.put(None)

    async def _send(self, event: Any) -> None:
        if self._closed:
            raise OSError("the client has disconnected")
        await self._outgoing.put(dict(event))
