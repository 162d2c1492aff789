"""Lines from bytes, and equal lines told once: any cut of the bytes, any order of the lines."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.core.loglines import (
    MAX_REMEMBERED,
    MAX_REMEMBERED_LINE,
    Deduplicator,
    Line,
    LineSplitter,
    MarkFinder,
    dropped,
    mark,
    prefixed,
    printable,
    stands_for,
)

# Few different bytes, so that newlines, long lines and characters of several bytes meet often.
BYTES = st.lists(st.sampled_from([b"a", b"\n", b"\r", "é".encode(), "😀".encode(), b"\x80", b"bb"])).map(b"".join)


def lines_of(data: bytes, cuts: list[int], limit: int) -> list[bytes]:
    splitter = LineSplitter(limit)
    lines: list[bytes] = []
    edges = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    for start, end in itertools.pairwise(edges):
        lines += splitter.feed(data[start:end])
    return lines + splitter.flush()


@given(data=BYTES, cuts=st.lists(st.integers(0, 200)), limit=st.integers(4, 9))
def test_any_cut_of_the_bytes_gives_the_same_lines(data: bytes, cuts: list[int], limit: int) -> None:
    assert lines_of(data, cuts, limit) == lines_of(data, [], limit)


@given(data=BYTES, limit=st.integers(4, 9))
def test_no_byte_is_lost_and_no_line_is_over_the_limit(data: bytes, limit: int) -> None:
    lines = lines_of(data, [], limit)
    assert b"".join(lines) == data.replace(b"\n", b"")
    assert all(len(line) <= limit for line in lines)


@given(text=st.text(alphabet="aé😀\n"), limit=st.integers(4, 9))
def test_a_character_is_never_cut(text: str, limit: int) -> None:
    for line in lines_of(text.encode(), [], limit):
        line.decode()


@given(data=BYTES)
def test_lines_within_the_limit_are_those_of_split(data: bytes) -> None:
    lines = lines_of(data, [], 100_000)
    assert lines == data.split(b"\n")[: len(lines)]


def test_a_partial_line_can_be_flushed_and_what_follows_is_a_line_of_its_own() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"50%") == []
    assert splitter.pending
    assert splitter.flush() == [b"50%"]
    assert not splitter.pending
    assert splitter.feed(b" done\n") == [b" done"]


def test_what_is_held_back_is_bounded() -> None:
    splitter = LineSplitter(100)
    for _ in range(1000):
        splitter.feed(b"x" * 70)
    assert len(splitter._rest) <= 100


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"plain", "plain"),
        (b"dos\r", "dos"),
        (b"10%\r50%\r100%", "100%"),
        (b"10%\r50%\r", "50%"),
        (b"\r", ""),
        ("naïve".encode(), "naïve"),
        (b"\xff raw", "\\xff raw"),
    ],
)
def test_a_line_is_shown_as_a_terminal_would(line: bytes, text: str) -> None:
    assert printable(line) == text


def test_a_prefix_names_who_wrote_the_line() -> None:
    line: Line = ("Counter", 123, False, "hello")
    assert prefixed(line) == "(Counter pid=123) hello"
    coloured = prefixed(line, colour=True)
    assert coloured.startswith("\033[")
    assert coloured.endswith("(Counter pid=123)\033[0m hello")
    assert "7 lines dropped" in prefixed(dropped("Counter", 123, 7))


def say(pid: int, text: str = "hello") -> Line:
    return ("w", pid, False, text)


def test_equal_lines_of_other_workers_are_counted_and_told_after_the_window() -> None:
    one = Deduplicator(window=5)
    assert one.feed(say(1), 0.0) == [say(1)]
    for pid in range(2, 9):
        assert one.feed(say(pid), 1.0) == []
    assert one.due == 5.0
    assert one.expire(4.9) == []
    assert one.expire(5.0) == [say(8, "hello [repeated 7x]")]
    assert one.due is None
    # A new window begins with the next.
    assert one.feed(say(3), 5.1) == [say(3)]


def test_one_repetition_is_shown_as_it_is() -> None:
    one = Deduplicator()
    one.feed(say(1), 0.0)
    one.feed(say(2), 0.0)
    assert one.flush() == [say(2)]


def test_a_worker_that_says_the_same_twice_is_not_held_back() -> None:
    one = Deduplicator()
    assert [one.feed(say(1), t) for t in (0.0, 1.0, 2.0)] == [[say(1)]] * 3


def test_the_same_text_on_the_other_stream_is_another_line() -> None:
    one = Deduplicator()
    one.feed(say(1), 0.0)
    assert one.feed(("w", 2, True, "hello"), 0.0) == [("w", 2, True, "hello")]


def test_a_summary_comes_before_a_later_line() -> None:
    one = Deduplicator(window=5)
    for pid in (1, 2, 3):
        one.feed(say(pid), 0.0)
    assert one.feed(say(1, "later"), 6.0) == [say(3, "hello [repeated 2x]"), say(1, "later")]


def test_what_is_remembered_is_bounded() -> None:
    one = Deduplicator()
    one.feed(say(1, "first"), 0.0)
    one.feed(say(2, "first"), 0.0)
    shown = [line for number in range(MAX_REMEMBERED) for line in one.feed(say(1, f"line {number}"), 0.0)]
    assert shown[-2:] == [say(2, "first"), say(1, f"line {MAX_REMEMBERED - 1}")]
    assert len(one._seen) == MAX_REMEMBERED
    long = "x" * (MAX_REMEMBERED_LINE + 1)
    assert one.feed(say(1, long), 0.0) == [say(1, long)]
    assert one.feed(say(2, long), 0.0) == [say(2, long)]


@given(
    events=st.lists(
        st.tuples(st.integers(1, 4), st.sampled_from(["a", "b", ""]), st.floats(0, 3, allow_nan=False)), max_size=40
    )
)
def test_every_line_is_accounted_for(events: list[tuple[int, str, float]]) -> None:
    one = Deduplicator(window=5)
    now = 0.0
    shown: list[Line] = []
    for pid, text, pause in events:
        now += pause
        shown += one.feed(say(pid, text), now)
    shown += one.flush()
    counted: Counter[str] = Counter()
    for _, _, _, text in shown:
        base, _, repeated = text.partition(" [repeated ")
        counted[base] += int(repeated.removesuffix("x]")) if repeated else 1
    assert counted == Counter(text for _, text, _ in events)


@given(st.integers(0, 10**9))
def test_a_line_that_tells_of_missing_ones_stands_for_them(count: int) -> None:
    assert stands_for(dropped("w", 1, count)) == count
    # What a worker prints itself is one line, whatever it says.
    assert stands_for(("w", 1, False, dropped("w", 1, count)[3])) == 1
    assert stands_for(("w", 1, True, f"{count} lines dropped")) == 1


def joined(parts: list[tuple[str | None, bytes]]) -> list[tuple[str, bytes]]:
    """What each has printed, neighbours together."""
    found: list[tuple[str, bytes]] = [("", b"")]
    for name, data in parts:
        if name is not None and name != found[-1][0]:
            found.append((name, b""))
        found[-1] = (found[-1][0], found[-1][1] + data)
    return [one for one in found if one[1]]


NAMES = st.text("abc ü(", min_size=1, max_size=20)
PRINTED = st.lists(st.tuples(NAMES, st.binary(min_size=1, max_size=30)), max_size=6)


@given(printed=PRINTED, cuts=st.lists(st.integers(0, 300)))
def test_any_split_of_the_bytes_gives_each_what_it_has_printed(
    printed: list[tuple[str, bytes]], cuts: list[int]
) -> None:
    # A NUL may stand in what is printed, but not just where a mark begins.
    expected = joined([(name, data.replace(b"\x1e", b"e")) for name, data in printed])
    data = b"".join(mark(name) + text for name, text in expected)
    finder = MarkFinder()
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    parts = [part for start, end in itertools.pairwise(places) for part in finder.feed(data[start:end])]
    rest = finder.flush()
    assert joined([*parts, (None, rest)]) == expected


def test_what_only_looks_like_a_mark_is_output() -> None:
    finder = MarkFinder()
    data = mark("a")[:-1] + b"x" * 1000
    assert joined([*finder.feed(data), (None, finder.flush())]) == [("", data)]
