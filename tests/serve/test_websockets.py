"""Websockets from a client through the proxy to a replica's application and back."""

import asyncio
from collections import defaultdict
from contextlib import suppress
from socket import create_connection, socket
from types import SimpleNamespace
from typing import Any

import fastapi
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from actorrt import serve
from actorrt.serve.proxy.websockets import Tunnel
from actorrt.serve.replica.websocket_run import WebsocketRun

from .conftest import Serving


def application() -> serve.Application[Any]:
    api = fastapi.FastAPI()

    @serve.deployment(max_ongoing_requests=2)
    @serve.ingress(api)
    class Talks:
        def __init__(self) -> None:
            self.begun = defaultdict[str, asyncio.Event](asyncio.Event)
            self.gone = defaultdict[str, asyncio.Event](asyncio.Event)

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
                self.gone[name].set()

        @api.websocket("/works/{name}")
        async def work(self, socket: fastapi.WebSocket, name: str) -> None:
            self.begun[name].set()
            if "unaccepted" not in socket.query_params:
                await socket.accept()
                await socket.send_text("works")
            try:
                await asyncio.Event().wait()
            finally:
                self.gone[name].set()

        @api.websocket("/refuse")
        async def refuse(self, socket: fastapi.WebSocket) -> None:
            await socket.close()

        @api.get("/begun/{name}")
        async def wait_until_begun(self, name: str) -> None:
            await self.begun[name].wait()

        @api.get("/gone/{name}")
        async def wait_until_gone(self, name: str) -> str:
            await self.gone[name].wait()
            return "gone"

    return Talks.bind()


@pytest.fixture(scope="module")
def url(serving: Serving) -> str:
    return serving.run(application(), "talks").replace("http:", "ws:")


def opening(serving: Serving, path: str) -> socket:
    """A client that has asked for a websocket and reads nothing."""
    host, port = serving.url.removeprefix("http://").split(":")
    fields = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    fields |= {"host": host, "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA=="}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    client = create_connection((host, int(port)))
    client.sendall(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())
    return client


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
    with connect(url + "/echo/goes") as socket:
        socket.recv()
    assert serving.client.get(serving.url + "/talks/gone/goes").text == '"gone"'
    # Its slot is free again: there are two.
    for _ in range(5):
        with connect(url + "/echo/me") as socket:
            socket.recv()


@pytest.mark.parametrize("unread", range(3))
def test_an_application_that_neither_reads_nor_sends_ends_soon_after_its_client(
    serving: Serving, url: str, unread: int
) -> None:
    with connect(f"{url}/works/{unread}") as socket:
        socket.recv()
        for _ in range(unread):
            socket.send("x")
    assert serving.client.get(f"{serving.url}/talks/gone/{unread}").text == '"gone"'


def test_an_application_whose_client_goes_before_it_is_accepted_ends_soon_after_it(serving: Serving, url: str) -> None:
    with opening(serving, "/talks/works/early?unaccepted"):
        assert serving.client.get(serving.url + "/talks/begun/early").status_code == 200
    assert serving.client.get(serving.url + "/talks/gone/early").text == '"gone"'


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


SCOPE: dict[str, Any] = {
    "type": "websocket",
    "method": "GET",
    "scheme": "ws",
    "client": None,
    "server": None,
    "path": "/",
    "query_string": b"",
    "headers": [],
}


