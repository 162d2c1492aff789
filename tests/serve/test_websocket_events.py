"""What a websocket's application is told, and what its clients see, beside bare uvicorn."""

import asyncio
import sys
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import fastapi
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from actorrt import serve
from actorrt.serve.exceptions import BackPressureError, DeploymentUnavailableError
from actorrt.serve.http.websocket_rules import TABLE, WebsocketState, after, failure, going_away
from actorrt.serve.replica.websocket_run import WebsocketRun

from .asgi_servers import bare_uvicorn, under_serve
from .conftest import Serving

ACCEPT = {"type": "websocket.accept"}
TEXT = {"type": "websocket.send", "text": "x"}
CLOSE = {"type": "websocket.close", "code": 4001, "reason": "enough"}


class Scenarios:
    """An ASGI application: a websocket below `/NAME` runs a scenario, GET `/NAME` waits for its end and its notes."""

    def __init__(self) -> None:
        self.notes: dict[str, list[Any]] = {}
        self.ended = defaultdict[str, asyncio.Event](asyncio.Event)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        name = scope["path"].split("/")[-1]
        if scope["type"] == "http":
            await self.ended[name].wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": repr(self.notes[name]).encode()})
            return
        notes = self.notes[name] = [(await receive())["type"], sorted(scope["extensions"])]
        try:
            await globals()[name](receive, send, notes)
        finally:
            self.ended[name].set()


async def sent(send: Any, message: Any, notes: list[Any]) -> bool:
    try:
        await send(message)
    except OSError:
        notes.append("the client has gone")
        return False
    except RuntimeError:
        notes.append(f"{message['type']} is refused")
        return False
    return True


async def only_sends(receive: Any, send: Any, notes: list[Any]) -> None:
    await send(ACCEPT)
    while await sent(send, TEXT, notes):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    notes.append(await receive())
    await sent(send, TEXT, notes)


async def only_receives(receive: Any, send: Any, notes: list[Any]) -> None:
    await send(ACCEPT)
    await send(TEXT)
    notes.append(await receive())


async def closes(receive: Any, send: Any, notes: list[Any]) -> None:
    await send(ACCEPT)
    await send(CLOSE)
    notes.append(await receive())


async def sends_after_its_close(receive: Any, send: Any, notes: list[Any]) -> None:
    await send(ACCEPT)
    await send(CLOSE)
    await sent(send, TEXT, notes)
    await sent(send, CLOSE, notes)


async def refuses(receive: Any, send: Any, notes: list[Any]) -> None:
    await send(CLOSE)
    notes.append(await receive())


async def denies(receive: Any, send: Any, notes: list[Any]) -> None:
    headers = [(b"retry-after", b"3"), (b"content-type", b"text/own")]
    await send({"type": "websocket.http.response.start", "status": 429, "headers": headers})
    await sent(send, TEXT, notes)
    await send({"type": "websocket.http.response.body", "body": b"slow", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b"ly"})
    notes.append(await receive())


async def sends_before_it_accepts(receive: Any, send: Any, notes: list[Any]) -> None:
    await sent(send, TEXT, notes)
    await send(ACCEPT)
    await sent(send, ACCEPT, notes)
    await send(CLOSE)


async def raises(receive: Any, send: Any, notes: list[Any]) -> None:
    raise ValueError("before it was accepted")


async def exits(receive: Any, send: Any, notes: list[Any]) -> None:
    sys.exit("before it was accepted")


async def returns(receive: Any, send: Any, notes: list[Any]) -> None: ...


def as_a_client(url: str) -> Any:
    """What a client sees that leaves after the first message, if it gets one."""
    try:
        with connect(url.replace("http:", "ws:")) as client:
            try:
                first = client.recv(20)
            except ConnectionClosed as closed:
                return closed.rcvd and (closed.rcvd.code, closed.rcvd.reason)
            client.close(4002, "bye")
            return first
    except InvalidStatus as refused:
        response = refused.response
        names = ("retry-after", "content-type")
        return response.status_code, bytes(response.body or b""), [response.headers.get(name) for name in names]


@pytest.fixture(scope="module")
def servers(serving: Serving) -> Iterator[tuple[str, str]]:
    with bare_uvicorn(Scenarios()) as bare:
        yield bare, under_serve(serving, Scenarios(), "events")


SAME = [only_sends, only_receives, closes, sends_after_its_close, refuses, denies, sends_before_it_accepts]


@pytest.mark.parametrize("scenario", [*SAME, raises, exits, returns])
def test_an_application_is_told_and_its_client_sees_what_uvicorn_tells_and_shows(
    scenario: Any, servers: tuple[str, str], serving: Serving
) -> None:
    name = scenario.__name__
    under = [(as_a_client(f"{url}/{name}"), serving.client.get(f"{url}/{name}").text) for url in servers]
    (bare_client, bare_notes), (client, notes) = under
    assert notes == bare_notes
    if scenario in (raises, exits, returns):
        # The words of the page are ours.
        assert client[0] == bare_client[0] == 500
    else:
        assert client == bare_client


