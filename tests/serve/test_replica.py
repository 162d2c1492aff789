"""A replica's own bookkeeping, in this process, with user code and without an actor."""

import asyncio
import itertools
import pickle
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, ClassVar

import pytest

from actorrt import serve
from actorrt.serve.base.refusals import FULL
from actorrt.serve.base.request_context import set_replica_context
from actorrt.serve.capacity_queue.messages import Tag
from actorrt.serve.capacity_queue.running import RunningLeases
from actorrt.serve.declaration.applications import BareApplication
from actorrt.serve.http.request_head import connection_line, pack_head
from actorrt.serve.replica.byte_channel import MOST_HELD
from actorrt.serve.replica.lifecycle import ReplicaState
from actorrt.serve.replica.replica import Replica
from actorrt.serve.replica.reply import Replier
from actorrt.serve.replica.user_code import UserCode

HEAD = pack_head(connection_line("http", None, None), b"", b"GET", b"1.1", b"/", b"", b"id", [])
PART = 64 * 1024
SIZE = 5 * PART
KEYS = itertools.count()


class Body:
    """Gives a large body: at once, or as a generator that has ended long before it is all carried away."""

    def __init__(self, streams: bool) -> None:
        self.streams = streams

    async def __call__(self) -> Any:
        return self.parts() if self.streams else b"x" * SIZE

    async def parts(self) -> Any:
        yield b"x" * PART
        yield b"x" * PART


async def serving(streams: bool) -> Any:
    return await serving_one(Body, streams)


async def serving_one(target: Any, *args: Any, max_ongoing: int = 10) -> Any:
    replica: Any = Replica.__new__(Replica)
    Replica.__init__(replica, None)  # type: ignore[arg-type]
    replica._max_ongoing = max_ongoing
    replica._code = UserCode(max_ongoing, replica._on_left)
    await replica._code.construct(pickle.dumps((target, args, {})), lambda: None)
    replica._replier = Replier(replica._code, "d", replica._note_change)
    replica._state = ReplicaState.RUNNING
    return replica


