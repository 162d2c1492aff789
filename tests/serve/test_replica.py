"""A replica's own bookkeeping, in this process, with user code and without an actor."""

import asyncio
import pickle
import threading
from typing import Any

import pytest

from actorrt.serve.byte_channel import LARGEST_ITEM
from actorrt.serve.refusals import FULL
from actorrt.serve.replica import Replica
from actorrt.serve.reply import Replier
from actorrt.serve.request_head import connection_line, pack_head
from actorrt.serve.user_code import UserCode

HEAD = pack_head(connection_line("http", None, None), b"", b"GET", b"1.1", b"/", b"", b"id", [])
SIZE = 5 * LARGEST_ITEM


class Body:
    """Gives a body of SIZE bytes: at once, or as a generator that has ended long before it is all carried away."""

    def __init__(self, streams: bool) -> None:
        self.streams = streams

    async def __call__(self) -> Any:
        return self.parts() if self.streams else b"x" * SIZE

    async def parts(self) -> Any:
        yield b"x" * LARGEST_ITEM
        yield b"x" * LARGEST_ITEM


async def serving(streams: bool) -> Any:
    return await serving_one(Body, streams)


async def serving_one(target: Any, *args: Any, max_ongoing: int = 10) -> Any:
    replica: Any = Replica.__new__(Replica)
    Replica.__init__(replica, None)  # type: ignore[arg-type]
    replica._max_ongoing = max_ongoing
    replica._code = UserCode(max_ongoing)
    await replica._code.construct(pickle.dumps((target, args, {})), lambda: None)
    replica._replier = Replier(replica._code, "d")
    return replica


@pytest.fixture(autouse=True)
def _without_a_controller(monkeypatch: pytest.MonkeyPatch) -> None:
    controllers: list[Any] = []
    monkeypatch.setattr("actorrt.serve.connection.set_controller", controllers.append)


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("streams", [False, True])
async def test_it_has_drained_when_its_last_response_was_carried_away(streams: bool) -> None:
    replica = await serving(streams)
    _, number, _ = await replica.http(HEAD, b"", 0)
    await turns()
    draining = asyncio.ensure_future(replica.drain())
    await turns()
    assert not draining.done()
    async for _ in replica.http_stream(number):
        assert not draining.done()
    await draining
    await replica._code.close()


async def test_it_has_drained_when_nobody_comes_for_its_last_response(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actorrt.serve.replica.UNCLAIMED_STREAM_S", 0.0)
    replica = await serving(streams=False)
    await replica.http(HEAD, b"", 0)
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
    first: asyncio.Future[bytes] = asyncio.ensure_future(replica.http(HEAD, b"", 0))
    await turns()
    assert await replica.http(HEAD, b"", 0) == FULL
    assert await replica.reconfigure(pickle.dumps(None), 3, "v") == ""
    # The first one has a thread that was there before.
    others: list[asyncio.Future[bytes]] = [asyncio.ensure_future(replica.http(HEAD, b"", 0)) for _ in range(2)]
    for request in (first, *others):
        assert (await request).endswith(b"together")
    await replica._code.close()
