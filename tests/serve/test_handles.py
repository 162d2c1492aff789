"""Deployments that call each other, and programs that call them, by handles."""

import asyncio
import contextlib
import threading
import warnings
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
from starlette.requests import Request

import actorrt
from actorrt import serve
from actorrt.exceptions import GetTimeoutError, NotSerializableError
from actorrt.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RequestCancelledError,
    ServeError,
)

from .conftest import Serving


@serve.deployment(max_ongoing_requests=100)
class Tools:
    """Has a method for each thing that can be asked of one."""

    def __init__(self, offset: int = 0) -> None:
        self.offset = offset
        self.log: list[str] = []
        self.waiting = 0
        self.arrived = asyncio.Event()

    def __call__(self, number: int) -> int:
        return number + self.offset

    async def same(self, value: Any, *more: Any, key: Any = None) -> Any:
        return value if key is None and not more else [value, *more, key]

    async def fail(self) -> None:
        raise ValueError("told to")

    async def count(self, end: int) -> AsyncIterator[int]:
        try:
            for number in range(end):
                yield number
        except BaseException as error:
            self.log.append(f"count: {type(error).__name__}")
            raise
        finally:
            self.log.append("count ended")

    async def until_closed(self, end: int) -> AsyncIterator[int]:
        try:
            for number in range(end):
                yield number
            await asyncio.Event().wait()
        finally:
            # What a clean-up waits for belongs to it.
            await asyncio.sleep(0)
            self.log.append("stream closed")

    def count_slowly(self, end: int) -> Iterator[str]:
        for number in range(end):
            yield f"{number} {threading.current_thread().name.partition('_')[0]}"
        if end == 3:
            raise ValueError("after three")

    async def hang(self) -> None:
        self.waiting += 1
        self.arrived.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.log.append("hang cancelled")
            raise

    async def hold(self) -> None:
        await asyncio.Event().wait()

    async def until_hanging(self) -> None:
        await self.arrived.wait()
        self.arrived.clear()

    async def take_log(self) -> list[str]:
        log, self.log = self.log, []
        return log

    async def where(self) -> str:
        return serve.get_replica_context().replica_id

    async def large(self, size: int) -> Any:
        return np.ones(size)

    async def total(self, array: Any) -> float:
        return float(array.sum())


@serve.deployment(max_ongoing_requests=100)
class Caller:
    def __init__(self, tools: Any, parts: dict[str, list[Any]]) -> None:
        self.tools = tools
        self.parts = parts

    async def __call__(self, request: Request) -> Any:
        return await self.through(int(request.query_params["x"]))

    async def through(self, number: int) -> int:
        response = self.tools.remote(number)
        for part in self.parts["more"]:
            response = part.remote(response)
        return await response

    async def hang(self) -> None:
        await self.tools.hang.remote()

    async def hang_unawaited(self) -> None:
        self.tools.hang.remote()
        await asyncio.Event().wait()

    async def hang_and_swallow(self, how: str) -> str:
        response = self.tools.hang.remote()
        try:
            await (asyncio.Event().wait() if how == "elsewhere" else response)
        except BaseException as error:
            if how == "raises":
                raise ValueError("in place of the cancellation") from error
        return "value"

    def hang_in_a_thread(self) -> str:
        self.tools.hang.remote().result()
        return "value"

    async def stream(self, end: int) -> AsyncIterator[int]:
        async for number in self.tools.options(stream=True).count.remote(end):
            yield number

    async def handles_are_one(self) -> bool:
        return self.tools == self.parts["same"][0]


@pytest.fixture(scope="module")
def caller(serving: Serving) -> Any:
    tools = Tools.bind()
    graph = Caller.bind(tools, {"more": [Tools.bind(10), Tools.bind(100)], "same": [tools]})
    return serve.run(graph, name="app", route_prefix="/app")


@pytest.fixture(scope="module")
def tools(caller: Any) -> Any:
    return serve.get_deployment_handle("Tools", "app")


def test_a_graph_of_any_shape_is_one_deployment_for_each_node(serving: Serving, caller: Any) -> None:
    assert sorted(serve.status().applications["app"].deployments) == ["Caller", "Tools", "Tools_1", "Tools_2"]
    assert caller.handles_are_one.remote().result()
    assert caller.through.remote(1).result() == 111
    assert serving.client.get(serving.url + "/app?x=2").json() == 112


