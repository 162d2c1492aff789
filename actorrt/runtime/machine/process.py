"""Facts about processes, and the few calls of the kernel that Python does not offer. Linux only.

Nothing here waits, and nothing knows of event loops. Pids are those of this pid namespace.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Final, NoReturn, TextIO, cast

from actorrt.runtime.machine.cgroup import Cgroup

PR_SET_PDEATHSIG: Final = 1
PR_SET_NAME: Final = 15
PR_SET_CHILD_SUBREAPER: Final = 36

_libc: Final = ctypes.CDLL(None, use_errno=True)


def set_pdeathsig(sig: int) -> None:
    """Have the kernel send `sig` to this process when the *thread* that forked it ends.

    Ask only where the parent is single-threaded, and compare `os.getppid()` afterwards: a parent that has died
    before the call sends nothing. The setting is cleared in children of this process.
    """
    _prctl(PR_SET_PDEATHSIG, int(sig))


def set_child_subreaper() -> None:
    """Become the parent of every descendant whose own parent ends. Inherited by nobody."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def set_process_name(name: str) -> None:
    """What `ps -o comm` and `top` show for this process: 15 bytes, the rest is cut."""
    _prctl(PR_SET_NAME, name.encode()[:15])


def set_oom_score(score: int) -> None:
    """Make this process and its later children more likely to be taken when memory runs out, 0 to 1000.

    Raising is always allowed; where the file cannot be written, things stay as they are.
    """
    with contextlib.suppress(OSError):
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"%d" % score)
        finally:
            os.close(fd)


def kill_process(pid: int, sig: int) -> bool:
    """Send `sig` to one process; whether there was one to send it to."""
    try:
        os.kill(pid, sig)
    except ProcessLookupError:
        return False
    return True


def kill_group(pgid: int, sig: int) -> bool:
    """Send `sig` to every process of a group; whether there was one to send it to."""
    if pgid <= 1:  # 0 is the caller's own group, and 1 everything
        raise ValueError(f"{pgid} is not the group of a worker")
    try:
        os.killpg(pgid, sig)
    except ProcessLookupError:
        return False
    return True


def describe_exit(status: int, *, out_of_memory: bool = False) -> str:
    """A wait status in words: "killed by signal 9 (SIGKILL)", "exit code 3".

    `out_of_memory` is for the caller to know (`OomWatch.claim`): a SIGKILL alone does not say who sent it.
    """
    if not os.WIFSIGNALED(status):
        return f"exit code {os.waitstatus_to_exitcode(status)}"
    number = os.WTERMSIG(status)
    try:
        words = f"killed by signal {number} ({signal.Signals(number).name})"
    except ValueError:  # real-time signals have no names
        words = f"killed by signal {number}"
    if out_of_memory and number == signal.SIGKILL:
        return f"out of memory: {words}"
    return words


def cpu_count() -> int:
    """CPUs this process may use: those it is pinned to, and not more than the control group's quota, rounded down.

    At least 1.
    """
    count = len(os.sched_getaffinity(0))
    quota = Cgroup.of_this_process().cpu_quota()
    if quota is not None:
        count = min(count, int(quota))
    return max(1, count)


def memory_limit() -> int:
    """Bytes of memory this process may use: the control group's limit, and not more than the machine has."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Cgroup.of_this_process().memory_limit()
    return machine if limit is None else min(machine, limit)


def pss_bytes(pid: int) -> int:
    """Memory of a process where a page that n processes share counts as a n-th.

    Raises ProcessLookupError when there is no such process (any more).
    """
    return _rollup(pid, "Pss:")


def private_bytes(pid: int) -> int:
    """Memory that no other process shares: what would come back if this one ended.

    Raises ProcessLookupError when there is no such process (any more).
    """
    return _rollup(pid, "Private_Clean:", "Private_Dirty:")


def children_of(pid: int) -> list[int]:
    """Pids of the children, also of those that ended and were not waited for; [] when there is no such process."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found.extend(map(int, _read(f"/proc/{pid}/task/{thread}/children").split()))
    except (FileNotFoundError, ProcessLookupError):
        return []
    return found


def variable_of(pid: int, name: str) -> str | None:
    """A variable of the environment that a process was started with; None: it has none, or is not ours to look into."""
    try:
        variables = _read(f"/proc/{pid}/environ").split("\0")
    except OSError:
        return None
    return next((text[len(name) + 1 :] for text in variables if text.startswith(f"{name}=")), None)


def process_state(pid: int) -> str | None:
    """R running, S sleeping, D in the kernel, T stopped, t traced, Z ended, I idle; None: there is no such process."""
    try:
        stat = _read(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return stat[stat.rindex(")") + 2]  # the name before it may hold anything, brackets too


def state_in_words(pid: int) -> str:
    """What a process does that is waited for: "is stopped (SIGSTOP)"."""
    state = process_state(pid)
    if state is None or state == "Z":
        return "has ended"
    words = {"T": "is stopped (SIGSTOP)", "t": "is held by a debugger", "D": "waits in the kernel"}
    return words.get(state, "runs and does not answer")


def run_and_exit(main: Callable[[], object]) -> NoReturn:
    """Call `main` in a forked process and end it, with 0 or what SystemExit says; an exception prints its traceback.

    None of the parent's exit handlers or `finally` blocks further up the stack runs; output is flushed.
    """
    code = 1
    try:
        main()
        code = 0
    except SystemExit as leaving:
        code = exit_code(leaving)
    except BaseException:
        traceback.print_exc()
    finally:
        flush_output()
        os._exit(code)


def flush_output() -> None:
    """Before a fork, so that nothing is written twice, and before an end that skips Python's own."""
    for stream in (cast("TextIO | None", sys.stdout), cast("TextIO | None", sys.stderr)):
        if stream is not None:  # it is None where a process was started with its output closed
            with contextlib.suppress(OSError, ValueError):
                stream.flush()


def thread_count(pid: int) -> int:
    """Threads of a process. Raises FileNotFoundError when there is no such process."""
    return len(os.listdir(f"/proc/{pid}/task"))


def exit_code(leaving: SystemExit) -> int:
    """What a program that ends by this ends with; a text is printed."""
    code = leaving.code
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


def _rollup(pid: int, *keys: str) -> int:
    try:
        text = _read(f"/proc/{pid}/smaps_rollup")
    except FileNotFoundError:
        raise ProcessLookupError(f"no process {pid}") from None
    total = 0
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name in keys:
            total += int(value.split()[0]) * 1024
    return total


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def _prctl(option: int, argument: int | bytes) -> None:
    given = argument if isinstance(argument, bytes) else ctypes.c_ulong(argument)
    if _libc.prctl(option, given, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
