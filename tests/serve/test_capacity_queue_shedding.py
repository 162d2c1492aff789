"""Running work of the last band makes way for higher work that fits nowhere, where its deployment says so."""

import asyncio
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import StreamingResponse

import actorrt
from actorrt import serve
from actorrt.serve.base.news import DeploymentNews, ReplicaNews
from actorrt.serve.capacity.fair_order import Band
from actorrt.serve.capacity_queue.config import CapacityQueueConfig
from actorrt.serve.capacity_queue.messages import QueueCost
from actorrt.serve.exceptions import RequestRefusedError, RequestStoppedError
from actorrt.serve.policies.policy import Grant, PolicyContext, Refused

from ..gates import Gate
from .conftest import Serving
from .queue_in_memory import QueueInMemory
from .queues import statistics, until_idle

BATCH = QueueCost(band="batch", max_tokens=0)


class Asked:
    def __init__(self, cost: QueueCost) -> None:
        self.cost = cost


# In which the last band may fill all that there is.
WHOLE = (Band("default"), Band("batch", ageing_s=None))


def a_queue(sheds: bool = True) -> QueueInMemory:
    context = PolicyContext("app#it", lambda: 0.5, lambda: 100.0, lambda: None)
    queue = QueueInMemory(context, CapacityQueueConfig(sheds=sheds, bands=WHOLE))
    queue.update(DeploymentNews("", 2, -1, (ReplicaNews("a"),)))
    return queue


def test_the_one_that_runs_is_given_with_its_refusal_and_its_place_goes_to_the_first_that_waits() -> None:
    queue = a_queue()
    batch = [Asked(BATCH) for _ in range(2)]
    grants = {each: queue.submit(each) for each in batch}
    urgent, other = Asked(QueueCost(max_tokens=0)), Asked(BATCH)
    assert queue.submit(urgent) is None
    assert queue.submit(other) is None
    found = queue.next()
    assert found is not None
    stopped, refusal = found
    assert stopped in grants
    assert isinstance(refusal, Refused)
    assert (refusal.status, refusal.retry_after_s) == (429, 1.0)
    assert refusal.ticket
    # Once, and nothing is believed before it is told.
    assert queue.next() is None
    assert len(queue.hub.queue.ledger.leases) == 2
    grant = grants[stopped]  # type: ignore[index]
    assert grant is not None
    queue.release(grant, None)
    found = queue.next()
    assert found is not None
    assert found[0] is urgent
    assert isinstance(found[1], Grant)
    assert queue.next() is None
    # What was stopped goes on in its place, before those that came after it.
    back = Asked(QueueCost(band="batch", max_tokens=0, ticket=refusal.ticket))
    assert queue.submit(back) is None
    queue.release(found[1], None)
    found = queue.next()
    assert found is not None
    assert found[0] is back


@pytest.mark.parametrize(("sheds", "band"), [(False, ""), (True, "batch")])
def test_nothing_is_stopped_where_it_is_not_allowed_or_for_its_own_band(sheds: bool, band: str) -> None:
    queue = a_queue(sheds)
    for _ in range(2):
        assert queue.submit(Asked(BATCH)) is not None
    assert queue.submit(Asked(QueueCost(max_tokens=0, band=band))) is None
    assert queue.next() is None


@serve.deployment(max_ongoing_requests=1)
class Sheds:
    async def __call__(self, request: Request) -> Any:
        gate = actorrt.get_actor(request.query_params["gate"]) if "gate" in request.query_params else None
        if request.url.path.endswith("/stream"):

            async def parts() -> Any:
                yield "begun"
                assert gate is not None
                await gate.passed.remote()

            return StreamingResponse(parts())
        if gate is not None:
            await gate.passed.remote()
        return "done"

    async def hold(self, gate: Any) -> str:
        await gate.passed.remote()
        return "done"

    async def words(self, gate: Any) -> Any:
        yield "begun"
        await gate.passed.remote()

    async def quick(self) -> str:
        return "quick"


