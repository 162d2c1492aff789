"""Files that rotate: nothing is lost within the bounds, and the bounds hold."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actorrt.runtime.base.log_file import LogFile


def newest_first(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted(folder.iterdir())]


def test_nothing_is_made_before_there_is_output(tmp_path: Path) -> None:
    file = LogFile(str(tmp_path / "out"), 100, 2)
    file.close()
    assert list(tmp_path.iterdir()) == []


def test_a_full_file_is_kept_beside_the_new_one_and_the_oldest_goes(tmp_path: Path) -> None:
    file = LogFile(str(tmp_path / "out"), 10, 2)
    for number in range(5):
        file.write(b"line %d\n" % number)
    file.close()
    assert newest_first(tmp_path) == [b"line 4\n", b"line 3\n", b"line 2\n"]


def test_a_file_ends_with_a_whole_line(tmp_path: Path) -> None:
    file = LogFile(str(tmp_path / "out"), 10, 9)
    file.write(b"abc\ndef\nghi\njkl\n")
    file.close()
    assert newest_first(tmp_path) == [b"ghi\njkl\n", b"abc\ndef\n"]


def test_without_old_ones_a_full_file_starts_anew(tmp_path: Path) -> None:
    file = LogFile(str(tmp_path / "out"), 10, 0)
    for number in range(5):
        file.write(b"line %d\n" % number)
    file.close()
    assert newest_first(tmp_path) == [b"line 4\n"]


def test_a_file_that_is_there_already_is_continued(tmp_path: Path) -> None:
    for text in (b"one\n", b"two\n"):
        file = LogFile(str(tmp_path / "out"), 100, 1)
        file.write(text)
        file.close()
    assert newest_first(tmp_path) == [b"one\ntwo\n"]


@settings(max_examples=25)  # each is hundreds of renames
@given(chunks=st.lists(st.lists(st.sampled_from([b"ab", b"\n", b"cde"])).map(b"".join), max_size=12))
def test_all_bytes_are_there_and_no_file_is_over_the_size(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes]
) -> None:
    folder = tmp_path_factory.mktemp("logs")
    file = LogFile(str(folder / "out"), 8, 1000)
    for chunk in chunks:
        file.write(chunk)
    file.close()
    old = sorted(folder.glob("out.*"), key=lambda path: -int(path.suffix[1:]))
    parts = [path.read_bytes() for path in [*old, *folder.glob("out")]]
    assert b"".join(parts) == b"".join(chunks)
    assert all(len(part) <= 8 for part in parts)


def test_a_disk_that_refuses_is_reported_once_and_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = LogFile(str(tmp_path / "missing" / "out"), 10, 1)
    with caplog.at_level(logging.WARNING, "actorrt"):
        file.write(b"one\n")
        file.write(b"two\n")
    assert len(caplog.records) == 1
    file.close()
