"""An engine's HTTP server as its replica speaks to it: bytes in, bytes out, nothing rewritten and nothing kept back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from .interface import ADAPTER, Delta, EngineCall, EngineError, Head
from .stream_end import end_of, is_cut
from .whole_events import WholeEvents, tokens_in, tokens_of_answer

if TYPE_CHECKING:
    import aiohttp

# Of the connection between the two of us, or what a front says for itself.
_NOT_HANDED_ON: Final = frozenset(
    {
        "connection",
        "content-length",
        "date",
        "host",
        "keep-alive",
        "server",
        "te",
        "trailer",
        "transfer-encoding",
        ADAPTER,
    }
    | {"accept-encoding", "content-type", "expect", "proxy-authenticate", "proxy-authorization", "upgrade"}
)
# uvicorn closes a connection after 5 s, llama.cpp too: ours are given up before.
_IDLE_S: Final = 4.0
_ENDED_MEANWHILE: Final = "the engine ended, and may have begun the request"
_LINE_BYTES: Final = 64 * 1024


class NotListeningError(EngineError):
    """There was no connection: the request was not begun."""


class OpenAIHttp:
    """One engine's address. Requests are as many at once as there are callers; closing a request's generator closes
    its connection, which is how an engine learns that nobody waits any more.
    """

    def __init__(self, *, port: int = 0, unix_socket: str = "", keep_alive: bool = True) -> None:
        """`keep_alive` is for engines that serve all connections in one thread. One with a thread for each, as
        llama.cpp, would let a request wait while its threads wait for idle connections.
        """
        import aiohttp

        self._aiohttp = aiohttp
        self._open: set[aiohttp.ClientResponse] = set()
        self.waiting = 0
        """Requests of clients that wait for an answer, or for more of it: not those whose reader is the slow one."""
        self.heard = 0
        """Counts whatever came of answers to these."""
        self._base = f"http://127.0.0.1:{port}" if port else "http://engine"
        connector: aiohttp.BaseConnector
        options: dict[str, Any] = {"force_close": True} if not keep_alive else {"keepalive_timeout": _IDLE_S}
        if unix_socket:
            connector = aiohttp.UnixConnector(unix_socket, limit=0, **options)
        else:
            connector = aiohttp.TCPConnector(limit=0, **options)
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(_note_reuse)
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
            max_line_size=_LINE_BYTES,
            max_field_size=_LINE_BYTES,
            trace_configs=[trace] if keep_alive else [],
        )

    async def generate(self, call: EngineCall) -> AsyncGenerator[Head | Delta, None]:
        """See `Engine.generate`. Whatever status the engine answers with is an answer."""
        self.waiting += 1
        try:
            response = await self._begin(call.method, call.path, call.body, call.headers)
        finally:
            self.waiting -= 1
        self._open.add(response)
        self.heard += 1
        try:
            head = Head(response.status, _handed_on(response))
            yield head
            if head.streams:
                events, end = WholeEvents(), end_of(call)
                while data := await self._more(response):
                    if whole := events.feed(data):
                        end.feed(whole)
                        yield Delta(whole, tokens_in(call.path, whole))
                if rest := events.end():
                    end.feed(rest)
                    yield Delta(rest, tokens_in(call.path, rest))
                if not end.is_there():
                    raise EngineError("the engine ended its stream before the answer was finished")
            else:
                parts: list[bytes] = []
                while data := await self._more(response):
                    parts.append(data)
                body = b"".join(parts)
                if _ends_by_closing(response) and is_cut(head, body):
                    raise EngineError("the engine closed the connection in the midst of its answer")
                yield Delta(body, tokens_of_answer(body))
        except (self._aiohttp.ClientError, ConnectionError) as error:
            raise EngineError(f"the engine broke off in the midst of its answer: {_said(error)}") from error
        except ValueError as error:
            raise EngineError(f"the engine streams what is no server-sent event: {error}") from error
        finally:
            self._end(response)

    async def _more(self, response: aiohttp.ClientResponse) -> bytes:
        """What has come; b"" at the end."""
        self.waiting += 1
        try:
            data = await response.content.readany()
        finally:
            self.waiting -= 1
        self.heard += 1
        return data

    async def ask(
        self, method: str, path: str, body: bytes | None = None, *, timeout_s: float = 60.0
    ) -> tuple[int, bytes]:
        """A request of our own: status and body. EngineError if there is no answer in time."""
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._begin(method, path, body, ())
                self._open.add(response)
                try:
                    return response.status, await response.read()
                finally:
                    self._end(response)
        except TimeoutError as error:
            raise EngineError(f"the engine did not answer {method} {path} within {timeout_s:g} s") from error
        except (self._aiohttp.ClientError, ConnectionError) as error:
            raise EngineError(f"the engine broke off its answer to {method} {path}: {_said(error)}") from error

    async def close(self) -> None:
        """Once the engine has ended. Who still reads an answer hears that it is broken off."""
        for response in self._open:
            # A session that is closed tells those who read nothing.
            response.content.set_exception(self._aiohttp.ClientPayloadError("the engine has ended"))
        await self._session.close()

    def _end(self, response: aiohttp.ClientResponse) -> None:
        """At the end of an answer this gives the connection back; before, it closes it."""
        self._open.discard(response)
        response.close()

    async def _begin(
        self, method: str, path: str, body: bytes | None, headers: tuple[tuple[str, str], ...]
    ) -> aiohttp.ClientResponse:
        """The response's head. A connection that was used before may have been closed by the engine, for its age or
        after an error, as the request was written: what got no answer there is sent anew, in the end on a fresh one.
        """
        begun = False
        own = [(name, value) for name, value in headers if name not in _NOT_HANDED_ON]
        if body or method in ("POST", "PUT", "PATCH"):
            own.append(("content-type", "application/json"))
        while True:
            if self._session.closed:
                raise EngineError(_ENDED_MEANWHILE) if begun else NotListeningError("the engine has ended")
            connection = SimpleNamespace(reused=False)
            try:
                return await self._session.request(
                    method,
                    self._base + path,
                    data=body or None,
                    headers=own,
                    allow_redirects=False,
                    trace_request_ctx=connection,
                )
            except self._aiohttp.ClientConnectorError as error:
                if begun:
                    raise EngineError(_ENDED_MEANWHILE) from error
                raise NotListeningError(f"the engine does not listen: {_said(error)}") from error
            except self._aiohttp.ClientResponseError as error:
                raise EngineError(f"the engine answers what is no HTTP: {error.message}") from error
            except (self._aiohttp.ClientError, ConnectionError) as error:
                if not connection.reused:
                    raise EngineError(f"the engine closed the connection before it answered: {_said(error)}") from error
                begun = True


async def _note_reuse(_session: Any, context: SimpleNamespace, _params: Any) -> None:
    context.trace_request_ctx.reused = True


def _ends_by_closing(response: aiohttp.ClientResponse) -> bool:
    """Whether nothing else says where its body ends."""
    return not {"content-length", "transfer-encoding"} & {name.lower() for name in response.headers}


def _handed_on(response: aiohttp.ClientResponse) -> tuple[tuple[str, str], ...]:
    # Each byte is a character, as in ASGI.
    raw = ((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in response.raw_headers)
    return tuple(
        (name, value)
        for name, value in raw
        if (name not in _NOT_HANDED_ON or name == "content-type") and not name.startswith("access-control-")
    )


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__
