"""Head and zygote are killed and stopped under what needs them: others take their place, and nobody waits in vain."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import actorrt
from actorrt import exceptions
from actorrt.runtime.api.api import list_named_actors
from actorrt.runtime.machine.process import children_of, process_state

# By value, so that workers need not import this module, and pytest with it.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

DEADLINE_S = 40.0
# How long a process may be stopped; a test waits for it, so it is short.
STALL_S = "0.4"


@actorrt.remote
class Steady:
    async def pid(self) -> int:
        return os.getpid()


@actorrt.remote
def add(value: int) -> int:
    return value + 1


def named(parent: int, name: str) -> list[int]:
    """The children of a process that have a name; one that has just started has none yet."""
    found: list[int] = []
    for pid in children_of(parent):
        with suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() == name:
                found.append(pid)
    return found


class Place:
    """The processes of this program's node that are killed here."""

    def __init__(self) -> None:
        (self.node,) = named(os.getpid(), "actorrt-node")

    def head(self) -> int:
        # It has answered, so it has its name.
        list_named_actors()
        (pid,) = named(self.node, "actorrt-head")
        return pid

    def zygote(self) -> int:
        # It has forked the worker of this environment, so it has its name.
        actorrt.get(add.options(num_cpus=0, runtime_env={"env_vars": {"NEW": os.urandom(4).hex()}}).remote(1))
        (pid,) = named(self.node, "actorrt-zygote")
        return pid

    def nothing_is_left_unreaped(self) -> bool:
        return all(process_state(pid) != "Z" for pid in children_of(self.node))


