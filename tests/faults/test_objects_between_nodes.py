"""A worker of one node reads what lies at another one: real processes, two sessions that are dialled by a link."""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest

import actorrt
from actorrt.core.object_state import State
from actorrt.runtime.owner import current
from actorrt.runtime.owner.entries import Entry
from actorrt.runtime.owner.runtime import Runtime
from actorrt.types import ProcessId
from actorrt.wire.messages import SEGMENT, Value

PROGRAM = Path(__file__).parent / "programs" / "holds_an_object.py"
SIZE = 32 << 20
DIGEST = hashlib.sha256(bytes(range(256)) * (SIZE // 256)).hexdigest()


class Elsewhere(NamedTuple):
    """An object of another session."""

    program: "subprocess.Popen[str]"
    place: tuple[bytes, bytes, int, int]


def runtime() -> Runtime:
    return cast("Runtime", current.runtime())


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    program = subprocess.Popen(
        [sys.executable, str(PROGRAM), str(SIZE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert program.stdout is not None
        session, node, owner, seq, size = program.stdout.readline().split()
        actorrt.init(num_cpus=2)
        # What a session's address leads to.
        os.symlink(f"{session}/{node}.sock", f"{runtime().peers.session}/{node}.sock")
        yield Elsewhere(program, (bytes.fromhex(node), bytes.fromhex(owner), int(seq), int(size)))
    finally:
        actorrt.shutdown()
        end(program)


def end(program: "subprocess.Popen[str]") -> None:
    if program.poll() is None:
        program.communicate("\n", timeout=30)


@actorrt.remote
def digest_of(place: tuple[bytes, bytes, int, int]) -> str:
    node, owner, seq, size = place
    entry = Entry(ProcessId(owner), seq)
    entry.settle(State.SHARED, Value(SEGMENT, b"", ProcessId(owner), seq, size, None, ProcessId(node)))
    here = runtime()
    here.thread.call_sync(here.segments.map(entry))
    return hashlib.sha256(entry.load()).hexdigest()


def store() -> dict[str, Any]:
    return actorrt.statistics()["node"]["store"]


def test_workers_of_one_node_read_what_lies_at_another_and_it_is_freed_with_that(elsewhere: Elsewhere) -> None:
    assert actorrt.get([digest_of.remote(elsewhere.place) for _ in range(4)]) == [DIGEST] * 4
    assert store()["segments"] == 1
    end(elsewhere.program)
    ends = time.monotonic() + 20
    while store()["segments"] and time.monotonic() < ends:
        time.sleep(0.02)
    assert store()["memory"] == 0
    with pytest.raises(actorrt.exceptions.OwnerDiedError):
        actorrt.get(digest_of.remote(elsewhere.place))
