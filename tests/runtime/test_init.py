"""The life of a session: begun, joined, ended, begun again; used without a word; inherited by a fork."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import actorrt
from actorrt import exceptions

# By value, so that workers need not import this module, and pytest with it.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

RunProgram = Callable[..., Any]


@actorrt.remote
def quick(value: Any = None) -> Any:
    return value


@actorrt.remote
def nest() -> list[Any]:
    return [quick.remote(1)]


@actorrt.remote
class Actor:
    async def value(self) -> int:
        return 1

    async def wait(self) -> None:
        await asyncio.Event().wait()


def test_init_and_shutdown_may_be_called_in_any_order() -> None:
    actorrt.shutdown()
    assert not actorrt.is_initialized()
    with pytest.raises(ConnectionError, match="no cluster runs"):
        actorrt.init("auto")
    first = actorrt.init(num_cpus=1)
    assert actorrt.is_initialized()
    with pytest.raises(RuntimeError, match="initialized already"):
        actorrt.init()
    assert actorrt.init(ignore_reinit_error=True)["session_dir"] == first["session_dir"]
    actorrt.shutdown()
    actorrt.shutdown()
    assert not actorrt.is_initialized()
    with actorrt.init(num_cpus=1) as again:
        assert again["session_dir"] != first["session_dir"]
        assert actorrt.get(quick.remote(1)) == 1
    assert not actorrt.is_initialized()


async def test_a_session_is_an_async_context_too() -> None:
    async with actorrt.init(num_cpus=1):
        assert await quick.remote(1) == 1


def test_sessions_in_a_row_leave_nothing_in_this_process() -> None:
    def one() -> None:
        with actorrt.init(num_cpus=1):
            actor = Actor.remote()
            assert actorrt.get([quick.remote(bytes(300_000)), actor.value.remote()])[1] == 1

    def left() -> tuple[int, int]:
        gc.collect()
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    one()
    before = left()
    for _ in range(4):
        one()
    # What an earlier test left to end may have ended since.
    assert all(now <= then for now, then in zip(left(), before, strict=True))


def test_whoever_waits_at_a_shutdown_is_told(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    @actorrt.remote
    def run_long(fifo: str) -> None:
        Path(fifo).write_text("runs", encoding="utf-8")
        threading.Event().wait()

    @actorrt.remote
    class Waits:
        async def wait(self) -> None:
            await asyncio.Event().wait()

    actorrt.init(num_cpus=1)
    refs = [run_long.remote(str(fifo)), run_long.remote(str(fifo)), Waits.remote().wait.remote()]
    refs.append(quick.remote(refs[0]))
    fifo.read_text(encoding="utf-8")
    ends: list[BaseException] = []

    def wait_for(ref: Any) -> None:
        try:
            actorrt.get(ref)
        except exceptions.ActorrtError as error:
            ends.append(error)

    threads = [threading.Thread(target=wait_for, args=(ref,)) for ref in refs]
    for thread in threads:
        thread.start()
    actorrt.shutdown()
    for thread in threads:
        thread.join()
    assert len(ends) == len(refs)


def test_the_first_use_begins_a_session_and_the_end_of_the_program_ends_it(run_program: RunProgram) -> None:
    ended = run_program(
        """
import actorrt

@actorrt.remote(num_cpus=0)
def add(a, b):
    return a + b

print(actorrt.is_initialized(), actorrt.get(add.remote(1, 2)), actorrt.is_initialized())
"""
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "False 3 True\n", "")


def test_a_program_that_only_dials_loads_no_server(run_program: RunProgram) -> None:
    ended = run_program(
        """
import sys
import actorrt

@actorrt.remote
class Adder:
    def add(self, a, b):
        return a + b

