"""Processes of one side: started in a group of their own, counted with their memory, and ended to the last one.

The measuring process makes itself the subreaper, so that whatever a side starts, detached or not, stays below it in
the tree of processes and is found there; nothing is looked for by name.
"""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PR_SET_CHILD_SUBREAPER: Final = 36
_GRACE_S: Final = 15.0
_KILL_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of processes in bytes: `pss` shares each page among its users, `private` is what nobody else has."""

    pss: int
    private: int
    processes: int


def become_subreaper() -> None:
    """From now on orphans among our descendants become our children. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def parse_stat(text: str) -> tuple[str, int]:
    """State and parent of a process from its /proc/PID/stat, whose second field may hold spaces and brackets."""
    state, parent, *_ = text[text.rindex(")") + 1 :].split()
    return state, int(parent)


def parse_rollup(text: str) -> tuple[int, int]:
    """PSS and private memory in bytes from a /proc/PID/smaps_rollup."""
    sizes = {"Pss": 0, "Private_Clean": 0, "Private_Dirty": 0, "Private_Hugetlb": 0}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        if name in sizes:
            sizes[name] = int(rest.split()[0]) * 1024
    return sizes.pop("Pss"), sum(sizes.values())


def below(root: int, parents: Mapping[int, int]) -> list[int]:
    """All processes under `root`, given each process's parent; the root is not among them."""
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    waiting = list(children.get(root, ()))
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting.extend(children.get(pid, ()))
    return found


def descendants() -> list[int]:
    """Our living descendants; zombies are left out."""
    parents: dict[int, int] = {}
    zombies: set[int] = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                state, parents[int(folder.name)] = parse_stat((folder / "stat").read_text(errors="replace"))
                if state in "ZX":
                    zombies.add(int(folder.name))
    return [pid for pid in below(os.getpid(), parents) if pid not in zombies]


def memory_of(pids: Sequence[int]) -> Memory:
    """The memory of those of the processes that still live."""
    pss = private = living = 0
    for pid in pids:
        with suppress(OSError):
            one, own = parse_rollup(Path(f"/proc/{pid}/smaps_rollup").read_text())
            pss, private, living = pss + one, private + own, living + 1
    return Memory(pss, private, living)


def _reap_orphans(known: int) -> None:
    """Collect the children that came to us as orphans; `known` is the one that its Popen waits for."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != known:
            with suppress(OSError):
                _, parent = parse_stat((folder / "stat").read_text(errors="replace"))
                if parent == os.getpid():
                    os.waitpid(int(folder.name), os.WNOHANG)


def end(process: subprocess.Popen[str], ask: signal.Signals | None) -> None:
    """Wait for the side to end, asking first where `ask` is given, then kill whatever is left of it.

    A side that daemonises leaves its group, so what is killed is every descendant, by its id. RuntimeError names those
    that survive.
    """
    if process.poll() is None and ask is not None:
        process.send_signal(ask)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_S)
    deadline = time.monotonic() + _KILL_S
    while (left := descendants()) and time.monotonic() < deadline:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
        _reap_orphans(process.pid)
    if left:
        raise RuntimeError(f"processes {left} are still there after SIGKILL")
    process.wait(_KILL_S)
    _reap_orphans(process.pid)


@contextmanager
def started(
    command: Sequence[str], *, variables: Mapping[str, str], log: Path, folder: Path, talks: bool
) -> Generator[subprocess.Popen[str]]:
    """A side's process in a session of its own; at the end nothing of it is left.

    One that `talks` is read and written by us, and ends by itself once it has said all; any other has its output in
    the log, beside its errors, and is asked to stop by SIGINT.
    """
    with log.open("w") as written:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
            stdout=subprocess.PIPE if talks else written,
            stderr=written,
            text=True,
            cwd=folder,
            env={**os.environ, **variables},
            start_new_session=True,
        )
    finished = False
    try:
        yield process
        finished = True
    finally:
        end(process, None if talks and finished else signal.SIGINT)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
