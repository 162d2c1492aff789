"""What goes wrong rarely: errors that cannot be made again, messages larger than a frame, calls that nobody holds."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from pathlib import Path

import pytest

import actorrt
from actorrt import exceptions
from actorrt.runtime import current, link
from actorrt.wire import frames

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
class Raiser:
    async def inner(self) -> None:
        raise RuntimeError(Inner("this", "that"))

    async def mute(self) -> None:
        raise Mute

    async def add(self, *values: bytes) -> int:
        return sum(map(len, values))


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


def test_messages_that_do_not_fit_one_frame_leave_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    raiser = Raiser.remote()
    assert actorrt.get(raiser.add.remote(b""), timeout=DEADLINE_S) == 0
    monkeypatch.setattr(link, "MAX_FRAME_BYTES", 3000)
    monkeypatch.setattr(frames, "MAX_FRAME_BYTES", 3000)
    refs = [raiser.add.remote(b"x" * 1000) for _ in range(100)]
    assert actorrt.get(refs, timeout=DEADLINE_S) == [1000] * 100


def test_a_call_larger_than_any_frame_fails_and_the_next_one_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    raiser = Raiser.remote()
    assert actorrt.get(raiser.add.remote(b""), timeout=DEADLINE_S) == 0
    monkeypatch.setattr(link, "MAX_FRAME_BYTES", 3000)
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
    before, bad, behind = [
        actor.say.options(name=name).remote(number) for number, name in enumerate(("first", "\ud800", "plain"))
    ]
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
        runtime.call_sync(asyncio.sleep(0))
    assert name not in runtime.supervisor.records