def test_a_handle_calls_any_method_with_any_arguments(tools: Any) -> None:
    assert tools.remote(1).result() == 1
    assert tools.same.remote(1, 2, key=[3]).result() == [1, 2, [3]]
    assert tools.options(method_name="same").remote("x").result() == "x"


async def test_a_response_is_awaited_on_any_loop_any_number_of_times(tools: Any) -> None:
    response = tools.remote(5)
    assert (await response, await response) == (5, 5)
    assert await asyncio.gather(*(tools.remote(number) for number in range(200))) == list(range(200))
    with pytest.raises(RuntimeError, match="would block the running event loop: await the response"):
        tools.remote(6).result()
    assert response.result() == 5


async def test_asyncio_waits_for_responses_as_for_futures(tools: Any) -> None:
    responses = [tools.remote(1), tools.fail.remote()]
    done, pending = await asyncio.wait(responses, timeout=30)
    assert (done, pending) == (set(responses), set())
    assert isinstance(responses[1].exception(), ValueError)
    assert responses[0].exception() is None
    assert (responses[0].done(), responses[0].cancelled(), responses[0].result()) == (True, False, 1)
    held = tools.hold.remote()
    done, pending = await asyncio.wait([held], timeout=0.01)
    assert (done, pending) == (set(), {held})
    called: list[Any] = []
    held.add_done_callback(called.append)
    assert held.remove_done_callback(called.append) == 1
    held.cancel()
    done, _ = await asyncio.wait([held], timeout=30)
    assert done == {held}
    assert held.cancelled()
    assert called == []


def test_errors_arrive_as_what_user_code_raised(tools: Any) -> None:
    with pytest.raises(ValueError, match="told to"):
        tools.fail.remote().result()
    with pytest.raises(AttributeError, match=r"Tools has no method 'sme'; did you mean 'same'\?"):
        tools.sme.remote(1).result()
    with pytest.raises(TypeError, match=r"count is a generator: call it by handle.options\(stream=True\)"):
        tools.count.remote(1).result()
    with pytest.raises(TypeError, match="returned int, which is no generator"):
        list(tools.options(stream=True).remote(1))
    with pytest.raises(NotSerializableError):
        tools.same.remote(threading.Lock()).result()
    assert tools.remote(1).result() == 1


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"steam": True}, ValueError, "unknown handle option 'steam'; did you mean 'stream'?"),
        ({"session_id": "x"}, ValueError, "'session_id' is not supported yet"),
        ({"stream": 1}, TypeError, "stream must be a bool, not int"),
        ({"method_name": 1}, TypeError, "method_name must be a str, not int"),
        ({"cost": 1}, TypeError, "cost must be a Cost, not int"),
    ],
)
def test_a_wrong_option_of_a_handle_is_refused(tools: Any, options: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind) as refused:
        tools.options(**options)
    assert said in str(refused.value)
    with pytest.raises(TypeError, match=r"write .remote\(...\)"):
        tools(1)


def test_a_response_is_passed_on_without_being_fetched(tools: Any) -> None:
    large = tools.large.remote(1_000_000)
    assert tools.total.remote(large).result() == 1_000_000
    # Inside of other values, too, and the same one twice.
    five = tools.remote(5)
    assert tools.same.remote([five, {"a": (five, 1)}], five, key=five).result() == [[5, {"a": (5, 1)}], 5, 5]
    with pytest.raises(ValueError, match="told to"):
        tools.same.remote(tools.fail.remote()).result()
    with pytest.raises(TypeError, match="passed on as an argument"):
        actorrt.put(five)


def test_a_stream_gives_its_items_in_order_and_its_error_last(tools: Any) -> None:
    stream = tools.options(stream=True)
    assert list(stream.count.remote(2000)) == list(range(2000))
    items = stream.count_slowly.remote(3)
    assert [next(items) for _ in range(3)] == [f"{number} actorrt-replica" for number in range(3)]
    with pytest.raises(ValueError, match="after three"):
        next(items)
    assert list(stream.count_slowly.remote(0)) == []


