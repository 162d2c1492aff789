"""The writer of segments: what is filled, kept, given back and let go of, and that a full memory is an error."""

import contextlib
import errno
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from actorrt.exceptions import ObjectStoreFullError
from actorrt.runtime.memory import mapping
from actorrt.runtime.memory.mapping import HUGE_PAGE
from actorrt.runtime.memory.segment_writer import Sealed, SegmentWriter, WriterStatistics, size_for
from actorrt.wire.container import parse, plan

PAGE: Final = os.sysconf("SC_PAGESIZE")
LIMIT: Final = 1 << 30


def memfds() -> int:
    count = 0
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            count += "actorrt-segment" in os.readlink(f"/proc/self/fd/{fd}")
    return count


def mapped() -> int:
    return Path("/proc/self/maps").read_text().count("actorrt-segment")


class Writer(SegmentWriter):
    """With what it would have the node told."""

    def __init__(self, *, keep: int = 256) -> None:
        self.told: list[int] = []
        super().__init__(LIMIT, self.told.append, keep=keep)

    def put(self, length: int, fill: int = 0) -> Sealed:
        segment = self.take(length) or self.create(length)
        return self.fill(segment, bytes([fill]) * length, [])

    def put_and_adopt(self, length: int) -> Sealed:
        sealed = self.put(length)
        self.adopted(sealed.serial)
        return sealed


@pytest.fixture
def writer() -> Iterator[Writer]:
    before = memfds(), mapped()
    writer = Writer()
    yield writer
    writer.close()
    assert (memfds(), mapped()) == before


@pytest.fixture(params=["huge pages", "pwrite"])
def _each_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "pwrite":
        monkeypatch.setattr(mapping, "can_collapse", False)


def content(sealed: Sealed) -> bytes:
    return os.pread(sealed.fd, sealed.length, 0)


LENGTHS: Final = [1, PAGE, 100_000, HUGE_PAGE - 1, HUGE_PAGE, HUGE_PAGE + 1, 4 * HUGE_PAGE + 1, 9 * HUGE_PAGE + 12345]


@pytest.mark.usefixtures("_each_way")
@pytest.mark.parametrize("length", LENGTHS)
def test_what_is_filled_in_is_there_new_and_again(writer: Writer, length: int) -> None:
    for turn in range(3):
        data = os.urandom(length)
        segment = writer.take(length)
        assert (segment is None) == (turn == 0)
        sealed = writer.fill(segment or writer.create(length), data, [])
        assert sealed[:4] == (1, size_for(length), length, True)
        assert content(sealed) == data
        # No hole is left that a copy into the mapping would have to fill.
        assert os.fstat(sealed.fd).st_blocks * 512 == sealed.size
        writer.adopted(1)
        writer.returned(1)
    assert writer.statistics() == WriterStatistics(1, sealed.size, 1, sealed.size)
    assert mapped() == 1
    assert writer.told == []


@pytest.mark.usefixtures("_each_way")
def test_a_value_with_buffers_is_laid_out_as_a_container(writer: Writer) -> None:
    buffers = [b"", os.urandom(70), os.urandom(4 * HUGE_PAGE), b""]
    data = pickle.dumps("value")
    layout = plan(len(data), [len(b) for b in buffers])
    for _ in range(2):
        segment = writer.take(layout.total) or writer.create(layout.total)
        sealed = writer.fill(segment, data, [memoryview(b) for b in buffers])
        assert sealed.length == layout.total
        found_data, found = parse(memoryview(content(sealed)))
        assert bytes(found_data) == data
        assert [bytes(b) for b in found] == buffers
        writer.adopted(sealed.serial)
        writer.returned(sealed.serial)


def test_room_is_asked_for_in_pages_and_whole_huge_pages_where_that_is_cheap() -> None:
    assert size_for(1) == PAGE
    assert size_for(PAGE) == PAGE
    assert size_for(HUGE_PAGE + 1) == HUGE_PAGE + PAGE
    assert size_for(8 * HUGE_PAGE + 1) == 9 * HUGE_PAGE
    for length in range(1, 20 * HUGE_PAGE, 99_991):
        assert length <= size_for(length) <= max(length * 9 / 8, length + PAGE)


def test_the_smallest_segment_that_is_large_enough_is_taken_but_no_giant_for_a_dwarf(writer: Writer) -> None:
    serials = {length: writer.put_and_adopt(length).serial for length in (500_000, 300_000, 2_000_000, 400_000)}
    for serial in serials.values():
        writer.returned(serial)
    for length, expected in ((350_000, 400_000), (300_000, 300_000), (1_000_000, None), (390_000, 400_000)):
        segment = writer.take(length)
        assert (segment and segment.serial) == (expected and serials[expected])
        if segment is not None:
            writer.abandon(segment)


