"""Segments of shared memory with real memory, arrays, files and processes: what is read, and that all is given back."""

import contextlib
import errno
import fcntl
import gc
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actorrt.core.storage import Ledger, UnknownObjectError
from actorrt.core.storage_actions import Action, DropFile, DropMemory, Grant, Recall, Refuse, Return, Spill
from actorrt.runtime.memory.segment_writer import Sealed, SegmentWriter, size_for
from actorrt.runtime.memory.segments import Location, SegmentGoneError, SegmentHolder, SegmentReader
from actorrt.types import SegmentId
from actorrt.wire.container import parse, plan

from ..depth import DEPTH

WRITER: Final = b"writer.."
READER: Final = b"reader.."
NAME: Final = "actorrt-segment"
Array = npt.NDArray[Any]


def memory_held() -> int:
    """Bytes of segments that this process keeps in memory by descriptors, each inode once."""
    found: dict[int, int] = {}
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if NAME in os.readlink(f"/proc/self/fd/{fd}"):
                facts = os.fstat(int(fd))
                found[facts.st_ino] = facts.st_blocks * 512
    return sum(found.values())


def mappings() -> list[str]:
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if NAME in line]


def descriptors() -> set[str]:
    found: set[str] = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(f"{fd}: {os.readlink(f'/proc/self/fd/{fd}')}")
    return {one for one in found if NAME in one or "deleted" in one}


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = descriptors(), mappings()
    yield
    gc.collect()
    assert (descriptors(), mappings()) == before


def split(value: object) -> tuple[bytes, list[memoryview]]:
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(value, 5, buffer_callback=buffers.append)
    return data, [buffer.raw() for buffer in buffers]


def load(view: memoryview) -> Any:
    if view[0] != 1:
        return pickle.loads(view)
    data, buffers = parse(view)
    return pickle.loads(data, buffers=buffers)


def length_of(data: bytes, buffers: list[memoryview]) -> int:
    return plan(len(data), [b.nbytes for b in buffers]).total if buffers else len(data)


def seal(writer: SegmentWriter, value: object) -> Sealed:
    data, buffers = split(value)
    length = length_of(data, buffers)
    segment = writer.take(length) or writer.create(length)
    return writer.fill(segment, data, buffers)


def own(sealed: Sealed) -> Location:
    return Location(f"/proc/self/fd/{sealed.fd}", sealed.inode, sealed.length)


@pytest.fixture
def writer() -> Iterator[SegmentWriter]:
    writer = SegmentWriter(1 << 30, lambda serial: None)
    yield writer
    writer.close()


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[SegmentHolder]:
    holder = SegmentHolder(str(tmp_path / "spill"))
    yield holder
    holder.close()


