"""Applications that break off, beside bare uvicorn, and what clients are told where nothing can run their request."""

import asyncio
import os
import sys
from collections.abc import Iterator
from typing import Any

import fastapi
import httpx
import pytest
from starlette.middleware.base import BaseHTTPMiddleware

from actorrt import serve
from actorrt.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
    RequestRefusedError,
    RequestRouterError,
)
from actorrt.serve.http.unavailable import NOT_AVAILABLE, answer_to, client_text, unavailable_in
from actorrt.serve.http.websocket_rules import WebsocketState, failure

from .asgi_servers import bare_uvicorn, under_serve
from .conftest import Serving

SECRET = "postgres://admin:hunter2@10.0.0.7"


async def breaks_off(scope: Any, receive: Any, send: Any) -> None:
    how = scope["path"].split("/")[-1]
    if "started" in how:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
    if how == "pid":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
    elif how.startswith("exit"):
        sys.exit("the route wants to exit")
    elif how.startswith("interrupt"):
        raise KeyboardInterrupt
    elif how.startswith("raise"):
        raise ValueError("the route fails")
    elif how.startswith("cancelled"):
        task = asyncio.ensure_future(asyncio.sleep(60))
        task.cancel()
        await task


@pytest.fixture(scope="module")
def servers(serving: Serving) -> Iterator[tuple[str, str]]:
    with bare_uvicorn(breaks_off) as bare:
        yield bare, under_serve(serving, breaks_off, "breaks")


@pytest.mark.parametrize("how", ["exit", "interrupt", "raise", "cancelled", "returns"])
@pytest.mark.parametrize("when", ["", "-started"])
def test_what_an_application_raises_ends_its_request_alone_as_under_uvicorn(
    how: str, when: str, servers: tuple[str, str], serving: Serving
) -> None:
    seen: list[Any] = []
    before = serving.client.get(servers[1] + "/pid").text
    for url in servers:
        try:
            answer = serving.client.get(f"{url}/{how}{when}")
            seen.append((answer.status_code, answer.text))
        except httpx.RemoteProtocolError:
            seen.append("cut off")
    assert seen[1] == seen[0] == ("cut off" if when else (500, "Internal Server Error"))
    assert serving.client.get(servers[1] + "/pid").text == before


async def miscounts(scope: Any, receive: Any, send: Any) -> None:
    said, *parts = scope["path"].split("/")[-1].split("-")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", said.encode())]})
    for number, part in enumerate(parts, 1):
        await send({"type": "http.response.body", "body": part.encode(), "more_body": number < len(parts)})


@pytest.mark.parametrize("how", ["3-ab", "3-abcd", "3-abcd-e"])
def test_a_response_of_another_length_than_it_says_is_500_and_not_a_request_to_come_again(
    how: str, serving: Serving
) -> None:
    url = under_serve(serving, miscounts, "miscounts")
    answer = serving.client.get(f"{url}/{how}")
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")
    assert "retry-after" not in answer.headers
    assert serving.client.get(f"{url}/3-abc").text == "abc"


@pytest.mark.parametrize("how", ["4-ab-c", "4-ab-cde"])
def test_one_that_has_begun_with_another_length_than_it_says_is_cut_off(how: str, serving: Serving) -> None:
    url = under_serve(serving, miscounts, "miscounts")
    with pytest.raises(httpx.RemoteProtocolError):
        serving.client.get(f"{url}/{how}")
    assert serving.client.get(f"{url}/3-abc").text == "abc"


def test_a_plain_deployment_that_exits_answers_500_and_keeps_its_neighbours(serving: Serving) -> None:
    @serve.deployment(max_ongoing_requests=10)
    class Exits:
        def __init__(self) -> None:
            self.here, self.may_end = asyncio.Event(), asyncio.Event()

        async def __call__(self, request: Any) -> Any:
            what = request.url.path.split("/")[-1]
            if what == "neighbour":
                self.here.set()
                await self.may_end.wait()
                return os.getpid()
            if what == "exits":
                await self.here.wait()
                sys.exit(3)
            self.may_end.set()
            return os.getpid()

    url = serving.run(Exits.bind(), "exits")

    async def both() -> list[httpx.Response]:
        async with httpx.AsyncClient(timeout=20) as client:
            neighbour = asyncio.ensure_future(client.get(url + "/neighbour"))
            exits = await client.get(url + "/exits")
            return [await client.get(url + "/pid"), await neighbour, exits]

    pid, neighbour, exits = asyncio.run(both())
    assert neighbour.json() == pid.json()
    assert (exits.status_code, exits.text) == (500, "Internal Server Error")


@pytest.mark.parametrize("method", ["coroutine", "plain", "items", "plain_items"])
def test_a_call_by_a_handle_that_exits_ends_alone(method: str, serving: Serving) -> None:
    @serve.deployment
    class Leaves:
        async def coroutine(self) -> None:
            sys.exit(3)

        def plain(self) -> None:
            sys.exit(3)

        async def items(self) -> Any:
            yield 1
            sys.exit(3)

        def plain_items(self) -> Any:
            yield 1
            sys.exit(3)

        async def pid(self) -> int:
            return os.getpid()

    handle: Any = serve.run(Leaves.bind(), name="leaves", route_prefix=None)
    before = handle.pid.remote().result()
    with pytest.raises(RuntimeError, match=r"sys\.exit\(3\) ends its request alone"):
        if "items" in method:
            list(handle.options(stream=True, method_name=method).remote())
        else:
            getattr(handle, method).remote().result()
    assert handle.pid.remote().result() == before