def test_what_is_being_filled_or_holds_an_object_is_not_taken(writer: Writer) -> None:
    sealed = writer.put(100_000)
    assert writer.take(100_000) is None
    writer.adopted(sealed.serial)
    assert writer.take(100_000) is None
    writer.returned(sealed.serial)
    segment = writer.take(100_000)
    assert segment is not None
    assert writer.take(100_000) is None
    writer.abandon(segment)
    assert writer.take(100_000) is segment
    writer.abandon(segment)


def test_no_more_than_a_few_are_kept_and_those_filled_longest_ago_go_first() -> None:
    writer = Writer(keep=2)
    first, second = writer.put_and_adopt(PAGE), writer.put_and_adopt(PAGE)
    writer.returned(first.serial)
    again = writer.put_and_adopt(PAGE)
    assert again.serial == first.serial
    third = writer.put_and_adopt(PAGE)
    assert writer.told == [second.serial]
    # The answers may cross: what is said about it now means nothing.
    writer.returned(second.serial)
    writer.recalled(second.serial)
    writer.put(PAGE)
    writer.put(PAGE)
    assert writer.told == [second.serial]
    assert memfds() == 4
    writer.adopted(4)
    assert writer.told == [second.serial, first.serial]
    assert third.serial == 3
    writer.close()
    assert memfds() == 0


def test_what_is_recalled_is_let_go_of_at_once_with_an_object_or_without(writer: Writer) -> None:
    with_object, pooled = writer.put_and_adopt(PAGE), writer.put_and_adopt(PAGE)
    writer.returned(pooled.serial)
    writer.recalled(pooled.serial)
    writer.recalled(with_object.serial)
    assert writer.told == [pooled.serial, with_object.serial]
    assert memfds() == 0
    assert writer.take(PAGE) is None


def test_what_is_recalled_while_it_is_filled_is_not_kept(writer: Writer) -> None:
    sealed = writer.put_and_adopt(PAGE)
    writer.returned(sealed.serial)
    segment = writer.take(PAGE)
    assert segment is not None
    writer.recalled(segment.serial)
    sealed = writer.fill(segment, b"x", [])
    assert not sealed.kept
    assert memfds() == 1
    writer.adopted(sealed.serial)
    # The node was told with the object.
    assert writer.told == []
    assert memfds() == 0


def test_what_is_recalled_before_the_node_has_it_is_let_go_of_when_it_has(writer: Writer) -> None:
    sealed = writer.put_and_adopt(PAGE)
    writer.returned(sealed.serial)
    sealed = writer.put(PAGE)
    writer.recalled(sealed.serial)
    assert writer.told == []
    assert memfds() == 1
    writer.adopted(sealed.serial)
    assert writer.told == [sealed.serial]
    assert memfds() == 0


def test_what_is_recalled_and_then_not_filled_after_all_is_let_go_of(writer: Writer) -> None:
    sealed = writer.put_and_adopt(PAGE)
    writer.returned(sealed.serial)
    segment = writer.take(PAGE)
    assert segment is not None
    writer.recalled(segment.serial)
    writer.abandon(segment)
    assert writer.told == [sealed.serial]
    assert memfds() == 0


def test_what_the_node_refuses_or_nobody_filled_goes_without_a_word(writer: Writer) -> None:
    segment = writer.create(PAGE, "work")
    writer.fill(segment, bytes(PAGE), [])
    writer.give_up("work")
    writer.abandon(writer.create(PAGE))
    assert writer.told == []
    assert memfds() == 0
    # Answers for what is not there any more.
    writer.give_up("work")
    writer.adopted(1)


def test_a_segment_can_be_read_here_until_it_is_let_go_of(writer: Writer) -> None:
    sealed = writer.put(PAGE, 7)
    location = writer.locate(sealed.serial, sealed.length)
    assert location is not None
    assert Path(location.path).read_bytes() == bytes([7]) * PAGE
    assert location.inode == sealed.inode
    writer.adopted(sealed.serial)
    assert writer.locate(sealed.serial, sealed.length) == location
    writer.returned(sealed.serial)
    assert writer.locate(sealed.serial, sealed.length) is None
    writer.recalled(sealed.serial)
    assert writer.locate(sealed.serial, sealed.length) is None