@dataclass
class Machine:
    """A node and one process, without messages between them: what the shells of the runtime do, in a few lines."""

    directory: str
    limit: int = 1 << 30
    pool_limit: int = 1 << 30

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.limit, self.pool_limit)
        self.holder = SegmentHolder(self.directory)
        self.reader = SegmentReader()
        self.let_go: list[int] = []
        self.writer = SegmentWriter(self.limit, self.let_go.append)
        self.released: list[SegmentId] = []
        self.refused = False
        self.now = 0.0

    def act(self, actions: tuple[Action, ...]) -> None:
        for action in actions:
            match action:
                case Spill(segment):
                    entry = next(s for s in self.ledger._segments.values() if s.id == segment)
                    self.holder.spill(segment, entry.length)
                    self.act(self.ledger.spilled(segment))
                case DropMemory(segment):
                    self.holder.drop_memory(segment)
                case DropFile(segment):
                    self.holder.drop_file(segment)
                case Return(segment):
                    self.writer.returned(segment.serial)
                case Recall(segment):
                    self.writer.recalled(segment.serial)
                case Grant():
                    self.refused = False
                case Refuse():
                    self.refused = True
        while self.let_go:
            self.act(self.ledger.let_go(SegmentId(WRITER, self.let_go.pop(0))))

    def put(self, number: int, value: object) -> bool:
        data, buffers = split(value)
        length = length_of(data, buffers)
        segment = self.writer.take(length)
        if segment is None:
            self.act(self.ledger.reserve(WRITER, number, size_for(length)))
            if self.refused:
                return False
            segment = self.writer.create(length)
        sealed = self.writer.fill(segment, data, buffers)
        name = SegmentId(WRITER, sealed.serial)
        self.holder.adopt(name, os.getpid(), sealed.fd, sealed.inode, sealed.size)
        self.now += 1
        actions = self.ledger.sealed((WRITER, number), name, sealed.size, sealed.length, self.now, kept=sealed.kept)
        self.writer.adopted(sealed.serial)
        self.act(actions)
        return True

    def get(self, number: int) -> Any:
        key = (WRITER, number)
        view = self.reader.find(key)
        if view is None:
            self.now += 1
            name, actions = self.ledger.opened(key, READER, self.now)
            self.act(actions)
            entry = self.ledger.find(key)
            assert entry is not None
            location = self.holder.locate(name, entry.length)
            view = self.reader.open(key, location, lambda: self.released.append(name))
        return load(view)

    def free(self, number: int) -> None:
        self.act(self.ledger.freed((WRITER, number)))

    def settle(self) -> None:
        while self.released:
            self.now += 1
            self.act(self.ledger.closed(self.released.pop(0), READER, self.now))

    def close(self) -> None:
        self.writer.close()
        self.holder.close()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(str(tmp_path / "spill"))
    yield machine
    machine.close()


# -- reading


def test_arrays_keep_their_memory_and_the_last_to_go_releases_it(writer: SegmentWriter) -> None:
    reader, released = SegmentReader(), list[str]()
    sealed = seal(writer, {"a": np.arange(100_000), "b": [np.ones(50), "text"]})
    view = reader.open("key", own(sealed), lambda: released.append("key"))
    value = load(view)
    del view
    slice_of_a, b = value["a"][10:20], value["b"][0]
    del value
    gc.collect()
    assert released == []
    assert len(reader) == 1
    assert slice_of_a.tolist() == list(range(10, 20))
    del slice_of_a
    assert released == []
    del b
    assert released == ["key"]
    assert len(reader) == 0
    assert reader.find("key") is None


def test_what_is_read_is_read_only_down_to_the_page_tables(writer: SegmentWriter) -> None:
    reader = SegmentReader()
    sealed = seal(writer, np.zeros(1000))
    view = reader.open("key", own(sealed), lambda: None)
    array = load(view)
    assert view.readonly
    assert not array.flags.writeable
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.flags.writeable = True
    assert [line.split()[1] for line in mappings() if f" {sealed.inode} " in line] == ["r--s"]
    del view, array


def test_an_object_is_mapped_once_and_each_open_is_released_once(writer: SegmentWriter) -> None:
    reader, released = SegmentReader(), list[int]()
    sealed = seal(writer, np.zeros(1000))
    first = reader.open("key", own(sealed), lambda: released.append(1))
    second = reader.open("key", own(sealed), lambda: released.append(2))
    assert released == [2]
    assert first.obj is second.obj
    third = reader.find("key")
    del first, second
    assert released == [2]
    del third
    assert released == [2, 1]


def test_an_object_can_be_opened_again_after_it_was_released(writer: SegmentWriter) -> None:
    reader, released = SegmentReader(), list[int]()
    sealed = seal(writer, np.arange(10))
    for number in range(3):
        value = load(reader.open("key", own(sealed), lambda number=number: released.append(number)))
        assert value.sum() == 45
        del value
    assert released == [0, 1, 2]


def test_an_array_in_a_cycle_is_released_by_the_garbage_collector(writer: SegmentWriter) -> None:
    reader, released = SegmentReader(), list[int]()
    sealed = seal(writer, np.arange(10))
    cycle: list[Any] = [load(reader.open("key", own(sealed), lambda: released.append(1)))]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert released == [1]


