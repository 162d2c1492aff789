"""Memory that runs short, in a control group of the test's own: which work is ended, and what is said of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

LIMIT_MIB: Final = 800
# Where control groups of memory are, of version 2 and 1, and the file that limits one.
PLACES: Final = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.current"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.usage_in_bytes"),
)

PROGRAM: Final = '''
import os, sys, time

with open(sys.argv[1] + "/cgroup.procs", "w") as file:
    file.write(str(os.getpid()))

import actorrt
from actorrt import exceptions

folder = sys.argv[2]

def take(path):
    """Take more and more memory; the second time, none."""
    if os.path.exists(path):
        return "second"
    open(path, "w").close()
    held = []
    for _ in range(40):
        held.append(b"x" * (20 << 20))
        time.sleep(0.1)
    return "all"

@actorrt.remote(max_retries=0)
def waits(path):
    held = b"x" * (50 << 20)
    while not os.path.exists(path):
        time.sleep(0.01)
    return len(held) >> 20

takes = actorrt.remote(take)

with actorrt.init(num_cpus=3, log_to_driver=False):
    older = waits.remote(folder + "/done")
    time.sleep(0.5)
    newest = takes.options(max_retries=3, name="greedy").remote(folder + "/first")
    print(actorrt.get(newest))
    try:
        # Whatever else runs may be repeated less.
        actorrt.get(takes.options(max_retries=0, name="hog").remote(folder + "/hog"))
    except exceptions.OutOfMemoryError as error:
        print(error)
    open(folder + "/done", "w").close()
    print(actorrt.get(older))
'''


@pytest.fixture
def group() -> Iterator[Path]:
    for place, limit, used in PLACES:
        folder = place / f"actorrt-test-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            (folder / used).read_text()
            (folder / limit).write_text(str(LIMIT_MIB << 20))
        except OSError:
            folder.rmdir()
            continue
        yield folder
        until = time.monotonic() + 20
        while folder.exists():
            # What was in it may still be ending.
            try:
                folder.rmdir()
            except OSError:
                assert time.monotonic() < until
                time.sleep(0.02)
        return
    pytest.skip("no control group of memory can be made here")


def test_the_newest_that_may_be_repeated_is_ended_first_and_the_error_says_so(group: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "ACTORRT_MEMORY_THRESHOLD": "0.7", "ACTORRT_MEMORY_WATCH_S": "0.05"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(group), str(tmp_path)],
        check=False,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr[-2000:]
    # It came back; the older one, which may not be repeated, was left alone.
    assert (lines[0], lines[2]) == ("second", "50")
    assert "the worker of hog ran out of memory: ended since memory ran short" in lines[1]
    assert f"of {LIMIT_MIB} MiB of the control group were used" in lines[1]
    assert "MiB of them by hog" in lines[1]