def test_an_update_closes_websockets_with_1012_and_tells_their_applications(serving: Serving) -> None:
    def build(version: int) -> Any:
        api = fastapi.FastAPI()

        @serve.deployment(name="Talks", graceful_shutdown_timeout_s=0.1)
        @serve.ingress(api)
        class Talks:
            def __init__(self, log: Any) -> None:
                self.log = log

            @api.websocket("/")
            async def talk(self, websocket: fastapi.WebSocket) -> None:
                await websocket.accept()
                await websocket.send_text(str(version))
                message = await websocket.receive()
                await self.log.note.remote((message["type"], message["code"]))

        return Talks.bind(Log.bind())

    @serve.deployment
    class Log:
        def __init__(self) -> None:
            self.noted: asyncio.Queue[Any] = asyncio.Queue()

        async def note(self, what: Any) -> None:
            self.noted.put_nowait(what)

        async def next(self) -> Any:
            return await self.noted.get()

    url = serving.run(build(1), "updated").replace("http:", "ws:") + "/"
    log = serve.get_deployment_handle("Log", "updated")
    with connect(url) as client:
        assert client.recv() == "1"
        serving.run(build(2), "updated")
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(20)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    assert log.next.remote().result(timeout_s=20) == ("websocket.disconnect", 1012)
    with connect(url) as client:
        assert client.recv() == "2"


def test_a_websocket_to_what_is_full_or_failed_is_503_with_retry_after(serving: Serving) -> None:
    api = fastapi.FastAPI()

    @serve.deployment(max_ongoing_requests=1, max_queued_requests=0)
    @serve.ingress(api)
    class Full:
        @api.websocket("/")
        async def hold(self, websocket: fastapi.WebSocket) -> None:
            await websocket.accept()
            await websocket.send_text("held")
            await websocket.receive()

    url = serving.run(Full.bind(), "full").replace("http:", "ws:") + "/"
    with connect(url) as holds:
        holds.recv()
        with pytest.raises(InvalidStatus) as refused:
            connect(url)
    response = refused.value.response
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert b"is full" in bytes(response.body or b"")


@pytest.mark.parametrize("state", WebsocketState)
def test_every_message_is_allowed_or_refused_in_every_state(state: WebsocketState) -> None:
    kinds = {kind for _, kind in TABLE}
    for kind in kinds | {"http.response.start"}:
        if (state, kind) in TABLE:
            assert after(state, {"type": kind, "more_body": True}) is TABLE[state, kind]
        else:
            with pytest.raises(RuntimeError, match=kind):
                after(state, {"type": kind})


def test_what_a_client_is_told_depends_on_how_far_its_handshake_is() -> None:
    full, gone = BackPressureError("d", 1, 1), DeploymentUnavailableError("d", "secret")
    starting, opened = WebsocketState.CONNECTING, WebsocketState.OPEN
    assert [failure(starting, error)[0]["status"] for error in (None, ValueError(), full, gone)] == [500, 500, 503, 503]
    assert b"secret" not in failure(starting, gone)[1]["body"]
    assert [failure(opened, error)[0]["code"] for error in (ValueError(), full)] == [1011, 1013]
    assert failure(opened, None) == []
    assert failure(WebsocketState.CLOSED, ValueError()) == []
    assert (going_away(starting)[0]["status"], going_away(opened)[0]["code"]) == (503, 1012)
    assert going_away(WebsocketState.CLOSED) == []


SCOPE: dict[str, Any] = {"type": "websocket", "method": "GET", "headers": []}


async def test_a_sender_that_waits_for_room_learns_that_its_client_has_gone() -> None:
    notes: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(ACCEPT)
        while await sent(send, TEXT, notes):
            pass

    run = WebsocketRun(app, SCOPE)
    events = run.events()
    assert await anext(events) == ACCEPT
    for _ in range(5):
        await asyncio.sleep(0)
    assert notes == []
    assert await run.put({"type": "websocket.disconnect", "code": 1001})
    assert [event async for event in events].count(TEXT) > 0
    assert notes == ["the client has gone"]


async def test_an_application_that_has_closed_by_itself_works_on_as_long_as_it_likes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("actorrt.serve.replica.websocket_run.DISCONNECT_GRACE_S", 0.0)
    may_end = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(ACCEPT)
        await send(CLOSE)
        await may_end.wait()

    run = WebsocketRun(app, SCOPE)
    events = run.events()
    assert [await anext(events), await anext(events)] == [ACCEPT, CLOSE]
    await run.put({"type": "websocket.disconnect", "code": 4001})
    rest = asyncio.ensure_future(anext(events, None))
    for _ in range(5):
        await asyncio.sleep(0.001)
    assert not rest.done()
    may_end.set()
    assert await rest is None


async def test_one_that_goes_on_after_its_client_is_cancelled_with_what_it_has_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("actorrt.serve.replica.websocket_run.DISCONNECT_GRACE_S", 0.0)
    ended: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(ACCEPT)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")

    run = WebsocketRun(app, SCOPE, on_cancel=lambda: ended.append("children"))
    events = run.events()
    await anext(events)
    await run.put({"type": "websocket.disconnect", "code": 1006})
    assert await anext(events, None) is None
    assert ended == ["children", "cancelled"]
