"""Answer one HTTP request in a replica: run the user's code and give the finished bytes, or a channel of them.

Nothing here knows of actors. A response is streamed if it is made in parts, or if it is too large for one message.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import reprlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from email.utils import formatdate
from functools import partial
from typing import Any, Final, cast

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .byte_channel import LARGEST_ITEM, ByteChannel
from .exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError
from .request_head import REQUEST_ID, method_and_path, scope_of
from .responses import Plain, ResponseBytes, ResponseError, error_page, ok, whole
from .thread_iteration import iterate_in_thread
from .user_code import UserCode
from .user_errors import with_frames

logger = logging.getLogger("actorrt.serve.replica")

RETRY_AFTER_S: Final = 1
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


# Finished bytes; or the first bytes, the channel of the rest if there is one, and whether the connection ends then.
Answer = bytes | tuple[bytes, ByteChannel | None, bool]
ReceivePart = Callable[[], Awaitable[tuple[bytes, bool]]]


class Replier:
    """Answers the requests of one replica. Its tasks end by themselves or when the request is cancelled."""

    def __init__(self, code: UserCode, deployment: str) -> None:
        self._code = code
        self._deployment = deployment
        self._each = EachHead()
        self._tasks: set[asyncio.Task[None]] = set()

    async def answer(
        self, head: Sequence[bytes], body: bytes | ReceivePart, framing: int, ended: Callable[[], None]
    ) -> Answer:
        """`head` is the packed head, split into its lines; `body` is there, or comes in parts.

        `ended` is called once when the last byte of the response is known. Never raises but for cancellation.
        """
        each = self._each.lines(head[REQUEST_ID])
        scope = scope_of(head)
        receive = receive_whole(body) if isinstance(body, bytes) else receive_parts(body)
        if self._code.asgi is not None:
            scope["state"] = dict(self._code.state)
            return await self._run(self._code.asgi, scope, receive, framing, each, ended, head)
        try:
            method = self._code.method("__call__")
            arguments = (Request(scope, receive),) if method.takes_request else ()
            result = await self._code.call(method, arguments, _NO_KWARGS)
            if type(result) in _BUILTIN or (app := self._streaming(result)) is None:
                response = isinstance(result, Response)
                data = whole(_plain(result), framing, each) if response else ok(result, framing, each)
                ended()
                return data if len(data) <= LARGEST_ITEM else _in_parts(data)
        except Exception as error:
            ended()
            return self._failed(error, framing, each, head)
        except BaseException:
            ended()
            raise
        return await self._run(app, scope, receive, framing, each, ended, head)

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

    def _failed(self, error: Exception, framing: int, each: bytes, head: Sequence[bytes]) -> bytes:
        """What the client is told of an error; the log has the rest."""
        if isinstance(error, HTTPException):
            headers = [
                (key.lower().encode("latin-1"), value.encode("latin-1")) for key, value in (error.headers or {}).items()
            ]
            page = Plain(
                error.status_code, [*headers, (b"content-type", b"text/plain; charset=utf-8")], error.detail.encode()
            )
            return whole(page, framing, each)
        if isinstance(error, BackPressureError):
            return error_page(503, str(error), framing, each, RETRY_AFTER_S)
        request_id = head[REQUEST_ID].decode("latin-1")
        logger.error(
            "%s of deployment %r failed, request %s:\n%s",
            method_and_path(head),
            self._deployment,
            request_id,
            with_frames(error),
        )
        if isinstance(error, DeploymentUnavailableError | ReplicaUnavailableError):
            return error_page(503, str(error), framing, each, RETRY_AFTER_S)
        return error_page(500, "Internal Server Error", framing, each)

    async def _run(
        self,
        app: ASGIApp,
        scope: Scope,
        receive: Receive,
        framing: int,
        each: bytes,
        ended: Callable[[], None],
        head: Sequence[bytes],
    ) -> Answer:
        """Run an application in a task of its own until it has answered, or has begun to."""
        sender = _Sender(ResponseBytes(framing, each), ended)

        async def run() -> None:
            try:
                await app(scope, receive, sender.send)
                sender.returned()
            except asyncio.CancelledError:
                sender.failed(ResponseError("the request was cancelled"))
                raise
            except Exception as error:
                sender.error_page(error, partial(self._failed, error, framing, each, head))
            finally:
                if isinstance(app, StreamingResponse):
                    await _close(app.body_iterator)

        # With the context of the call: what user code set in it is seen by the stream, too.
        task = asyncio.get_running_loop().create_task(run(), context=contextvars.copy_context())
        self._tasks.add(task)

        def over(_: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            sender.over()  # it may have been cancelled before its first step

        task.add_done_callback(over)
        sender.channel.on_abandoned = task.cancel
        try:
            return await sender.answer
        except asyncio.CancelledError:
            task.cancel()
            raise

    def cancel_all(self) -> list[asyncio.Task[None]]:
        """Cancel the applications and streams that run; gives what ends when those have."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        return tasks


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


