"""What is read from the kernel, from wrk, from a log and from a stream is taken apart rightly."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.chunk_delay import Chunks
from loadtests.http_side import parse_wrk
from loadtests.llm.token_times import Arrivals, idle_share
from loadtests.machine import field_of
from loadtests.processes import below, parse_rollup, parse_stat
from loadtests.running import RunError, last_words

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Request-Id: 10\r\n\r\n"


def test_a_process_whose_name_looks_like_fields_is_read_rightly() -> None:
    assert parse_stat("12 (odd) S 1 name) R 7 12 12 0 -1") == ("R", 7)


def test_all_generations_are_found_and_strangers_are_not() -> None:
    assert sorted(below(1, {2: 1, 3: 2, 4: 3, 5: 9, 1: 0})) == [2, 3, 4]


def test_private_memory_is_clean_and_dirty_together() -> None:
    text = "ffff [rollup]\nRss:   90 kB\nPss:  40 kB\nPss_Anon: 7 kB\nPrivate_Clean: 10 kB\nPrivate_Dirty: 20 kB\n"
    assert parse_rollup(text) == (40 * 1024, 30 * 1024)


def test_wrk_is_read_from_its_line() -> None:
    result = parse_wrk('noise\n@wrk {"requests": 10, "seconds": 2.0, "p50_ms": 1.5, "p99_ms": 3.0, "failed": 0}\n')
    assert (result.rate, result.p50_ms, result.p99_ms) == (5.0, 1.5, 3.0)


@pytest.mark.parametrize(
    "output",
    [
        "unable to connect",
        '@wrk {"requests": 0, "seconds": 2.0, "p50_ms": 0, "p99_ms": 0, "failed": 0}',
        '@wrk {"requests": 100, "seconds": 2.0, "p50_ms": 1, "p99_ms": 1, "failed": 5}',
    ],
)
def test_a_load_that_failed_gives_no_figure(output: str) -> None:
    with pytest.raises(RunError):
        parse_wrk(output)


def test_the_last_line_of_a_log_is_the_reason(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_words(log) == "its log is empty"
    log.write_text("Traceback\n  File x\nValueError: bad\n\n")
    assert last_words(log) == "ValueError: bad"


def test_a_field_is_found_by_its_name() -> None:
    assert field_of("a : 1\nmodel name\t: Some CPU: fast\n", "model name") == "Some CPU: fast"
    assert field_of("a : 1\n", "model name") == ""


@given(chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=8), data=st.data())
def test_any_cut_of_a_chunked_answer_gives_the_same_bytes(chunks: list[bytes], data: st.DataObject) -> None:
    answer = HEAD + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    cuts = sorted(data.draw(st.sets(st.integers(0, len(answer)))))
    reader = Chunks()
    got = b"".join(reader.feed(answer[a:b]) for a, b in zip([0, *cuts], [*cuts, len(answer)], strict=True))
    assert got == b"".join(chunks)
    assert reader.ended


@pytest.mark.parametrize("head", [b"HTTP/1.1 500 No\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"])
def test_an_answer_that_is_no_stream_is_refused(head: bytes) -> None:
    with pytest.raises(ValueError, match="not a chunked answer"):
        Chunks().feed(head)


@given(cuts=st.lists(st.integers(1, 60), min_size=1, max_size=40))
def test_a_token_has_come_when_its_last_byte_has(cuts: list[int]) -> None:
    event = b'data: {"choices":[{"delta":{"content":"a"}}],"timings":{"emitted_ns":%d}}\n\n'
    events = [event % stamp for stamp in (1000, 2000, 3000)]
    stream = HEAD + b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in events) + b"0\r\n\r\n"
    cut_at = [*itertools.takewhile(lambda end: end < len(stream), itertools.accumulate(cuts)), len(stream)]
    arrivals = Arrivals(asked_at=500)
    # The time of each piece is where it ends.
    ended = [arrivals.add(end, stream[begin:end]) for begin, end in itertools.pairwise([0, *cut_at])]
    assert ended == [end == len(stream) for end in cut_at]
    ends = [stream.index(each) + len(each) + 2 for each in events]
    come = [next(end for end in cut_at if end >= whole) for whole in ends]
    first, held = arrivals.read()
    assert first == (come[0] - 500) / 1e9
    assert held == [(at - stamp) / 1e9 for at, stamp in zip(come, (1000, 2000, 3000), strict=True)]


def test_a_stream_that_was_cut_short_gives_no_figure() -> None:
    arrivals = Arrivals(asked_at=0)
    assert not arrivals.add(1, HEAD + b"1\r\na\r\n")
    with pytest.raises(ValueError, match="cut short"):
        arrivals.read()


def test_idle_time_is_a_share_of_all_time() -> None:
    assert idle_share((100.0, 1000.0), (150.0, 1100.0)) == 0.5
