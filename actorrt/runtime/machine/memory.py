"""How much memory is used: by this machine, by the control groups of this process, and by one process."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from actorrt.core.memory_watch import Reading

from .cgroup import Cgroup

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_TICKS_S: Final = os.sysconf("SC_CLK_TCK")


class ProcessMemory(NamedTuple):
    """What a process has for itself, in bytes, and how long it has run."""

    used: int
    age_s: float


def memory_of(pid: int) -> ProcessMemory | None:
    """None if there is no such process (any more)."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()
        # Behind the name, which may have anything in it; the 22nd field of all.
        began = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None
    # Without what it shares with others, as files and shared memory.
    used = (int(pages[1]) - int(pages[2])) * _PAGE
    return ProcessMemory(used, time.clock_gettime(time.CLOCK_BOOTTIME) - began / _TICKS_S)


def readings(cgroup: Cgroup, meminfo: Path = Path("/proc/meminfo")) -> Iterator[Reading]:
    """The memories whose limits hold for this process: its control groups, and the machine."""
    for used, limit in cgroup.memory_use():
        yield Reading(used, limit, "the control group")
    try:
        words = [line.split() for line in meminfo.read_text().splitlines()]
        amounts = {line[0]: int(line[1]) * 1024 for line in words if len(line) > 1}
        total, available = amounts["MemTotal:"], amounts["MemAvailable:"]
    except (OSError, KeyError, ValueError):
        return
    yield Reading(total - available, total, "the machine")