async def test_a_stream_is_taken_on_a_loop_and_through_another_deployment(tools: Any, caller: Any) -> None:
    assert [item async for item in tools.options(stream=True).count.remote(1000)] == list(range(1000))
    assert [item async for item in caller.options(stream=True).stream.remote(300)] == list(range(300))
    items = tools.options(stream=True).count_slowly.remote(3)
    with pytest.raises(ValueError, match="after three"):
        async for _ in items:
            pass


def wait_for_log(tools: Any, *wanted: str) -> None:
    found: list[str] = []
    while not set(wanted) <= set(found):
        found += tools.take_log.remote().result(timeout_s=10)


def test_cancelling_a_response_cancels_the_request(tools: Any) -> None:
    response = tools.hang.remote()
    tools.until_hanging.remote().result()
    assert not response.cancelled()
    response.cancel()
    with pytest.raises(RequestCancelledError):
        response.result(timeout_s=10)
    assert response.cancelled()
    wait_for_log(tools, "hang cancelled")
    done = tools.remote(1)
    assert done.result() == 1
    done.cancel()
    assert (done.result(), done.cancelled()) == (1, False)


async def test_who_is_cancelled_while_awaiting_cancels_what_it_awaits(tools: Any, caller: Any) -> None:
    for hang in (tools.hang, caller.hang, caller.hang_unawaited):
        waiting = asyncio.ensure_future(_await(hang.remote()))
        await tools.until_hanging.remote()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        log: list[str] = []
        while "hang cancelled" not in log:
            log += await tools.take_log.remote()


async def _await(response: Any) -> Any:
    return await response


@pytest.mark.parametrize("how", ["elsewhere", "response", "raises"])
async def test_who_cancels_gets_the_cancellation_and_the_tree_below_ends_whatever_the_code_makes_of_it(
    how: str, tools: Any, caller: Any
) -> None:
    response = caller.hang_and_swallow.remote(how)
    await tools.until_hanging.remote()
    response.cancel()
    with pytest.raises(RequestCancelledError):
        await response
    log: list[str] = []
    while "hang cancelled" not in log:
        log += await tools.take_log.remote()


async def test_what_a_thread_has_asked_for_ends_with_its_request(tools: Any, caller: Any) -> None:
    response = caller.hang_in_a_thread.remote()
    await tools.until_hanging.remote()
    response.cancel()
    with pytest.raises(RequestCancelledError):
        await response
    log: list[str] = []
    while "hang cancelled" not in log:
        log += await tools.take_log.remote()


async def test_a_stream_that_is_dropped_or_cancelled_ends_at_its_source(tools: Any, caller: Any) -> None:
    for stream in (tools.options(stream=True).count, caller.options(stream=True).stream):
        for end in ("cancel", "drop"):
            items = stream.remote(10**9)
            assert [await anext(items) for _ in range(3)] == [0, 1, 2]
            if end == "cancel":
                items.cancel()
            del items
            log: list[str] = []
            while "count ended" not in log:
                log += await tools.take_log.remote()


@pytest.mark.parametrize("where", ["waiting", "body"])
async def test_a_stream_ends_with_its_consumer_that_is_cancelled(where: str, tools: Any) -> None:
    items = tools.options(stream=True).until_closed.remote(1 if where == "waiting" else 10**9)
    reached = asyncio.Event()

    async def consume() -> None:
        async for _ in items:
            reached.set()
            if where == "body":
                await asyncio.Event().wait()

    consumer = asyncio.ensure_future(consume())
    await reached.wait()
    consumer.cancel()
    # Nobody asks for its outcome, and the stream is held here.
    await asyncio.wait([consumer])
    log: list[str] = []
    while "stream closed" not in log:
        log += await tools.take_log.remote()


async def test_who_leaves_the_loop_in_order_may_go_on_with_a_stream(tools: Any) -> None:
    items = tools.options(stream=True).count.remote(4)
    seen: list[int] = []
    for _ in range(2):
        async for item in items:
            seen.append(item)
            break
    assert seen + [item async for item in items] == [0, 1, 2, 3]
    assert not items.cancelled()
    await items.aclose()
    assert not items.cancelled()