def fastapi_front() -> Any:
    api = fastapi.FastAPI(debug=True)

    @serve.deployment(name="FastApiFront", max_ongoing_requests=20)
    @serve.ingress(api)
    class Front:
        def __init__(self, child: Any) -> None:
            self.child = child

        @api.get("/{method}")
        async def get(self, method: str) -> Any:
            return await getattr(self.child, method).remote()

    return Front


def with_middleware() -> Any:
    api = fastapi.FastAPI()
    api.add_middleware(BaseHTTPMiddleware, dispatch=_pass_on)

    @api.exception_handler(Exception)
    async def own_page(request: Any, error: Exception) -> Any:
        return fastapi.responses.JSONResponse({"own": "page"}, 500)

    @serve.deployment(name="MiddlewareFront", max_ongoing_requests=20)
    @serve.ingress(api)
    class Front:
        def __init__(self, child: Any) -> None:
            self.child = child

        @api.get("/{method}")
        async def get(self, method: str) -> Any:
            async with asyncio.TaskGroup() as group:
                return await group.create_task(self.ask(method))

        async def ask(self, method: str) -> Any:
            return await getattr(self.child, method).remote()

    return Front


def plain() -> Any:
    @serve.deployment(name="PlainFront", max_ongoing_requests=20)
    class Front:
        def __init__(self, child: Any) -> None:
            self.child = child

        async def __call__(self, request: Any) -> Any:
            return await getattr(self.child, request.url.path.split("/")[-1]).remote()

    return Front


async def _pass_on(request: Any, call_next: Any) -> Any:
    return await call_next(request)


@serve.deployment(max_ongoing_requests=1, max_queued_requests=0)
class Child:
    def __init__(self) -> None:
        self.busy, self.may_end = asyncio.Event(), asyncio.Event()

    async def hold(self) -> str:
        self.busy.set()
        await asyncio.sleep(60)
        return "held"

    async def die(self) -> None:
        os._exit(1)

    async def fail(self) -> None:
        raise ValueError("its own error")


@pytest.mark.parametrize("front", [fastapi_front, with_middleware, plain])
def test_a_child_that_is_full_or_gone_is_503_below_every_kind_of_ingress(front: Any, serving: Serving) -> None:
    url = serving.run(front().bind(Child.bind()), f"full-{front.__name__}")
    own_error = serving.client.get(url + "/fail")
    assert own_error.status_code == 500

    async def two() -> list[httpx.Response]:
        async with httpx.AsyncClient(timeout=20) as client:
            asked = [asyncio.ensure_future(client.get(url + "/hold")) for _ in range(2)]
            done, waiting = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            for each in waiting:
                each.cancel()
            return [each.result() for each in done]

    (full,) = asyncio.run(two())
    assert (full.status_code, full.headers.get("retry-after")) == (503, "1")
    assert "is full" in full.text


def test_a_replica_that_dies_is_503_without_a_word_of_how(serving: Serving) -> None:
    url = serving.run(fastapi_front().bind(Child.bind()), "dies")
    answer = serving.client.get(url + "/die")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.text == f"{NOT_AVAILABLE}; the request may have run"


def test_what_a_constructor_says_is_for_the_log_and_the_status_and_not_for_clients(serving: Serving) -> None:
    @serve.deployment(max_constructor_retry_count=1)
    class Fails:
        def __init__(self) -> None:
            raise ConnectionError(f"cannot connect to {SECRET}")

        async def __call__(self, request: Any) -> str:
            return "ok"

    with pytest.raises(serve.exceptions.DeployFailedError, match=SECRET):
        serving.run(Fails.bind(), "fails")
    answer = serving.client.get(serving.url + "/fails")
    assert (answer.status_code, answer.text, answer.headers["retry-after"]) == (503, NOT_AVAILABLE, "1")
    assert SECRET in serve.status().applications["fails"].message
    serve.delete("fails")


def test_a_refusal_is_answered_with_the_status_and_the_time_that_its_router_gave() -> None:
    for given_s, told_s in ((0.0, 0), (0.2, 1), (2.0, 2), (2.1, 3), (None, None)):
        refused = RequestRefusedError("d", "too many tokens", given_s, 429)
        assert answer_to(refused) == (
            429,
            "deployment 'd' does not take the request: too many tokens",
            given_s,
            "",
            None,
        )
        headers = dict(failure(WebsocketState.CONNECTING, refused)[0]["headers"])
        assert headers.get(b"retry-after") == (None if told_s is None else b"%d" % told_s)
    assert answer_to(BackPressureError("d", 3, 3, 7.5)) == (503, str(BackPressureError("d", 3, 3)), 7.5, "", None)
    assert answer_to(ReplicaUnavailableError("d", "r", SECRET)) == (
        503,
        f"{NOT_AVAILABLE}; the request may have run",
        1,
        "",
        None,
    )
    assert answer_to(RequestRouterError("d", "Mine", SECRET)) is None


def test_only_a_group_of_nothing_else_is_unavailable() -> None:
    full, gone = BackPressureError("d", 1, 1), DeploymentUnavailableError("d", SECRET)
    assert unavailable_in(full) is full
    assert unavailable_in(ExceptionGroup("", [ExceptionGroup("", [gone]), full])) is gone
    assert unavailable_in(ExceptionGroup("", [gone, ValueError()])) is None
    assert unavailable_in(ValueError()) is None
    assert unavailable_in(None) is None


@pytest.mark.parametrize(
    "error", [DeploymentUnavailableError("d", SECRET), ReplicaUnavailableError("d", "d-1", SECRET), OSError(SECRET)]
)
def test_no_reason_reaches_a_client(error: Exception) -> None:
    assert client_text(error).startswith(NOT_AVAILABLE)
    assert SECRET not in client_text(error)
