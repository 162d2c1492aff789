"""What goes wrong rarely: errors that cannot be made again, messages larger than a frame, calls that nobody holds."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import actorrt
from actorrt import exceptions
from actorrt.core.options import MethodOptions
from actorrt.runtime.owner import current
from actorrt.runtime.owner.handles import client_of
from actorrt.wire import frames, outlet

pytestmark = pytest.mark.usefixtures("node")
DEADLINE_S = 30


class Inner(Exception):
    """Pickles, and cannot be made from what was pickled."""

    def __init__(self, a: str, b: str) -> None:
        super().__init__(f"{a} and {b}")


class Mute(Exception):
    def __init__(self) -> None:
        super().__init__()
        # It cannot be pickled: that is the point.
        self.handle = threading.Lock()

    def __str__(self) -> str:
        raise ValueError("no text")


class Unreadable(Exception):
    """Raises as one looks at it."""

    def __getattribute__(self, name: str) -> Any:
        raise ValueError(f"not even {name}")


@actorrt.remote
class Echo:
    async def say(self, value: int) -> int:
        return value

    async def never(self) -> None:
        await asyncio.Event().wait()


@actorrt.remote
def raises_inner() -> None:
    raise RuntimeError(Inner("this", "that"))


@actorrt.remote
def raises_mute() -> None:
    raise Mute


@actorrt.remote
def raises_unreadable() -> None:
    raise Unreadable


@actorrt.remote
async def raises_unreadable_later() -> None:
    await asyncio.sleep(0)
    raise Unreadable


@actorrt.remote
class Unreadables:
    async def soon(self) -> None:
        raise Unreadable

    async def later(self) -> None:
        await asyncio.sleep(0)
        raise Unreadable

    @actorrt.method(thread=True)
    def aside(self) -> None:
        raise Unreadable

    async def well(self) -> bool:
        return True


@actorrt.remote
class SyncUnreadables:
    def soon(self) -> None:
        raise Unreadable

    def well(self) -> bool:
        return True


@actorrt.remote
class Raiser:
    async def inner(self) -> None:
        raise RuntimeError(Inner("this", "that"))

    async def mute(self) -> None:
        raise Mute

    async def add(self, *values: bytes) -> int:
        return sum(map(len, values))


@actorrt.remote
class Sender:
    def refs(self) -> list[Any]:
        return [actorrt.put(1)]

    def fail(self) -> float:
        return 1 / 0

    @actorrt.method(num_returns="streaming", generator_backpressure=1000)
    def many(self, count: int) -> Iterator[list[Any]]:
        for index in range(count):
            yield [actorrt.put(index)]


@actorrt.remote
class Writer:
    def write(self, path: str) -> None:
        Path(path).write_text("done", encoding="utf-8")


def test_an_error_that_cannot_be_made_again_keeps_its_text_and_traceback() -> None:
    for ref in (raises_inner.remote(), Raiser.remote().inner.remote()):
        with pytest.raises(exceptions.TaskError) as raised:
            actorrt.get(ref, timeout=DEADLINE_S)
        assert "this and that" in str(raised.value)
        assert "raise RuntimeError" in "".join(raised.value.__notes__)
        assert ref.exception() is not None


def test_an_error_without_a_text_ends_its_call_all_the_same() -> None:
    raiser = Raiser.remote()
    for ref in (raises_mute.remote(), raiser.mute.remote()):
        with pytest.raises(exceptions.TaskError, match="its text cannot be had"):
            actorrt.get(ref, timeout=DEADLINE_S)
    assert actorrt.get(raiser.add.remote(b"x"), timeout=DEADLINE_S) == 1


def test_an_error_that_raises_as_one_looks_at_it_ends_its_call_and_nothing_else() -> None:
    threaded = SyncUnreadables.options(max_concurrency=2).remote()
    actors = [Unreadables.remote(), SyncUnreadables.remote(), threaded]
    calls = [raises_unreadable.remote(), raises_unreadable_later.remote()]
    calls += [actors[0].soon.remote(), actors[0].later.remote(), actors[0].aside.remote()]
    calls += [actors[1].soon.remote(), threaded.soon.remote()]
    for call in calls:
        with pytest.raises(exceptions.TaskError, match="Unreadable"):
            actorrt.get(call, timeout=DEADLINE_S)
    assert all(actorrt.get([actor.well.remote() for actor in actors]))


def test_calls_that_fail_while_others_send_refs_all_have_their_outcome() -> None:
    sender = Sender.options(max_concurrency=4).remote()
    for _ in range(4):
        streams = [sender.many.remote(500) for _ in range(2)]
        calls = [sender.fail.remote() if index % 3 else sender.refs.remote() for index in range(150)]
        outcomes = Counter[str]()
        for call in calls:
            try:
                actorrt.get(call, timeout=DEADLINE_S)
                outcomes["value"] += 1
            except ZeroDivisionError:
                outcomes["error"] += 1
        assert outcomes == {"value": 50, "error": 100}
        assert [sum(1 for _ in stream) for stream in streams] == [500, 500]


def test_messages_that_do_not_fit_one_frame_leave_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    raiser = Raiser.remote()
    assert actorrt.get(raiser.add.remote(b""), timeout=DEADLINE_S) == 0
    monkeypatch.setattr(outlet, "MAX_FRAME_BYTES", 3000)
    monkeypatch.setattr(frames, "MAX_FRAME_BYTES", 3000)
    refs = [raiser.add.remote(b"x" * 1000) for _ in range(100)]
    assert actorrt.get(refs, timeout=DEADLINE_S) == [1000] * 100


def test_a_call_larger_than_any_frame_fails_and_the_next_one_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    raiser = Raiser.remote()
    assert actorrt.get(raiser.add.remote(b""), timeout=DEADLINE_S) == 0
    monkeypatch.setattr(outlet, "MAX_FRAME_BYTES", 3000)
    monkeypatch.setattr(frames, "MAX_FRAME_BYTES", 3000)
    before, large, after = (raiser.add.remote(b"x" * size) for size in (10, 5000, 20))
    with pytest.raises(exceptions.NotSentError, match="put large values"):
        actorrt.get(large, timeout=DEADLINE_S)
    assert actorrt.get([before, after], timeout=DEADLINE_S) == [10, 20]


def test_a_call_runs_though_nobody_holds_its_ref_or_its_actor(tmp_path: Path) -> None:
    path = tmp_path / "written"
    Writer.remote().write.remote(str(path))
    gc.collect()
    until = time.monotonic() + DEADLINE_S
    while not path.exists():
        assert time.monotonic() < until, "the call was lost"
        actorrt.get(Raiser.remote().add.remote(b""), timeout=DEADLINE_S)


def test_a_message_that_cannot_be_written_takes_no_other_along() -> None:
    actor = Echo.remote()
    before = actor.say.remote(0)
    # What users write is refused before: see test_bad_input.py.
    bad: Any = current.runtime().submit_method(client_of(actor), "\ud800", (), {}, MethodOptions())
    behind = actor.say.remote(2)
    assert actorrt.get([before, behind], timeout=DEADLINE_S) == [0, 2]
    with pytest.raises(exceptions.NotSentError, match="surrogates"):
        actorrt.get(bad, timeout=DEADLINE_S)


async def test_a_wait_on_a_loop_warns_where_the_program_called() -> None:
    ref = Echo.remote().never.remote()
    blocks = pytest.warns(RuntimeWarning, match=r"^get\(\) blocks .* `await ref`$")
    with blocks as caught, pytest.raises(exceptions.GetTimeoutError):
        actorrt.get(ref, timeout=0)
    assert caught[0].filename == __file__


def test_an_actor_that_could_not_start_leaves_nothing_behind_its_handle() -> None:
    @actorrt.remote
    class Broken:
        def __init__(self) -> None:
            raise ValueError("broken")

        def method(self) -> None: ...

    actor = Broken.remote()
    name = actor._actorrt_client.actor
    with pytest.raises(exceptions.ActorDiedError):
        actorrt.get(actor.method.remote())
    with pytest.raises(exceptions.ActorDiedError):
        actorrt.get(actor.method.remote())
    del actor
    gc.collect()
    runtime = current.session()
    deadline = time.monotonic() + DEADLINE_S
    while name in runtime.supervisor.records and time.monotonic() < deadline:
        runtime.thread.call_sync(asyncio.sleep(0))
    assert name not in runtime.supervisor.records
