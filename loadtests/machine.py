"""What the figures were taken on: processor, memory, kernel, Python, and the state that moves them."""

import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path


def field_of(text: str, name: str) -> str:
    """The first `name : value` of a file in the form of /proc/cpuinfo; empty where there is none."""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def describe() -> Mapping[str, str]:
    """Facts about this machine, in the order in which the report shows them."""
    memory = field_of(Path("/proc/meminfo").read_text(), "MemTotal").split()
    processor = field_of(Path("/proc/cpuinfo").read_text(), "model name") or platform.machine()
    huge = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return {
        "processor": processor,
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{int(memory[0]) / 2**20:.1f} GiB" if memory else "unknown",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "transparent huge pages": _chosen(huge.read_text()) if huge.exists() else "unknown",
        "load before the run": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "revision": _revision(),
    }


def _chosen(text: str) -> str:
    """The value in brackets, as the kernel marks it."""
    return text[text.find("[") + 1 : text.find("]")]


def _revision() -> str:
    folder = Path(__file__).resolve().parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=folder, capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit}, with uncommitted changes" if changed else commit