@pytest.fixture(autouse=True)
def _without_a_controller(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    controllers: list[Any] = []
    monkeypatch.setattr("actorrt.serve.base.connection.set_controller", controllers.append)
    yield
    # This process is no replica for the tests after these.
    set_replica_context(None)


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


class SlowPipe:
    """The pipe of a call whose caller takes its bytes when it is told to."""

    def __init__(self) -> None:
        self.size = 0
        self.taken = asyncio.Event()

    @property
    def held(self) -> int:
        return 0 if self.taken.is_set() else self.size

    def write(self, *parts: bytes) -> None:
        self.size += sum(map(len, parts))

    def write_with_turn(self, data: bytes) -> None:
        self.write(data)

    def write_with_reply(self, *_: bytes) -> bool:
        return False  # as of more than a piece

    async def drained(self) -> None:
        await self.taken.wait()


async def test_it_has_drained_when_its_last_large_response_is_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = SlowPipe()
    monkeypatch.setattr("actorrt.serve.replica.replica.call_pipe", lambda: pipe)
    replica = await serving(streams=False)
    answer = asyncio.ensure_future(replica.http(HEAD, b"", 0, next(KEYS)))
    await turns()
    assert pipe.size > SIZE
    draining = asyncio.ensure_future(replica.drain())
    await turns()
    assert not draining.done()
    pipe.taken.set()
    await draining
    assert await answer == (b"", False)
    await replica._code.close()


async def test_it_has_drained_when_its_last_response_was_carried_away(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = SlowPipe()
    monkeypatch.setattr("actorrt.serve.replica.replica.call_pipe", lambda: pipe)
    replica = await serving(streams=True)
    answer = asyncio.ensure_future(replica.http(HEAD, b"", 0, next(KEYS)))
    await turns()
    assert pipe.size > 2 * PART
    draining = asyncio.ensure_future(replica.drain())
    await turns()
    assert not draining.done()
    pipe.taken.set()
    await draining
    assert await answer == b""
    await replica._code.close()


@pytest.mark.parametrize("streams", [False, True])
async def test_a_response_of_a_slow_client_keeps_its_place_while_too_much_is_held_for_such(
    streams: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = SlowPipe()
    monkeypatch.setattr("actorrt.serve.replica.replica.call_pipe", lambda: pipe)
    monkeypatch.setattr("actorrt.serve.replica.replica.CARRIED_BYTES", PART)
    replica = await serving(streams)
    answer = asyncio.ensure_future(replica.http(HEAD, b"", 0, key := next(KEYS)))
    gives_back = asyncio.ensure_future(replica.http_code_ended(key))
    await turns()
    assert not replica._requests
    assert not gives_back.done()
    pipe.taken.set()
    assert await gives_back
    await answer
    assert replica._carried_bytes == 0
    await replica._code.close()


async def test_it_has_drained_when_nobody_takes_its_last_response(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actorrt.serve.replica.replica.call_pipe", SlowPipe)
    replica = await serving(streams=True)
    answer = asyncio.ensure_future(replica.http(HEAD, b"", 0, next(KEYS)))
    await turns()
    answer.cancel()
    await replica.drain()
    await replica._code.close()


class Endless:
    """Makes its response in parts, faster than anybody takes them."""

    made = 0

    async def __call__(self) -> Any:
        while True:
            self.made += PART
            yield bytes(PART)


async def test_who_makes_a_response_waits_while_nobody_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = SlowPipe()
    monkeypatch.setattr("actorrt.serve.replica.replica.call_pipe", lambda: pipe)
    replica = await serving_one(Endless)
    answer = asyncio.ensure_future(replica.http(HEAD, b"", 0, next(KEYS)))
    await turns(100)
    assert replica._code.instance.made <= MOST_HELD + 2 * PART
    answer.cancel()
    await replica.drain()
    await replica._code.close()


class Blocks:
    """Plain code of which each request waits for the others."""

    together = threading.Barrier(3)

    def __call__(self) -> str:
        self.together.wait(20)
        return "together"


async def test_plain_code_runs_as_often_at_once_as_a_running_replica_is_told() -> None:
    replica = await serving_one(Blocks, max_ongoing=1)
    first: asyncio.Future[bytes] = asyncio.ensure_future(replica.http(HEAD, b"", 0, next(KEYS)))
    await turns()
    assert await replica.http(HEAD, b"", 0, next(KEYS)) == FULL
    assert await replica.reconfigure(pickle.dumps(None), 3, "v") == ""
    # The first one has a thread that was there before.
    others: list[asyncio.Future[bytes]] = [
        asyncio.ensure_future(replica.http(HEAD, b"", 0, next(KEYS))) for _ in range(2)
    ]
    for request in (first, *others):
        assert (await request).endswith(b"together")
    await replica._code.close()


class CleansUp:
    """Its requests never end by themselves; how they were cleaned up is noted."""

    notes: ClassVar[list[str]] = []

    async def __call__(self) -> None:
        await self.until_cancelled("http")

    async def method(self) -> None:
        await self.until_cancelled("call")

    async def stream(self) -> Any:
        yield 1
        await self.until_cancelled("stream")

    async def until_cancelled(self, note: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            # The instance is there to the end.
            self.notes.append(note)


async def test_requests_that_are_cut_off_by_a_stop_clean_up_before_their_instance_goes() -> None:
    CleansUp.notes.clear()
    replica = await serving_one(CleansUp)
    running = [
        asyncio.ensure_future(replica.http(HEAD, b"", 0, next(KEYS))),
        asyncio.ensure_future(replica.call("method", "id", 0)),
        asyncio.ensure_future(all_of(await replica.call_stream("stream", "id", 0))),
    ]
    await turns()
    await replica.stop()
    assert sorted(CleansUp.notes) == ["call", "http", "stream"]
    assert all(task.done() for task in running)
    await asyncio.gather(*running, return_exceptions=True)


async def test_a_stream_that_is_held_back_ends_for_its_replica_once_it_has_cleaned_up() -> None:
    Slow.may_go = asyncio.Event()
    replica = await serving_one(Slow)
    stream = await replica.call_stream("stream", "id", 0)
    assert await anext(stream) == 1
    # As the runtime does where the producer is held back when its consumer goes.
    closing = asyncio.ensure_future(stream.aclose())
    draining = asyncio.ensure_future(replica.drain())
    await turns()
    assert not draining.done()
    Slow.may_go.set()
    await asyncio.gather(closing, draining)
    await replica.stop()


class Slow:
    """Its streams take their time to clean up."""

    may_go: ClassVar[asyncio.Event]

    async def stream(self) -> Any:
        try:
            yield 1
        finally:
            await self.may_go.wait()


async def all_of(items: Any) -> list[Any]:
    return [item async for item in items]


async def test_a_request_that_does_not_clean_up_in_time_does_not_keep_a_replica_from_its_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("actorrt.serve.replica.replica.CLEAN_UP_S", 0.01)
    replica = await serving_one(Stays)
    request = asyncio.ensure_future(replica.call("stay", "id", 0))
    await turns()
    await replica.stop()
    assert not request.done()
    Stays.may_go.set()
    await request


class Stays:
    may_go = asyncio.Event()

    async def stay(self) -> None:
        while not self.may_go.is_set():
            with suppress(asyncio.CancelledError):
                await self.may_go.wait()


class Holds:
    """Plain code that goes on until it may end."""

    may_end = threading.Event()
    running = threading.Event()

    def __call__(self) -> str:
        self.running.set()
        assert self.may_end.wait(20)
        return "ended"

    def stream(self) -> Any:
        yield 1
        self()


@pytest.mark.parametrize("streams", [False, True])
async def test_a_request_that_was_cancelled_holds_its_place_as_long_as_its_thread(streams: bool) -> None:
    Holds.may_end.clear()
    Holds.running.clear()
    replica = await serving_one(Holds, max_ongoing=1)
    called = all_of(await replica.call_stream("stream", "id", 0)) if streams else replica.http(HEAD, b"", 0, next(KEYS))
    request = asyncio.ensure_future(called)
    assert await asyncio.to_thread(Holds.running.wait, 20)
    request.cancel()
    await asyncio.wait([request])
    assert request.cancelled()
    assert await replica.http(HEAD, b"", 0, next(KEYS)) == FULL
    free = asyncio.ensure_future(replica.until_free())
    await turns()
    assert not free.done()
    Holds.may_end.set()
    await free
    assert (await replica.http(HEAD, b"", 0, next(KEYS))).endswith(b"ended")
    await replica.stop()


class Background:
    """Its application works on after its response."""

    go_on: ClassVar[asyncio.Event]


async def works_on(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        assert (await receive())["type"] == "lifespan.startup"
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        try:
            await Background.go_on.wait()
        except asyncio.CancelledError:
            CleansUp.notes.append("lifespan")
            raise
        raise ValueError("as it ended")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"accepted"})
    try:
        await Background.go_on.wait()
    finally:
        CleansUp.notes.append("background")


serve.ingress(works_on)(Background)


async def test_it_has_drained_when_what_goes_on_after_a_response_has_ended() -> None:
    Background.go_on = asyncio.Event()
    replica = await serving_one(Background)
    assert (await replica.http(HEAD, b"", 0, next(KEYS))).endswith(b"accepted\r\n0\r\n\r\n")
    draining = asyncio.ensure_future(replica.drain())
    await turns()
    assert not draining.done()
    Background.go_on.set()
    await draining
    await replica.stop()


async def test_what_is_cut_off_at_the_end_of_its_time_cleans_up_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    CleansUp.notes.clear()
    Background.go_on = asyncio.Event()
    replica = await serving_one(Background)
    await replica.http(HEAD, b"", 0, next(KEYS))
    await replica.stop(0.05)
    assert CleansUp.notes == ["background", "lifespan"]
    assert "1 requests, websockets or background tasks" in caplog.text
    assert "the application's shutdown did not end within" in caplog.text


async def test_an_error_of_an_applications_shutdown_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    Background.go_on = asyncio.Event()
    Background.go_on.set()
    replica = await serving_one(Background)
    await replica.stop()
    assert "ValueError: as it ended" in caplog.text


async def test_a_replica_that_is_asked_twice_to_end_ends_once_and_both_wait() -> None:
    Background.go_on = asyncio.Event()
    replica = await serving_one(Background)
    asked = [asyncio.ensure_future(replica.stop()) for _ in range(2)]
    await turns()
    # Who asked first has gone.
    asked[0].cancel()
    await turns()
    assert not asked[1].done()
    Background.go_on.set()
    await asked[1]


class Lingers(BareApplication):
    """Talks until it is cancelled, and then cleans up until it may end."""

    def __init__(self) -> None:
        super().__init__(self.talk)
        self.cleans_up, self.may_end, self.has_ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def talk(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "websocket"
        await receive()
        await send({"type": "websocket.accept"})
        try:
            await asyncio.Event().wait()
        finally:
            self.cleans_up.set()
            await self.may_end.wait()
            self.has_ended.set()


async def test_a_websocket_that_is_cancelled_as_it_is_closed_gives_its_place_back() -> None:
    replica = await serving_one(Lingers)
    events = replica.websocket(HEAD, "key")
    assert (await anext(events))["type"] == "websocket.accept"
    closing = asyncio.ensure_future(events.aclose())
    app = replica._code.instance
    await app.cleans_up.wait()
    # As when its proxy dies meanwhile.
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert replica._ongoing == 0
    app.may_end.set()
    await app.has_ended.wait()


async def test_the_queue_before_hears_nothing_that_the_next_one_is_to_hear() -> None:
    replica = await serving(streams=False)
    replica._leases = leases = RunningLeases(0)
    before = replica.leases(1)
    await anext(before)
    waits = asyncio.ensure_future(anext(before))
    await turns()
    follows = replica.leases(2)
    await anext(follows)
    heard = asyncio.ensure_future(anext(follows))
    with pytest.raises(StopAsyncIteration):
        await waits
    tag = Tag(2, 0, 7, 0, 0, "", 0, 0, "", "", "", "")
    leases.begin(tag)
    replica._note_change()
    assert (await heard)[0] == (7,)
    assert leases.is_followed
    await follows.aclose()
    await replica._code.close()


class SaysItsLoad:
    def queue_load(self) -> tuple[int, int]:
        return 700, 3


async def test_a_queue_hears_what_the_code_says_that_its_engine_has() -> None:
    replica = await serving_one(SaysItsLoad)
    replica._leases = RunningLeases(0)
    follows = replica.leases(1)
    await anext(follows)
    assert await anext(follows) == (700, 3)
    await follows.aclose()
    await replica._code.close()


async def test_a_stream_with_a_lease_has_it_from_its_first_step_to_its_end() -> None:
    Slow.may_go = asyncio.Event()
    Slow.may_go.set()
    replica = await serving_one(Slow)
    replica._leases = RunningLeases(0)
    tag = Tag(2, 0, 7, 0, 0, "", 0, 0, "", "", "", "")
    # Closed before its first step: nothing has begun, and nothing is left.
    await (await replica.call_stream_leased(tuple(tag), "stream", "id", 0)).aclose()
    assert not replica._leases.running
    stream = await replica.call_stream_leased(tuple(tag), "stream", "id", 0)
    assert await anext(stream) == 1
    assert list(replica._leases.running) == [tag.number]
    await stream.aclose()
    assert not replica._leases.running
    assert not replica._ongoing
