"""Whose word counts about a worker's environment."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.core.worker_environment import GPUS, THREADS, environment_of
from actorrt.core.workers import SIGKILL, SIGTERM, ProcessEnd, WorkerKind, lacks_memory
from actorrt.types import NO_EMPLOYER

PLAIN = WorkerKind(NO_EMPLOYER, "sync")
ENVS = st.dictionaries(st.sampled_from([THREADS, GPUS, "A", "B"]), st.sampled_from(["", "1", "8"]))


def test_a_worker_of_one_cpu_has_one_thread_unless_the_node_or_the_program_says_otherwise() -> None:
    assert environment_of(PLAIN, {}, [], node_has_gpus=False, node_says_threads=False) == {THREADS: "1"}
    assert environment_of(PLAIN, {}, [], node_has_gpus=False, node_says_threads=True) == {}
    mine = {THREADS: "3"}
    assert environment_of(PLAIN, mine, [], node_has_gpus=False, node_says_threads=False) == mine


def test_gpus_are_seen_by_those_who_have_asked_for_them() -> None:
    kind = PLAIN._replace(gpus=(1, 2), cpus=4)
    env = environment_of(kind, {GPUS: "all"}, ["GPU-a", "GPU-b"], node_has_gpus=True, node_says_threads=False)
    assert env == {THREADS: "4", GPUS: "GPU-a,GPU-b"}
    assert environment_of(PLAIN, {}, [], node_has_gpus=True, node_says_threads=True) == {GPUS: ""}


@given(of_program=ENVS, of_call=ENVS, cpus=st.integers(0, 4), has=st.booleans(), says=st.booleans())
def test_the_call_has_the_last_word_and_the_program_the_one_before(
    of_program: dict[str, str], of_call: dict[str, str], cpus: int, has: bool, says: bool
) -> None:
    kind = PLAIN._replace(env=tuple(sorted(of_call.items())), cpus=cpus)
    env = environment_of(kind, of_program, [], node_has_gpus=has, node_says_threads=says)
    assert of_call.items() <= env.items()
    for name, value in of_program.items():
        if name not in of_call and not (cpus and name == THREADS):
            assert env[name] == value
    assert set(env) <= {THREADS, GPUS, *of_program, *of_call}


@pytest.mark.parametrize("signal", [0, 6, SIGKILL, 11, SIGTERM])
@pytest.mark.parametrize("lost", ["", "the zygote has ended"])
@pytest.mark.parametrize("may_lack", [False, True])
def test_only_an_unexplained_sigkill_is_taken_for_want_of_memory(signal: int, lost: str, may_lack: bool) -> None:
    assert lacks_memory(signal, lost, may_lack) is (signal == SIGKILL and may_lack and not lost)


@pytest.mark.parametrize(
    ("signal", "out_of_memory", "lost", "by_itself"),
    [
        (0, False, "", True),
        (11, False, "", True),
        (SIGKILL, False, "", False),
        (SIGTERM, False, "", False),
        (SIGKILL, True, "", True),
        (SIGKILL, False, "the zygote has ended", False),
        (11, False, "the zygote has ended", False),
    ],
)
def test_an_end_is_its_own_unless_somebody_has_sent_it_or_its_zygote_has_ended(
    signal: int, out_of_memory: bool, lost: str, by_itself: bool
) -> None:
    end = ProcessEnd.of("words", signal, clean=False, out_of_memory=out_of_memory, lost=lost)
    assert end.by_itself is by_itself
    assert end.killed is (signal == SIGKILL)