async def test_a_stream_is_closed_as_any_other(tools: Any) -> None:
    async with contextlib.aclosing(tools.options(stream=True).until_closed.remote(10**9)) as items:
        async for _ in items:
            break
    assert "stream closed" in await tools.take_log.remote()
    assert [item async for item in items] == []
    with contextlib.closing(tools.options(stream=True).until_closed.remote(10**9)) as items:
        assert await anext(items) == 0
    log: list[str] = []
    while "stream closed" not in log:
        log += await tools.take_log.remote()
    assert [item async for item in items] == []


async def test_what_is_cancelled_before_it_is_sent_is_a_cancelled_request(tools: Any) -> None:
    argument = tools.hold.remote()
    for response in (tools.same.remote(argument), tools.options(stream=True).count.remote(argument)):
        response.cancel()
        with pytest.raises(RequestCancelledError):
            await (anext(response) if hasattr(response, "__anext__") else response)
    argument.cancel()


async def test_a_stream_may_be_dropped_in_the_midst_of_any_step_and_gives_its_slot_back(tools: Any) -> None:
    items = tools.options(stream=True).count.remote(10**9)
    assert await anext(items) == 0
    router = items._router
    # As the collection of garbage does, in a thread that has the router's lock.
    with router._lock:
        del items
    while any(router.statistics()["ongoing"].values()):
        await tools.remote(0)


async def test_the_slot_of_a_stream_is_free_when_its_source_has_ended(tools: Any) -> None:
    items = tools.options(stream=True).count.remote(3)
    while any(items._router.statistics()["ongoing"].values()):
        await tools.remote(0)
    assert [item async for item in items] == [0, 1, 2]


async def test_a_stream_that_was_refused_starts_again_with_its_arguments(serving: Serving) -> None:
    @serve.deployment(max_ongoing_requests=1)
    class Once:
        async def count(self, end: int, *, start: int = 0) -> AsyncIterator[int]:
            for number in range(start, end):
                yield number

        async def hang(self) -> AsyncIterator[str]:
            yield "here"
            await asyncio.Event().wait()

    @serve.deployment
    class Other:
        def __init__(self, once: Any) -> None:
            self.once = once

        async def hang(self) -> AsyncIterator[str]:
            async for text in self.once.options(stream=True).hang.remote():
                yield text

    other = await asyncio.to_thread(serve.run, Other.bind(Once.bind()), name="once", route_prefix=None)
    once = await asyncio.to_thread(serve.get_deployment_handle, "Once", "once")
    # The replica is taken by a request of another router, of which this process's router knows nothing.
    taken = other.options(stream=True).hang.remote()
    assert await anext(taken) == "here"
    items = once.options(stream=True).count.remote(5, start=2)
    first = asyncio.ensure_future(anext(items))
    while not any(slots.full for slots in items._router._placing.policy.live):  # noqa: ASYNC110
        await asyncio.sleep(0)
    taken.cancel()
    assert [await first, *[item async for item in items]] == [2, 3, 4]


def test_a_result_that_does_not_come_in_time_is_a_timeout(tools: Any) -> None:
    response = tools.hang.remote()
    with pytest.raises(GetTimeoutError):
        response.result(timeout_s=0.05)
    response.cancel()
    wait_for_log(tools, "hang cancelled")


def test_handles_by_name(tools: Any, caller: Any) -> None:
    assert serve.get_app_handle("app") == caller
    with pytest.raises(DeploymentUnavailableError, match="there is no such application"):
        serve.get_app_handle("nope")
    with pytest.raises(DeploymentUnavailableError, match="'app#Nope' is not available: there is no such deployment"):
        serve.get_deployment_handle("Nope", "app")


def test_a_handle_travels_into_tasks(tools: Any) -> None:
    @actorrt.remote
    def ask(handle: Any, number: int) -> int:
        return handle.remote(number).result()

    assert actorrt.get(ask.remote(tools, 7)) == 7


def test_a_full_queue_refuses_at_once_and_the_limit_holds(serving: Serving) -> None:
    @serve.deployment(max_ongoing_requests=1, max_queued_requests=2)
    class Narrow:
        def __init__(self) -> None:
            self.go = asyncio.Event()

        async def __call__(self, request: Any) -> int:
            await self.go.wait()
            return 1

        async def ready(self) -> None: ...

    handle = serve.run(Narrow.bind(), name="narrow", route_prefix="/narrow")
    handle.ready.remote().result()
    waiting = [handle.remote(None) for _ in range(3)]
    with pytest.raises(BackPressureError, match="'narrow#Narrow' is full: 2 requests wait, max_queued_requests is 2"):
        handle.remote(None)
    waiting[2].cancel()
    with pytest.raises(RequestCancelledError):
        waiting[2].result()
    handle.remote(None).cancel()
    waiting[0].cancel()
    waiting[1].cancel()


