"""Memory that is mapped to be written: where it lies, that its pages are there, and that it goes."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.runtime.memory import mapping
from actorrt.runtime.memory.mapping import HUGE_PAGE, WritableMapping

PAGE = os.sysconf("SC_PAGESIZE")


def memfd(size: int) -> int:
    fd = os.memfd_create("actorrt-mapping")
    os.ftruncate(fd, size)
    return fd


def lines(word: str = "actorrt-mapping") -> list[str]:
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if word in line]


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = lines()
    yield
    assert lines() == before


@pytest.mark.parametrize("size", [PAGE, HUGE_PAGE - PAGE, HUGE_PAGE, 2 * HUGE_PAGE + 3 * PAGE])
@pytest.mark.parametrize("populate", [False, True])
def test_it_covers_the_memfd_and_nothing_else_is_mapped(size: int, populate: bool) -> None:
    fd = memfd(size)
    reserved = lines(" ---p ")
    mapped = WritableMapping(fd, size, populate=populate)
    [line] = lines()
    start, end = (int(number, 16) for number in line.split()[0].split("-"))
    assert end - start == size
    assert size < HUGE_PAGE or start % HUGE_PAGE == 0
    assert lines(" ---p ") == reserved
    mapped.close()
    mapped.close()
    os.close(fd)


def test_all_pages_are_there_after_allocate_and_none_of_what_is_there_is_lost() -> None:
    size = 3 * HUGE_PAGE + 5 * PAGE
    fd = memfd(size)
    os.pwrite(fd, b"before", 2 * HUGE_PAGE + 100)
    mapped = WritableMapping(fd, size)
    if mapped.allocate(fd):
        assert os.fstat(fd).st_blocks * 512 == size
    assert os.pread(fd, 6, 2 * HUGE_PAGE + 100) == b"before"
    mapped.close()
    os.close(fd)


def test_without_huge_pages_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "can_collapse", False)
    fd = memfd(HUGE_PAGE)
    mapped = WritableMapping(fd, HUGE_PAGE)
    assert mapped.allocate(fd) is False
    mapped.close()
    os.close(fd)


@given(offset=st.integers(0, 3 * HUGE_PAGE), data=st.binary(max_size=2000))
def test_what_is_written_is_in_the_memfd(offset: int, data: bytes) -> None:
    size = 4 * HUGE_PAGE
    fd = memfd(size)
    mapped = WritableMapping(fd, size)
    mapped.write(offset, memoryview(data))
    assert os.pread(fd, len(data), offset) == data
    mapped.close()
    os.close(fd)


def test_what_is_long_is_copied_too_and_its_source_is_free_again() -> None:
    size = 5 * HUGE_PAGE
    fd = memfd(size)
    mapped = WritableMapping(fd, size)
    source = bytearray(os.urandom(size - 7))
    mapped.write(7, memoryview(source).toreadonly())
    assert os.pread(fd, size, 0) == bytes(7) + source
    # A buffer that is still exported could not change its size.
    source.clear()
    mapped.close()
    os.close(fd)


def test_nothing_is_written_outside_or_after_the_end() -> None:
    fd = memfd(PAGE)
    mapped = WritableMapping(fd, PAGE)
    for offset, size in ((-1, 1), (PAGE, 1), (0, PAGE + 1)):
        with pytest.raises(ValueError, match="do not lie within"):
            mapped.write(offset, memoryview(bytes(size)))
    mapped.close()
    with pytest.raises(ValueError, match="closed"):
        mapped.write(0, memoryview(b"x"))
    os.close(fd)


@pytest.mark.parametrize("size", [PAGE, HUGE_PAGE])
def test_what_cannot_be_mapped_is_an_error(size: int) -> None:
    fd = os.open("/dev/null", os.O_RDWR)
    with pytest.raises(OSError, match="mmap of"):
        WritableMapping(fd, size)
    os.close(fd)