print(actorrt.get(Adder.remote().add.remote(1, 2)), "aiohttp" in sys.modules)
"""
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "3 False\n", "")


@pytest.mark.parametrize(
    "first_use",
    [
        "ref = add.remote(1, 2); print(actorrt.get(ref))",
        "actor = Adder.remote(); ref = actor.add.remote(1, 2); print(actorrt.get(ref))",
        "context = actorrt.get_runtime_context(); print(len(context.get_job_id()) - 13)",
        "ref = actorrt.put(3); print(actorrt.get(ref))",
        "from actorrt.util import Queue; queue = Queue(); queue.put(3); print(queue.get())",
    ],
)
def test_whatever_is_used_first_begins_a_session(run_program: RunProgram, first_use: str) -> None:
    ended = run_program(
        f"""
import actorrt

@actorrt.remote
def add(a, b):
    return a + b

@actorrt.remote
class Adder:
    def add(self, a, b):
        return a + b

{first_use}
"""
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "3\n", "")


def test_threads_that_are_the_first_to_use_it_share_one_session(run_program: RunProgram) -> None:
    ended = run_program(
        """
import threading
import actorrt

@actorrt.remote(num_cpus=0)
def double(x):
    return 2 * x

def use(x):
    start.wait()
    results.append(actorrt.get(double.remote(x)))

