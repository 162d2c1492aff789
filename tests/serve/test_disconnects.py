"""What an application is told of the end of a request, and what becomes of its work, beside bare uvicorn."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import fastapi
import pytest
from starlette.requests import Request
from starlette.responses import StreamingResponse

from actorrt import serve
from actorrt.serve.http.incoming import Incoming

from .asgi_servers import bare_uvicorn, connected, under_serve
from .conftest import Serving


class Scenarios:
    """An ASGI application: `/run/NAME.KEY` runs a scenario, `/notes/NAME.KEY` waits for its end and gives its notes."""

    def __init__(self) -> None:
        self.notes: dict[str, list[Any]] = {}
        self.begun: dict[str, asyncio.Event] = {}
        self.ended: dict[str, asyncio.Event] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        what, name = scope["path"].split("/")[-2:]
        if what != "run":
            await self.events(what, name).wait()
            await respond(send, repr(self.notes.get(name)).encode())
            return
        notes = self.notes[name] = []
        self.events("begun", name).set()
        try:
            await globals()[name.partition(".")[0]](receive, send, notes)
        finally:
            self.events("notes", name).set()

    def events(self, what: str, name: str) -> asyncio.Event:
        return (self.begun if what == "begun" else self.ended).setdefault(name, asyncio.Event())


async def respond(send: Any, body: bytes, more: bool = False) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body, "more_body": more})


def kind(message: Any) -> Any:
    return message["type"], len(message.get("body", b"")), message.get("more_body")


async def asks_after_its_response(receive: Any, send: Any, notes: list[Any]) -> None:
    notes.append(kind(await receive()))
    await respond(send, b"done")
    notes.extend([kind(await receive()), kind(await receive())])


async def asks_after_its_response_without_having_read(receive: Any, send: Any, notes: list[Any]) -> None:
    await respond(send, b"done")
    notes.append(kind(await receive()))


async def listens_while_it_responds(receive: Any, send: Any, notes: list[Any]) -> None:
    await receive()
    listener = asyncio.ensure_future(receive())
    await asyncio.sleep(0)
    await respond(send, b"done")
    notes.append(kind(await listener))


async def waits_for_its_client(receive: Any, send: Any, notes: list[Any]) -> None:
    notes.append(kind(await receive()))
    notes.extend(kind(each) for each in await asyncio.gather(receive(), receive()))
    notes.append(kind(await receive()))


async def waits_in_a_stream(receive: Any, send: Any, notes: list[Any]) -> None:
    await receive()
    await respond(send, b"first", more=True)
    notes.extend([kind(await receive()), kind(await receive())])


async def waits_for_the_rest_of_a_body(receive: Any, send: Any, notes: list[Any]) -> None:
    size = 0
    while (message := await receive())["type"] == "http.request":
        size += len(message["body"])
        assert message["more_body"]
    notes.append((size, kind(message)))


async def looks_whether_its_client_is_there(receive: Any, send: Any, notes: list[Any]) -> None:
    request = Request({"type": "http"}, receive)
    await request.body()
    notes.append(await request.is_disconnected())
    while not await request.is_disconnected():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    notes.append("gone")


async def works_on_for_a_moment(receive: Any, send: Any, notes: list[Any]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    await asyncio.sleep(0.05)
    notes.append("cleaned up")
    await respond(send, b"to nobody")
    notes.append("and has answered")


HEAD = b"Host: x\r\n\r\n"
LEAVES = [waits_for_its_client, waits_in_a_stream, looks_whether_its_client_is_there, works_on_for_a_moment]
STAYS = [asks_after_its_response, asks_after_its_response_without_having_read, listens_while_it_responds]


@pytest.fixture(scope="module")
def servers(serving: Serving) -> Iterator[tuple[str, str]]:
    with bare_uvicorn(Scenarios()) as bare:
        yield bare, under_serve(serving, Scenarios(), "scenarios")


@pytest.mark.parametrize("scenario", STAYS)
def test_after_its_response_an_application_is_told_what_uvicorn_tells(
    scenario: Any, servers: tuple[str, str], serving: Serving
) -> None:
    told: list[str] = []
    for url in servers:
        assert serving.client.post(f"{url}/run/{scenario.__name__}", content=b"body").content == b"done"
        told.append(serving.client.get(f"{url}/notes/{scenario.__name__}").text)
    assert told[0] == told[1]
    assert told[1].count("http.disconnect") >= 1


@pytest.mark.parametrize("scenario", LEAVES)
def test_an_application_whose_client_goes_is_told_what_uvicorn_tells(
    scenario: Any, servers: tuple[str, str], serving: Serving
) -> None:
    told: list[str] = []
    for url in servers:
        with connected(url, b"GET PREFIX/run/%b HTTP/1.1\r\n%b" % (scenario.__name__.encode(), HEAD)) as client:
            if scenario is waits_in_a_stream:
                received = b""
                while b"first" not in received:
                    received += client.recv(1000)
            serving.client.get(f"{url}/begun/{scenario.__name__}")
        told.append(serving.client.get(f"{url}/notes/{scenario.__name__}").text)
    assert told[0] == told[1]
    assert len(told[1]) > 5


@pytest.mark.parametrize("size", [10, 200_000])
def test_a_client_that_goes_in_the_middle_of_its_body_is_told_as_by_uvicorn(
    size: int, servers: tuple[str, str], serving: Serving
) -> None:
    name = f"{waits_for_the_rest_of_a_body.__name__}.{size}"
    told: list[str] = []
    for url in servers:
        head = b"POST PREFIX/run/%b HTTP/1.1\r\nContent-Length: 300000\r\n%b" % (name.encode(), HEAD)
        with connected(url, head + b"x" * size):
            serving.client.get(f"{url}/begun/{name}")
        told.append(serving.client.get(f"{url}/notes/{name}").text)
    assert told[1].endswith("('http.disconnect', 0, None))]")
    assert told[0].endswith("('http.disconnect', 0, None))]")


def works() -> fastapi.FastAPI:
    """Routes whose work goes on until it is cancelled, as that of servers of models."""
    api = fastapi.FastAPI()
    begun = defaultdict[str, asyncio.Event](asyncio.Event)
    ended = defaultdict[str, asyncio.Event](asyncio.Event)

    async def work(key: str) -> None:
        begun[key].set()
        try:
            await asyncio.Event().wait()
        finally:
            ended[key].set()

    async def until_gone(request: Request) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    @api.get("/first_of_both/{key}")
    async def first_of_both(request: Request, key: str) -> None:
        both = [asyncio.create_task(work(key)), asyncio.create_task(until_gone(request))]
        _, pending = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for each in pending:
            each.cancel()

    @api.get("/deaf/{key}")
    async def never_asks(key: str) -> None:
        await work(key)

    @api.get("/stream/{key}")
    async def stream(key: str) -> StreamingResponse:
        async def items() -> Any:
            yield "x"
            await work(key)

        return StreamingResponse(items())

    @api.get("/begun/{key}")
    async def until_begun(key: str) -> None:
        await begun[key].wait()

    @api.get("/ended/{key}")
    async def until_ended(key: str) -> str:
        await ended[key].wait()
        return "ended"

    return api


@pytest.fixture(scope="module")
def working(serving: Serving) -> str:
    return under_serve(serving, works, "works")


@pytest.mark.parametrize("route", ["first_of_both", "deaf", "stream"])
def test_the_work_of_an_application_ends_after_its_client_whether_or_not_it_asks(
    route: str, working: str, serving: Serving
) -> None:
    with connected(working, b"GET PREFIX/%b/gone-%b HTTP/1.1\r\n%b" % (route.encode(), route.encode(), HEAD)):
        serving.client.get(f"{working}/begun/gone-{route}")
    assert serving.client.get(f"{working}/ended/gone-{route}").json() == "ended"


@pytest.mark.parametrize("route", ["first_of_both", "deaf"])
def test_a_request_whose_time_is_up_is_told_and_then_cancelled(route: str, working: str, serving: Serving) -> None:
    late = serving.client.get(f"{working}/{route}/late-{route}", headers={"x-request-timeout-seconds": "0.3"})
    assert late.status_code == 408
    assert serving.client.get(f"{working}/ended/late-{route}").json() == "ended"


def test_a_plain_deployment_hears_of_its_client_too(serving: Serving) -> None:
    @serve.deployment(max_ongoing_requests=100)
    class Looks:
        def __init__(self) -> None:
            self.begun, self.gone = asyncio.Event(), asyncio.Event()

        async def __call__(self, request: Request) -> Any:
            if request.url.path.endswith("/begun"):
                return await self.begun.wait()
            if request.url.path.endswith("/gone"):
                return await self.gone.wait()
            await request.is_disconnected()
            while not await request.is_disconnected():
                self.begun.set()
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.01)
            self.gone.set()

    url = serving.run(Looks.bind(), "looks")
    with connected(url, b"GET PREFIX/ HTTP/1.1\r\n" + HEAD):
        assert serving.client.get(url + "/begun").json() is True
    assert serving.client.get(url + "/gone").json() is True


def test_what_code_waits_for_as_its_client_goes_in_a_stream_may_end_in_the_time_that_it_has(serving: Serving) -> None:
    @serve.deployment(max_ongoing_requests=100)
    class Waits:
        def __init__(self) -> None:
            self.may_end = asyncio.Event()

        async def wait(self) -> str:
            await self.may_end.wait()
            return "whole"

        async def end(self) -> None:
            self.may_end.set()

    @serve.deployment(max_ongoing_requests=100)
    class Saves:
        def __init__(self, other: Any) -> None:
            self.other = other
            self.saved: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def __call__(self, request: Request) -> Any:
            if request.url.path.endswith("/saved"):
                return await self.saved
            return StreamingResponse(self.parts(request))

        async def parts(self, request: Request) -> Any:
            answer = self.other.wait.remote()
            # Who has not listened for its client has no time.
            await request.is_disconnected()
            yield "begun"
            await request.receive()
            await self.other.end.remote()
            try:
                self.saved.set_result(await answer)
            except Exception as error:
                self.saved.set_result(repr(error))

    url = serving.run(Saves.bind(Waits.bind()), "saves")
    with connected(url, b"GET PREFIX/ HTTP/1.1\r\n" + HEAD) as client:
        while b"begun" not in client.recv(65_536):
            pass
    assert serving.client.get(url + "/saved").text == "whole"


async def test_a_receive_that_is_cancelled_takes_nothing_from_the_next() -> None:
    incoming = Incoming(b"body")
    assert (await incoming.receive())["body"] == b"body"
    waiting = [asyncio.ensure_future(incoming.receive()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    incoming.end()
    assert await asyncio.gather(*waiting[1:]) == [{"type": "http.disconnect"}] * 2
    assert await incoming.receive() == {"type": "http.disconnect"}
    assert waiting[0].cancelled()


async def test_a_body_that_was_not_read_is_not_given_after_the_end() -> None:
    incoming = Incoming(b"body")
    incoming.end()
    assert await incoming.receive() == {"type": "http.disconnect"}