def test_the_limit_holds_for_the_first_calls_of_a_process_too(serving: Serving) -> None:
    @serve.deployment(max_ongoing_requests=2, max_queued_requests=2)
    class Narrow:
        async def __call__(self) -> int:
            await asyncio.sleep(0.02)
            return 1

    @serve.deployment
    class Burst:
        def __init__(self, narrow: Any) -> None:
            self.narrow = narrow

        async def __call__(self, count: int) -> tuple[int, int]:
            calls: list[Any] = []
            refused = 0
            for _ in range(count):
                try:
                    calls.append(self.narrow.remote())
                except BackPressureError:
                    refused += 1
            results = await asyncio.gather(*calls, return_exceptions=True)
            refused += sum(isinstance(each, BackPressureError) for each in results)
            return results.count(1), refused

    handle = serve.run(Burst.bind(Narrow.bind()), name="burst", route_prefix=None)
    for _ in range(2):
        assert handle.remote(30).result() == (4, 26)


async def test_a_function_of_serve_that_blocks_a_loop_says_which_and_where(serving: Serving) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        while not caught:
            # It does not warn where the answer is there before it waits.
            serve.status()
    assert str(caught[0].message).startswith("status() blocks the event loop")
    assert str(caught[0].message).endswith("use `await asyncio.to_thread(status, ...)`")
    assert caught[0].filename == __file__


def test_requests_are_spread_over_the_replicas(serving: Serving) -> None:
    @actorrt.remote
    class Meeting:
        def __init__(self) -> None:
            self.barrier = asyncio.Barrier(6)

        async def join(self) -> None:
            await self.barrier.wait()

    @serve.deployment(num_replicas=3, max_ongoing_requests=2)
    class Spread:
        def __init__(self, meeting: Any) -> None:
            self.meeting = meeting

        async def __call__(self, _: Any) -> str:
            await self.meeting.join.remote()
            return serve.get_replica_context().replica_id

    meeting = Meeting.remote()
    handle = serve.run(Spread.bind(meeting), name="spread", route_prefix=None)
    found = [response.result() for response in [handle.remote(None) for _ in range(6)]]
    assert sorted(found.count(replica) for replica in set(found)) == [2, 2, 2]


def test_a_handle_to_what_was_deleted_says_so(serving: Serving) -> None:
    @serve.deployment
    def short(_: Any) -> int:
        return 1

    handle = serve.run(short.bind(), name="short", route_prefix=None)
    assert handle.remote(None).result() == 1
    serve.delete("short")
    with pytest.raises(DeploymentUnavailableError, match="'short#short' is not available: there is no such deployment"):
        handle.remote(None).result(timeout_s=10)
    assert "short" not in serve.status().applications
    serve.delete("short")


def test_a_handle_is_of_no_use_without_serve() -> None:
    with pytest.raises(ServeError, match="this is no replica"):
        serve.get_replica_context()


def test_what_cannot_be_sent_is_named_as_the_caller_knows_it(serving: Serving) -> None:
    @serve.deployment
    class Kinds:
        def take(self, first: Any, *, second: Any = None) -> Any:
            return first

        def give(self) -> Any:
            return [threading.Lock()]

        def each(self, first: Any) -> Any:
            yield first

    handle = serve.run(Kinds.bind(), name="kinds", route_prefix=None)
    with pytest.raises(NotSerializableError, match=r"argument 1 of take .*lock"):
        handle.take.remote(threading.Lock()).result()
    with pytest.raises(NotSerializableError, match=r"argument 'second' of take .*\[0\]"):
        handle.take.remote(1, second=[threading.Lock()]).result()
    with pytest.raises(NotSerializableError, match=r"argument 1 of each"):
        list(handle.options(stream=True).each.remote(threading.Lock()))
    with pytest.raises(NotSerializableError, match=r"the result of give"):
        handle.give.remote().result()
    serve.delete("kinds")