start, results = threading.Barrier(8), []
threads = [threading.Thread(target=use, args=(x,)) for x in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(sorted(results))
"""
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "[0, 2, 4, 6, 8, 10, 12, 14]\n", "")


def test_what_the_end_of_the_program_calls_may_still_use_the_session(run_program: RunProgram) -> None:
    ended = run_program(
        """
import atexit
import actorrt

@actorrt.remote
class Log:
    def flush(self):
        return "flushed"

atexit.register(lambda: print(actorrt.get(log.flush.remote())))
log = Log.remote()
"""
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "flushed\n", "")


def test_what_is_left_of_a_session_begins_no_other() -> None:
    with actorrt.init(num_cpus=1):
        ref, stored, actor = quick.remote(1), actorrt.put(bytes(1_000_000)), Actor.remote()
        never = actor.wait.remote()
        assert actorrt.get([ref, actor.value.remote()]) == [1, 1]
    for use in (
        lambda: actorrt.get([ref, stored]),
        lambda: actorrt.wait([ref]),
        lambda: actorrt.cancel(ref),
        lambda: actorrt.kill(actor),
        lambda: actorrt.get(actor.value.remote()),
        stored.future,
    ):
        with pytest.raises(RuntimeError, match="shut down"):
            use()
        assert not actorrt.is_initialized()
    assert actorrt.get([]) == []
    # What came in time is known, also that nothing came.
    with pytest.raises(exceptions.ActorrtError, match="shut down"):
        actorrt.get(never)
    assert actorrt.get([ref, ref]) == [1, 1]
    assert not actorrt.is_initialized()


async def test_a_group_whose_session_ends_begins_no_other() -> None:
    with actorrt.init(num_cpus=1):
        actor = Actor.remote()
        await actor.value.remote()
        holds_a_ref = nest.remote()
        await holds_a_ref
        with pytest.raises(ExceptionGroup):
            async with actorrt.TaskGroup() as group:
                for _ in range(2):
                    group.start(actor.wait.remote())
                await asyncio.to_thread(actorrt.shutdown)
    assert not actorrt.is_initialized()
    with pytest.raises(RuntimeError, match="shut down"):
        holds_a_ref.peek()
    assert not actorrt.is_initialized()
    with actorrt.init(num_cpus=1), pytest.raises(RuntimeError, match="shut down"):
        actorrt.kill(actor)


def test_ten_tasks_deep_on_one_cpu(run_program: RunProgram) -> None:
    ended = run_program(
        """
import actorrt

@actorrt.remote
def deep(level):
    return [] if level == 0 else [level, *actorrt.get(deep.remote(level - 1))]

with actorrt.init(num_cpus=1):
    print(actorrt.get([deep.remote(10), deep.remote(10)]))
"""
    )
    assert ended.stdout == f"{[list(range(10, 0, -1))] * 2}\n", ended.stderr


def test_a_fork_inherits_refs_that_do_nothing_and_may_begin_a_session_of_its_own(run_program: RunProgram) -> None:
    ended = run_program(
        """
import os, sys
import actorrt

@actorrt.remote
def add(a, b):
    return a + b

@actorrt.remote
class Counter:
    def __init__(self):
        self.count = 0
    async def up(self):
        self.count += 1
        return self.count

actorrt.init(num_cpus=1)
counter = Counter.remote()
done, pending, large = add.remote(1, 2), add.remote(3, 4), actorrt.put(bytes(500_000))
actorrt.get([done, counter.up.remote()])
if os.fork() == 0:
    assert not actorrt.is_initialized()
    for use in (lambda: actorrt.get(pending), lambda: counter.up.remote()):
        try:
            print("used", use())
        except Exception as error:
            print(type(error).__name__, str(error)[:40])
    actorrt.shutdown()
    del done, pending, large, counter
    with actorrt.init(num_cpus=1):
        print("own", actorrt.get(add.remote(5, 6)))
    sys.exit(0)
os.wait()
print("parent", actorrt.get([done, pending, counter.up.remote()]), len(actorrt.get(large)))
"""
    )
    lines = ended.stdout.splitlines()
    assert lines[-2:] == ["own 11", "parent [3, 7, 2] 500000"], (lines, ended.stderr)
    assert len(lines) == 4
    assert not any(line.startswith("used") for line in lines)


def test_in_a_forks_own_session_what_it_inherited_is_an_error_and_not_a_hang(run_program: RunProgram) -> None:
    ended = run_program(
        """
import asyncio, os, signal
import actorrt

@actorrt.remote
class Slow:
    async def wait(self):
        await asyncio.Event().wait()
    async def items(self):
        await asyncio.Event().wait()
        yield 1
    async def same(self, value):
        return value

async def awaited(what):
    return await what

async def next_of(items):
    return await anext(items)

actorrt.init(num_cpus=1)
slow = Slow.remote()
ref, items = slow.wait.remote(), slow.items.remote()
actorrt.get(slow.same.remote(1))
if os.fork() == 0:
    # Where it hangs it ends.
    signal.alarm(20)
    actorrt.init(num_cpus=1)
    mine = Slow.remote()
    uses = {
        "get": lambda: actorrt.get(ref),
        "await": lambda: asyncio.run(awaited(ref)),
        "wait": lambda: actorrt.wait([ref]),
        "argument": lambda: mine.same.remote(ref),
        "callback": lambda: ref.add_done_callback(print),
        "cancel": lambda: actorrt.cancel(ref),
        "next": lambda: next(items),
        "anext": lambda: asyncio.run(next_of(items)),
        "wait for an item": lambda: actorrt.wait([items]),
        "callback of the end": lambda: items.add_done_callback(print),
    }
    for name, use in uses.items():
        try:
            print("used", name, use(), flush=True)
        except RuntimeError as error:
            print(name, "forked" in str(error), flush=True)
    print("own", actorrt.get(mine.same.remote(2)), flush=True)
    actorrt.shutdown()
    os._exit(0)
os.wait()
print("parent", ref.done(), actorrt.get(slow.same.remote(3)))
"""
    )
    lines = ended.stdout.splitlines()
    assert lines[-2:] == ["own 2", "parent False 3"], (lines, ended.stderr)
    names = "get, await, wait, argument, callback, cancel, next, anext, wait for an item, callback of the end"
    assert lines[:-2] == [f"{name} True" for name in names.split(", ")]


def test_shutdown_takes_no_options_that_it_would_ignore() -> None:
    options: dict[str, Any] = {"timeout": 1}
    with pytest.raises(TypeError, match="timeout"):
        actorrt.shutdown(**options)
