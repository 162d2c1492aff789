"""Tasks end to end, with real processes: results, errors, retries, waiting, nesting."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import actorrt
from actorrt import exceptions

# By value, so that workers need not import this module, and pytest with it.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.usefixtures("node")


@actorrt.remote
def add(a: int, b: int = 0) -> int:
    return a + b


@actorrt.remote
async def add_async(a: int, b: int = 0) -> int:
    await asyncio.sleep(0)
    return a + b


@actorrt.remote
def count_up(path: str, then: Any = None) -> int:
    """Note a run in a file; raises `then` if it is an exception."""
    with open(path, "a", encoding="utf-8") as file:
        file.write("x")
    if isinstance(then, BaseException):
        raise then
    return os.path.getsize(path)


@actorrt.remote
def wait_at(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


class Fifo:
    """An event between a task and its test: whoever opens it first waits for the other."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = str(path)

    def open_for_reader(self, text: str = "") -> None:
        Path(self.path).write_text(text, encoding="utf-8")


def test_arguments_may_be_refs_of_any_kind() -> None:
    assert actorrt.get(add.remote(add.remote(1), b=add_async.remote(2, actorrt.put(3)))) == 6


def test_many_tasks_come_back_in_the_order_of_their_refs() -> None:
    refs = [kind.remote(i, 1) for i in range(1500) for kind in (add, add_async)]
    assert actorrt.get(refs) == [i + 1 for i in range(1500) for _ in (add, add_async)]


def test_tasks_are_submitted_from_many_threads_at_once() -> None:
    def submit(first: int) -> list[int]:
        return actorrt.get([add.remote(first + i) for i in range(200)])

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(submit, range(0, 4000, 1000))) == [
            list(range(first, first + 200)) for first in range(0, 4000, 1000)
        ]


def test_an_error_arrives_as_the_users_own_class_with_its_traceback() -> None:
    @actorrt.remote
    def fails() -> None:
        {}["missing"]

    with pytest.raises(KeyError, match="missing") as caught:
        actorrt.get(fails.remote())
    assert isinstance(caught.value, exceptions.TaskError)
    assert "in fails" in caught.value.traceback_text


def test_a_failed_argument_fails_the_task_without_running_it(tmp_path: Path) -> None:
    count = str(tmp_path / "count")
    broken = count_up.remote(count, ValueError("first"))
    with pytest.raises(ValueError, match="first"):
        actorrt.get(count_up.remote(str(tmp_path / "other"), broken))
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("number", [0, 1, 3])
def test_as_many_refs_come_as_were_asked_for(number: int) -> None:
    @actorrt.remote(num_returns=number)
    def several() -> Any:
        return tuple(range(number)) if number > 1 else None

    refs: Any = several.remote()
    if number == 0:
        assert refs is None
    elif number == 1:
        assert actorrt.get(refs) is None
    else:
        assert actorrt.get(refs) == list(range(number))


def test_another_number_of_results_than_promised_is_an_error_of_each() -> None:
    @actorrt.remote(num_returns=2)
    def three() -> tuple[int, int, int]:
        return 1, 2, 3

    for ref in three.remote():
        with pytest.raises(ValueError, match="num_returns=2 and returned 3"):
            actorrt.get(ref)


def test_a_task_without_results_runs(tmp_path: Path) -> None:
    fifo = Fifo(tmp_path / "ran")

    @actorrt.remote(num_returns=0)
    def tells() -> None:
        Path(fifo.path).write_text("ran", encoding="utf-8")

    tells.remote()
    assert Path(fifo.path).read_text(encoding="utf-8") == "ran"


# ---- retries


@pytest.mark.parametrize(
    ("options", "runs"),
    [
        ({}, 1),
        ({"retry_exceptions": True}, 4),
        ({"retry_exceptions": True, "max_retries": 0}, 1),
        ({"retry_exceptions": True, "max_retries": 1}, 2),
        ({"retry_exceptions": [ValueError]}, 4),
        ({"retry_exceptions": [ZeroDivisionError]}, 1),
    ],
)
def test_an_exception_is_retried_as_often_as_asked_for(tmp_path: Path, options: dict[str, Any], runs: int) -> None:
    count = tmp_path / "count"
    with pytest.raises(ValueError, match="no"):
        actorrt.get(count_up.options(**options).remote(str(count), ValueError("no")))
    assert count.stat().st_size == runs


def test_a_retry_that_succeeds_is_the_result(tmp_path: Path) -> None:
    @actorrt.remote(retry_exceptions=True)
    def third_time(path: str) -> int:
        with open(path, "a", encoding="utf-8") as file:
            file.write("x")
        if os.path.getsize(path) < 3:
            raise OSError("not yet")
        return os.path.getsize(path)

    assert actorrt.get(third_time.remote(str(tmp_path / "count"))) == 3


# ---- waiting


def test_wait_gives_no_more_than_asked_for_and_keeps_the_order(tmp_path: Path) -> None:
    fifo = Fifo(tmp_path / "gate")
    held = wait_at.remote(fifo.path)
    done = [add.remote(i) for i in range(3)]
    actorrt.get(done)
    assert actorrt.wait([done[2], held, done[0]], num_returns=2) == ([done[2], done[0]], [held])
    assert actorrt.wait([held, *done], num_returns=1) == ([done[0]], [held, done[1], done[2]])
    assert actorrt.wait([held, done[0]], num_returns=2, timeout=0) == ([done[0]], [held])
    assert actorrt.wait([held], timeout=0.01) == ([], [held])
    fifo.open_for_reader("go")
    assert actorrt.wait([held]) == ([held], [])
    assert actorrt.get(held) == "go"


