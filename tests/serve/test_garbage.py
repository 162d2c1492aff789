"""What requests leave for the collector: nothing, in the replica and in who calls."""

import asyncio
import collections
import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import fastapi
import httpx
import pytest
from starlette.responses import StreamingResponse
from websockets.sync.client import connect

from actorrt import serve

from .asgi_servers import connected
from .conftest import Serving


def begin() -> None:
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)


def found() -> dict[str, int]:
    """What only the collector has found since."""
    gc.collect()
    kinds = collections.Counter(type(each).__qualname__ for each in gc.garbage)
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()
    return dict(kinds)


@serve.deployment
class Child:
    async def __call__(self) -> int:
        await asyncio.sleep(0)
        return 1

    async def fail(self) -> None:
        raise ValueError("told to")

    async def count(self) -> Any:
        for number in range(3):
            yield number


def front() -> Any:
    api = fastapi.FastAPI()

    @serve.deployment(max_ongoing_requests=100)
    @serve.ingress(api)
    class Front:
        def __init__(self, child: Any) -> None:
            self.child = child
            self.gone = 0

        @api.get("/begin")
        async def begin(self) -> None:
            begin()
            self.gone = 0

        @api.get("/found/{gone}")
        async def found(self, gone: int) -> Any:
            while self.gone < gone:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.01)
            return found()

        @api.get("/plain")
        async def plain(self) -> int:
            return await self.child.remote()

        @api.get("/thread")
        def thread(self) -> int:
            return 1

        @api.get("/fails")
        async def fails(self) -> None:
            await self.child.fail.remote()

        @api.get("/stream")
        async def stream(self) -> StreamingResponse:
            return StreamingResponse(self.parts(False))

        @api.get("/stream-fails")
        async def stream_fails(self) -> StreamingResponse:
            return StreamingResponse(self.parts(True))

        async def parts(self, fails: bool) -> Any:
            async for number in self.child.options(stream=True).count.remote():
                yield str(number)
                await asyncio.sleep(0.001)
            if fails:
                raise ValueError("told to")

        @api.get("/leaves")
        async def leaves(self, request: fastapi.Request) -> None:
            while not await request.is_disconnected():  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            self.gone += 1

        @api.websocket("/websocket")
        async def websocket(self, websocket: fastapi.WebSocket) -> None:
            await websocket.accept()
            try:
                while True:
                    await websocket.send_text(await websocket.receive_text())
            finally:
                self.gone += 1

    return Front.bind(Child.bind())


@pytest.fixture(scope="module")
def url(serving: Serving) -> str:
    return serving.run(front(), "front")


@contextmanager
def collecting(url: str, serving: Serving, gone: int) -> Iterator[dict[str, int]]:
    left: dict[str, int] = {}
    serving.client.get(url + "/begin").raise_for_status()
    yield left
    left |= serving.client.get(f"{url}/found/{gone}").json()


@pytest.mark.parametrize("kind", ["plain", "thread", "fails", "stream", "stream-fails", "leaves", "websocket"])
def test_requests_leave_nothing_for_the_collector_in_their_replica(kind: str, url: str, serving: Serving) -> None:
    def ask() -> None:
        if kind == "websocket":
            with connect(f"{url}/{kind}".replace("http:", "ws:")) as client:
                client.send("x")
                assert client.recv() == "x"
        elif kind == "leaves":
            connected(url, b"GET PREFIX/leaves HTTP/1.1\r\nHost: x\r\n\r\n").close()
        else:
            with suppress(httpx.RemoteProtocolError):
                serving.client.get(f"{url}/{kind}")

    ask()  # what is made once
    times = 5
    with collecting(url, serving, times if kind in ("leaves", "websocket") else 0) as left:
        for _ in range(times):
            ask()
    # Not once a request; clients that go may meet the one before them.
    assert {name: count for name, count in left.items() if count >= times} == {}


async def test_calls_by_a_handle_leave_nothing_for_the_collector_in_who_calls(url: str) -> None:
    child = await asyncio.to_thread(serve.get_deployment_handle, "Child", "front")

    async def ask() -> None:
        assert await child.remote() == 1
        assert [each async for each in child.options(stream=True).count.remote()] == [0, 1, 2]
        with suppress(ValueError):
            await child.fail.remote()

    await asyncio.create_task(ask())
    begin()
    for _ in range(5):
        await asyncio.create_task(ask())
    await asyncio.sleep(0.01)
    left = found()
    assert {name: count for name, count in left.items() if count >= 5} == {}