class Places:
    """A router and a replica's handle at once, with one slot."""

    def __init__(self, *events: Any) -> None:
        self.free = 1
        self.refusals: list[int] = []
        self._events = list(events)
        self.request: Any = None
        self.cancelled: list[Any] = []
        self.withdrawn: list[Any] = []
        self.messages: list[Any] = []
        # What the tunnel finds in its grant and its target.
        self.tag = None
        self.websocket = self
        self.websocket_message = SimpleNamespace(remote=self._take)

    async def _take(self, key: str, message: Any) -> bool:
        self.messages.append(message)
        return True

    def submit(self, request: Any) -> None:
        self.request = request

    def place(self) -> None:
        self.free -= 1
        self.request.send(self, self)

    def withdraw(self, request: Any) -> bool:
        self.withdrawn.append(request)
        return False

    def released(self, slots: Any) -> None:
        assert slots is self
        self.free += 1

    def refused(self, request: Any, target: Any, slots: Any, reason: int) -> None:
        self.refusals.append(reason)
        request.send(target, slots)

    def remote(self, *args: Any) -> Any:
        return self

    async def next_values(self) -> list[Any]:
        if not self._events:
            await asyncio.Event().wait()
        event = self._events.pop(0)
        return [] if event is None else [event]


ACCEPT = {"type": "websocket.accept"}


@pytest.fixture
def cancelled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    found: list[Any] = []
    monkeypatch.setattr("actorrt.serve.proxy.websockets.cancel", found.append)
    return found


async def begin(places: Places, send: Any, said: asyncio.Queue[Any] | None = None) -> asyncio.Task[None]:
    said = asyncio.Queue() if said is None else said

    async def receive() -> Any:
        return {"type": "websocket.connect"} if places.request is None else await said.get()

    tunnel = Tunnel(places, b"", b"id")  # type: ignore[arg-type]
    task = asyncio.ensure_future(tunnel.run(receive, send))
    while places.request is None:  # noqa: ASYNC110
        await asyncio.sleep(0)
    return task


async def test_a_client_that_goes_while_something_is_sent_to_it_leaves_the_application_to_its_end(
    cancelled: list[Any],
) -> None:
    tried: list[Any] = []

    async def send(event: Any) -> None:
        tried.append(event)
        raise OSError("the client has gone")

    places = Places(ACCEPT, {"type": "websocket.send", "text": "x"}, None)
    task = await begin(places, send)
    places.place()
    await task
    assert (tried, places.free, cancelled) == ([ACCEPT], 1, [])


@pytest.mark.parametrize("turns", range(4))
async def test_a_websocket_that_is_cancelled_in_any_turn_gives_its_slot_back(turns: int, cancelled: list[Any]) -> None:
    async def send(event: Any) -> None: ...

    places = Places(ACCEPT)
    task = await begin(places, send)
    places.place()
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert places.free == 1


@pytest.mark.parametrize("placed_at_once", [False, True])
async def test_a_client_that_goes_while_it_waits_for_a_replica_waits_no_more(placed_at_once: bool) -> None:
    async def send(event: Any) -> None: ...

    places = Places(ACCEPT)
    said: asyncio.Queue[Any] = asyncio.Queue()
    task = await begin(places, send, said)
    await asyncio.sleep(0)
    said.put_nowait({"type": "websocket.disconnect", "code": 1006})
    if placed_at_once:
        await asyncio.sleep(0)
        places.place()
    await task
    assert places.withdrawn == [places.request]
    if not placed_at_once:
        # The router may have been about to give it a replica.
        places.place()
    assert places.free == 1


async def test_what_a_client_says_while_it_waits_for_a_replica_is_not_lost() -> None:
    accepted: asyncio.Queue[Any] = asyncio.Queue()
    places = Places(1, ACCEPT)
    said: asyncio.Queue[Any] = asyncio.Queue()
    task = await begin(places, accepted.put, said)
    await asyncio.sleep(0)
    said.put_nowait({"type": "first"})
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    places.place()
    said.put_nowait({"type": "second"})
    assert await accepted.get() == ACCEPT
    while len(places.messages) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert [message["type"] for message in places.messages] == ["first", "second"]
    task.cancel()
    await asyncio.wait([task])


async def test_a_websocket_that_is_refused_keeps_one_slot_until_its_end(cancelled: list[Any]) -> None:
    sent: list[Any] = []

    async def send(event: Any) -> None:
        sent.append(event)
        assert places.free == 0

    places = Places(1, ACCEPT, None)
    task = await begin(places, send)
    places.place()
    await task
    assert (places.free, places.refusals, sent, cancelled) == (1, [1], [ACCEPT], [])