class Held:
    """A process, so that no later one of the same id is taken for it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._fd = os.pidfd_open(pid)

    def send(self, number: int) -> None:
        signal.pidfd_send_signal(self._fd, number)

    def end(self) -> None:
        self.send(signal.SIGKILL)
        self.wait()

    def wait(self) -> None:
        ended, _, _ = select.select([self._fd], [], [], DEADLINE_S)
        os.close(self._fd)
        assert ended, f"process {self.pid} lives on"


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACTORRT_WORKER_STALL_TIMEOUT_S", STALL_S)
        with actorrt.init(num_cpus=2, namespace="here"):
            yield Place()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as made:
        yield made


def listed() -> set[tuple[str, str]]:
    return {(each["namespace"], each["name"]) for each in list_named_actors(all_namespaces=True)}


def once_stopped(pid: int) -> Held:
    held = Held(pid)
    held.send(signal.SIGSTOP)
    return held


# ---- the head


def test_the_next_head_knows_all_names_and_frees_them_when_their_actors_end(place: Place) -> None:
    made: dict[tuple[str, str], Any] = {
        ("here", "owned"): Steady.options(name="owned").remote(),
        ("here", "detached"): Steady.options(name="detached", lifetime="detached").remote(),
        ("there", "owned"): Steady.options(name="owned", namespace="there").remote(),
    }
    pids = {key: actorrt.get(actor.pid.remote()) for key, actor in made.items()}
    Held(place.head()).end()
    assert listed() == set(made)
    for (namespace, name), pid in pids.items():
        assert actorrt.get(actorrt.get_actor(name, namespace).pid.remote()) == pid
        with pytest.raises(exceptions.ActorAlreadyExistsError):
            Steady.options(name=name, namespace=namespace).remote()
    for (namespace, name), actor in made.items():
        actorrt.kill(actor)
        with pytest.raises(exceptions.ActorNotFoundError):
            actorrt.get_actor(name, namespace)
        actorrt.kill(Steady.options(name=name, namespace=namespace).remote())
    assert listed() == set()
    assert place.nothing_is_left_unreaped()


@pytest.mark.parametrize("detached", [False, True])
def test_questions_that_a_head_dies_under_are_answered_by_the_next(
    place: Place, threads: ThreadPoolExecutor, detached: bool
) -> None:
    known = Steady.options(name="known").remote()
    lifetime = "detached" if detached else None
    head = once_stopped(place.head())
    claims = [threads.submit(Steady.options(name="new", lifetime=lifetime).remote) for _ in range(3)]
    found, names = threads.submit(actorrt.get_actor, "known"), threads.submit(list_named_actors)
    head.end()
    assert actorrt.get(found.result().pid.remote()) == actorrt.get(known.pid.remote())
    assert "known" in names.result()
    # One has it, and is not told that it has it already.
    errors = Counter(type(claim.exception()) for claim in claims)
    assert errors == {exceptions.ActorAlreadyExistsError: 2, type(None): 1}
    (winner,) = [claim.result() for claim in claims if not claim.exception()]
    assert actorrt.get(winner.pid.remote()) == actorrt.get(actorrt.get_actor("new").pid.remote())
    actorrt.kill(winner)
    actorrt.kill(known)
    assert listed() == set()


def test_a_name_is_dropped_that_its_actor_gives_back_while_there_is_no_head(place: Place) -> None:
    going, staying = Steady.options(name="going").remote(), Steady.options(name="staying").remote()
    actorrt.get([going.pid.remote(), staying.pid.remote()])
    Held(place.head()).end()
    actorrt.kill(going)
    assert listed() == {("here", "staying")}
    actorrt.kill(staying)


def test_names_survive_a_head_that_is_killed_again_and_again(place: Place, threads: ThreadPoolExecutor) -> None:
    def kill_heads() -> None:
        for _ in range(2):
            Held(place.head()).end()

    killing = threads.submit(kill_heads)
    actors = [Steady.options(name=f"n{number}").remote() for number in range(4)]
    killing.result()
    assert listed() == {("here", f"n{number}") for number in range(4)}
    for actor in actors:
        actorrt.kill(actor)
    assert listed() == set()
    assert place.nothing_is_left_unreaped()


def test_a_head_that_is_stopped_is_replaced_and_its_questions_are_answered(place: Place) -> None:
    actor = Steady.options(name="known").remote()
    head = once_stopped(place.head())
    assert actorrt.get(actorrt.get_actor("known").pid.remote()) == actorrt.get(actor.pid.remote())
    head.wait()
    actorrt.kill(actor)


# ---- the zygote


def test_what_a_killed_zygote_takes_along_comes_back_as_its_options_say(place: Place) -> None:
    mortal = Steady.options(num_cpus=0).remote()
    lasting = Steady.options(num_cpus=0, max_restarts=1, max_task_retries=-1).remote()
    detached = Steady.options(name="d", lifetime="detached", max_restarts=1, max_task_retries=-1).remote()
    before = actorrt.get([actor.pid.remote() for actor in (mortal, lasting, detached)])
    zygote = place.zygote()
    Held(zygote).end()
    after = actorrt.get([lasting.pid.remote(), detached.pid.remote()])
    assert not set(before) & set(after)
    with pytest.raises(
        exceptions.ActorDiedError, match=rf"since the zygote \(pid {zygote}\) has ended: killed by signal 9"
    ):
        actorrt.get(mortal.pid.remote())
    assert actorrt.get(actorrt.get_actor("d").pid.remote()) == after[1]
    actorrt.kill(detached)
    assert actorrt.get([add.remote(number) for number in range(20)]) == list(range(1, 21))
    assert place.nothing_is_left_unreaped()


def test_workers_that_a_dying_zygote_was_asked_for_are_forked_by_the_next(place: Place) -> None:
    zygote = once_stopped(place.zygote())
    actors = [Steady.options(num_cpus=0.1).remote() for _ in range(6)]
    refs = [actor.pid.remote() for actor in actors]
    # No worker of this environment is there that could be killed under them.
    env = {"env_vars": {"NEW": os.urandom(4).hex()}}
    tasks = [add.options(num_cpus=0.1, max_retries=0, runtime_env=env).remote(number) for number in range(3)]
    zygote.end()
    pids = actorrt.get(refs)
    assert len(set(pids)) == len(pids)
    assert actorrt.get(tasks) == [1, 2, 3]


def test_a_zygote_that_is_stopped_is_replaced_and_what_was_asked_of_it_is_done(place: Place) -> None:
    zygote = once_stopped(place.zygote())
    actors = [Steady.options(num_cpus=0.1).remote() for _ in range(3)]
    assert len(set(actorrt.get([actor.pid.remote() for actor in actors]))) == 3
    zygote.wait()