def test_a_path_that_leads_to_something_else_by_now_is_found_out(writer: SegmentWriter) -> None:
    reader, released = SegmentReader(), list[int]()
    sealed = seal(writer, np.arange(10))
    right = own(sealed)
    for wrong in (
        right._replace(inode=right.inode + 1),
        right._replace(length=sealed.size + 1),
        right._replace(path="/proc/self/fd/999999"),
        right._replace(path="/proc/999999999/fd/1"),
    ):
        with pytest.raises(SegmentGoneError):
            reader.open("key", wrong, lambda: released.append(1))
    assert released == []
    assert len(reader) == 0
    assert load(reader.open("key", right, lambda: None)).sum() == 45


def test_many_threads_that_open_one_object_share_one_mapping(writer: SegmentWriter) -> None:
    reader, released = SegmentReader(), list[int]()
    sealed = seal(writer, np.arange(1000))
    start = threading.Barrier(8)
    views: list[memoryview] = []

    def read() -> None:
        start.wait()
        views.append(reader.open("key", own(sealed), lambda: released.append(1)))

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(view.obj) for view in views}) == 1
    assert len(released) == 7
    views.clear()
    assert len(released) == 8


READ_ELSEWHERE: Final = """
import pickle, sys
from actorrt.runtime.memory.segments import Location, SegmentReader
from actorrt.wire.container import parse
path, inode, length = sys.argv[1:]
reader = SegmentReader()
view = reader.open("key", Location(path, int(inode), int(length)), lambda: print("released"))
data, buffers = parse(view)
array = pickle.loads(data, buffers=buffers)
del view, data, buffers
print("mapped", flush=True)
sys.stdin.readline()
print(int(array.sum()), array.flags.writeable)
del array
"""


