"""Websockets from a client through the proxy to a replica's application and back."""

import asyncio
from typing import Any

import fastapi
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from actorrt import serve

from .conftest import Serving


def application() -> serve.Application[Any]:
    api = fastapi.FastAPI()

    @serve.deployment(max_ongoing_requests=2)
    @serve.ingress(api)
    class Talks:
        def __init__(self) -> None:
            self.gone = asyncio.Event()

        @api.websocket("/echo/{name}")
        async def echo(self, socket: fastapi.WebSocket, name: str) -> None:
            await socket.accept(subprotocol="b" if "b" in socket.scope["subprotocols"] else None)
            await socket.send_json([name, socket.url.path, socket.query_params.get("q"), socket.headers.get("x-own")])
            try:
                while True:
                    message = await socket.receive()
                    if message["type"] == "websocket.disconnect":
                        break
                    if message.get("text") == "end":
                        await socket.close(4001, "told to")
                        break
                    if message.get("text") == "raise":
                        raise ValueError("told to")
                    if message.get("text") is not None:
                        await socket.send_text(message["text"])
                    else:
                        await socket.send_bytes(message["bytes"])
            finally:
                self.gone.set()

        @api.websocket("/refuse")
        async def refuse(self, socket: fastapi.WebSocket) -> None:
            await socket.close()

        @api.get("/gone")
        async def wait_until_gone(self) -> str:
            await self.gone.wait()
            self.gone.clear()
            return "gone"

    return Talks.bind()


@pytest.fixture(scope="module")
def url(serving: Serving) -> str:
    return serving.run(application(), "talks").replace("http:", "ws:")


def test_messages_go_both_ways_each_for_itself(serving: Serving, url: str) -> None:
    with connect(url + "/echo/me?q=1", additional_headers={"x-own": "2"}, subprotocols=["a", "b"]) as socket:  # type: ignore[list-item]
        assert socket.subprotocol == "b"
        assert socket.recv() == '["me","/talks/echo/me","1","2"]'
        for message in ("x", b"y", "", b"", "z" * 100_000, *(str(number) for number in range(300))):
            socket.send(message)
        assert [socket.recv() for _ in range(5)] == ["x", b"y", "", b"", "z" * 100_000]
        assert [socket.recv() for _ in range(300)] == [str(number) for number in range(300)]


def test_the_application_closes_with_its_code(url: str) -> None:
    with connect(url + "/echo/me") as socket:
        socket.recv()
        socket.send("end")
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "told to")


def test_an_application_that_raises_closes_the_websocket(url: str) -> None:
    with connect(url + "/echo/me") as socket:
        socket.recv()
        socket.send("raise")
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1011


def test_a_client_that_goes_ends_the_application(serving: Serving, url: str) -> None:
    serving.client.get(serving.url + "/talks/gone")
    with connect(url + "/echo/me") as socket:
        socket.recv()
    assert serving.client.get(serving.url + "/talks/gone").text == '"gone"'
    # Its slot is free again: there are two.
    for _ in range(5):
        with connect(url + "/echo/me") as socket:
            socket.recv()


@pytest.mark.parametrize("path", ["/refuse", "/missing"])
def test_what_is_not_accepted_is_refused(url: str, path: str) -> None:
    with pytest.raises(InvalidStatus, match="403"):
        connect(url + path)


def test_a_path_or_a_deployment_without_websockets_refuses_them(serving: Serving) -> None:
    @serve.deployment
    class Plain:
        async def __call__(self, request: Any) -> str:
            return "plain"

    plain = serving.run(Plain.bind(), "nosockets").replace("http:", "ws:")
    for url in (plain, serving.url.replace("http:", "ws:") + "/nowhere"):
        with pytest.raises(InvalidStatus, match="403"):
            connect(url)
    assert serving.client.get(serving.url + "/nosockets").text == "plain"
