"""The HTTP proxy: an actor in a process of its own, with uvicorn's server and our protocol.

It answers `/-/healthz`, `/-/routes` and what belongs to no application itself; all else goes to a replica of the
application's ingress. Routes and replicas are told by the controller.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import socket
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

from actorrt import ActorHandle, exceptions, get_runtime_context

from ..base import connection
from ..base.background import spawn
from ..base.news import NOTHING_YET
from ..base.topics import ROUTES
from ..declaration.spec import DeploymentId
from ..http.forwarded_headers import TrustedServers, forwarded
from ..http.http_options import HTTPOptions
from ..http.listener import fetch, lend
from ..http.request_head import connection_line, pack_head
from ..http.root_path import encoded
from ..routing.router import Router, router_of
from .forward import Forwarded
from .http_request import LONGEST_REQUEST_ID, HttpRequest
from .paths import Paths, own_answer, websocket_denial
from .websockets import Tunnel

if TYPE_CHECKING:
    from .http_server import HttpServer

logger = logging.getLogger("actorrt.serve.proxy")


class Kept(NamedTuple):
    """What a proxy tells a controller that was restarted; `url` is "" before it listens."""

    url: str
    options: HTTPOptions
    values: dict[str, Any]


class Proxy:
    def __init__(self, controller: ActorHandle[Any], options: HTTPOptions) -> None:
        self._controller = controller
        self._me: ActorHandle[Any] = get_runtime_context().current_actor
        self._connection = connection.set_controller(controller)
        self._options = options
        self._paths = Paths(options.root_path)
        self._routers: dict[str, Router] = {}
        self._trusted = TrustedServers(options.forwarded_allow_ips or "")
        self._root_paths: dict[str, bytes] = {}
        self._loop = asyncio.get_running_loop()
        self._connection.deliver = self._loop.call_soon_threadsafe
        self._server: HttpServer | None = None
        self._listener: socket.socket | None = None
        self._kept: dict[str, Any] = {}
        self._url = ""
        self._ready = asyncio.Event()
        self._draining = False
        # Why nothing is served yet; "" once something was.
        self._awaited = NOTHING_YET

    # What the controller calls.

    async def start(self, lent: str) -> tuple[str, str]:
        """Listen on the socket that the controller lends. (URL, "") or ("", why not)."""
        options = self._options
        try:
            self._listener = listener = await asyncio.to_thread(fetch, lent)
        except OSError as error:
            return "", f"the proxy did not get its socket from the controller: {error}"
        if options.access_log:
            _log_requests()
        # uvicorn is loaded here and not with this module, which the controller loads too.
        from .http_server import HttpServer

        try:
            self._server = HttpServer(self, options, self._websocket)
        except (OSError, ValueError) as error:
            return "", f"the proxy cannot serve: {error}"
        # In an empty context: news and connections belong to no call.
        context = contextvars.Context()
        context.run(self._connection.listen, ROUTES, self._told_routes)
        # Clients may connect already; they are accepted when it is known where their requests go.
        await self._ready.wait()
        self._server.start(listener, context)
        host, port = listener.getsockname()[:2]
        scheme = "https" if options.ssl_certfile else "http"
        self._url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        spawn(self._stand_by())
        return self._url, ""

    async def _stand_by(self) -> None:
        """Be known to each controller that comes back."""
        while not self._draining:
            try:
                await self._controller.proxy_is_here.remote(self._me)
            except exceptions.ActorUnavailableError:
                continue  # it is being restarted; the next call waits until it is there again
            except exceptions.ActorrtError:
                return

    async def lend_listener(self) -> str:
        """Where a controller that was restarted can fetch the socket that this proxy listens on."""
        assert self._listener is not None
        return lend(self._listener)

    async def until_death(self) -> None:
        await self._loop.create_future()

    async def keep(self, what: str, value: Any) -> None:
        """Hold this for the controller, or for the one that comes after it."""
        self._kept[what] = value

    async def kept(self) -> Kept:
        return Kept(self._url, self._options, self._kept)

    async def drain(self, limit_s: float) -> str:
        """No new connections; return when the requests that are here have been answered, or cut off at the limit.

        Gives who it is to topics.
        """
        self._draining = True
        if self._server is not None:
            await self._server.drain(limit_s)
        self._connection.closed = True
        return self._connection.name

    async def unfinished(self) -> int:
        """How many requests and websockets are here, once it drains and idle connections have been closed."""
        return self._server.connections if self._server is not None else 0

    # News.

    def _told_routes(self, value: tuple[dict[str, tuple[str, str]], str]) -> None:
        routes, self._awaited = value
        self._routers = {prefix: router_of(DeploymentId(app, ingress)) for prefix, (app, ingress) in routes.items()}
        self._root_paths = {prefix: self._paths.root_path_of(prefix) for prefix in routes}
        self._paths.told({prefix: app for prefix, (app, _) in routes.items()})
        self._ready.set()

    # Requests.

    def handle(self, request: HttpRequest) -> None:
        paths = self._paths
        route, own_path, path = paths.match(request.path)
        if paths.root.path:
            request.is_below(own_path)
        if route is None:
            each = b"x-request-id: %b\r\n" % request.request_id
            draining, awaited, routes = self._draining, self._awaited, paths.as_dict()
            request.respond(
                own_answer(path, request.framing, each, is_draining=draining, awaited=awaited, routes=routes)
            )
            return
        timeout_s = request.timeout_s if request.timeout_s is not None else self._options.request_timeout_s
        router = self._routers[route.prefix]
        root_path = self._root_paths[route.prefix]
        Forwarded(request, router, paths.root.raw, root_path, self._loop, timeout_s).start()

    async def _websocket(self, scope: Any, receive: Any, send: Any) -> None:
        """The ASGI application that uvicorn runs for a websocket."""
        route, raw_path, _ = self._paths.match(scope.get("raw_path") or encoded(scope["path"]))
        if route is None or self._draining:
            await receive()
            for event in websocket_denial(self._draining or bool(self._awaited)):
                await send(event)
            return
        given = [value for name, value in scope["headers"] if name == b"x-request-id"]
        request_id = given[0][:LONGEST_REQUEST_ID] if given else uuid.uuid4().hex.encode()
        scheme, client = scope["scheme"], scope["client"]
        if client is not None and self._trusted.trusts(client[0]):
            scheme, client = forwarded(self._trusted, scheme, client, scope["headers"])
        head = pack_head(
            connection_line(scheme, client, scope["server"]),
            self._root_paths[route.prefix],
            b"GET",
            b"1.1",
            self._paths.root.raw + raw_path,
            scope["query_string"],
            request_id,
            [part for header in scope["headers"] for part in header],
        )
        await Tunnel(self._routers[route.prefix], head, request_id).run(receive, send)


def _log_requests() -> None:
    """A line for each request on stderr, which reaches the driver as any output of a worker does."""
    log = logging.getLogger("actorrt.serve.access")
    log.setLevel(logging.INFO)
    log.propagate = False
    if not log.handlers:
        log.addHandler(logging.StreamHandler())
