"""A websocket's application in its replica, between the messages of its client and those that it sends."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from enum import Enum
from typing import Any, Final

from ..http.incoming import DISCONNECT_GRACE_S
from ..http.websocket_rules import DISCONNECT, SERVICE_RESTART, WebsocketState, after, failure, going_away

# So many messages may wait for the client.
MOST_OUTGOING: Final = 64


class Run(Enum):
    RUNS = "RUNS"
    ENDED = "ENDED"  # the application has, and what it sent may still be taken
    CLOSED = "CLOSED"  # nobody takes what it sends any more


class WebsocketRun:
    """One run of an application. `events` starts it, and gives what it sends.

    Once its client has gone, `receive` says so each time and `send` raises OSError; what goes on is cancelled later.
    """

    def __init__(
        self,
        app: Any,
        scope: dict[str, Any],
        on_error: Callable[[BaseException], None] | None = None,
        on_cancel: Callable[[], None] | None = None,
    ) -> None:
        """`on_error` is told what the application raises, `on_cancel` that it is cancelled."""
        wanted = [value for name, value in scope["headers"] if name == b"sec-websocket-protocol"]
        subprotocols = [each.strip() for each in b",".join(wanted).decode("latin-1").split(",") if each.strip()]
        self._scope: dict[str, Any] = {
            **scope,
            "type": "websocket",
            "subprotocols": subprotocols,
            "extensions": {"websocket.http.response": {}},
        }
        self._scope.pop("method")
        self._app = app
        self._on_error = on_error
        self._on_cancel = on_cancel
        self._state = WebsocketState.CONNECTING
        self._incoming: deque[Any] = deque([{"type": "websocket.connect"}])
        self._outgoing: deque[dict[str, Any]] = deque()
        # Whoever waits for a change of anything here.
        self._waiters: list[asyncio.Future[None]] = []
        # The client's last message: it has gone, or its replica ends.
        self._gone: dict[str, Any] | None = None
        self._run_state = Run.RUNS
        self._task: asyncio.Task[None] | None = None
        self._grace: asyncio.TimerHandle | None = None

    @property
    def _closed(self) -> bool:
        return self._run_state is Run.CLOSED

    def _change(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _until_changed(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    # The client's side.

    async def put(self, message: Any) -> bool:
        """A message of the client; returns when the one before has been read. False if the application has ended."""
        if self._closed:
            return False
        if message["type"] == DISCONNECT:
            self._leave(message)
            return True
        self._incoming.append(message)
        self._change()
        while len(self._incoming) > 1 and not self._closed:
            await self._until_changed()
        return True

    def _leave(self, message: dict[str, Any]) -> None:
        if self._gone is not None:
            return
        self._gone = message
        if self._state is not WebsocketState.CLOSED:
            # One that has closed by itself may work on: it knows already.
            self._grace = asyncio.get_running_loop().call_later(DISCONNECT_GRACE_S, self.cancel)
        self._change()

    def go_away(self) -> list[asyncio.Task[None]]:
        """Its replica ends: tell both sides. Gives the application's task."""
        if self._gone is None:
            self._outgoing.extend(going_away(self._state))
            self._leave({"type": DISCONNECT, "code": SERVICE_RESTART, "reason": ""})
        if self._task is None or self._task.done():
            return []
        if self._state is WebsocketState.CLOSED:
            self._grace = self._grace or asyncio.get_running_loop().call_later(DISCONNECT_GRACE_S, self.cancel)
        return [self._task]

    def cancel(self) -> None:
        if self._task is not None and not self._task.done():
            if self._on_cancel is not None:
                self._on_cancel()
            self._task.cancel()

    async def events(self) -> AsyncGenerator[dict[str, Any]]:
        """What the application sends, to its end, and what its client is told if it fails."""
        self._task = task = asyncio.get_running_loop().create_task(self._run())
        try:
            while True:
                while self._outgoing:
                    event = self._outgoing.popleft()
                    if len(self._outgoing) == MOST_OUTGOING - 1:
                        self._change()
                    yield event
                if self._run_state is Run.ENDED:
                    return
                await self._until_changed()
        finally:
            self._run_state = Run.CLOSED
            if self._grace is not None:
                self._grace.cancel()
            # Whoever waits to put a message gets room, and learns at the next one that nobody wants it.
            self._outgoing.clear()
            self._change()
            task.cancel()
            # How the application cleans up is part of the call.
            await asyncio.wait([task])

    # The application's side.

    async def _run(self) -> None:
        error: BaseException | None = None
        try:
            await self._app(self._scope, self._receive, self._send)
        except GeneratorExit:
            raise
        except BaseException as raised:
            task = asyncio.current_task()
            if isinstance(raised, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            error = raised
        finally:
            if self._gone is None:
                self._outgoing.extend(failure(self._state, error))
            if error is not None and self._on_error is not None and not self._is_of_the_client(error):
                self._on_error(error)
            del error
            if self._run_state is Run.RUNS:
                self._run_state = Run.ENDED
            self._change()

    def _is_of_the_client(self, error: BaseException) -> bool:
        # Starlette's is known by its name: the controller, which loads this too, does without Starlette.
        return self._gone is not None and (isinstance(error, OSError) or type(error).__name__ == "WebSocketDisconnect")

    async def _receive(self) -> Any:
        while not self._incoming:
            if self._gone is not None:
                return self._gone
            await self._until_changed()
        message = self._incoming.popleft()
        self._change()
        return message

    async def _send(self, event: Any) -> None:
        after(self._state, event)
        while len(self._outgoing) >= MOST_OUTGOING and self._gone is None and not self._closed:
            await self._until_changed()
        if self._gone is not None or self._closed:
            raise OSError("the client has disconnected")
        # Another task may have closed it meanwhile.
        self._state = after(self._state, event)
        self._outgoing.append(dict(event))
        self._change()