def test_another_process_reads_it_and_keeps_it_though_the_node_has_dropped_it(
    writer: SegmentWriter, holder: SegmentHolder
) -> None:
    sealed = seal(writer, np.arange(100_000))
    holder.adopt("s", os.getpid(), sealed.fd, sealed.inode, sealed.size)
    location = holder.locate("s", sealed.length)
    assert location.path.startswith(f"/proc/{os.getpid()}/")
    with subprocess.Popen(
        [sys.executable, "-c", READ_ELSEWHERE, location.path, str(location.inode), str(location.length)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "mapped\n"
        holder.drop_memory("s")
        writer.close()
        assert memory_held() == 0
        out, _ = process.communicate("go on\n")
    assert out.split("\n")[:2] == [f"{sum(range(100_000))} False", "released"]


# -- the node's part

CREATE_ELSEWHERE: Final = """
import os, sys
from actorrt.runtime.memory.segment_writer import SegmentWriter
writer = SegmentWriter(1 << 30, print)
sealed = writer.fill(writer.create(200_000), bytes(range(250)) * 800, [])
print(os.getpid(), *sealed, flush=True)
sys.stdin.readline()
"""


def test_a_segment_outlives_the_process_that_created_it(holder: SegmentHolder) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CREATE_ELSEWHERE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pid, _, size, length, _, fd, inode = process.stdout.readline().split()
        holder.adopt("s", int(pid), int(fd), int(inode), int(size))
        # Once is enough.
        holder.adopt("s", int(pid), int(fd), int(inode), int(size))
        process.kill()
    view = SegmentReader().open("key", holder.locate("s", int(length)), lambda: None)
    assert bytes(view) == bytes(range(250)) * 800
    del view
    assert "s" in holder
    holder.drop_memory("s")
    assert "s" not in holder
    assert memory_held() == 0


def test_a_descriptor_that_is_no_segment_is_not_taken_over(holder: SegmentHolder, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    pipe = os.pipe()
    with path.open("rb") as file:
        for fd in (file.fileno(), pipe[0]):
            inode = os.fstat(fd).st_ino
            with pytest.raises(SegmentGoneError):
                holder.adopt("s", os.getpid(), fd, inode, 0)
    for fd in pipe:
        os.close(fd)
    with pytest.raises(SegmentGoneError):
        holder.adopt("s", os.getpid(), 999_999, 1, 1)
    assert "s" not in holder


def test_nobody_can_shorten_a_segment_under_its_readers(writer: SegmentWriter) -> None:
    sealed = seal(writer, np.zeros(100_000))
    with pytest.raises(PermissionError):
        os.ftruncate(sealed.fd, 10)
    with pytest.raises(PermissionError):
        os.ftruncate(sealed.fd, sealed.size + 1)
    assert fcntl.fcntl(sealed.fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK


def test_a_spilled_object_is_read_from_a_file_without_a_name_and_its_memory_is_back(
    machine: Machine, tmp_path: Path
) -> None:
    values = np.random.default_rng(1).integers(0, 1 << 60, 100_000)
    machine.put(1, values)
    assert memory_held() >= values.nbytes
    machine.writer.close()
    segment = SegmentId(WRITER, 1)
    entry = machine.ledger.find((WRITER, 1))
    assert entry is not None
    machine.holder.spill(segment, entry.length)
    machine.holder.drop_memory(segment)
    assert memory_held() == 0
    assert list((tmp_path / "spill").iterdir()) == []
    assert (tmp_path / "spill").stat().st_mode & 0o777 == 0o700
    location = machine.holder.locate(segment, entry.length)
    facts = os.stat(location.path)
    assert facts.st_size == entry.length
    assert facts.st_mode & 0o777 == 0o600
    assert facts.st_nlink == 0
    view = machine.reader.open("key", location, lambda: None)
    machine.holder.drop_file(segment)
    assert np.array_equal(load(view), values)
    del view


def test_where_files_cannot_be_nameless_they_have_a_name_for_a_moment(
    holder: SegmentHolder, writer: SegmentWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed = seal(writer, np.arange(100_000))
    holder.adopt("s", os.getpid(), sealed.fd, sealed.inode, sealed.size)
    real_open = os.open

    def open_without_tmpfile(path: str, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return real_open(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", open_without_tmpfile)
    holder.spill("s", sealed.length)
    monkeypatch.undo()
    holder.drop_memory("s")
    assert list((tmp_path / "spill").iterdir()) == []
    facts = os.stat(holder.locate("s", sealed.length).path)
    assert facts.st_mode & 0o777 == 0o600
    assert load(SegmentReader().open("key", holder.locate("s", sealed.length), lambda: None)).sum() == 4999950000


@pytest.mark.parametrize("failing", ["sendfile", "fstatvfs"])
def test_a_disk_that_is_full_is_an_error_and_leaves_the_object_where_it_was(
    holder: SegmentHolder, writer: SegmentWriter, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed = seal(writer, np.arange(100_000))
    holder.adopt("s", os.getpid(), sealed.fd, sealed.inode, sealed.size)
    before = descriptors()

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(OSError, match="No space left"):
        holder.spill("s", sealed.length)
    monkeypatch.undo()
    assert descriptors() == before
    assert load(SegmentReader().open("key", holder.locate("s", sealed.length), lambda: None)).sum() == 4999950000


def test_what_does_not_fit_the_disk_is_not_begun(
    holder: SegmentHolder, writer: SegmentWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed = seal(writer, np.arange(100_000))
    holder.adopt("s", os.getpid(), sealed.fd, sealed.inode, sealed.size)
    monkeypatch.setattr(os, "sendfile", pytest.fail)
    with pytest.raises(OSError, match="No space left"):
        holder.spill("s", 1 << 60)


def test_a_holder_that_closes_under_a_spill_leaves_nothing(
    holder: SegmentHolder, writer: SegmentWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed = seal(writer, np.arange(100_000))
    holder.adopt("s", os.getpid(), sealed.fd, sealed.inode, sealed.size)
    copying, closed = threading.Event(), threading.Event()
    real = os.sendfile
    errors: list[int | None] = []

    def slow(*args: Any) -> int:
        copying.set()
        closed.wait()
        return real(*args)

    def spill() -> None:
        try:
            holder.spill("s", sealed.length)
        except OSError as error:
            errors.append(error.errno)

    monkeypatch.setattr(os, "sendfile", slow)
    thread = threading.Thread(target=spill)
    thread.start()
    copying.wait()
    holder.close()
    closed.set()
    thread.join()
    assert errors == [errno.ECANCELED]


# -- all together


def test_a_freed_object_goes_back_to_its_writer_only_when_no_array_is_left(machine: Machine) -> None:
    machine.put(1, np.full(50_000, 1.0))
    array = machine.get(1)
    machine.free(1)
    machine.put(2, np.full(50_000, 2.0))
    assert (array == 1.0).all()
    assert machine.writer.statistics().segments == 2
    del array
    machine.settle()
    assert machine.writer.statistics().pooled == 1
    machine.put(3, np.full(50_000, 3.0))
    assert machine.writer.statistics().segments == 2
    assert machine.writer.statistics().pooled == 0
    assert (machine.get(3) == 3.0).all()
    assert (machine.get(2) == 2.0).all()


def test_memory_that_is_needed_comes_back_by_spilling_and_what_was_spilled_is_read(tmp_path: Path) -> None:
    machine = Machine(str(tmp_path), limit=1_000_000)
    try:
        for number in range(5):
            assert machine.put(number, np.full(50_000, number))
            assert memory_held() <= 1_000_000
        assert machine.ledger.statistics().disk > 1_100_000
        for number in range(5):
            assert (machine.get(number) == number).all()
        arrays = [machine.get(number) for number in (3, 4)]
        machine.settle()
        assert not machine.put(9, np.full(100_000, 9))
        assert [int(array[0]) for array in arrays] == [3, 4]
        del arrays
        machine.settle()
        assert machine.put(9, np.full(100_000, 9))
        for number in (*range(5), 9):
            machine.free(number)
        machine.settle()
        machine.act(machine.ledger.expire(-1, machine.now + 1))
        assert machine.ledger.statistics().segments == 0
        assert memory_held() == 0
    finally:
        machine.close()


STEPS: Final = st.lists(
    st.tuples(
        st.sampled_from(("put", "put", "get", "free", "forget", "expire")),
        st.integers(0, 1 << 30),
        st.sampled_from((1_000, 1_200, 30_000, 60_000, 400_000)),
    ),
    min_size=20,
    max_size=80,
)


@settings(max_examples=20 * DEPTH)
@given(steps=STEPS)
def test_no_array_ever_changes_whatever_is_put_freed_spilled_and_filled_again(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    machine = Machine(str(tmp_path_factory.getbasetemp() / "soak"), limit=1_000_000, pool_limit=500_000)
    live: dict[int, int] = {}
    arrays: list[tuple[int, Array]] = []
    try:
        for number, (step, choice, size) in enumerate(steps):
            keys = sorted(live)
            match step:
                case "put":
                    if machine.put(number, np.full(size, number % 251, np.uint8)):
                        live[number] = size
                case "get" if keys:
                    key = keys[choice % len(keys)]
                    array = machine.get(key)
                    assert array.size == live[key]
                    arrays.append((key, array))
                    del array
                case "free" if keys:
                    key = keys[choice % len(keys)]
                    del live[key]
                    machine.free(key)
                    with pytest.raises(UnknownObjectError):
                        machine.ledger.opened((WRITER, key), READER, machine.now)
                case "forget" if arrays:
                    del arrays[choice % len(arrays)]
                    machine.settle()
                case "expire":
                    machine.act(machine.ledger.expire(3, machine.now))
                case _:
                    pass
            assert all((array == key % 251).all() for key, array in arrays)
            assert memory_held() <= 1_000_000
            assert memory_held() <= machine.ledger.statistics().memory
        for key in live:
            assert (machine.get(key) == key % 251).all()
            machine.free(key)
        arrays.clear()
        machine.settle()
        machine.act(machine.ledger.expire(-1, machine.now + 1))
        assert machine.ledger.statistics().segments == 0
        assert memory_held() == 0
    finally:
        machine.close()
