"""Routes to methods of a class below `serve.ingress`, as their authors made them, in a replica of its own."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any

import fastapi
import httpx
import pydantic
import pytest
import websockets
from fastapi import Depends, FastAPI, Query
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route, Router, WebSocketRoute
from starlette.websockets import WebSocket

from actorrt import serve

from .conftest import Serving

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# All names below are used in annotations alone, and those are text (see the import of `annotations`).


class Part(pydantic.BaseModel):
    name: str


class Item(pydantic.BaseModel):
    parts: list[Part]


Page = Annotated[int, Query(ge=1)]


class Paging:
    def __init__(self, page: Page = 1) -> None:
        self.page = page


def client_of(request: Request) -> str:
    return request.headers["x-client"]


Client = Annotated[str, Depends(client_of)]


def postponed() -> serve.Application[Any]:
    api = FastAPI()
    router = fastapi.APIRouter()

    @serve.deployment
    @serve.ingress(api)
    class Front:
        @api.post("/")
        async def create(self, item: Item, client: Client, paging: Annotated[Paging, Depends()]) -> Item:
            return Item(parts=[*item.parts, Part(name=f"{client} {paging.page}")])

        @router.get("/raw")
        def raw(self, request: Request) -> dict[str, str]:
            return {"path": request.url.path}

    @router.post("/plain")
    async def plain(item: Item) -> int:
        return len(item.parts)

    api.include_router(router, prefix="/inner")
    return Front.bind()


def test_postponed_annotations_mean_in_the_replica_what_they_mean_where_they_are_written(serving: Serving) -> None:
    url = serving.run(postponed(), "postponed")
    item = {"parts": [{"name": "a"}]}
    answer = serving.client.post(url + "/?page=3", json=item, headers={"x-client": "me"})
    assert answer.json() == {"parts": [{"name": "a"}, {"name": "me 3"}]}
    assert serving.client.post(url + "/?page=0", json=item, headers={"x-client": "me"}).status_code == 422
    assert serving.client.get(url + "/inner/raw").json() == {"path": "/postponed/inner/raw"}
    assert serving.client.post(url + "/inner/plain", json=item).json() == 1
    assert "Item" in serving.client.get(url + "/openapi.json").json()["components"]["schemas"]


class Tag:
    """Middleware in ASGI's own form."""

    def __init__(self, app: ASGIApp, name: str) -> None:
        self.app, self.name = app, name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def tagged(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-tag", self.name.encode())]
            await send(message)

        await self.app(scope, receive, tagged)


def tag_function(app: ASGIApp) -> ASGIApp:
    async def tagged(scope: Scope, receive: Receive, send: Send) -> None:
        await Tag(app, "function")(scope, receive, send)

    return tagged


def starlette_application() -> serve.Application[Any]:
    class Views:
        def __init__(self) -> None:
            self.held = "held"

        async def tagged(self, request: Request) -> Response:
            return PlainTextResponse(self.held)

        def plain(self, request: Request) -> Response:
            return PlainTextResponse(f"{self.held} by a thread")

        async def echo(self, websocket: WebSocket) -> None:
            await websocket.accept()
            await websocket.send_text(self.held + await websocket.receive_text())
            await websocket.close()

        async def on_error(self, request: Request, error: Exception) -> Response:
            return PlainTextResponse(f"{self.held}: {error!r}", status_code=418)

        async def fail(self, request: Request) -> Response:
            raise KeyError("fail")

    wrapped = Route("/wrapped", Views.tagged)
    wrapped.app = tag_function(wrapped.app)
    app = Starlette(
        routes=[
            Route("/tagged", Views.tagged, middleware=[Middleware(Tag, name="one"), Middleware(Tag, name="two")]),
            wrapped,
            Mount("/below", routes=[Route("/plain", Views.plain)], middleware=[Middleware(Tag, name="mount")]),
            WebSocketRoute("/echo", Views.echo),
            Route("/fail", Views.fail),
        ],
        exception_handlers={KeyError: Views.on_error},
    )
    return serve.deployment(serve.ingress(app)(Views)).bind()


def test_a_route_of_a_class_keeps_what_it_was_wrapped_in(serving: Serving) -> None:
    url = serving.run(starlette_application(), "wrapped-routes")
    for path, text, tags in [
        ("/tagged", "held", ["two", "one"]),
        ("/wrapped", "held", ["function"]),
        ("/below/plain", "held by a thread", ["mount"]),
    ]:
        answer = serving.client.get(url + path)
        assert (answer.text, answer.headers.get_list("x-tag")) == (text, tags), path
    answer = serving.client.get(url + "/fail")
    assert (answer.status_code, answer.text) == (418, "held: KeyError('fail')")

    async def talk() -> str | bytes:
        async with websockets.connect(url.replace("http", "ws") + "/echo") as websocket:
            await websocket.send("!")
            return await websocket.recv()

    assert asyncio.run(talk()) == "held!"


class Audited(APIRoute):
    """A route class whose constructor does not say what it takes, and whose handler knows its route."""

    def __init__(self, *args: Any, audit: str = "none", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.audit = audit

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        inner = super().get_route_handler()

        async def handler(request: Request) -> Response:
            response = await inner(request)
            response.headers["x-audit"] = f"{self.audit} {self.path}"
            return response

        return handler


def override(given: str = "default") -> str:
    return given


def fastapi_application() -> serve.Application[Any]:
    api = FastAPI()
    api.router.route_class = Audited
    api.dependency_overrides[override] = lambda: "overridden"

    def doubled(function: Callable[..., Awaitable[int]]) -> Callable[..., Awaitable[int]]:
        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> int:
            return 2 * await function(*args, **kwargs)

        return wrapper

    class Base:
        @api.get("/inherited")
        async def inherited(self) -> str:
            return type(self).__name__

    @serve.deployment
    @serve.ingress(api)
    class Front(Base):
        @api.get("/", tags=["reads"], operation_id="read")
        def notes(self) -> str:
            return "read"

        @api.post("/", status_code=201)
        def notes(self) -> str:  # type: ignore[no-redef]  # noqa: F811
            return "written"

        @doubled
        @api.get("/decorated-above")
        async def above(self) -> int:
            return await self.base()

        @api.get("/decorated-below")
        @doubled
        async def below(self, plus: int = 0) -> int:
            return await self.base() + plus

        async def base(self) -> int:
            return 10

        @staticmethod
        @api.get("/static")
        def static(number: int) -> int:
            return number

        def user(self, name: str = "nobody") -> str:
            return f"{name} of {type(self).__name__}"

        @api.get("/user")
        async def user_of(self, user: str = Depends(user)) -> str:
            return user

        @api.get("/override")
        async def overridden(self, given: Annotated[str, Depends(override)]) -> str:
            return given

        @api.websocket("/ws")
        async def talk(self, websocket: WebSocket, given: Annotated[str, Depends(override)]) -> None:
            await websocket.accept()
            await websocket.send_text(given)
            await websocket.close()

    for route in api.routes:
        if isinstance(route, Audited):
            route.audit = "set later"
    api.openapi()
    return Front.bind()


def test_routes_of_fastapi_are_what_their_author_made_of_them(serving: Serving) -> None:
    url = serving.run(fastapi_application(), "authored")
    client = serving.client
    assert client.get(url + "/").json() == "read"
    assert client.get(url + "/").headers["x-audit"] == "set later /"
    assert (client.post(url + "/").json(), client.post(url + "/").status_code) == ("written", 201)
    assert client.get(url + "/inherited").json() == "Front"
    assert client.get(url + "/decorated-above").json() == 10
    assert client.get(url + "/decorated-below?plus=1").json() == 22
    assert client.get(url + "/static?number=3").json() == 3
    assert client.get(url + "/user?name=me").json() == "me of Front"
    assert client.get(url + "/override").json() == "overridden"
    described = client.get(url + "/openapi.json").json()["paths"]["/"]
    assert described["get"]["operationId"] == "read"
    assert "parameters" not in described["get"]

    async def talk() -> str | bytes:
        async with websockets.connect(url.replace("http", "ws") + "/ws") as websocket:
            return await websocket.recv()

    assert asyncio.run(talk()) == "overridden"


def test_two_classes_share_an_application_each_with_its_own_routes(serving: Serving) -> None:
    api = FastAPI()

    @serve.deployment
    @serve.ingress(api)
    class First:
        @api.get("/who")
        def who(self) -> str:
            return "first"

        @api.get("/first")
        def only(self) -> int:
            return 1

    @serve.deployment
    @serve.ingress(api)
    class Second:
        @api.get("/who")
        def who(self) -> str:
            return "second"

    @api.get("/shared")
    def shared() -> str:
        return serve.get_replica_context().deployment

    for app, name in ((First, "first"), (Second, "second")):
        url = serving.run(app.bind(), name)
        assert serving.client.get(url + "/who").json() == name
        assert serving.client.get(url + "/shared").json() == name.title()
        assert serving.client.get(url + "/first").status_code == (200 if name == "first" else 404)
        assert "/shared" in serving.client.get(url + "/openapi.json").json()["paths"]


def test_routes_of_a_class_that_was_written_anew_are_the_new_ones(serving: Serving) -> None:
    # As in a notebook, where a cell is run again and the application lies in another one.
    api = FastAPI()

    def cell(answer: str) -> serve.Application[Any]:
        @serve.deployment
        @serve.ingress(api)
        class Cell:
            @api.get("/")
            def get(self) -> str:
                return answer

        return Cell.bind()

    for answer in ("before", "after"):
        assert serving.client.get(serving.run(cell(answer), "cell") + "/").json() == answer


def test_a_router_of_fastapi_is_served_as_part_of_an_application(serving: Serving) -> None:
    router = fastapi.APIRouter(prefix="/v1")

    @serve.deployment
    @serve.ingress(router)
    class Routed:
        held = 7

        @router.get("/held")
        async def get(self, plus: int = 0) -> int:
            return self.held + plus

    url = serving.run(Routed.bind(), "router")
    assert serving.client.get(url + "/v1/held?plus=1").json() == 8
    assert "/v1/held" in serving.client.get(url + "/openapi.json").json()["paths"]


def test_a_router_of_starlette_is_an_application_of_its_own(serving: Serving) -> None:
    class Plain:
        async def get(self, request: Request) -> Response:
            return JSONResponse([type(self).__name__])

    router = Router([Route("/get", Plain.get)])
    url = serving.run(serve.deployment(serve.ingress(router)(Plain)).bind(), "plain-router")
    assert serving.client.get(url + "/get").json() == ["Plain"]


@pytest.mark.parametrize("takes", ["nothing", "a path parameter", "a body", "only names", "a dependency"])
def test_a_route_without_self_is_refused_by_its_name_before_anything_is_deployed(takes: str) -> None:
    api = FastAPI()

    class App:
        if takes == "nothing":

            @api.get("/hello")
            def hello() -> str:  # type: ignore[misc]
                return ""

        elif takes == "a path parameter":

            @api.get("/hello/{number}")
            def hello(number) -> str:  # type: ignore[no-untyped-def]  # noqa: N805
                return ""

        elif takes == "a body":

            @api.get("/hello")
            def hello(item: Item) -> str:  # type: ignore[misc]  # noqa: N805
                return ""

        elif takes == "only names":

            @api.get("/hello")
            def hello(*, number: int) -> str:  # type: ignore[misc]
                return ""

        else:

            @api.get("/hello")
            def hello(client=Depends(client_of)) -> str:  # type: ignore[no-untyped-def]  # noqa: B008, N805
                return ""

    with pytest.raises(
        TypeError, match=r"route GET /hello.* calls .*App\.hello\(.*which takes no self: write def hello\(self"
    ):
        serve.deployment(serve.ingress(api)(App)).bind()


def test_a_route_that_cannot_be_bound_is_refused_at_the_ingress_by_its_name() -> None:
    class Odd(Route):
        def __init__(self, path: str, endpoint: Any, needed: int) -> None:
            super().__init__(path, endpoint)

    class App:
        async def get(self, request: Request) -> Response:
            raise NotImplementedError

    with pytest.raises(
        TypeError, match=r"route GET /odd calls .*App\.get .*takes 'needed', which its routes do not keep"
    ):
        serve.ingress(Starlette(routes=[Odd("/odd", App.get, 3)]))(App)

    class Opaque:
        __slots__ = ("inner",)

        def __init__(self, inner: ASGIApp) -> None:
            self.inner = inner

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self.inner(scope, receive, send)

    hidden = Route("/hidden", App.get)
    hidden.app = Opaque(hidden.app)
    with pytest.raises(TypeError, match=r"route GET /hidden calls .*Opaque hides what it is wrapped around"):
        serve.ingress(Starlette(routes=[hidden]))(App)


async def any_arguments(*args: Any) -> None:
    scope, _, send = args
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(scope["path"]).encode()})


