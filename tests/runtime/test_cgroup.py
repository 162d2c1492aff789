"""Limits and counters of control groups, in folders that look like the kernel's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from actorrt.runtime.machine.cgroup import CLAIM_WITHIN_S, Cgroup, OomWatch


@dataclass
class Machine:
    """A /proc/self and the mounts that it names."""

    folder: Path

    def mount(self, fstype: str, options: str = "rw", root: str = "/", name: str = "fs") -> Path:
        place = self.folder / name
        place.mkdir(parents=True, exist_ok=True)
        with (self.folder / "mountinfo").open("a") as file:
            file.write(f"36 35 0:31 {root} {place} rw,relatime shared:1 - {fstype} {fstype} {options}\n")
        return place

    def member(self, *lines: str) -> Cgroup:
        (self.folder / "cgroup").write_text("".join(f"{line}\n" for line in lines))
        return Cgroup.of_this_process(self.folder)


def put(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_version_2_takes_the_tightest_of_all_ancestors(machine: Machine) -> None:
    top = machine.mount("cgroup2")
    put(top / "a", cpu__max="150000 100000\n", memory__max="1000000\n")
    put(top / "a" / "b", cpu__max="max 100000\n", memory__max="max\n", memory__events="low 0\noom 3\noom_kill 2\n")
    cgroup = machine.member("0::/a/b")
    assert cgroup.memory == (top / "a" / "b", top / "a", top)
    assert cgroup.cpu_quota() == 1.5
    assert cgroup.memory_limit() == 1_000_000
    assert cgroup.oom_kills() == 2


def test_version_1_has_a_mount_for_each_controller(machine: Machine) -> None:
    cpu = machine.mount("cgroup", "rw,cpu,cpuacct", name="cpu")
    memory = machine.mount("cgroup", "rw,memory", name="memory")
    machine.mount("cgroup2", name="unified")
    put(cpu / "x", cpu__cfs_quota_us="50000\n", cpu__cfs_period_us="100000\n")
    put(cpu, cpu__cfs_quota_us="-1\n", cpu__cfs_period_us="100000\n")
    put(memory / "y", memory__limit_in_bytes="4096\n", memory__oom_control="under_oom 0\noom_kill 1\n")
    put(memory, memory__limit_in_bytes="9223372036854771712\n")
    cgroup = machine.member("4:memory:/y", "2:cpuacct,cpu:/x", "1:name=systemd:/", "0::/")
    assert cgroup.cpu_quota() == 0.5
    assert cgroup.memory_limit() == 4096
    assert cgroup.oom_kills() == 1


def test_no_limit_is_none(machine: Machine) -> None:
    top = machine.mount("cgroup2")
    put(top / "a", cpu__max="max 100000\n", memory__max="max\n")
    cgroup = machine.member("0::/a")
    assert cgroup.cpu_quota() is None
    assert cgroup.memory_limit() is None
    assert cgroup.oom_kills() is None


def test_a_container_sees_its_own_group_as_the_mount(machine: Machine) -> None:
    # Without a namespace of its own, the path is the host's, and the mount begins there.
    top = machine.mount("cgroup2", root="/docker/abc")
    put(top, memory__max="4096\n")
    assert machine.member("0::/docker/abc").memory_limit() == 4096
    assert machine.member("0::/docker/abc/inner").memory == (top / "inner", top)
    # Moved out of the namespace's root.
    assert machine.member("0::/../other").memory == (top,)


def test_nothing_readable_means_nothing_known(machine: Machine) -> None:
    assert machine.member("0::/a") == Cgroup()
    assert Cgroup().cpu_quota() is None
    assert Cgroup().memory_limit() is None


class Kills(Cgroup):
    """A group whose counter the test turns."""

    count: int | None = 0

    def oom_kills(self) -> int | None:
        return Kills.count


@pytest.fixture
def watch() -> OomWatch:
    Kills.count = 5
    return OomWatch(Kills())


def test_kills_from_before_the_watch_are_nobodys(watch: OomWatch) -> None:
    assert not watch.claim(0.0)


def test_each_kill_can_be_claimed_once(watch: OomWatch) -> None:
    Kills.count = 7
    assert [watch.claim(1.0), watch.claim(1.0), watch.claim(1.0)] == [True, True, False]


def test_a_kill_that_nobody_claimed_is_not_blamed_on_a_later_death(watch: OomWatch) -> None:
    Kills.count = 6
    watch.observe(0.0)
    assert not watch.claim(CLAIM_WITHIN_S + 1)
    Kills.count = 7
    assert watch.claim(CLAIM_WITHIN_S + 2)


def test_without_a_counter_no_death_is_out_of_memory(watch: OomWatch) -> None:
    Kills.count = None
    assert not watch.claim(0.0)
    Kills.count = 9
    assert not watch.claim(1.0)
    Kills.count = 10
    assert watch.claim(2.0)


@pytest.mark.parametrize(
    ("limit", "used", "prefix"),
    [("memory.max", "memory.current", ""), ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")],
)
def test_cached_files_are_no_use_of_memory(tmp_path: Path, limit: str, used: str, prefix: str) -> None:
    (tmp_path / limit).write_text("1000\n")
    (tmp_path / used).write_text("900\n")
    (tmp_path / "memory.stat").write_text(f"{prefix}inactive_file 300\n{prefix}active_file 200\n")
    assert list(Cgroup(memory=(tmp_path,)).memory_use()) == [(400, 1000)]
    (tmp_path / limit).write_text("max\n")
    assert list(Cgroup(memory=(tmp_path,)).memory_use()) == []
