"""What the control group of this process allows and counts: CPU quota, memory limit, out-of-memory kills.

Reads versions 1 and 2, and the mix of both; a file that is missing or unreadable means "no limit" or "not known".
Writes nothing and creates no group.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

UNLIMITED: Final = 1 << 60  # version 1 says "no limit" with a number close to 2**63
CLAIM_WITHIN_S: Final = 10.0
# Of versions 2 and 1: the limit, what is used, and what of that are cached files.
_MEMORY_FILES: Final = (
    ("memory.max", "memory.current", ("inactive_file", "active_file")),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
)


class Cgroup(msgspec.Struct, frozen=True):
    """The folders of this process's control groups, its own first, then each ancestor that can be seen."""

    cpu: tuple[Path, ...] = ()
    memory: tuple[Path, ...] = ()

    @classmethod
    def of_this_process(cls, proc: Path = Path("/proc/self")) -> Cgroup:
        try:
            mounts = _mounts((proc / "mountinfo").read_text())
            paths = _paths((proc / "cgroup").read_text())
        except OSError:
            return cls()
        return cls(_folders("cpu", mounts, paths), _folders("memory", mounts, paths))

    def cpu_quota(self) -> float | None:
        """CPUs' worth of time that the tightest group allows, None where none is set."""
        quotas = [quota for folder in self.cpu if (quota := _quota(folder)) is not None]
        return min(quotas, default=None)

    def memory_limit(self) -> int | None:
        """Bytes that the tightest group allows, None where none is set."""
        limits: list[int] = []
        for folder in self.memory:
            for name in ("memory.max", "memory.limit_in_bytes"):
                limit = _number(folder / name)
                if limit is not None and limit < UNLIMITED:
                    limits.append(limit)
        return min(limits, default=None)

    def memory_use(self) -> Iterator[tuple[int, int]]:
        """Bytes that are used and bytes that are allowed, of each group that allows so many. What the kernel would give
        back, the cached pages of files, is not counted."""
        for folder in self.memory:
            for limited, used, cached in _MEMORY_FILES:
                limit, amount = _number(folder / limited), _number(folder / used)
                if limit is not None and amount is not None and 0 < limit < UNLIMITED:
                    files = sum(_keyed(folder / "memory.stat", key) or 0 for key in cached)
                    yield max(0, amount - files), limit

    def oom_kills(self) -> int | None:
        """Processes of this group that the kernel has killed for want of memory so far; None where nobody counts."""
        for folder in self.memory[:1]:
            for name in ("memory.events", "memory.oom_control"):
                count = _keyed(folder / name, "oom_kill")
                if count is not None:
                    return count
        # On a bare machine the processes are in the root group, for which the kernel keeps no file of its own.
        if len(self.memory) <= 1:
            return _keyed(Path("/proc/vmstat"), "oom_kill")
        return None


@dataclass(slots=True)
class OomWatch:
    """Tells whether a process that was killed with SIGKILL may be called out of memory: once per counted kill.

    The group counts kills of any process in it. `observe` now and then (each heartbeat) keeps a kill that was
    somebody else's from being blamed on a worker that dies much later.
    """

    cgroup: Cgroup = field(default_factory=Cgroup.of_this_process)
    _seen: int | None = None
    _unclaimed: int = 0
    _since: float = 0.0

    def __post_init__(self) -> None:
        self._seen = self.cgroup.oom_kills()

    def observe(self, now: float) -> None:
        count = self.cgroup.oom_kills()
        if now - self._since > CLAIM_WITHIN_S:
            self._unclaimed = 0
        if count is not None and self._seen is not None and count > self._seen:
            self._unclaimed += count - self._seen
            self._since = now
        self._seen = count

    def claim(self, now: float) -> bool:
        """Whether a kill was counted that no earlier claim has taken; takes it."""
        self.observe(now)
        if not self._unclaimed:
            return False
        self._unclaimed -= 1
        return True


def _mounts(text: str) -> dict[str, tuple[str, Path]]:
    """Controller ("" for version 2) to the mount's root inside the hierarchy and the place where it is mounted."""
    found: dict[str, tuple[str, Path]] = {}
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        before, after = left.split(), right.split()
        if len(before) < 5 or len(after) < 3:
            continue
        if after[0] == "cgroup2":
            found.setdefault("", (before[3], Path(before[4])))
        elif after[0] == "cgroup":
            for controller in after[2].split(","):
                found.setdefault(controller, (before[3], Path(before[4])))
    return found


def _paths(text: str) -> dict[str, str]:
    """Controller ("" for version 2) to this process's path in its hierarchy."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            found[controller] = path
    return found


def _folders(controller: str, mounts: dict[str, tuple[str, Path]], paths: dict[str, str]) -> tuple[Path, ...]:
    # A controller is in one version only: where version 1 has it, version 2 has no files for it.
    key = controller if controller in mounts else ""
    if key not in mounts or key not in paths:
        return ()
    root, mount = mounts[key]
    path = paths[key]
    inside = path.removeprefix(root.rstrip("/")) if path.startswith(root) else ""
    if ".." in inside.split("/"):  # outside of this namespace: only the mount itself can be read
        inside = ""
    folder = mount / inside.strip("/")
    return tuple(f for f in (folder, *folder.parents) if f.is_relative_to(mount))


def _quota(folder: Path) -> float | None:
    words = _text(folder / "cpu.max").split()
    if len(words) == 2:
        return None if words[0] == "max" else int(words[0]) / int(words[1])
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    if quota is None or not period or quota <= 0:
        return None
    return quota / period


def _keyed(file: Path, key: str) -> int | None:
    for line in _text(file).splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return int(value)
    return None


def _number(file: Path) -> int | None:
    text = _text(file).strip()
    return int(text) if text.lstrip("-").isdigit() else None


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