def band_of(method: str, path: str, headers: dict[str, str], size: int) -> QueueCost:
    return QueueCost(band=headers.get("x-band", ""), max_tokens=0)


async def test_calls_by_handles_end_with_an_error_that_says_so(serving: Serving) -> None:
    router = serve.RequestRouterConfig("capacity_queue", {"sheds": True, "bands": WHOLE})
    await asyncio.to_thread(serving.run, Sheds.options(request_router=router).bind(), "stops")
    handle = await asyncio.to_thread(serve.get_app_handle, "stops")
    gate = actorrt.remote(Gate).remote()
    held = handle.options(cost=BATCH).hold.remote(gate)
    await gate.until.remote(1)
    assert await handle.quick.remote() == "quick"
    with pytest.raises(RequestStoppedError, match="it was stopped for one of a higher band") as stopped:
        await held
    assert (stopped.value.status, stopped.value.retry_after_s) == (429, 1.0)
    assert stopped.value.ticket
    assert isinstance(stopped.value, RequestRefusedError)
    assert not held.cancelled()
    stream = handle.options(cost=BATCH, stream=True).words.remote(gate)
    assert await anext(stream) == "begun"
    assert await handle.quick.remote() == "quick"
    with pytest.raises(RequestStoppedError):
        await anext(stream)
    assert await until_idle("stops", "Sheds")


async def test_clients_get_429_before_the_first_byte_and_see_a_response_break_off_after_it(serving: Serving) -> None:
    router = serve.RequestRouterConfig("capacity_queue", {"sheds": True, "bands": WHOLE, "cost": band_of})
    url = await asyncio.to_thread(serving.run, Sheds.options(request_router=router).bind(), "breaks")
    name = "gate of the shedding tests"
    gate = actorrt.remote(Gate).options(name=name).remote()
    batch = {"x-band": "batch"}
    async with httpx.AsyncClient(timeout=20, params={"gate": name}) as client:
        held = asyncio.ensure_future(client.get(url, headers=batch))
        await gate.until.remote(1)
        async with httpx.AsyncClient(timeout=20) as urgent:
            assert (await urgent.get(url)).text == "done"
            answer = await held
            assert answer.status_code == 429
            assert "it was stopped for one of a higher band" in answer.text
            assert int(answer.headers["retry-after"]) == 1
            assert answer.headers["x-actorrt-ticket"]
            async with client.stream("GET", f"{url}/stream", headers=batch) as stream:
                assert stream.status_code == 200
                parts = stream.aiter_text()
                assert await anext(parts) == "begun"
                assert (await urgent.get(url)).text == "done"
                with pytest.raises(httpx.RemoteProtocolError):
                    await anext(parts)
    assert await until_idle("breaks", "Sheds")


async def test_a_full_queue_sheds_those_of_the_last_band_that_came_last(serving: Serving) -> None:
    router = serve.RequestRouterConfig("capacity_queue", {"sheds": True, "waiting_requests": 1})
    await asyncio.to_thread(serving.run, Sheds.options(request_router=router).bind(), "sheds")
    handle = await asyncio.to_thread(serve.get_app_handle, "sheds")
    gate = actorrt.remote(Gate).remote()
    held = handle.hold.remote(gate)
    await gate.until.remote(1)
    waits = handle.options(cost=BATCH).quick.remote()
    while not (await statistics("sheds", "Sheds"))["tenants"]:  # noqa: ASYNC110
        await asyncio.sleep(0)
    urgent = handle.quick.remote()
    with pytest.raises(RequestRefusedError, match="others of a higher band came, and the queue is full") as shed:
        await waits
    assert (shed.value.status, bool(shed.value.ticket)) == (429, True)
    await gate.open.remote()
    assert await asyncio.gather(held, urgent) == ["done", "quick"]
    assert await until_idle("sheds", "Sheds")
