"""Whether a process ends, as the kernel has it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from actorrt.runtime.base.process_watch import is_ending


def test_a_process_that_is_gone_or_not_reaped_is_ending_and_one_that_is_stopped_is_not() -> None:
    assert not is_ending(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    os.kill(child.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED)
    assert not is_ending(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_ending(child.pid)
    child.communicate()
    assert is_ending(child.pid)


def test_a_process_whose_sockets_have_closed_as_it_was_killed_is_ending_at_once() -> None:
    for _ in range(20):
        read, write = os.pipe()
        child = subprocess.Popen(
            [sys.executable, "-c", "print(flush=True); input()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[write],
        )
        os.close(write)
        assert child.stdout is not None
        child.stdout.readline()
        child.kill()
        assert os.read(read, 1) == b""
        assert is_ending(child.pid)
        child.communicate()
        os.close(read)
