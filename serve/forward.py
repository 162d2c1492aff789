"""Carry one HTTP request from the proxy to a replica and its answer back.

A plain request is one actor call without a task: the router sends it, and the callback of its ref writes the answer. A
stream, of a request's body or of a response, has a task for as long as it lasts.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
from functools import partial
from typing import Any, Final

from actorrt import ObjectRef, ObjectRefGenerator, cancel, exceptions

from .exceptions import BackPressureError, DeploymentUnavailableError
from .http_request import ClientDisconnected, HttpRequest
from .incoming import DISCONNECT_GRACE_S
from .request_head import pack_head
from .responses import error_page
from .router import Router, Target
from .routing import Slots
from .unavailable import RETRY_AFTER_S, client_text, unavailable_in

logger = logging.getLogger("actorrt.serve.proxy")

# Above all that a proxy before this one has given.
_keys: Final = itertools.count(random.SystemRandom().getrandbits(62))


class Forwarded:
    """One request under way. What the router calls, and what the refs and the client bring."""

    __slots__ = (
        "_base",
        "_body",
        "_grace",
        "_key",
        "_loop",
        "_ref",
        "_relay",
        "_request",
        "_root",
        "_router",
        "_sender",
        "_target",
        "_tasks",
        "_timer",
    )

    def __init__(
        self,
        request: HttpRequest,
        router: Router,
        base_path: bytes,
        root_path: bytes,
        loop: asyncio.AbstractEventLoop,
        tasks: set[asyncio.Task[None]],
        timeout_s: float | None,
    ) -> None:
        self._request = request
        self._router = router
        # What a server in front of this one has taken from the path, and that with the application's prefix.
        self._base = base_path
        self._root = root_path
        self._loop = loop
        self._tasks = tasks
        # The replica's call, where it runs, and by which number the request is known there.
        self._ref: ObjectRef[Any] | None = None
        self._target: Target | None = None
        self._key = 0
        # When it is cancelled, if its client has gone.
        self._grace: asyncio.TimerHandle | None = None
        self._relay: asyncio.Task[None] | None = None
        self._sender: asyncio.Task[None] | None = None
        # The part of the request's body that no replica has taken yet.
        self._body: bytes | None = None
        self._timer = None if timeout_s is None else loop.call_later(timeout_s, self._too_late)
        request.on_gone = self._client_gone

    def start(self) -> None:
        try:
            self._router.submit(self)
        except (BackPressureError, DeploymentUnavailableError) as error:
            logger.info("request %s: %s", self._request.request_id.decode("latin-1"), error)
            self.fail(error)

    # The router's side.

    def send(self, target: Target, slots: Slots) -> None:
        request = self._request
        connection = request.connection
        if connection is None or request.answered:
            self._router.released(slots)
            return
        try:
            head = pack_head(
                connection.line,
                self._root,
                request.method,
                request.version,
                self._base + request.path if self._base else request.path,
                request.query,
                request.request_id,
                request.fields,
            )
        except ValueError:
            self._router.released(slots)
            self._refuse(400, "malformed request")
            return
        self._target, self._key = target, (key := next(_keys))
        if request.streams:
            ref: ObjectRef[Any] = target.http.remote(head, None, request.framing, key)
            if self._sender is not None:
                # That replica refused the request; what it has not taken is sent to this one.
                self._sender.cancel()
            self._sender = self._spawn(self._send_body(target, key, ref))
        else:
            ref = target.http.remote(head, request.body, request.framing, key)
        self._ref = ref
        ref.add_done_callback(partial(self._answered, target, slots), here=True)

    def fail(self, error: Exception) -> None:
        unavailable = unavailable_in(error) is not None
        if isinstance(error, exceptions.ActorrtError) and not isinstance(error, exceptions.TaskError):
            # Not the application's own: a process, or all of the session, has come to its end under the request.
            unavailable = True
        if unavailable:
            self._refuse(503, client_text(error), RETRY_AFTER_S)
        else:
            self._refuse(500, "Internal Server Error")

    # The answer.

    def _answered(self, target: Target, slots: Slots, ref: ObjectRef[Any]) -> None:
        if self._ref is not ref:
            return
        self._ref = None
        if self._grace is not None:
            self._grace.cancel()
        error = ref.exception()
        if error is not None:
            self._failed(target, slots, error)
            return
        answer = ref.peek()
        if type(answer) is bytes:
            self._done()
            self._request.respond(answer)
            self._router.released(slots)
        elif type(answer) is int:
            self._router.refused(self, target, slots, answer)
        else:
            first, stream, close = answer
            if stream and (self._request.connection is None or self._request.answered):
                # The client went, or its time was up, while this was on its way.
                target.drop_stream.remote(stream)
                self._router.released(slots)
            elif stream:
                generator: ObjectRefGenerator[bytes] = target.stream.remote(stream)
                self._request.write(first)
                self._relay = self._spawn(self._pass_on(generator, close))
                # Not at the end of the task: of one that is cancelled before its first step, nothing runs.
                self._relay.add_done_callback(partial(self._relayed, generator, slots))
            else:
                self._done()
                self._request.respond(first, close)
                self._router.released(slots)

    def _failed(self, target: Target, slots: Slots, error: BaseException) -> None:
        if (
            isinstance(error, exceptions.TaskCancelledError)
            or self._request.answered
            or self._request.connection is None
        ):
            self._router.released(slots)
            self._refuse(503, "the request was cancelled")
            return
        final = self._router.failed(self, target, slots, error)
        if final is not None:
            logger.error("request %s: %s", self._request.request_id.decode("latin-1"), final)
            self.fail(final if isinstance(final, Exception) else RuntimeError(str(final)))

    def _relayed(self, generator: ObjectRefGenerator[bytes], slots: Slots, relay: asyncio.Task[None]) -> None:
        if relay.cancelled():
            cancel(generator)
        self._router.released(slots)

    async def _pass_on(self, generator: ObjectRefGenerator[bytes], close: bool) -> None:
        request = self._request
        try:
            while batch := await generator.next_values():
                request.write(batch[0] if len(batch) == 1 else b"".join(batch))
                await request.drain()
            self._done()
            request.respond(b"", close)
        except ClientDisconnected:
            cancel(generator)
        except Exception as error:
            logger.info("a stream broke off, request %s: %s", request.request_id.decode("latin-1"), error)
            self._done()
            request.abort()

    # The request's body.

    async def _send_body(self, target: Target, key: int, ref: ObjectRef[Any]) -> None:
        """Part after part, each acknowledged when the replica has taken it. Ends when nobody wants more."""
        request = self._request
        try:
            while self._ref is ref or self._relay is not None:
                if self._body is None:
                    self._body = await request.read()
                part = self._body
                more = not (request.complete and not request.held) if part else False
                if not await target.body.remote(key, part, more):
                    return  # refused, or not wanted any more: the answer says which
                self._body = None
                if not more:
                    return
        except (ClientDisconnected, exceptions.ActorrtError):
            return  # told elsewhere

    # Ends that nobody asked for.

    def _client_gone(self) -> None:
        self._cancel()
        self._done()

    def _too_late(self) -> None:
        self._timer = None
        self._cancel()
        if self._request.written:
            self._request.abort()
        else:
            self._refuse(408, "the request took too long")

    def _cancel(self) -> None:
        if self._router.withdraw(self):
            return
        if self._ref is not None and self._target is not None:
            told: ObjectRef[bool] = self._target.gone.remote(self._key)
            told.add_done_callback(partial(self._told, self._ref), here=True)
        if self._relay is not None:
            self._relay.cancel()

    def _told(self, ref: ObjectRef[Any], told: ObjectRef[bool]) -> None:
        """The replica knows that nobody waits any more. What runs there may end by itself, if it listens for that."""
        if self._ref is not ref:
            return
        if told.exception() is None and told.peek():
            self._grace = self._loop.call_later(DISCONNECT_GRACE_S, self._cut, ref)
        else:
            cancel(ref)

    def _cut(self, ref: ObjectRef[Any]) -> None:
        if self._ref is ref:
            cancel(ref)

    def _refuse(self, status: int, text: str, retry_after_s: int | None = None) -> None:
        self._done()
        request = self._request
        each = b"x-request-id: %b\r\n" % request.request_id
        request.respond(error_page(status, text, request.framing, each, retry_after_s))

    def _done(self) -> None:
        self._request.on_gone = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
