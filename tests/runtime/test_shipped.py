"""What was shipped is forgotten with its last user, by both ends, and shipped again when it is needed again."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import actorrt
from actorrt.runtime.owner import current

ROUNDS = 1_000


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    with actorrt.init(num_cpus=2, preload_modules=["pytest"]):
        yield


@actorrt.remote
def tables_of_a_worker() -> dict[str, int]:
    gc.collect()
    return _tables()


@actorrt.remote
async def tables_of_a_shared_worker() -> dict[str, int]:
    gc.collect()
    return _tables()


def _tables() -> dict[str, int]:
    runtime = current.runtime()
    executor = runtime.program.runner
    found = {
        "shipped": len(runtime.shipped),
        "max_calls": len(runtime.tasks.max_calls),
        "defined": max((len(link.defined) for link in runtime.peers.links.values()), default=0),
    }
    if executor is not None:
        code = executor.code.statistics()
        found |= {"definitions": code.defined, "loaded": code.loaded, "packed": code.packed}
    return found


def closure(number: int) -> Callable[[], int]:
    data = [number]
    return lambda: data[0]


def async_closure(number: int) -> Callable[[], Any]:
    data = [number]

    async def cell() -> int:
        return data[0]

    return cell


def class_of(number: int) -> Any:
    class Counter:
        async def count(self) -> int:
            return number

    return actorrt.remote(Counter)


def _settled() -> dict[str, int]:
    """The driver's tables once it has told its workers what is gone."""
    gc.collect()
    current.runtime().thread.call_sync(_nothing())
    return _tables()


async def _nothing() -> None: ...


def test_the_tables_of_both_ends_are_empty_again_after_1000_functions() -> None:
    before, there = _settled(), actorrt.get(tables_of_a_worker.remote())
    for number in range(ROUNDS):
        assert actorrt.get(actorrt.remote(closure(number)).remote()) == number
    limited = [actorrt.remote(max_calls=10_000)(closure(number)).remote() for number in range(100)]
    assert actorrt.get(limited) == list(range(100))
    del limited
    after = _settled()
    # The last function alone, for its worker; unless that had nothing to do for a while, and has ended.
    left = {name: after[name] - before[name] for name in after}
    assert left in ({"shipped": 1, "max_calls": 0, "defined": defined} for defined in (0, 1))
    found = actorrt.get(tables_of_a_worker.remote())
    assert max(found[name] - there[name] for name in ("loaded", "packed", "definitions")) <= 1


def test_a_worker_that_has_run_a_limited_function_that_is_gone_goes_on() -> None:
    alone = actorrt.remote(closure(-1)).options(max_retries=0)
    for number in range(5):
        # The lease of this one still counts it when the function is forgotten, and takes what may run only once.
        assert actorrt.get(actorrt.remote(max_calls=100)(closure(number)).remote()) == number
        _settled()
        assert actorrt.get(alone.remote(), timeout=30) == -1


def test_the_same_on_shared_workers_and_for_actor_classes() -> None:
    before, there = _settled(), actorrt.get(tables_of_a_shared_worker.remote())
    refs = [actorrt.remote(async_closure(number)).remote() for number in range(ROUNDS)]
    assert actorrt.get(refs) == list(range(ROUNDS))
    for number in range(100):
        counter = class_of(number).remote()
        assert actorrt.get(counter.count.remote()) == number
        del counter
    del refs
    after = _settled()
    # The interfaces of a few classes are kept.
    assert max(after[name] - before[name] for name in after) <= 20
    found = actorrt.get(tables_of_a_shared_worker.remote())
    assert max(found[name] - there[name] for name in ("loaded", "packed", "definitions")) <= 20


def test_what_a_function_captured_is_garbage_after_its_last_call() -> None:
    class Captured:
        pass

    def holding(captured: Captured) -> Callable[[], bool]:
        return lambda: captured is not None

    captured = Captured()
    gone = weakref.ref(captured)
    function = holding(captured)
    del captured
    assert actorrt.get(actorrt.remote(function).remote())
    assert gone() is not None
    del function
    _settled()
    assert gone() is None


def test_a_function_that_was_forgotten_is_shipped_again() -> None:
    for _ in range(3):
        # The same content each time: the same hash.
        assert actorrt.get(actorrt.remote(closure(-1)).remote()) == -1
        _settled()


def test_a_call_whose_function_is_gone_here_is_repeated_all_the_same(tmp_path: Path) -> None:
    def once(path: str) -> str:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return "again"
        os._exit(1)

    ref = actorrt.remote(once).options(max_retries=1).remote(str(tmp_path / "mark"))
    del once
    gc.collect()
    assert actorrt.get(ref) == "again"

    def fails_once(path: str) -> str:
        if not os.path.exists(path):
            Path(path).touch()
            raise ValueError
        return "again"

    ref = actorrt.remote(fails_once).options(max_retries=1, retry_exceptions=True).remote(str(tmp_path / "other"))
    del fails_once
    gc.collect()
    assert actorrt.get(ref) == "again"


def test_an_actor_whose_class_is_gone_here_is_restarted_all_the_same() -> None:
    def make() -> Any:
        class Fragile:
            def end(self) -> None:
                os._exit(1)

            def pid(self) -> int:
                return os.getpid()

        return actorrt.remote(Fragile).options(max_restarts=1, max_task_retries=1).remote()

    actor = make()
    before = actorrt.get(actor.pid.remote())
    _settled()
    actor.end.options(max_task_retries=0).remote()
    assert actorrt.get(actor.pid.remote()) != before


def test_functions_of_the_same_content_come_and_go_in_many_threads() -> None:
    wrong: list[object] = []

    def run() -> None:
        try:
            for number in range(60):
                content = number % 3
                got = actorrt.get(actorrt.remote(closure(content)).remote(), timeout=60)
                if got != content:
                    wrong.append(got)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_several_processes_ship_the_same_function_to_one_worker() -> None:
    @actorrt.remote
    def nested(rounds: int) -> list[int]:
        found = []
        for _ in range(rounds):
            found.append(actorrt.get(actorrt.remote(closure(7)).remote()))
            gc.collect()
        return found

    refs = [nested.remote(20) for _ in range(2)]
    mine = [actorrt.get(actorrt.remote(closure(7)).remote()) for _ in range(20)]
    assert mine == [7] * 20
    assert actorrt.get(refs) == [[7] * 20] * 2
