"""Facts about processes, against processes of the test's own."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from actorrt.runtime.machine.process import (
    children_of,
    cpu_count,
    describe_exit,
    kill_group,
    kill_process,
    memory_limit,
    private_bytes,
    process_state,
    pss_bytes,
    thread_count,
)


def exited(code: int) -> int:
    return code << 8


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (exited(0), "exit code 0"),
        (exited(3), "exit code 3"),
        (int(signal.SIGKILL), "killed by signal 9 (SIGKILL)"),
        (int(signal.SIGSEGV) | 0x80, "killed by signal 11 (SIGSEGV)"),  # with a core dump
        (int(signal.SIGRTMIN) + 1, f"killed by signal {int(signal.SIGRTMIN) + 1}"),
    ],
)
def test_an_exit_is_put_in_words(status: int, words: str) -> None:
    assert describe_exit(status) == words


def test_only_a_sigkill_can_be_for_want_of_memory() -> None:
    assert describe_exit(int(signal.SIGKILL), out_of_memory=True) == "out of memory: killed by signal 9 (SIGKILL)"
    assert describe_exit(int(signal.SIGTERM), out_of_memory=True) == "killed by signal 15 (SIGTERM)"
    assert describe_exit(exited(1), out_of_memory=True) == "exit code 1"


def test_a_state_is_the_kernels_letter() -> None:
    # A name with brackets and spaces, as a program may have one.
    program = "import ctypes, signal; ctypes.CDLL(None).prctl(15, b') R (x'); print(flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        os.kill(child.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        assert process_state(child.pid) == "T"
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert process_state(child.pid) == "Z"
    assert process_state(child.pid) is None
    assert process_state(os.getpid()) == "R"


def test_children_are_those_of_all_threads_and_the_dead() -> None:
    others = set(children_of(os.getpid()))
    with subprocess.Popen(["sleep", "1000"]) as child:
        assert set(children_of(os.getpid())) - others == {child.pid}
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert set(children_of(os.getpid())) - others == {child.pid}
    assert children_of(child.pid) == []


def test_memory_is_that_of_the_process() -> None:
    own = private_bytes(os.getpid())
    assert 1 << 20 < own <= pss_bytes(os.getpid())
    # Not from the heap: that may have had as much to spare.
    block = mmap.mmap(-1, 16 << 20)
    block.write(os.urandom(16) * (1 << 20))
    assert private_bytes(os.getpid()) >= own + len(block) // 2


@pytest.mark.parametrize("measure", [pss_bytes, private_bytes])
def test_the_memory_of_no_process_is_an_error(measure: Callable[[int], int]) -> None:
    with subprocess.Popen(["true"]) as child:
        child.wait()
    with pytest.raises(ProcessLookupError):
        measure(child.pid)


def test_a_signal_to_nobody_says_so() -> None:
    with subprocess.Popen(["true"], start_new_session=True) as child:
        child.wait()
    assert not kill_process(child.pid, signal.SIGTERM)
    assert not kill_group(child.pid, signal.SIGTERM)


@pytest.mark.parametrize("group", [-1, 0, 1])
def test_a_group_that_is_not_a_workers_is_refused(group: int) -> None:
    with pytest.raises(ValueError, match="not the group of a worker"):
        kill_group(group, signal.SIGKILL)


def test_a_group_is_killed_whole() -> None:
    script = "sleep 1000 & echo $!; wait"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert kill_group(child.pid, signal.SIGKILL)
        # The pipe ends when both are gone.
        assert child.stdout.read() == b""
    assert child.returncode == -signal.SIGKILL


def test_the_cpus_are_those_of_the_affinity() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert cpu_count() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert 1 <= cpu_count() <= len(before)


def test_the_memory_limit_is_not_above_the_machine() -> None:
    assert 0 < memory_limit() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_threads_are_counted() -> None:
    assert thread_count(os.getpid()) >= 1
    with pytest.raises(FileNotFoundError):
        thread_count(1 << 30)