def plain_arguments(*args: Any, **kwargs: Any) -> Awaitable[None]:
    return any_arguments(*args, **kwargs)


async def make_later() -> Any:
    await asyncio.sleep(0)
    return any_arguments


@pytest.mark.parametrize("app", [any_arguments, plain_arguments, make_later, functools.partial(FastAPI, title="x")])
def test_an_application_is_told_from_what_makes_one(app: Any, serving: Serving) -> None:
    @serve.deployment
    @serve.ingress(app)
    class Served: ...

    url = serving.run(Served.bind(), "arguments")
    answer = serving.client.get(url + "/openapi.json").json()
    assert answer == "/arguments/openapi.json" or answer["info"]["title"] == "x"


@pytest.mark.parametrize(
    ("app", "said"),
    [
        (lambda environ, start_response: [], "is a WSGI application, and ASGI ones are served: install a2wsgi"),
        (lambda scope: None, r"takes \(scope\): an ASGI application takes \(scope, receive, send\)"),
        (3, "ingress takes an ASGI application or a function that makes one, not int"),
    ],
)
def test_what_is_no_application_is_refused_where_it_is_written(app: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        serve.ingress(app)
    with pytest.raises(TypeError, match=said):
        serve.from_asgi(app)


def test_a_bare_application_is_served_as_one_deployment(serving: Serving) -> None:
    api = FastAPI()

    @api.get("/")
    async def show(client: Client) -> str:
        return f"{client} at {serve.get_replica_context().deployment}"

    serve.run(api, name="bare", route_prefix="/bare")
    assert serving.client.get(serving.url + "/bare/", headers={"x-client": "me"}).json() == "me at FastAPI"
    assert list(serve.status().applications["bare"].deployments) == ["FastAPI"]
    url = serving.run(serve.from_asgi(any_arguments, name="own", num_replicas=1), "bare")
    assert httpx.get(url + "/x").json() == "/bare/x"
    with pytest.raises(TypeError, match="a2wsgi"):
        serve.run(lambda environ, start_response: [], name="bare")  # type: ignore[arg-type]
