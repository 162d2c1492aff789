"""What a client gets over HTTP from deployments in processes of their own."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, cast

import fastapi
import httpx
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from actorrt import serve

from .conftest import Serving


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("it has no text")


@serve.deployment(max_ongoing_requests=50)
class Kinds:
    """Returns what it is asked for."""

    def __init__(self) -> None:
        self.background = 0

    async def __call__(self, request: Request) -> Any:
        match request.query_params.get("kind"):
            case "str":
                return "é"
            case "bytes":
                return b"\x00\x01"
            case "json":
                return {"a": [1, None]}
            case "none":
                return None
            case "response":
                return JSONResponse({"made": True}, status_code=201, headers={"x-own": "1"})
            case "cookie":
                response = PlainTextResponse("x")
                response.set_cookie("a", "1")
                response.set_cookie("b", "2")
                return response
            case "empty":
                return Response(status_code=204)
            case "large":
                return b"x" * 3_000_000
            case "stream":
                return StreamingResponse(self.count(5), media_type="text/event-stream")
            case "generator":
                return self.count(3)
            case "sync generator":
                return (f"{n};" for n in range(3))
            case "numbers":
                return self.numbers()
            case "generator of numbers":
                return (n for n in range(3))
            case "text and then a number":
                return (part for part in ("text", 1))
            case "generator that cannot read":
                return (open("/no/such/file").read() for _ in range(1))
            case "nan":
                return {"a": [1.0, None, {"b": float("nan")}]}
            case "infinity":
                return float("inf")
            case "not found":
                raise HTTPException(404, "nothing here", headers={"x-why": "no"})
            case "not found, as JSON":
                raise HTTPException(
                    422, cast("Any", {"field": "size"}), headers={"Content-Type": "application/problem+json"}
                )
            case "list of errors":
                raise HTTPException(400, cast("Any", ["a", {"b": 1}]))
            case "error without a body":
                raise HTTPException(304)
            case "error that cannot be said":
                raise HTTPException(400, cast("Any", object()))
            case "error with a bad header":
                raise HTTPException(400, "no", headers={"x-bad": "\u2026"})
            case "error without text":
                raise Mute
            case "raises":
                raise ValueError("a secret of the server")
            case "unserializable":
                return object()
            case "bad header":
                return Response("x", headers={"x-bad": "a\nb: c"})
            case "breaks":
                return StreamingResponse(self.breaks())
            case "body":
                body = await request.body()
                return {"size": len(body), "sum": sum(body), "method": request.method}
            case "url":
                return {
                    "path": request.url.path,
                    "root": request.scope["root_path"],
                    "client": request.client is not None,
                }
            case "headers":
                return dict(request.headers)
            case kind:
                return f"{kind}?"

    async def count(self, end: int) -> AsyncIterator[str]:
        for number in range(end):
            yield f"{number};"
            await asyncio.sleep(0)

    async def numbers(self) -> AsyncIterator[int]:
        yield 7

    async def breaks(self) -> AsyncIterator[str]:
        yield "part"
        raise ValueError("in the middle")


@pytest.fixture(scope="module")
def kinds(serving: Serving) -> str:
    return serving.run(Kinds.bind(), "kinds")


@pytest.mark.parametrize(
    ("kind", "status", "content_type", "body"),
    [
        ("str", 200, "text/plain; charset=utf-8", "é".encode()),
        ("bytes", 200, "application/octet-stream", b"\x00\x01"),
        ("json", 200, "application/json", b'{"a":[1,null]}'),
        ("none", 200, "application/json", b"null"),
        ("response", 201, "application/json", b'{"made":true}'),
        ("empty", 204, None, b""),
        ("stream", 200, "text/event-stream; charset=utf-8", b"0;1;2;3;4;"),
        ("generator", 200, "text/plain; charset=utf-8", b"0;1;2;"),
        ("sync generator", 200, "text/plain; charset=utf-8", b"0;1;2;"),
        ("large", 200, "application/octet-stream", b"x" * 3_000_000),
        ("not found", 404, "text/plain; charset=utf-8", b"nothing here"),
        ("not found, as JSON", 422, "application/problem+json", b'{"field":"size"}'),
        ("list of errors", 400, "application/json", b'["a",{"b":1}]'),
        ("error without a body", 304, None, b""),
        ("error that cannot be said", 500, "text/plain; charset=utf-8", b"Internal Server Error"),
        ("error with a bad header", 500, "text/plain; charset=utf-8", b"Internal Server Error"),
        ("error without text", 500, "text/plain; charset=utf-8", b"Internal Server Error"),
        ("raises", 500, "text/plain; charset=utf-8", b"Internal Server Error"),
        ("unserializable", 500, "text/plain; charset=utf-8", b"Internal Server Error"),
        ("numbers", 500, "text/plain; charset=utf-8", b"Internal Server Error"),
        ("nan", 500, "text/plain; charset=utf-8", b"Internal Server Error"),
        ("infinity", 500, "text/plain; charset=utf-8", b"Internal Server Error"),
        ("bad header", 500, "text/plain; charset=utf-8", b"Internal Server Error"),
    ],
)
def test_what_a_deployment_returns_is_what_the_client_gets(
    serving: Serving, kinds: str, kind: str, status: int, content_type: str | None, body: bytes
) -> None:
    for _ in range(2):  # the connection is as good afterwards as before
        answer = serving.client.get(kinds, params={"kind": kind})
        assert (answer.status_code, answer.headers.get("content-type"), answer.content) == (status, content_type, body)
        assert answer.headers["x-request-id"]
        assert answer.headers["date"]


def test_headers_of_a_response_arrive_each_for_itself(serving: Serving, kinds: str) -> None:
    answer = serving.client.get(kinds, params={"kind": "cookie"})
    assert answer.headers.get_list("set-cookie") == ["a=1; Path=/; SameSite=lax", "b=2; Path=/; SameSite=lax"]
    assert serving.client.get(kinds, params={"kind": "response"}).headers["x-own"] == "1"
    assert serving.client.get(kinds, params={"kind": "not found"}).headers["x-why"] == "no"


def test_a_request_arrives_whole(serving: Serving, kinds: str) -> None:
    client = serving.client
    for size in (0, 10, 65_536, 65_537, 5_000_000):
        answer = client.post(kinds, params={"kind": "body"}, content=b"\x01" * size)
        assert answer.json() == {"size": size, "sum": size, "method": "POST"}
    parts = (b"\x01" * 10_000 for _ in range(100))
    assert client.put(kinds, params={"kind": "body"}, content=parts).json()["sum"] == 1_000_000
    assert client.get(kinds + "/a%20b", params={"kind": "url"}).json() == {
        "path": "/kinds/a b", "root": "/kinds", "client": True,
    }  # fmt: skip
    assert client.get(kinds, params={"kind": "headers"}, headers={"X-Some": "thing"}).json()["x-some"] == "thing"


def test_head_has_the_headers_and_no_body(serving: Serving, kinds: str) -> None:
    answer = serving.client.head(kinds, params={"kind": "json"})
    assert (answer.status_code, answer.headers["content-length"], answer.content) == (200, "14", b"")
    assert serving.client.head(kinds, params={"kind": "stream"}).content == b""
    assert serving.client.get(kinds, params={"kind": "json"}).json() == {"a": [1, None]}


def test_the_request_id_is_echoed(serving: Serving, kinds: str) -> None:
    answer = serving.client.get(kinds, headers={"x-request-id": "mine"}, params={"kind": "str"})
    assert answer.headers["x-request-id"] == "mine"
    assert serving.client.get(serving.url + "/none", headers={"x-request-id": "m2"}).headers["x-request-id"] == "m2"


def test_a_stream_that_fails_is_cut_off_and_not_ended(serving: Serving, kinds: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        serving.client.get(kinds, params={"kind": "breaks"})


def test_a_generator_of_what_cannot_be_sent_is_cut_off(serving: Serving, kinds: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        serving.client.get(kinds, params={"kind": "text and then a number"})


def test_one_that_cannot_send_its_first_item_is_cut_off_or_500(serving: Serving, kinds: str) -> None:
    # Its thread may come to the item before the head has gone, or behind it.
    try:
        answer = serving.client.get(kinds, params={"kind": "generator of numbers"})
    except httpx.RemoteProtocolError:
        return
    assert answer.status_code == 500


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (
            "numbers",
            "TypeError: deployment 'Kinds' yielded 7 of type int: what is sent as a stream must be str or bytes",
        ),
        ("text and then a number", "TypeError: deployment 'Kinds' yielded 1 of type int"),
        ("nan", "ValueError: what was returned cannot be JSON, which has no nan and no infinity: nan at ['a'][2]['b']"),
        ("generator that cannot read", "FileNotFoundError: [Errno 2] No such file or directory: '/no/such/file'"),
    ],
)
def test_the_log_says_what_was_wrong_with_a_value(
    serving: Serving, kinds: str, kind: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with contextlib.suppress(httpx.RemoteProtocolError):
        serving.client.get(kinds, params={"kind": kind})
    text = ""
    while said not in text:
        text += capfd.readouterr().err
        threading.Event().wait(0.01)
    assert "GET /kinds of deployment 'Kinds' failed" in text


def test_the_proxy_answers_for_itself(serving: Serving, kinds: str) -> None:
    client = serving.client
    assert (client.get(serving.url + "/-/healthz").status_code, client.get(serving.url + "/-/healthz").text) == (
        200,
        "success",
    )
    assert client.get(serving.url + "/-/routes").json()["/kinds"] == "kinds"
    missing = client.get(serving.url + "/kindsx")
    assert missing.status_code == 404
    assert "/kindsx" in missing.text


@serve.deployment(max_ongoing_requests=10)
class Echo:
    async def __call__(self, request: Request) -> StreamingResponse:
        async def upper() -> AsyncIterator[bytes]:
            async for part in request.stream():
                yield part.upper()

        return StreamingResponse(upper())


def test_request_and_response_stream_at_the_same_time(serving: Serving) -> None:
    host, port = serving.run(Echo.bind(), "echo").removeprefix("http://").removesuffix("/echo").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection, connection.makefile("rb") as answer:
        connection.sendall(b"POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        while answer.readline() != b"\r\n":
            pass
        assert [answer.readline() for _ in range(2)] == [b"5\r\n", b"FIRST\r\n"]
        connection.sendall(b"6\r\nsecond\r\n0\r\n\r\n")
        assert [answer.readline() for _ in range(4)] == [b"6\r\n", b"SECOND\r\n", b"0\r\n", b"\r\n"]


@serve.deployment(max_ongoing_requests=1)
class OneAtATime:
    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, request: Request) -> str:
        return str(len(await request.body()))

    async def hold(self) -> None:
        await self.go.wait()


def test_a_body_that_was_refused_by_a_full_replica_arrives_whole_at_last(serving: Serving) -> None:
    handle: Any = serve.run(OneAtATime.bind(), name="one", route_prefix="/one")
    assert serving.client.post(serving.url + "/one", content=b"x").text == "1"
    # The proxy does not know of this one, so it sends its request to a replica that has no room.
    holding = handle.hold.remote()
    host, port = serving.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection, connection.makefile("rb") as answer:
        connection.sendall(b"POST /one HTTP/1.1\r\nhost: x\r\ncontent-length: 300000\r\n\r\n")
        time.sleep(0.1)
        connection.sendall(bytes(100_000))
        time.sleep(0.1)
        holding.cancel()
        connection.sendall(bytes(200_000))
        assert answer.readline() == b"HTTP/1.1 200 OK\r\n"
        while answer.readline() != b"\r\n":
            pass
        assert answer.read(6) == b"300000"


@serve.deployment
class Events:
    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, request: Request) -> Any:
        if request.url.path.endswith("/go"):
            self.go.set()
            return "gone"
        return StreamingResponse(self.events(), media_type="text/event-stream")

    async def events(self) -> AsyncIterator[str]:
        yield "data: 1\n\n"
        await self.go.wait()
        yield "data: 2\n\n"


def test_an_event_arrives_before_the_next_one_is_made(serving: Serving) -> None:
    url = serving.run(Events.bind(), "events")
    with serving.client.stream("GET", url) as answer:
        lines = answer.iter_lines()
        assert next(lines) == "data: 1"
        httpx.get(url + "/go")
        assert [line for line in lines if line] == ["data: 2"]


def test_a_function_can_be_a_deployment(serving: Serving) -> None:
    @serve.deployment
    def plain(request: Request) -> str:
        return threading.current_thread().name + request.method

    @serve.deployment
    async def without_request() -> str:
        return "none asked for"

    assert "actorrt-replica" in serving.client.get(serving.run(plain.bind(), "plain")).text
    assert serving.client.get(serving.run(without_request.bind(), "bare")).text == "none asked for"


def test_blocking_code_does_not_stop_other_requests(serving: Serving) -> None:
    @serve.deployment(max_ongoing_requests=4)
    class Blocks:
        def __init__(self) -> None:
            self.both = threading.Barrier(3, timeout=10)

        def __call__(self, request: Request) -> str:
            self.both.wait()
            return "met"

    url = serving.run(Blocks.bind(), "blocks")
    found: list[str] = []
    others = [threading.Thread(target=lambda: found.append(httpx.get(url, timeout=20).text)) for _ in range(2)]
    for other in others:
        other.start()
    assert serving.client.get(url).text == "met"
    for other in others:
        other.join()
    assert found == ["met", "met"]


def fastapi_application() -> serve.Application[Any]:
    api = fastapi.FastAPI(title="numbers")
    router = fastapi.APIRouter(prefix="/inner")

    def limit(most: int = 100) -> int:
        return most

    @serve.deployment
    @serve.ingress(api)
    class Numbers:
        def __init__(self, base: int) -> None:
            self.base = base

        @api.get("/add/{number}")
        async def add(self, number: int, most: int = fastapi.Depends(limit)) -> dict[str, int]:
            return {"sum": min(self.base + number, most)}

        @api.post("/double", status_code=201)
        def double(self, numbers: list[int]) -> list[int]:
            return [2 * number for number in numbers]

        @router.get("/base")
        async def show(self) -> int:
            return self.base

        @api.get("/stream")
        async def stream(self) -> StreamingResponse:
            async def parts() -> AsyncIterator[str]:
                for number in range(3):
                    yield f"{self.base + number} "

            return StreamingResponse(parts())

    @api.get("/alone")
    async def alone() -> str:
        return serve.get_replica_context().deployment

    api.include_router(router)
    return Numbers.bind(10)


def test_fastapi_views_are_methods_of_the_replica(serving: Serving) -> None:
    url = serving.run(fastapi_application(), "numbers")
    client = serving.client
    assert client.get(url + "/add/5").json() == {"sum": 15}
    assert client.get(url + "/add/500").json() == {"sum": 100}
    assert client.get(url + "/add/x").status_code == 422
    doubled = client.post(url + "/double", json=[1, 2])
    assert (doubled.status_code, doubled.json()) == (201, [2, 4])
    assert client.get(url + "/inner/base").json() == 10
    assert client.get(url + "/stream").text == "10 11 12 "
    assert client.get(url + "/alone").json() == "Numbers"
    assert "/add/{number}" in client.get(url + "/openapi.json").json()["paths"]
    assert "/numbers/openapi.json" in client.get(url + "/docs").text
    assert client.get(url + "/missing").json() == {"detail": "Not Found"}


def test_any_asgi_application_can_be_the_ingress_with_its_lifespan(serving: Serving) -> None:
    def application() -> Starlette:
        async def show(request: Request) -> JSONResponse:
            return JSONResponse(
                {"state": request.state.started, "held": serve.get_replica_context().servable_object.held}
            )

        @contextlib.asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncGenerator[dict[str, bool]]:
            yield {"started": True}

        return Starlette(routes=[Route("/", show)], lifespan=lifespan)

    @serve.deployment
    @serve.ingress(application)
    class Wrapped:
        def __init__(self) -> None:
            self.held = 3

    url = serving.run(Wrapped.bind(), "wrapped")
    assert serving.client.get(url + "/").json() == {"state": True, "held": 3}


def test_a_request_that_takes_too_long_is_cancelled_and_answered_408(serving: Serving) -> None:
    @serve.deployment
    class Slow:
        def __init__(self) -> None:
            self.cancelled = asyncio.Event()

        async def __call__(self, request: Request) -> str:
            if request.url.path.endswith("/cancelled"):
                await self.cancelled.wait()
                return "yes"
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.set()
            return "never"

    url = serving.run(Slow.bind(), "slow")
    answer = serving.client.get(url, headers={"x-request-timeout-seconds": "0.2"})
    assert answer.status_code == 408
    assert serving.client.get(url + "/cancelled").text == "yes"


def test_the_context_of_a_replica_names_it(serving: Serving) -> None:
    @serve.deployment(name="named")
    class Asks:
        async def __call__(self, request: Request) -> Any:
            context = serve.get_replica_context()
            return [context.app_name, context.deployment, context.replica_id, context.servable_object is self]

    url = serving.run(Asks.bind(), "context")
    app, deployment, replica, same = json.loads(serving.client.get(url).text)
    assert (app, deployment, same) == ("context", "named", True)
    assert replica.startswith("named-")
    with pytest.raises(serve.exceptions.ServeError, match="this is no replica"):
        serve.get_replica_context()