async def test_an_application_whose_client_has_gone_is_over_with_its_clean_up() -> None:
    steps: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(ACCEPT)
        try:
            while True:
                await send({"type": "websocket.send", "text": "x"})
                steps.append("sent")
        finally:
            await asyncio.sleep(0)
            with suppress(OSError):
                await send({"type": "websocket.close"})
            steps.append("ended")

    run = WebsocketRun(app, SCOPE)
    events = run.events()
    assert await anext(events) == ACCEPT
    assert (await anext(events))["text"] == "x"
    # The client takes no more: the application waits until there is room.
    before = -1
    while before != len(steps):
        before = len(steps)
        await asyncio.sleep(0)
    assert 0 < before < 100
    await events.aclose()
    assert steps[-1] == "ended"
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert not await run.put({"type": "websocket.receive", "text": "y"})


async def test_what_a_client_said_before_it_went_is_read_before_that() -> None:
    begun = asyncio.Event()
    read: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await begun.wait()
        while (message := await receive())["type"] != "websocket.disconnect":
            read.append(message["type"])
        read.append((await receive())["code"])

    run = WebsocketRun(app, SCOPE)
    events = run.events()
    first = asyncio.ensure_future(anext(events))
    waiting = [asyncio.ensure_future(run.put({"type": text})) for text in ("first", "second")]
    for _ in range(5):
        await asyncio.sleep(0)
    assert not waiting[1].done()
    assert await run.put({"type": "websocket.disconnect", "code": 1006})
    begun.set()
    with pytest.raises(StopAsyncIteration):
        await first
    assert read == ["websocket.connect", "first", "second", 1006]
    assert await asyncio.gather(*waiting) == [True, True]


async def test_that_a_client_has_gone_is_told_to_the_replica_that_takes_the_websocket(cancelled: list[Any]) -> None:
    places = Places(1, ACCEPT)
    said: asyncio.Queue[Any] = asyncio.Queue()
    unread: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    async def send(event: Any) -> None: ...

    def take(key: str, message: Any) -> asyncio.Future[bool]:
        places.messages.append(message["type"])
        return unread

    places.websocket_message = SimpleNamespace(remote=take)
    task = await begin(places, send, said)
    places.place()
    said.put_nowait({"type": "first"})
    said.put_nowait({"type": "websocket.disconnect"})
    # The first message is not acknowledged.
    while len(places.messages) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert places.messages == ["first", "websocket.disconnect"]
    task.cancel()
    await asyncio.wait([task])


def test_an_application_is_not_far_ahead_of_a_client_that_reads_nothing(serving: Serving) -> None:
    api = fastapi.FastAPI()

    @serve.deployment(max_ongoing_requests=2)
    @serve.ingress(api)
    class Floods:
        def __init__(self) -> None:
            self.sent = 0
            self.over = asyncio.Event()

        @api.websocket("/flood")
        async def flood(self, websocket: fastapi.WebSocket) -> None:
            await websocket.accept()
            try:
                while True:
                    await websocket.send_bytes(bytes(100_000))
                    self.sent += 1
            finally:
                self.over.set()

        @api.get("/sent")
        async def count(self) -> int:
            return self.sent

        @api.get("/over")
        async def until_over(self) -> None:
            await self.over.wait()
            self.over.clear()
            self.sent = 0

    address = serving.run(Floods.bind(), "floods")
    # Two may be here at once: each gives its slot back.
    for _ in range(3):
        with opening(serving, "/floods/flood"):
            while not serving.client.get(address + "/sent").json():
                pass
            # What lies in the buffers of the sockets and in the queues before them; it would be more than a thousand.
            assert max(serving.client.get(address + "/sent").json() for _ in range(50)) < 500
        assert serving.client.get(address + "/over").status_code == 200