def test_after_close_nothing_is_filled_and_what_was_being_filled_goes() -> None:
    writer = Writer()
    writer.put(PAGE)
    segment, other = writer.create(PAGE), writer.create(PAGE)
    writer.close()
    assert memfds() == 2
    with pytest.raises(RuntimeError, match="shutting down"):
        writer.fill(segment, b"x", [])
    writer.abandon(other)
    assert memfds() == 0
    assert writer.told == []


def test_an_object_longer_than_its_segment_is_refused_and_the_segment_given_back(writer: Writer) -> None:
    segment = writer.create(PAGE)
    with pytest.raises(ValueError, match="does not fit"):
        writer.fill(segment, bytes(PAGE + 1), [])
    assert memfds() == 0


def test_threads_that_put_at_once_never_get_the_same_segment_and_all_of_it_comes_back() -> None:
    writer = Writer(keep=6)
    answers: queue.SimpleQueue[int] = queue.SimpleQueue()
    wrong: list[int] = []

    def put(mark: int) -> None:
        for turn in range(60):
            length = (100_000, 120_000, 5 * HUGE_PAGE)[turn % 3]
            sealed = writer.put(length, mark)
            if content(sealed) != bytes([mark]) * length:
                wrong.append(mark)
            writer.adopted(sealed.serial)
            answers.put(sealed.serial)

    def answer() -> None:
        number = 0
        while (serial := answers.get()) >= 0:
            number += 1
            # Now and then memory is short.
            (writer.recalled if number % 7 == 0 else writer.returned)(serial)

    threads = [threading.Thread(target=put, args=(mark,)) for mark in range(1, 5)]
    node = threading.Thread(target=answer)
    for thread in (*threads, node):
        thread.start()
    for thread in threads:
        thread.join()
    answers.put(-1)
    node.join()
    assert wrong == []
    assert len(set(writer.told)) == len(writer.told)
    assert writer.statistics().segments == memfds() <= 6
    writer.close()
    assert memfds() == mapped() == 0


# -- no room


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG, errno.ENOMEM])
def test_a_memory_that_is_full_is_an_error_and_leaves_nothing(
    writer: Writer, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(ObjectStoreFullError) as caught:
        writer.put(100_000)
    assert caught.value.args == (100_000, LIMIT, os.strerror(code))
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ObjectStoreFullError):
        writer.put(4 * HUGE_PAGE)
    assert memfds() == 0


def test_short_writes_are_continued(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[: 1 + len(data) // 2], offset))
    data = os.urandom(50_000)
    assert content(writer.fill(writer.create(len(data)), data, [])) == data


def test_another_error_is_passed_on_and_leaves_nothing(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "pwrite", broken)
    with pytest.raises(KeyboardInterrupt):
        writer.put(100_000)
    assert memfds() == 0


def test_a_kernel_without_huge_pages_or_noexec_seals_will_do(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.memfd_create

    def old_kernel(name: str, flags: int) -> int:
        if flags & 0x8:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(name, flags)

    monkeypatch.setattr(os, "memfd_create", old_kernel)
    assert content(writer.put(100_000, 3)) == bytes([3]) * 100_000


LIMITED: Final = """
import errno, os, resource
from actorrt.exceptions import ObjectStoreFullError
from actorrt.runtime.memory.segment_writer import SegmentWriter
writer = SegmentWriter(1 << 30, print)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    writer.create(5 << 20)
except ObjectStoreFullError as error:
    print(error.size, error.cause)
resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
made = []
try:
    while True:
        made.append(writer.create(1000))
except ObjectStoreFullError as error:
    print(len(made) > 5, error.cause)
for segment in made:
    writer.abandon(segment)
print(writer.statistics().segments)
"""


def test_the_limits_of_a_process_are_errors_too() -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["5242880 File too large", "True Too many open files", "0"]


def test_what_the_node_has_is_not_given_up_with_the_work_that_put_it_there(writer: Writer) -> None:
    segment = writer.create(PAGE, "work")
    sealed = writer.fill(segment, bytes(PAGE), [])
    writer.adopted(sealed.serial)
    writer.give_up("work")
    writer.returned(sealed.serial)
    assert writer.take(PAGE, "other work") is segment
    writer.give_up("work")
    assert writer.statistics() == WriterStatistics(1, PAGE, 0, 0)
    # One that the node has is free to be filled again.
    writer.give_up("other work")
    assert writer.statistics() == WriterStatistics(1, PAGE, 1, PAGE)
    assert writer.told == []
