"""A deployment whose requests the capacity queue admits, through real Serve, by HTTP and by handles."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import websockets
from starlette.requests import Request

import actorrt
from actorrt import serve
from actorrt.serve.capacity_queue import status
from actorrt.serve.capacity_queue.messages import QueueCost, QueueUse
from actorrt.serve.exceptions import BackPressureError, RequestRefusedError, RequestRouterError
from actorrt.util import list_named_actors

from .. import gates
from ..gates import Gate
from .conftest import Serving
from .queues import queue_of, statistics, until_idle, until_running


@actorrt.remote
class Hanging:
    async def is_there(self) -> None:
        pass

    async def why(self, request_id: str) -> list[str]:
        await asyncio.Event().wait()
        return [request_id]


Held = serve.deployment(name="Held", num_replicas=2, max_ongoing_requests=2, request_router="capacity_queue")(
    gates.Held
)


def queue_names() -> list[str]:
    return [each["name"] for each in list_named_actors(all_namespaces=True) if "#queue-" in each["name"]]


async def test_all_that_send_share_one_queue_and_it_ends_with_its_deployment(serving: Serving) -> None:
    url = await asyncio.to_thread(serving.run, Held.bind(), "shared")
    assert len(queue_names()) == 1
    handle = await asyncio.to_thread(serve.get_app_handle, "shared")
    gate = actorrt.remote(Gate).remote()
    held = [handle.hold.remote(gate) for _ in range(4)]
    await gate.until.remote(4)
    # All four places are taken, by this process; another one waits, and no replica refuses anything.
    async with httpx.AsyncClient(timeout=20) as client:
        waiting = asyncio.ensure_future(client.get(url))
        while (found := await statistics("shared", "Held"))["tenants"].get("", {}).get("waiting") != 1:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert [line["running"] for line in found["lines"]] == [2, 2]
        assert (found["units"], found["routers"]) == ("requests", 2)
        assert not waiting.done()
        await gate.open.remote()
        answer = await waiting
    assert answer.status_code == 200
    assert int(answer.headers["x-actorrt-queue-ms"]) >= 0
    assert len(set(await asyncio.gather(*held))) == 2
    assert [each async for each in handle.options(stream=True).numbers.remote(3)] == [0, 1, 2]
    assert await until_idle("shared", "Held")
    await asyncio.to_thread(serve.delete, "shared")
    while queue_names():  # noqa: ASYNC110
        await asyncio.sleep(0)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def test_an_open_websocket_has_its_lease_until_it_is_closed(serving: Serving) -> None:
    app = serve.from_asgi(echo, name="Echo", max_ongoing_requests=2, request_router="capacity_queue")
    url = await asyncio.to_thread(serving.run, app, "echo")
    async with websockets.connect(url.replace("http", "ws", 1), proxy=None) as socket:
        await socket.send("hi")
        assert await socket.recv() == "hi"
        while [(line["running"], line["begun"]) for line in (await statistics("echo", "Echo"))["lines"]] != [(1, 1)]:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert await until_idle("echo", "Echo")


async def test_tokens_bound_what_runs_and_what_never_fits_is_refused(serving: Serving) -> None:
    kwargs = {"units": "tokens", "kv_tokens": 1000, "headroom": 0.8}
    app = Held.options(
        num_replicas=1,
        max_ongoing_requests=50,
        request_router_config=serve.RequestRouterConfig("capacity_queue", kwargs),
    )
    await asyncio.to_thread(serving.run, app.bind(), "tokens")
    handle = await asyncio.to_thread(serve.get_app_handle, "tokens")
    gate = actorrt.remote(Gate).remote()
    large = handle.options(cost=serve.Cost(tokens=250))
    held = [large.hold.remote(gate) for _ in range(7)]
    await gate.until.remote(3)
    while (found := await statistics("tokens", "Held"))["tenants"].get("", {}).get("waiting") != 4:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert [(line["used"], line["running"]) for line in found["lines"]] == [(750, 3)]
    with pytest.raises(RequestRefusedError, match="prompt has 5000 tokens, and a replica holds 1000") as refused:
        await handle.options(cost=serve.Cost(tokens=5000)).pid.remote()
    assert (refused.value.status, refused.value.retry_after_s) == (413, None)
    assert await gate.open.remote() == 3
    await asyncio.gather(*held)
    stream = handle.options(stream=True, cost=QueueCost(tokens=10, max_tokens=500)).numbers.remote(5)
    assert [each async for each in stream] == [0, 1, 2, 3, 4]
    assert await until_idle("tokens", "Held")


async def test_bands_and_tenants_and_deadlines_are_the_requests_own(serving: Serving) -> None:
    kwargs = {"tenants": {"small": {"waiting_requests": 1}, "heavy": {"weight": 3.0}}}
    router = serve.RequestRouterConfig("capacity_queue", kwargs)
    app = Held.options(num_replicas=1, max_ongoing_requests=1, request_router=router)
    await asyncio.to_thread(serving.run, app.bind(), "bands")
    handle = await asyncio.to_thread(serve.get_app_handle, "bands")
    gate = actorrt.remote(Gate).remote()
    held = handle.hold.remote(gate)
    await gate.until.remote(1)
    small = handle.options(cost=QueueCost(tenant="small"))
    order: list[str] = []

    async def ask(name: str, cost: QueueCost) -> None:
        await handle.options(cost=cost).pid.remote()
        order.append(name)

    waits = [asyncio.ensure_future(ask("batch", QueueCost(band="batch", tenant="small")))]
    while (await statistics("bands", "Held"))["tenants"].get("small", {}).get("waiting") != 1:  # noqa: ASYNC110
        await asyncio.sleep(0)
    with pytest.raises(RequestRefusedError, match="1 requests of tenant small wait, and 1 is the limit") as refused:
        await small.pid.remote()
    assert refused.value.status == 429
    with pytest.raises(RequestRefusedError, match=r"it has waited for .* to its deadline") as late:
        await handle.options(cost=QueueCost(deadline_s=0.05)).pid.remote()
    assert late.value.status == 429
    with pytest.raises(RequestRefusedError, match="there is no band 'first': there are priority, default") as wrong:
        await handle.options(cost=QueueCost(band="first")).pid.remote()
    assert wrong.value.status == 400
    waits += [asyncio.ensure_future(ask(band, QueueCost(band=band))) for band in ("flex", "default", "priority")]
    while (await statistics("bands", "Held"))["tenants"].get("", {}).get("waiting") != 3:  # noqa: ASYNC110
        await asyncio.sleep(0)
    await gate.open.remote()
    await asyncio.gather(held, *waits)
    assert order == ["priority", "default", "flex", "batch"]


async def test_people_are_told_what_a_queue_has_and_what_a_request_waits_for(serving: Serving) -> None:
    app = Held.options(num_replicas=1, max_ongoing_requests=1)
    url = await asyncio.to_thread(serving.run, app.bind(), "told")
    handle = await asyncio.to_thread(serve.get_app_handle, "told")
    gate = actorrt.remote(Gate).remote()
    held = handle.options(cost=QueueCost(tenant="first")).hold.remote(gate)
    await gate.until.remote(1)
    async with httpx.AsyncClient(timeout=20) as client:
        waiting = asyncio.ensure_future(client.get(url, headers={"x-request-id": "the one"}))
        while (await statistics("told", "Held"))["tenants"].get("", {}).get("waiting") != 1:  # noqa: ASYNC110
            await asyncio.sleep(0)
        (found,) = [each for each in await asyncio.to_thread(serve.queues) if each.application == "told"]
        assert (found.deployment, found.units, found.granted, found.trouble) == ("Held", "requests", 1, "")
        assert [(line.running, line.slots) for line in found.lines] == [(1, 1)]
        assert found.tenants is not None
        assert [(name, each.waiting) for name, each in found.tenants.items()] == [("", 1)]
        (said,) = await asyncio.to_thread(serve.why, "the one")
        assert said.startswith("told#Held: it has waited for ")
        assert "in band default for 1 requests: every replica is full; 0 requests are before it" in said
        (runs,) = await asyncio.to_thread(serve.why, held.request_id)
        assert runs.startswith("told#Held: it runs at replica Held-")
        assert await asyncio.to_thread(serve.why, "nobody's") == []
        # Several who ask at once are all answered.
        both = await asyncio.gather(*(asyncio.to_thread(serve.why, "the one") for _ in range(3)))
        assert [len(each) for each in both] == [1, 1, 1]
        for wrong in ("\udc80", "x" * 1025):
            with pytest.raises(ValueError, match=r"^no request has"):
                await asyncio.to_thread(serve.why, wrong)
            # Nor does one who asks the queue itself cost routers their streams.
            with pytest.raises(ValueError, match="no request has"):
                await (await queue_of("told", "Held")).why.remote(wrong)
        assert len(await asyncio.to_thread(serve.why, "the one")) == 1
        assert (await statistics("told", "Held"))["routers"] == 2
        await gate.open.remote()
        await held
        assert (await waiting).status_code == 200


def tokens_of(number: Any, path: str = "", *_: Any) -> float:
    """Of a call by a handle with a number, and by HTTP, where it ends the path."""
    match path[-1:] or str(number):
        case "1":
            raise ValueError("told to")
        case "2":
            return float("nan")
        case "3":
            return -1.0
        case "4":
            return 5000
        case "6":
            raise asyncio.CancelledError("told to")
        case "7":
            raise KeyboardInterrupt
        case "8":
            raise GeneratorExit
        case "9":
            raise BaseException("told to")
        case _:
            return 7


async def test_a_cost_function_that_fails_fails_its_request_alone(serving: Serving) -> None:
    @serve.deployment(
        request_router=serve.RequestRouterConfig(
            "capacity_queue", {"units": "tokens", "kv_tokens": 100, "cost": tokens_of}
        )
    )
    class Counted:
        async def number(self, number: int) -> int:
            return number

        async def __call__(self, request: Request) -> str:
            return "counted"

    url = await asyncio.to_thread(serving.run, Counted.bind(), "counted")
    handle = await asyncio.to_thread(serve.get_app_handle, "counted")
    for number, words in (
        (1, "ValueError: told to"),
        (2, "the cost function gave nan"),
        (3, "the cost function gave -1"),
        (6, "CancelledError: told to"),
        (7, "KeyboardInterrupt"),
        (8, "GeneratorExit"),
        (9, "BaseException: told to"),
    ):
        with pytest.raises(RequestRouterError, match=words):
            await handle.number.remote(number)
    assert await handle.number.remote(5) == 5
    async with httpx.AsyncClient(timeout=20) as client:
        for path, status, words in (
            ("/1", 500, "Internal Server Error"),
            ("/2", 500, "Internal Server Error"),
            ("/3", 500, "Internal Server Error"),
            ("/4", 413, "the prompt has 5000 tokens, and a replica holds 100 at most"),
            ("/6", 500, "Internal Server Error"),
            ("/7", 500, "Internal Server Error"),
            ("/8", 500, "Internal Server Error"),
            ("/9", 500, "Internal Server Error"),
            ("/5", 200, "counted"),
        ):
            answer = await client.get(url + path)
            assert answer.status_code == status
            assert words in answer.text
            assert "retry-after" not in answer.headers
    assert await until_idle("counted", "Counted")
    await asyncio.to_thread(serve.delete, "counted")


async def test_in_requests_a_tenant_s_limits_are_requests(serving: Serving) -> None:
    limits = {"running_tokens": 2, "waiting_tokens": 1}
    router = serve.RequestRouterConfig("capacity_queue", {"tenants": {"small": limits}})
    app = Held.options(max_ongoing_requests=4, request_router=router)
    await asyncio.to_thread(serve.run, app.bind(), name="limits", route_prefix=None)
    small = (await asyncio.to_thread(serve.get_app_handle, "limits")).options(cost=QueueCost(tenant="small"))
    gate = actorrt.remote(Gate).remote()
    held = [small.hold.remote(gate) for _ in range(2)]
    await gate.until.remote(2)
    waiting = small.pid.remote()
    while not (said := await asyncio.to_thread(serve.why, waiting.request_id)) or "waited" not in said[0]:
        pass
    assert "for 1 requests: tenant small runs 2 requests, and 2 is its limit; 0 requests are before it" in said[0]
    with pytest.raises(RequestRefusedError, match="1 requests of tenant small wait, and 1 is the limit"):
        await small.pid.remote()
    await gate.open.remote()
    assert await waiting
    await asyncio.gather(*held)
    await asyncio.to_thread(serve.delete, "limits")


async def test_a_queue_has_settings_for_thousands_of_tenants(serving: Serving) -> None:
    tenants = {f"{number}-{'a' * 60}": {"weight": 2.0, "waiting_requests": 0} for number in range(5_000)}
    app = Held.options(request_router=serve.RequestRouterConfig("capacity_queue", {"tenants": tenants}))
    await asyncio.to_thread(serve.run, app.bind(), name="many", route_prefix=None)
    handle = await asyncio.to_thread(serve.get_app_handle, "many")
    cost = QueueCost(tenant=next(iter(tenants)), session="asks the queue")
    assert await handle.options(cost=cost).pid.remote()
    await asyncio.to_thread(serve.delete, "many")


def test_tokens_that_nobody_says_are_refused_where_the_deployment_is_bound() -> None:
    router = serve.RequestRouterConfig("capacity_queue", {"units": "tokens"})
    with pytest.raises(ValueError, match=r"needs kv_tokens, .* or a method queue_offer\(\)"):
        Held.options(request_router=router).bind()


async def test_a_full_queue_refuses_for_all_processes_together(serving: Serving) -> None:
    app = Held.options(num_replicas=1, max_ongoing_requests=1, max_queued_requests=2)
    url = await asyncio.to_thread(serving.run, app.bind(), "full")
    handle = await asyncio.to_thread(serve.get_app_handle, "full")
    gate = actorrt.remote(Gate).remote()
    held = [handle.hold.remote(gate)]
    # Until its replica is known to the queue, that one would wait, too.
    await gate.until.remote(1)
    held += [handle.hold.remote(gate) for _ in range(2)]
    while (await statistics("full", "Held"))["tenants"].get("", {}).get("waiting") != 2:  # noqa: ASYNC110
        await asyncio.sleep(0)
    with pytest.raises(BackPressureError):
        await handle.pid.remote()
    async with httpx.AsyncClient(timeout=20) as client:
        answer = await client.get(url)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    await gate.open.remote()
    await asyncio.gather(*held)


async def test_settings_change_while_requests_wait_and_run(serving: Serving) -> None:
    app = Held.options(num_replicas=1, max_ongoing_requests=1)
    await asyncio.to_thread(serving.run, app.bind(), "live")
    handle = await asyncio.to_thread(serve.get_app_handle, "live")
    gate = actorrt.remote(Gate).remote()
    held = [handle.hold.remote(gate) for _ in range(6)]
    await gate.until.remote(1)
    router = serve.RequestRouterConfig("capacity_queue", {"tenants": {"": {"weight": 2.0}}})
    await asyncio.to_thread(serving.run, app.options(max_ongoing_requests=3, request_router=router).bind(), "live")
    await gate.until.remote(3)
    # To another router and back: none is lost.
    await asyncio.to_thread(serving.run, app.options(request_router="round_robin").bind(), "live")
    await asyncio.to_thread(serving.run, app.bind(), "live")
    assert not any(each.done() for each in held)
    await gate.open.remote()
    assert Counter(await asyncio.gather(*held)).total() == 6
    assert await until_idle("live", "Held")


async def test_what_a_stream_has_used_reaches_the_ledger_as_it_goes(serving: Serving) -> None:
    router = serve.RequestRouterConfig("capacity_queue", {"units": "tokens", "kv_tokens": 10_000})

    @serve.deployment(max_ongoing_requests=10, request_router=router)
    class Talks:
        async def words(self, gate: Any) -> AsyncIterator[int]:
            yield 1
            await gate.passed.remote()

    await asyncio.to_thread(serve.run, Talks.bind(), name="talks", route_prefix=None)
    handle = await asyncio.to_thread(serve.get_app_handle, "talks")
    gate = actorrt.remote(Gate).remote()
    stream = handle.options(stream=True, cost=QueueCost(tokens=100, max_tokens=50)).words.remote(gate)
    assert await anext(stream) == 1
    for wrong, error in ((2**53 + 1, ValueError), (-1, ValueError), ("80", TypeError)):
        with pytest.raises(error, match=r"^tokens of a cost must be"):
            stream.report_progress(wrong)  # type: ignore[arg-type]
    stream.report_progress(80)
    while [line["used"] for line in (await statistics("talks", "Talks"))["lines"]] != [180]:  # noqa: ASYNC110
        await asyncio.sleep(0)
    stream.report_used(QueueUse(tokens=90, is_whole=True))
    await gate.open.remote()
    assert [each async for each in stream] == []
    assert await until_idle("talks", "Talks")
    await asyncio.to_thread(serve.delete, "talks")


async def test_a_queue_that_hangs_holds_nobody_up_who_asks_why(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "ANSWER_S", 0.1)
    queue: Any = Hanging.remote()
    await queue.is_there.remote()
    said = await status._why({("app", "deployment"): queue}, "1")
    assert said == ["app#deployment: its queue does not answer, so it may wait there"]


async def test_by_http_any_request_may_say_how_long_it_waits_and_whose_turn_it_is(serving: Serving) -> None:
    app = Held.options(num_replicas=2, max_ongoing_requests=2)
    url = await asyncio.to_thread(serving.run, app.bind(), "headers")
    handle = await asyncio.to_thread(serve.get_app_handle, "headers")
    gate = actorrt.remote(Gate).remote()
    # A replica that has not said what it runs is taken for full but for one place.
    await until_running(await queue_of("headers", "Held"), 0, replicas=2, slots=2)
    async with httpx.AsyncClient(timeout=20) as client:
        for wrong in ("0", "soon", "1.5"):
            refused = await client.get(url, headers={"x-request-timeout-ms": wrong})
            assert refused.status_code == 400
            assert "x-request-timeout-ms must be a whole number of milliseconds from 1 to" in refused.text
            assert wrong in refused.text
        # Where its last turn ran, although the other replica has nothing to do.
        pid = (await client.get(url, headers={"x-session-id": "s"})).json()
        held = handle.options(cost=QueueCost(max_tokens=0, session="s")).hold.remote(gate)
        await gate.until.remote(1)
        assert {(await client.get(url, headers={"x-session-id": "s"})).json() for _ in range(5)} == {pid}
        others = [handle.hold.remote(gate) for _ in range(3)]
        await gate.until.remote(4)
        late = await client.get(url, headers={"x-request-timeout-ms": "20"})
        assert (late.status_code, int(late.headers["retry-after"])) == (429, 1)
        assert "to its deadline" in late.text
        await gate.open.remote()
        assert await held == pid
        await asyncio.gather(*others)
    assert await until_idle("headers", "Held")


async def test_by_http_a_retry_with_the_ticket_of_its_429_goes_before_who_came_meanwhile(serving: Serving) -> None:
    app = Held.options(num_replicas=1, max_ongoing_requests=1)
    url = await asyncio.to_thread(serving.run, app.bind(), "ticket")
    handle = await asyncio.to_thread(serve.get_app_handle, "ticket")
    gate = actorrt.remote(Gate).remote()
    held = handle.hold.remote(gate)
    await gate.until.remote(1)
    order: list[str] = []

    async def ask(name: str, **headers: str) -> None:
        assert (await client.get(url, headers=headers)).status_code == 200
        order.append(name)

    async def waiting(count: int) -> None:
        while (await statistics("ticket", "Held"))["tenants"].get("", {}).get("waiting", 0) != count:  # noqa: ASYNC110
            await asyncio.sleep(0)

    async with httpx.AsyncClient(timeout=20) as client:
        refused = await client.get(url, headers={"x-request-timeout-ms": "20"})
        assert refused.status_code == 429
        ticket = refused.headers["x-actorrt-ticket"]
        # It was heard of at its deadline, or a little before, as no place could be free by then.
        assert 0 <= int(refused.headers["x-actorrt-queue-ms"]) < 20_000
        with pytest.raises(RequestRefusedError) as by_handle:
            await handle.options(cost=QueueCost(deadline_s=0.02, max_tokens=0)).pid.remote()
        assert by_handle.value.queue_ms is not None
        asked = [asyncio.ensure_future(ask("other"))]
        await waiting(1)
        asked.append(asyncio.ensure_future(ask("forged", **{"x-actorrt-ticket": "A" * len(ticket)})))
        await waiting(2)
        asked.append(asyncio.ensure_future(ask("back", **{"x-actorrt-ticket": ticket})))
        await waiting(3)
        asked.append(asyncio.ensure_future(ask("twice", **{"x-actorrt-ticket": ticket})))
        await waiting(4)

        async def by_its_handle() -> None:
            await handle.options(cost=QueueCost(ticket=by_handle.value.ticket, max_tokens=0)).pid.remote()
            order.append("by handle")

        asked.append(asyncio.ensure_future(by_its_handle()))
        await waiting(5)
        await gate.open.remote()
        await asyncio.gather(held, *asked)
    # What comes through the proxy is heard of later than what ran after it and came by a handle.
    assert [each for each in order if each != "by handle"] == ["back", "other", "forged", "twice"]
    assert order.index("by handle") < order.index("other")
    assert await until_idle("ticket", "Held")
