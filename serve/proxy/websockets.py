"""Websockets in the proxy: uvicorn speaks with the client, a replica's application with us (websocket_run.py).

One streaming call a connection brings what the application sends; what the client sends goes to the replica message by
message, each acknowledged before the next, so that either side can be slow. Messages are never merged or split.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import Any

from actorrt import ObjectRefGenerator, cancel, exceptions

from ..exceptions import ServeError
from ..http.websocket_rules import ACCEPT, DISCONNECT, Shown, WebsocketState, failure
from ..policies.policy import ONE_REQUEST, Cost, Grant
from ..routing.router import Router
from ..routing.target import Target

logger = logging.getLogger("actorrt.serve.proxy")

_numbers = itertools.count(1)


class Tunnel:
    """One websocket of a client. `run` returns when it is over."""

    cost: Cost = ONE_REQUEST

    def __init__(self, router: Router, head: bytes, request_id: bytes) -> None:
        self._router = router
        self._head = head
        self._request_id = request_id
        self._placed: asyncio.Future[tuple[Target, Grant]] = asyncio.get_running_loop().create_future()
        # The client's next message, which no replica has been given yet.
        self._received: asyncio.Future[Any] | None = None

    # The router's side.

    def send(self, target: Target, grant: Grant) -> None:
        if self._placed.done():
            self._router.released(grant)
        else:
            self._placed.set_result((target, grant))

    def fail(self, error: Exception) -> None:
        if not self._placed.done():
            self._placed.set_exception(error)

    # The client's side, as an ASGI application has it.

    async def run(self, receive: Any, send: Any) -> None:
        await receive()  # websocket.connect
        try:
            self._router.submit(self)
            while not await self._try(receive, send):
                pass
        except ServeError as error:
            logger.info("a websocket was refused: %s", error)
            for event in failure(WebsocketState.CONNECTING, error):
                await send(event)
        except asyncio.CancelledError:
            self._router.withdraw(self)
            raise
        except _ClientGoneError:
            self._router.withdraw(self)
        finally:
            if self._received is not None:
                self._received.cancel()
                await asyncio.wait([self._received])

    async def _place(self, receive: Any) -> tuple[Target, Grant]:
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

    async def _try(self, receive: Any, send: Any) -> bool:
        """Run it on the replica that the router gave. False if that refused it and another is to be tried."""
        try:
            target, grant = await self._place(receive)
        except BaseException:
            self._give_back()
            raise
        key = f"{next(_numbers)}-{self._request_id.decode('latin-1')}"
        started: ObjectRefGenerator[Any] | None = None
        incoming: asyncio.Task[None] | None = None
        accepted = asyncio.Event()
        refused = False
        shown = Shown()
        try:
            events: ObjectRefGenerator[Any] = target.websocket.remote(self._head, key, grant.tag and tuple(grant.tag))
            started = events
            # From now on: a client may go before it is accepted.
            incoming = asyncio.ensure_future(self._forward(receive, target, key, accepted))
            while batch := await events.next_values():
                for event in batch:
                    if isinstance(event, int):
                        refused = True
                        self._placed = asyncio.get_running_loop().create_future()
                        self._router.refused(self, target, grant, event)
                        return False
                    if event["type"] == ACCEPT:
                        accepted.set()
                    if shown.takes(event["type"]) and not await _sent(send, event):
                        shown.left()
        except exceptions.ActorrtError as error:
            logger.info("a websocket broke off: %s", error)
            for event in shown.broken_off(error, str(self._router.deployment), target.id):
                await _sent(send, event)
        except BaseException:
            # This task is cancelled, the client has gone, or it was sent what no websocket takes.
            if started is not None:
                cancel(started)
            raise
        finally:
            if incoming is not None:
                incoming.cancel()
            if not refused:
                self._router.released(grant)
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


async def _sent(send: Any, event: Any) -> bool:
    """False if the client has gone."""
    try:
        await send(event)
    except OSError:
        return False
    return True


def _ignore_failure(future: asyncio.Future[bool]) -> None:
    if not future.cancelled():
        future.exception()


class _ClientGoneError(Exception):
    """The client left before there was a replica for it."""
