"""No table of the node or the head grows with what has ended."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest

import actorrt
from actorrt import exceptions
from actorrt.runtime.owner import current
from actorrt.runtime.owner.actor_records import ActorSpec
from actorrt.wire.messages import Query, StartActor

# By value, so that workers need not import this module, and pytest with it.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

# So many ends are remembered on purpose; after those, no table may grow at all.
REMEMBERED = 256
ROUNDS = 1000
AT_ONCE = 50


@actorrt.remote
class Brief:
    async def value(self) -> int:
        return 1


@actorrt.remote
class Failing:
    def __init__(self) -> None:
        raise ValueError("x" * 20_000)

    async def value(self) -> int:
        return 1


@actorrt.remote
def size(array: Any = None) -> int:
    return 0 if array is None else len(array)


@pytest.fixture(scope="module", autouse=True)
def session() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        # Leases and workers without work go at once.
        patch.setenv("ACTORRT_IDLE_LEASE_S", "0.05")
        patch.setenv("ACTORRT_IDLE_WORKER_S", "0.05")
        with actorrt.init(num_cpus=2, namespace="tables", preload_modules=["pytest"]):
            yield


def sizes() -> dict[str, int]:
    """Of all tables of node and head."""
    runtime = current.runtime()
    asked = [runtime.thread.call_sync(runtime.node.ask(Query(what))) for what in ("tables", "head tables")]
    return asked[0].data | asked[1].data


def settled(wanted: dict[str, int]) -> dict[str, int]:
    """What has grown beyond `wanted` and stays so: the last that ended may be on its way out still."""
    grown: dict[str, int] = {}
    for _ in range(2000):
        now = sizes()
        grown = {name: now[name] for name in now if now[name] > wanted.get(name, 0)}
        if not grown:
            break
    return grown


def detached(count: int) -> None:
    """Detached actors with names, some of which cannot start; each is called, found by its name, and killed."""
    for start in range(0, count, AT_ONCE):
        names = [f"n{number}" for number in range(start, start + AT_ONCE)]
        made = [Brief.options(name=name, lifetime="detached").remote() for name in names]
        assert actorrt.get([each.value.remote() for each in made]) == [1] * AT_ONCE
        failing = Failing.options(name="failing", lifetime="detached", num_cpus=0).remote()
        with pytest.raises(exceptions.ActorDiedError):
            actorrt.get(failing.value.remote())
        for name in names:
            actorrt.kill(actorrt.get_actor(name))


def owned(count: int) -> None:
    """Named actors and tasks of this program, with objects in shared memory."""
    for start in range(0, count, AT_ONCE):
        made = [Brief.options(name=f"o{number}").remote() for number in range(start, start + AT_ONCE)]
        assert actorrt.get([each.value.remote() for each in made]) == [1] * AT_ONCE
        large = actorrt.put(np.zeros(30_000))
        assert actorrt.get([size.remote(large) for _ in range(AT_ONCE)]) == [30_000] * AT_ONCE
        with pytest.raises(exceptions.ActorAlreadyExistsError):
            Brief.options(name=f"o{start}").remote()
        with pytest.raises(exceptions.ActorNotFoundError):
            actorrt.get_actor("nobody")


def test_after_a_thousand_detached_actors_no_table_has_grown() -> None:
    detached(REMEMBERED + AT_ONCE)
    before = sizes()
    detached(ROUNDS)
    assert settled(before) == {}


def test_after_a_thousand_actors_tasks_and_names_no_table_has_grown() -> None:
    owned(2 * AT_ONCE)
    before = sizes()
    owned(ROUNDS)
    assert settled(before) == {}


def environment(number: int) -> None:
    """Workers for an environment of its own, which end."""
    env = {"env_vars": {"NUMBER": str(number)}}
    actor = Brief.options(num_cpus=0.1, runtime_env=env).remote()
    assert actorrt.get([actor.value.remote(), size.options(num_cpus=0.1, runtime_env=env).remote()]) == [1, 0]
    actorrt.kill(actor)


def test_workers_of_many_environments_leave_only_the_causes_of_their_ends() -> None:
    environment(0)
    before = sizes()
    for number in range(1, 9):
        environment(number)
    # These are bounded: tests/core/test_recent.py and core/recent.py.
    assert settled(before | {"Peers.dead": before["Peers.dead"] + 20}) == {}


PROGRAM = """
import actorrt, sys
@actorrt.remote
class Lasting:
    async def value(self): return 1
actorrt.init(sys.argv[1], namespace="tables")
actors = [Lasting.options(name=f"p{sys.argv[2]}", lifetime="detached", num_cpus=0).remote()]
actors.append(Lasting.options(name=f"q{sys.argv[2]}", lifetime="detached").remote())
assert actorrt.get([actor.value.remote() for actor in actors]) == [1, 1]
"""


def test_programs_are_forgotten_when_the_last_of_their_detached_actors_has_ended(tmp_path: Path) -> None:
    source = tmp_path / "program.py"
    source.write_text(PROGRAM, encoding="utf-8")

    def run(number: int) -> None:
        session = current.runtime().session
        subprocess.run([sys.executable, str(source), session, str(number)], check=True, env=dict(os.environ))
        for name in (f"p{number}", f"q{number}"):
            actor = actorrt.get_actor(name)
            assert actorrt.get(actor.value.remote()) == 1
            actorrt.kill(actor)

    run(0)
    before = sizes()
    for number in range(1, 4):
        run(number)
    # The processes that have ended are remembered, and no more of them than a bound.
    assert settled(before | {"Peers.dead": before["Peers.dead"] + 20}) == {}


def test_what_is_kept_of_actors_that_will_not_restart_goes_with_them() -> None:
    def spec(number: int) -> ActorSpec:
        start = StartActor(number, b"", b"", b"")
        return ActorSpec(start, b"", {}, "loop", True, {"NUMBER": f"of this test {number}"}, 1).remainder()

    kept = [spec(number % 10) for number in range(ROUNDS)]
    assert len(set(map(id, kept))) == 10
    gone = [weakref.ref(each) for each in kept]
    kept.clear()
    gc.collect()
    assert not any(each() for each in gone)


def test_how_a_detached_actor_died_is_told_to_whoever_holds_a_handle_and_for_a_while_to_others() -> None:
    actor = Failing.options(name="told", lifetime="detached").remote()
    for _ in range(2):
        with pytest.raises(exceptions.ActorDiedError, match="constructor"):
            actorrt.get(actor.value.remote())
