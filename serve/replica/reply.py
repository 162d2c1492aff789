"""Answer one HTTP request in a replica: run the user's code and give the finished bytes, or a channel of them.

Nothing here knows of actors. A response is streamed if it is made in parts, or if it is too large for one message.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import reprlib
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from email.utils import formatdate
from functools import partial
from typing import Any, Final, cast

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..base.request_context import RequestContext, current_request
from ..base.user_errors import exit_error, with_frames
from ..http.incoming import DISCONNECT_GRACE_S, Incoming
from ..http.request_head import REQUEST_ID, method_and_path, scope_of
from ..http.responses import (
    JSON,
    TEXT,
    Large,
    Plain,
    ResponseBytes,
    ResponseError,
    error_page,
    is_bodiless,
    ok,
    to_json,
    whole,
    whole_or_large,
)
from ..http.unavailable import NOT_AVAILABLE, RETRY_AFTER_S, answer_to, unavailable_in
from .byte_channel import ABANDONED, ByteChannel
from .thread_iteration import iterate_in_thread
from .user_code import UserCode

logger = logging.getLogger("actorrt.serve.replica")

_BUILTIN: Final[frozenset[Any]] = frozenset({str, bytes, dict, list, int, float, bool, type(None)})
_NO_KWARGS: Final[dict[str, Any]] = {}


class EachHead:
    """The lines that every response has: the date, looked up once a second, and the request's id."""

    __slots__ = ("_date", "_second")

    def __init__(self) -> None:
        self._second = 0
        self._date = b""

    def lines(self, request_id: bytes) -> bytes:
        now = int(time.time())
        if now != self._second:
            self._second = now
            self._date = b"date: %b\r\nx-request-id: " % formatdate(now, usegmt=True).encode()
        return self._date + request_id + b"\r\n"


# Finished bytes; or large ones; or the first bytes, the channel of the rest if there is one, and whether the connection
# ends then.
Answer = bytes | Large | tuple[bytes, ByteChannel | None, bool]


