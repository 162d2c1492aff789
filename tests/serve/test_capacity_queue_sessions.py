"""A message that one of the two cannot take, between a router and its queue: the session ends, and begins anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

import actorrt
from actorrt import Pipe, call_pipe, serve
from actorrt.serve.capacity_queue.messages import LONGEST_MESSAGE, Messages, ToRouter, encode
from actorrt.serve.capacity_queue.session import AGAIN_S, MOST_AGAIN_S, Session, pause_s
from actorrt.serve.declaration.spec import DeploymentId
from actorrt.serve.routing.router import router_of

from .. import gates
from ..gates import Gate
from .conftest import Serving
from .queues import queue_of, statistics, statistics_of, until_idle

# A message by its length, and nobody's by what is in it.
GARBAGE = len(b"garbage").to_bytes(4, "big") + b"garbage"
TOO_LONG = b"\xff" * 4
# Without this test's help a session that has got stuck would not end.
PATIENT = serve.RequestRouterConfig("capacity_queue", {"lease_ttl_s": 1000.0, "silence_s": 1000.0})
Held = serve.deployment(name="Held", max_ongoing_requests=1, request_router=PATIENT)(gates.Held)


class Quiet:
    """Somebody who listens to a pipe and says nothing."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[Pipe] = self._loop.create_future()

    def arrived(self, pipe: Pipe, data: memoryview, last: bool) -> None:
        pipe.grant(len(data))

    def has_room(self, pipe: Pipe) -> None:
        self._loop.call_soon_threadsafe(self._open, pipe)

    def _open(self, pipe: Pipe) -> None:
        if not self.opened.done():
            self.opened.set_result(pipe)


@pytest.fixture
async def app(serving: Serving) -> AsyncIterator[str]:
    await asyncio.to_thread(serving.run, Held.bind(), "sessions")
    yield "sessions"
    await asyncio.to_thread(serve.delete, "sessions")


@pytest.mark.parametrize("junk", [GARBAGE, TOO_LONG], ids=["garbage", "too long"])
async def test_a_router_that_has_said_garbage_begins_anew_and_nobody_waits_for_ever(
    app: str, junk: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = await asyncio.to_thread(serve.get_app_handle, app)
    gate = actorrt.remote(Gate).remote()
    held = handle.hold.remote(gate)
    await gate.until.remote(1)
    policy: Any = router_of(DeploymentId(app, "Held"))._placing.policy
    session = policy._session
    say = session.write

    def write(data: bytes) -> None:
        monkeypatch.undo()
        say(junk + data)

    monkeypatch.setattr(session, "write", write)
    # What it asks for is lost with the garbage before it.
    waits = handle.pid.remote()
    while (await statistics(app, "Held"))["tenants"].get("", {}).get("waiting") != 1:  # noqa: ASYNC110
        await asyncio.sleep(0)
    await gate.open.remote()
    assert len(set(await asyncio.gather(held, waits))) == 1
    assert await until_idle(app, "Held")


async def test_who_says_garbage_is_told_so_and_nobody_else_notices(app: str) -> None:
    handle = await asyncio.to_thread(serve.get_app_handle, app)
    pid = await handle.pid.remote()
    queue = await queue_of(app, "Held")
    quiet = Quiet()
    said = queue.session.remote_piped(quiet, "somebody")
    pipe = await quiet.opened
    routers = (await statistics_of(queue))["routers"]
    pipe.write(GARBAGE)
    with pytest.raises(Exception, match="what this router says cannot be taken"):
        await said
    while (await statistics_of(queue))["routers"] != routers - 1:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert await handle.pid.remote() == pid


class Garbling:
    """A queue whose first words to a router are garbage."""

    def __init__(self) -> None:
        self.sessions = 0

    async def session(self, router: str) -> None:
        self.sessions += 1
        pipe = call_pipe(Quiet())
        pipe.grant(1000)
        pipe.write(GARBAGE if self.sessions == 1 else encode(ToRouter(epoch=self.sessions)))
        await asyncio.Event().wait()


async def test_a_queue_that_cannot_be_read_is_asked_anew(serving: Serving) -> None:
    loop = asyncio.get_running_loop()
    told: asyncio.Queue[Any] = asyncio.Queue()

    class Ends:
        def opened(self) -> None: ...

        def came(self, data: bytes) -> None:
            if data == b"garbage":
                raise ValueError("garbage")
            loop.call_soon_threadsafe(told.put_nowait, data)

        def closed(self) -> None:
            loop.call_soon_threadsafe(told.put_nowait, None)

    session = Session(actorrt.remote(Garbling).remote(), "me", Ends())
    try:
        assert await told.get() is None
        assert [await told.get()] == list(Messages().feed(encode(ToRouter(epoch=2))))
    finally:
        session.leave()


def test_a_session_that_does_not_last_is_begun_again_ever_later() -> None:
    pauses = [pause_s(short) for short in range(8)]
    assert pauses[:4] == [AGAIN_S, AGAIN_S, 2 * AGAIN_S, 4 * AGAIN_S]
    assert pauses == sorted(pauses)
    assert pauses[-1] == pause_s(10**6) == MOST_AGAIN_S


def test_a_length_that_is_none_is_no_reason_to_wait_for_more() -> None:
    longest = (LONGEST_MESSAGE + 1).to_bytes(4, "big")
    with pytest.raises(ValueError, match="bytes is none"):
        list(Messages().feed(longest))