def _in_parts(data: bytes) -> Answer:
    channel = ByteChannel()
    channel.put(data[LARGEST_ITEM:])
    channel.end()
    return data[:LARGEST_ITEM], channel, False


class _Sender:
    """The `send` of one request. `answer` becomes the whole response, or its beginning."""

    def __init__(self, made: ResponseBytes, ended: Callable[[], None]) -> None:
        self._made = made
        self._ended: Callable[[], None] | None = ended
        self.channel = ByteChannel()
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    async def send(self, message: Message) -> None:
        kind = message["type"]
        made = self._made
        if kind == "http.response.start":
            made.start(message["status"], message.get("headers", ()))
            # If no body follows at once the client gets the head alone: a stream of events is open before the first.
            self.answer.get_loop().call_soon(self._head_alone)
        elif kind == "http.response.body":
            if self.channel.abandoned:
                # ASGI's way to say that the client has gone.
                raise OSError("the client has disconnected")
            more = message.get("more_body", False)
            data = made.body(bytes(message.get("body", b"")), more)
            if self.answer.done():
                self.channel.put(data)
                if not more:
                    self._finish()
                elif self.channel.full:
                    await self.channel.room()
            elif more:
                self.channel.put(data[LARGEST_ITEM:])
                self.answer.set_result((data[:LARGEST_ITEM], self.channel, made.close))
            elif len(data) > LARGEST_ITEM:
                self.answer.set_result((data[:LARGEST_ITEM], self.channel, made.close))
                self.channel.put(data[LARGEST_ITEM:])
                self._finish()
            else:
                self._finish()
                self.answer.set_result((data, None, True) if made.close else data)
        else:
            raise ResponseError(f"unexpected ASGI message {kind!r}")

    def _head_alone(self) -> None:
        if not self.answer.done() and not self._made.complete:
            self.answer.set_result((self._made.body(b"", more=True), self.channel, self._made.close))

    def _finish(self, error: BaseException | None = None) -> None:
        self.channel.end(error)
        if self._ended is not None:
            self._ended()
            self._ended = None

    def over(self) -> None:
        if self._ended is not None:
            self.failed(ResponseError("the request was cancelled"))

    def returned(self) -> None:
        if not self._made.complete:
            self.failed(ResponseError("the application returned before its response was complete"))

    def error_page(self, error: Exception, page: Callable[[], bytes]) -> None:
        """It raised: that is an answer if none has begun, else the end of the stream."""
        if self._made.complete:
            page()  # for the log: a framework has answered by itself, or the code went on after its answer
        elif self.answer.done() or self.channel.abandoned:
            if not self.channel.abandoned:
                page()
            self.failed(error)
        else:
            data = page()
            self._finish()
            self.answer.set_result(data)

    def failed(self, error: BaseException) -> None:
        self._finish(error)
        if not self.answer.done():
            self.answer.set_exception(error)
            self.answer.exception()  # whoever waited may have been cancelled


async def never() -> Message:
    """The `receive` of a request that has been read to its end: cancellation is how a disconnect arrives."""
    return await asyncio.get_running_loop().create_future()


def receive_whole(body: bytes) -> Receive:
    """A request's body that came with the request."""
    given = False

    async def receive() -> Message:
        nonlocal given
        if given:
            return await never()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def receive_parts(next_part: ReceivePart) -> Receive:
    """A request's body that comes in parts: `next_part` gives bytes, and whether more will come."""
    ended = False

    async def receive() -> Message:
        nonlocal ended
        if ended:
            return await never()
        data, more = await next_part()
        ended = not more
        return {"type": "http.request", "body": data, "more_body": more}

    return receive
