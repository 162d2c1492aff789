"""What proxy and replica hold of requests that are over: nothing, after a thousand of each kind."""

import asyncio
import gc
import threading
from collections.abc import Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import fastapi
from starlette.responses import Response, StreamingResponse
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

import actorrt
from actorrt import serve
from actorrt.serve.base.connection import NAMESPACE
from actorrt.serve.control.controller import PROXY
from actorrt.util import list_named_actors

from .asgi_servers import connected
from .conftest import Serving

ROUNDS = 1000
# Kept with a bound of their own: what is known of the last connection and of names.
HELD_ANYWAY = 64


def _sizes(actor: Any) -> dict[str, int]:
    """How much lies in each table that hangs on this actor, in the runtime below it, and how many timers there are."""
    gc.collect()
    found: dict[str, int] = {}
    seen: set[int] = set()

    def walk(thing: Any, where: str, depth: int) -> None:
        if id(thing) in seen or depth > 4:
            return
        seen.add(id(thing))
        if isinstance(thing, Sized) and not isinstance(thing, str | bytes | bytearray | memoryview | type):
            found[where] = len(thing)
            return
        kind = type(thing)
        if not kind.__module__.startswith("actorrt") or isinstance(thing, type):
            return
        names = {
            *getattr(thing, "__dict__", ()),
            *(each for base in kind.__mro__ for each in getattr(base, "__slots__", ())),
        }
        for name in names:
            if hasattr(thing, name):
                walk(getattr(thing, name), f"{where}.{name}", depth + 1)

    walk(actor, kind_of(actor), 0)
    # A timer of uvloop's is not seen here, but what it holds is.
    counted = ("HttpRequest", "Forwarded", "ByteChannel", "_Request", "RequestContext", "TimerHandle", "Pipe", "Task")
    for each in gc.get_objects():
        if type(each).__name__ in counted:
            found[type(each).__name__] = found.get(type(each).__name__, 0) + 1
    return found


def kind_of(thing: Any) -> str:
    return type(thing).__name__


def tables() -> Any:
    api = fastapi.FastAPI()

    @serve.deployment(max_ongoing_requests=100)
    @serve.ingress(api)
    class Tables:
        @api.get("/small")
        async def small(self) -> str:
            return "ok"

        @api.get("/large")
        async def large(self) -> Any:
            return Response(bytes(70_000))

        @api.get("/stream")
        async def stream(self) -> Any:
            async def parts() -> Any:
                for _ in range(3):
                    yield b"x"
                    await asyncio.sleep(0)

            return StreamingResponse(parts())

        @api.post("/body")
        async def body(self, request: fastapi.Request) -> int:
            return len(await request.body())

        @api.get("/fails")
        async def fails(self) -> Any:
            raise fastapi.HTTPException(418)

        @api.websocket("/socket")
        async def socket(self, websocket: fastapi.WebSocket) -> None:
            await websocket.accept()
            await websocket.close()

    return Tables.bind()


def _rounds(url: str, rounds: int) -> None:
    """So many of each kind, one behind the other on a few connections."""
    host = b" HTTP/1.1\r\nhost: x\r\n"
    kinds = {
        b"GET PREFIX/small" + host + b"\r\n": 200,
        b"GET PREFIX/large" + host + b"\r\n": 200,
        b"GET PREFIX/stream" + host + b"\r\n": 200,
        b"GET PREFIX/fails" + host + b"\r\n": 418,
        b"POST PREFIX/body" + host + b"content-length: 70000\r\n\r\n" + bytes(70_000): 200,
        b"POST PREFIX/body" + host + b"transfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n": 200,
    }
    each = rounds // len(kinds) + 1
    last = b"GET PREFIX/small" + host + b"connection: close\r\n\r\n"

    def ask(kind: bytes) -> None:
        with connected(url, b"") as client:
            prefix = url.partition("//")[2].partition("/")[2].encode()
            sending = threading.Thread(
                target=client.sendall, args=((kind * each + last).replace(b"PREFIX", b"/" + prefix),)
            )
            sending.start()
            heard = b"".join(iter(partial(client.recv, 1 << 20), b""))
            sending.join()
            assert heard.count(b"HTTP/1.1 %d" % kinds[kind]) >= each

    with ThreadPoolExecutor(len(kinds)) as threads:
        list(threads.map(ask, kinds))
    for _ in range(rounds // 50):
        with connect(url.replace("http:", "ws:") + "/socket") as websocket, suppress(ConnectionClosed):
            websocket.recv()
        with connected(url, b"GET PREFIX/stream" + host + b"\r\n") as client:
            client.recv(1)  # and it goes


def test_no_table_of_proxy_and_replica_grows_with_requests_that_are_over(serving: Serving) -> None:
    url = serving.run(tables(), "tables")
    names = [each["name"] for each in list_named_actors(all_namespaces=True)]
    (replica,) = [name for name in names if name.startswith("tables#")]
    actors = [actorrt.get_actor(name, namespace=NAMESPACE) for name in (PROXY, replica)]

    def sizes() -> list[dict[str, int]]:
        return [actorrt.get(actor.__ray_call__.remote(_sizes)) for actor in actors]

    _rounds(url, 50)
    before = sizes()
    _rounds(url, ROUNDS)
    after = sizes()
    for early, late in zip(before, after, strict=True):
        assert len(early) >= 10
        grown = {
            where: (early.get(where, 0), size)
            for where, size in late.items()
            if size > early.get(where, 0) + HELD_ANYWAY
        }
        assert grown == {}