class Replier:
    """Answers the requests of one replica. Its tasks end by themselves or when the request is cancelled."""

    def __init__(self, code: UserCode, deployment: str, on_idle: Callable[[], None] | None = None) -> None:
        """`on_idle` is called when no application runs any more, for a request or in the background after one."""
        self._code = code
        self._deployment = deployment
        self._on_idle = on_idle
        self._each = EachHead()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> bool:
        """Some application runs, maybe after the end of its response."""
        return bool(self._tasks)

    async def answer(
        self, head: Sequence[bytes], incoming: Incoming, framing: int, ended: Callable[[], None], also: bytes = b""
    ) -> Answer:
        """`head` is the packed head, split into its lines; `also` are further lines for the response's.

        `ended` is called once when the last byte of the response is known. Never raises but for cancellation.
        """
        each = self._each.lines(head[REQUEST_ID]) + also
        scope = scope_of(head)
        if self._code.asgi is not None:
            scope["state"] = dict(self._code.state)
            return await self._run(self._code.asgi, scope, incoming, framing, each, ended, head)
        try:
            method = self._code.method("__call__")
            arguments = (Request(scope, incoming.receive),) if method.takes_request else ()
            result = await self._code.call(method, arguments, _NO_KWARGS)
            if type(result) in _BUILTIN or (app := self._streaming(result)) is None:
                response = isinstance(result, Response)
                data = whole_or_large(_plain(result), framing, each) if response else ok(result, framing, each)
                ended()
                return data
        except GeneratorExit:
            ended()
            raise
        except BaseException as error:
            ended()
            if _is_cancelled(error):
                raise
            return self._failed(error, framing, each, head)
        return await self._run(app, scope, incoming, framing, each, ended, head)

    def _streaming(self, result: Any) -> ASGIApp | None:
        """The application that sends this result, if it is not a plain value."""
        if isinstance(result, Response):
            # A body that is there, and no ways of its own to send it.
            plain = type(result).__call__ is Response.__call__ and result.background is None and hasattr(result, "body")
            return None if plain else result
        if isinstance(result, AsyncIterator):
            return _Yielded(cast("AsyncIterator[Any]", result), self._deployment)
        if isinstance(result, Iterator):
            items = iterate_in_thread(cast("Iterator[Any]", result), self._code.threads, on_left=self._code.left)
            return _Yielded(items, self._deployment)
        return None

    def _failed(self, error: BaseException, framing: int, each: bytes, head: Sequence[bytes]) -> bytes:
        """What the client is told of an error; the log has the rest."""
        if isinstance(error, _CutOff):
            return error_page(503, NOT_AVAILABLE, framing, each, RETRY_AFTER_S)
        if (answer := answer_to(error)) is not None:
            # No fault of the code's, and there may be many: a line for each, without a traceback.
            logger.info("%s of deployment %r: %s", method_and_path(head), self._deployment, error)
            return error_page(answer.status, answer.text, framing, each, answer.retry_after_s, answer.ticket)
        if isinstance(error, HTTPException):
            with suppress(Exception):  # a status, a header or a detail that is none is an error of the application
                return whole(_page_of(error), framing, each)
        request_id = head[REQUEST_ID].decode("latin-1")
        logger.error(
            "%s of deployment %r failed, request %s:\n%s",
            method_and_path(head),
            self._deployment,
            request_id,
            with_frames(error),
        )
        return error_page(500, "Internal Server Error", framing, each)

    async def _run(
        self,
        app: ASGIApp,
        scope: Scope,
        incoming: Incoming,
        framing: int,
        each: bytes,
        ended: Callable[[], None],
        head: Sequence[bytes],
    ) -> Answer:
        """Run an application in a task of its own until it has answered, or has begun to."""
        page = partial(self._failed, framing=framing, each=each, head=head)
        sender = _Sender(ResponseBytes(framing, each), incoming, ended, page)
        # With the context of the call: what user code set in it is seen by the stream, too.
        task = asyncio.get_running_loop().create_task(
            _application(app, scope, incoming, sender), context=contextvars.copy_context()
        )
        self._tasks.add(task)
        task.add_done_callback(partial(self._over, sender))
        sender.channel.on_abandoned = partial(self._let_go, task, incoming, current_request.get())
        try:
            return await sender.answer
        except asyncio.CancelledError:
            task.cancel()
            raise

    def _over(self, sender: _Sender, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        sender.over()  # it may have been cancelled before its first step
        if not self._tasks and self._on_idle is not None:
            self._on_idle()

    def _let_go(self, task: asyncio.Task[None], incoming: Incoming, context: RequestContext | None) -> None:
        """Nobody takes the rest of a response: its application is told, and may end by itself."""
        incoming.end()

        def cut() -> None:
            if not task.done():
                if context is not None:
                    context.cancel_children()
                task.cancel()

        if self.has_grace(incoming):
            timer = asyncio.get_running_loop().call_later(DISCONNECT_GRACE_S, cut)
            task.add_done_callback(lambda _: timer.cancel())
        else:
            cut()

    def has_grace(self, incoming: Incoming) -> bool:
        """May the code of a request whose client has gone end by itself? Not if it never asked for its client."""
        return self._code.asgi is not None or incoming.listened

    def cancel_all(self) -> list[asyncio.Task[None]]:
        """Cancel the applications and streams that run; gives what ends when those have."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        return tasks


async def _application(app: ASGIApp, scope: Scope, incoming: Incoming, sender: _Sender) -> None:
    """Whatever it raises ends its request and nothing else: SystemExit would end the loop, with all that runs on it."""
    try:
        await app(scope, incoming.receive, sender.send)
        sender.returned()
    except GeneratorExit:
        raise
    except BaseException as error:
        if _is_cancelled(error):
            sender.cancelled()
            raise
        sender.error_page(error)
    finally:
        if isinstance(app, StreamingResponse):
            await _close(app.body_iterator)


def _is_cancelled(error: BaseException) -> bool:
    """Was the request cancelled? Code may also have awaited something that was."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def _page_of(error: HTTPException) -> Plain:
    """The page of an error that the application chose; as Starlette writes it if the detail is text, else JSON."""
    given = error.headers or {}
    headers = [(str(key).lower().encode("latin-1"), str(value).encode("latin-1")) for key, value in given.items()]
    detail: Any = error.detail
    kind, body = _typed_detail(detail)
    if is_bodiless(error.status_code):
        return Plain(error.status_code, headers, b"")
    own = [header for header in headers if header[0] not in (b"content-length", b"transfer-encoding")]
    if not any(name == b"content-type" for name, _ in own):
        own.append(kind)
    return Plain(error.status_code, own, body)


def _typed_detail(detail: Any) -> tuple[tuple[bytes, bytes], bytes]:
    if isinstance(detail, str | None):
        return TEXT, (detail or "").encode()
    return JSON, to_json(detail)


class _Yielded(StreamingResponse):
    """What a generator yields, sent as it comes. TypeError if that is no text and no bytes."""

    def __init__(self, items: AsyncIterator[Any], deployment: str) -> None:
        super().__init__(items, media_type="text/plain")
        self._deployment = deployment

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Without what Starlette makes of an OSError: it may be the generator's own.
        await self.stream_response(send)

    async def stream_response(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for item in cast("AsyncIterator[Any]", self.body_iterator):
            if isinstance(item, str):
                data = item.encode("utf-8")
            elif isinstance(item, bytes | bytearray | memoryview):
                data = bytes(cast(bytes, item))
            else:
                raise TypeError(
                    f"deployment {self._deployment!r} yielded {_shortened(item)} of type {type(item).__name__}: "
                    "what is sent as a stream must be str or bytes"
                )
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _shortened(value: object) -> str:
    try:
        return reprlib.repr(value)
    except Exception:
        return "something"


def _plain(response: Response) -> Plain:
    return Plain(response.status_code, response.raw_headers, bytes(response.body))


async def _close(iterator: Any) -> None:
    """Run the `finally` blocks of a generator now, not when it is collected."""
    if (close := getattr(iterator, "aclose", None)) is not None:
        await close()


class _Sender:
    """The `send` of one request. `answer` becomes the whole response, or its beginning; it never fails.

    `page` makes the response to an error, and logs it.
    """

    def __init__(
        self,
        made: ResponseBytes,
        incoming: Incoming,
        ended: Callable[[], None],
        page: Callable[[BaseException], bytes],
    ) -> None:
        self._made = made
        self._incoming = incoming
        self._ended: Callable[[], None] | None = ended
        self._page = page
        # Our own answer stands in the place of the application's.
        self._replaced = False
        self.channel = ByteChannel()
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    async def send(self, message: Message) -> None:
        if self._replaced:
            return
        kind = message["type"]
        made = self._made
        if kind == "http.response.start":
            if message["status"] == 500 and (unavailable := unavailable_in(sys.exc_info()[1])) is not None:
                # A framework answers for what its application has raised: it does not know these errors.
                self._replaced = True
                self._answer_with(self._page(unavailable))
                return
            made.start(message["status"], message.get("headers", ()))
            # If no body follows at once the client gets the head alone: a stream of events is open before the first.
            self.answer.get_loop().call_soon(self._head_alone)
        elif kind == "http.response.body":
            if self.channel.flow is ABANDONED:
                # ASGI's way to say that the client has gone.
                raise OSError("the client has disconnected")
            more = message.get("more_body", False)
            part = bytes(message.get("body", b""))
            if not more and not self.answer.done():
                answer = made.last(part)
                self._finish()
                self.answer.set_result((answer, None, True) if made.close and isinstance(answer, bytes) else answer)
                return
            data = made.body(part, more)
            if self.answer.done():
                self.channel.put(data)
                if not more:
                    self._finish()
                elif self.channel.full:
                    await self.channel.room()
            else:
                self.answer.set_result((data, self.channel, made.close))
        else:
            raise ResponseError(f"unexpected ASGI message {kind!r}")

    def _head_alone(self) -> None:
        if not self.answer.done() and not self._made.complete:
            self.answer.set_result((self._made.body(b"", more=True), self.channel, self._made.close))

    def _answer_with(self, data: bytes) -> None:
        self._finish()
        if not self.answer.done():
            self.answer.set_result(data)

    def _finish(self, error: BaseException | None = None) -> None:
        self.channel.end(error)
        if self._ended is not None:
            self._ended()
            self._ended = None

    def over(self) -> None:
        if self._ended is not None:
            self.cancelled()

    def returned(self) -> None:
        if self._made.complete or self._replaced:
            return
        if self._incoming.over:
            self._left()
        else:
            self.error_page(ResponseError("the application returned before its response was complete"))

    def _left(self) -> None:
        """The application has ended without a whole response, since its client has gone."""
        self._finish()
        if not self.answer.done():
            self.answer.set_result(b"")

    def cancelled(self) -> None:
        """The request was cancelled, or its replica ends."""
        if self.answer.done():
            self._finish(_CutOff())
        else:
            self._answer_with(self._page(_CutOff()))

    def error_page(self, error: BaseException) -> None:
        """It raised: that is an answer if none has begun, else the end of the stream."""
        if self._replaced:
            return  # the framework that answered raises it again
        if self._made.complete:
            self._page(error)  # for the log: a framework has answered by itself, or the code went on after its answer
        elif self._incoming.over:
            if not isinstance(error, OSError | ClientDisconnect):
                self._page(error)
            self._left()
        elif self.answer.done():
            self._page(error)
            # The stream is read by a method of the replica's: what it raises must not end that.
            self._finish(exit_error(error) if isinstance(error, SystemExit) else error)
        else:
            self._answer_with(self._page(error))


class _CutOff(Exception):
    """The request was cancelled."""

    def __str__(self) -> str:
        return "the request was cancelled"