def test_a_timeout_is_an_error_and_the_value_can_be_had_later(tmp_path: Path) -> None:
    fifo = Fifo(tmp_path / "gate")
    ref = wait_at.remote(fifo.path)
    for timeout in (0, 0.01):
        with pytest.raises(exceptions.GetTimeoutError):
            actorrt.get(ref, timeout=timeout)
    fifo.open_for_reader("late")
    assert actorrt.get(ref) == "late"


@pytest.mark.parametrize("count", [2, 40])
def test_get_of_many_raises_as_soon_as_one_has_failed(tmp_path: Path, count: int) -> None:
    fifo = Fifo(tmp_path / "gate")
    held = wait_at.remote(fifo.path)
    missing = [wait_at.remote(str(tmp_path / "missing")) for _ in range(count - 1)]
    for refs in ([held, *missing], [*missing, held], [held, *missing, held]):
        with pytest.raises(FileNotFoundError):
            actorrt.get(refs)
    assert not held.done()
    fifo.open_for_reader("all")
    assert actorrt.get([held, add.remote(1, 2), held]) == ["all", 3, "all"]


async def test_refs_are_awaited_on_any_loop_and_in_any_thread(tmp_path: Path) -> None:
    fifo = Fifo(tmp_path / "gate")
    ref = wait_at.remote(fifo.path)

    async def value() -> str:
        return await ref

    futures = [asyncio.get_running_loop().run_in_executor(None, lambda: asyncio.run(value())) for _ in range(2)]
    blocked = asyncio.get_running_loop().run_in_executor(None, actorrt.get, ref)
    here = asyncio.create_task(value())
    future = ref.future()
    await asyncio.to_thread(fifo.open_for_reader, "v")
    assert await asyncio.gather(*futures, blocked, here, asyncio.wrap_future(future)) == ["v"] * 5


async def test_who_is_cancelled_while_awaiting_a_ref_leaves_the_task_alone(tmp_path: Path) -> None:
    fifo = Fifo(tmp_path / "gate")
    ref = wait_at.remote(fifo.path)

    async def value() -> str:
        return await ref

    task = asyncio.create_task(value())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.to_thread(fifo.open_for_reader, "alive")
    assert await ref == "alive"


# ---- nesting


@actorrt.remote
def nested(depth: int) -> int:
    return 0 if depth == 0 else 1 + actorrt.get(nested.remote(depth - 1))


@actorrt.remote
async def nested_async(depth: int) -> int:
    return 0 if depth == 0 else 1 + await nested_async.remote(depth - 1)


@actorrt.remote
def fan(depth: int) -> int:
    return 1 if depth == 0 else sum(actorrt.get([fan.remote(depth - 1), fan.remote(depth - 1)]))


def test_tasks_wait_for_tasks_of_their_own_deeper_than_there_are_cpus() -> None:
    assert actorrt.get([nested.remote(4), nested_async.remote(10), fan.remote(3)]) == [4, 10, 8]


def test_who_waits_for_a_cpu_gets_one_though_another_has_a_long_backlog(tmp_path: Path) -> None:
    @actorrt.remote
    def parent(i: int) -> int:
        # The child asks its own worker's node for a lease, while the driver holds all CPUs and has work for them.
        return actorrt.get(add.remote(i, 1))

    assert actorrt.get([parent.remote(i) for i in range(40)]) == [i + 1 for i in range(40)]


def test_short_tasks_do_not_wait_behind_a_long_one_while_a_worker_is_free(tmp_path: Path) -> None:
    fifo = Fifo(tmp_path / "gate")
    actorrt.get([add.remote(i) for i in range(200)])
    # Many lie in front of each worker at once; one of them blocks.
    refs = [add.remote(i) for i in range(300)]
    held = wait_at.remote(fifo.path)
    refs += [add.remote(i) for i in range(300)]
    assert actorrt.get(refs) == [*range(300), *range(300)]
    assert not held.done()
    fifo.open_for_reader("end")
    assert actorrt.get(held) == "end"


def test_a_callback_and_a_dropped_ref_disturb_nobody() -> None:
    called = threading.Event()
    add.remote(1).add_done_callback(lambda ref: called.set())
    for i in range(200):
        add.remote(i)
    assert actorrt.get(add.remote(5)) == 5
    assert called.wait(30)


def test_a_callback_runs_on_its_loop_whatever_thread_that_is_in_by_now() -> None:
    async def awaited(ref: Any) -> Any:
        return await ref

    loop = asyncio.new_event_loop()
    ref = add.remote(1, 2)
    assert loop.run_until_complete(awaited(ref)) == 3
    # From here on it refuses what other threads give to it without waking it.
    loop.set_debug(True)
    ran_in: list[int] = []
    called = threading.Event()

    def note(_: Any) -> None:
        ran_in.append(threading.get_ident())
        called.set()

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    ref.add_done_callback(note, loop=loop)
    assert called.wait(30)
    assert ran_in == [thread.ident]
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_the_context_names_the_task_and_what_it_has() -> None:
    @actorrt.remote(num_cpus=2, name="two cpus")
    def look() -> Any:
        context = actorrt.get_runtime_context()
        return context.get_task_name(), context.get_assigned_resources(), context.get_actor_id()

    @actorrt.remote
    def one() -> Any:
        return actorrt.get_runtime_context().get_assigned_resources()

    @actorrt.remote
    async def none() -> Any:
        return actorrt.get_runtime_context().get_assigned_resources()

    assert actorrt.get(look.remote()) == ("two cpus", {"CPU": 2.0}, None)
    assert actorrt.get([one.remote(), none.remote()]) == [{"CPU": 1.0}, {}]
