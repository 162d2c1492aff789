"""Calls with limits and retry policies, of each kind that is sent in a way of its own."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import actorrt
from actorrt import exceptions
from actorrt.runtime.owner import current

LONG_S: Final = 60.0


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    with actorrt.init(num_cpus=2, log_to_driver=False):
        yield


def note(path: str, what: str = "x") -> int:
    with open(path, "a", encoding="utf-8") as file:
        file.write(what)
    return Path(path).stat().st_size


@actorrt.remote
async def sleeps(path: str) -> None:
    """Says when it is cancelled."""
    try:
        note(path, "b")
        await asyncio.sleep(LONG_S)
    finally:
        note(path, "e")


@actorrt.remote
def sleeps_in_main_thread(path: str) -> None:
    try:
        note(path, "b")
        time.sleep(LONG_S)
    finally:
        note(path, "e")


@actorrt.remote
class Sleeper:
    async def sleeps(self, path: str) -> None:
        try:
            note(path, "b")
            await asyncio.sleep(LONG_S)
        finally:
            note(path, "e")

    async def counts(self, path: str) -> Any:
        try:
            note(path, "b")
            yield 1
            await asyncio.sleep(LONG_S)
        finally:
            note(path, "e")

    async def pong(self) -> str:
        return "pong"


@actorrt.remote
class OneByOne:
    def wait_for(self, path: str) -> None:
        while not Path(path).exists():
            time.sleep(0.005)

    def note(self, path: str) -> int:
        return note(path)


def wait_until(holds: Any) -> None:
    until = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.005)


def content(path: str) -> str:
    return Path(path).read_text(encoding="utf-8") if Path(path).exists() else ""


KINDS: Final = ["task", "task on a shared worker", "actor", "stream"]


def call(kind: str, path: str, **options: Any) -> Any:
    match kind:
        case "task":
            return sleeps_in_main_thread.options(**options).remote(path)
        case "task on a shared worker":
            return sleeps.options(**options).remote(path)
        case "actor":
            return Sleeper.remote().sleeps.options(**options).remote(path)
        case _:
            return Sleeper.remote().counts.options(num_returns="streaming", **options).remote(path)


def outcome(kind: str, called: Any) -> Any:
    return list(map(actorrt.get, called)) if kind == "stream" else actorrt.get(called)


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_whose_time_is_over_ends_at_once_and_is_cancelled(kind: str, tmp_path: Path) -> None:
    path = str(tmp_path / "told")
    began = time.monotonic()
    with pytest.raises(exceptions.CallTimeoutError, match=r"its timeout_s of 1 s") as raised:
        outcome(kind, call(kind, path, timeout_s=1.0))
    assert time.monotonic() - began < LONG_S / 2
    assert (raised.value.limit, raised.value.seconds, raised.value.may_have_run) == ("timeout_s", 1.0, True)
    wait_until(lambda: content(path) in ("be", ""))


def test_a_call_that_ends_in_time_is_as_any_other() -> None:
    actor = Sleeper.remote()
    pong = actor.pong.options(timeout_s=LONG_S, start_timeout_s=LONG_S)
    assert actorrt.get([pong.remote() for _ in range(200)]) == ["pong"] * 200


@pytest.mark.parametrize("limit", ["timeout_s", "start_timeout_s"])
def test_a_task_that_waits_for_a_worker_is_not_begun_once_its_time_is_over(limit: str, tmp_path: Path) -> None:
    path, done = str(tmp_path / "ran"), str(tmp_path / "done")
    blocker = OneByOne.options(num_cpus=2).remote()
    held = blocker.wait_for.remote(done)
    waits = sleeps_in_main_thread.options(**{limit: 0.2}).remote(path)
    with pytest.raises(exceptions.CallTimeoutError, match=limit) as raised:
        actorrt.get(waits)
    assert not raised.value.may_have_run
    note(done)
    actorrt.get(held)
    actorrt.kill(blocker)
    assert content(path) == ""


def test_a_call_that_lies_at_its_actor_is_taken_back_and_one_that_has_begun_goes_on(tmp_path: Path) -> None:
    path, done = str(tmp_path / "ran"), str(tmp_path / "done")
    actor = OneByOne.remote()
    first = actor.wait_for.options(start_timeout_s=0.5).remote(done)
    second = actor.note.options(start_timeout_s=0.5).remote(path)
    third = actor.note.remote(path)
    with pytest.raises(exceptions.CallTimeoutError, match="start_timeout_s") as raised:
        actorrt.get(second)
    assert not raised.value.may_have_run
    note(done)
    assert actorrt.get(first) is None
    assert actorrt.get(third) == 1


def test_a_coroutine_that_waits_for_its_turn_is_taken_back(tmp_path: Path) -> None:
    path = str(tmp_path / "ran")
    actor = Sleeper.options(max_concurrency=1).remote()
    first = actor.sleeps.options(start_timeout_s=0.4).remote(path)
    with pytest.raises(exceptions.CallTimeoutError, match="start_timeout_s"):
        actorrt.get(actor.pong.options(start_timeout_s=0.4).remote())
    first.cancel()
    with pytest.raises(exceptions.TaskCancelledError):
        actorrt.get(first)
    assert content(path) == "be"


def test_a_call_whose_argument_does_not_come_is_late(tmp_path: Path) -> None:
    never = sleeps.remote(str(tmp_path / "argument"))
    with pytest.raises(exceptions.CallTimeoutError, match="start_timeout_s"):
        actorrt.get(sleeps.options(start_timeout_s=0.2).remote(never))
    actor = OneByOne.remote()
    with pytest.raises(exceptions.CallTimeoutError, match="timeout_s"):
        actorrt.get(actor.note.options(timeout_s=0.2).remote(never))
    never.cancel()
    # It stood in front of this one.
    assert actorrt.get(actor.note.remote(str(tmp_path / "next"))) == 1


class Odd(Exception):
    """Raised on purpose."""


@actorrt.remote
def fails(path: str) -> None:
    note(path)
    raise Odd


@actorrt.remote
async def fails_async(path: str) -> None:
    note(path)
    raise Odd


@actorrt.remote
class Failing:
    async def fails(self, path: str) -> None:
        note(path)
        raise Odd


def failing(kind: str, path: str, retries: int, **options: Any) -> Any:
    if kind == "actor":
        method: Any = Failing.options(max_task_retries=retries).remote().fails
        return method.options(retry_exceptions=True, **options).remote(path)
    task: Any = fails if kind == "task" else fails_async
    return task.options(max_retries=retries, retry_exceptions=True, **options).remote(path)


@pytest.mark.parametrize("kind", KINDS[:3])
def test_a_call_pauses_before_it_is_repeated_for_an_error(kind: str, tmp_path: Path) -> None:
    path = str(tmp_path / "runs")
    policy = actorrt.RetryPolicy(pause_s=0.2, growth=2.0, jitter=0.0)
    began = time.monotonic()
    with pytest.raises(Odd):
        actorrt.get(failing(kind, path, 2, retry_policy=policy))
    assert time.monotonic() - began >= 0.2 + 0.4
    assert content(path) == "xxx"


@pytest.mark.parametrize("kind", KINDS[:3])
def test_a_call_that_pauses_can_be_cancelled_and_be_late(kind: str, tmp_path: Path) -> None:
    path = str(tmp_path / "runs")
    policy = actorrt.RetryPolicy(pause_s=LONG_S)
    paused = failing(kind, path, -1, retry_policy=policy)
    # Until the error is here, the call is cancelled where it runs.
    wait_until(lambda: current.session().call_clock.busy)
    paused.cancel()
    with pytest.raises(exceptions.TaskCancelledError):
        actorrt.get(paused)
    assert content(path) == "x"
    late = failing(kind, str(tmp_path / "late"), -1, retry_policy=policy, timeout_s=1.0)
    with pytest.raises(exceptions.CallTimeoutError) as raised:
        actorrt.get(late)
    assert raised.value.may_have_run


@pytest.mark.parametrize("kind", KINDS[:3])
def test_errors_that_are_excepted_are_not_repeated_for(kind: str, tmp_path: Path) -> None:
    path = str(tmp_path / "runs")
    policy = actorrt.RetryPolicy(pause_s=0.0, never_for=(Odd,))
    with pytest.raises(Odd):
        actorrt.get(failing(kind, path, 5, retry_policy=policy))
    assert content(path) == "x"


def test_an_option_of_no_sense_is_refused_by_its_name() -> None:
    for options, words in [
        ({"timeout_s": 0}, "timeout_s must be more than 0"),
        ({"start_timeout_s": -1}, "start_timeout_s"),
        ({"retry_policy": actorrt.RetryPolicy(growth=0.5)}, "growth of retry_policy"),
        ({"retry_policy": actorrt.RetryPolicy(jitter=2.0)}, "jitter of retry_policy"),
        ({"retry_policy": actorrt.RetryPolicy(never_for=(Odd,))}, "retry_exceptions"),
    ]:
        with pytest.raises(ValueError, match=words):
            fails.options(**options)  # pyright: ignore[reportArgumentType]
    for name, value in {"timeout_s": "1", "retry_policy": 3}.items():
        with pytest.raises(TypeError, match=name):
            fails.options(**{name: value})  # pyright: ignore[reportArgumentType]
