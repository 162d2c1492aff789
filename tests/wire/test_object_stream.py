"""What one node asks another one for, and what it makes of the answer, whatever that is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.exceptions import LinkError
from actorrt.types import ProcessId
from actorrt.wire.object_stream import HEAD_LIMIT, Head, Wanted, head_in, mark_of, request_for, wanted_in

OWNER = ProcessId(b"an owner")
NUMBERS = st.integers(0, 2**63)
ANSWER = b"HTTP/1.1 206 Partial Content\r\nContent-Length: 12\r\nActorrt-Mark: 61-1\r\n\r\n"


@given(owner=st.binary(min_size=8, max_size=8), number=NUMBERS, version=NUMBERS, start=NUMBERS)
def test_what_is_asked_for_is_read_from_the_request(owner: bytes, number: int, version: int, start: int) -> None:
    wanted = Wanted((ProcessId(owner), number), version, start)
    line, *headers = request_for(wanted).decode().split("\r\n")
    method, path, _ = line.split(" ")
    assert method == "GET"
    assert wanted_in(path, dict(header.split(": ") for header in headers if header)["Range"]) == wanted


@given(path=st.text(), range_of=st.text())
def test_no_path_and_no_range_is_an_error(path: str, range_of: str) -> None:
    assert wanted_in(path, range_of) is None
    assert wanted_in("/objects/" + path, range_of) is None
    assert wanted_in(f"/objects/{OWNER.hex()}/1/1", "x" + range_of) is None


def test_without_a_range_all_of_it_is_meant() -> None:
    assert wanted_in(f"/objects/{OWNER.hex()}/7/2", "") == Wanted((OWNER, 7), 2, 0)


@given(cut=st.integers(0, len(ANSWER)), body=st.binary(max_size=40))
def test_a_head_is_read_wherever_it_is_cut(cut: int, body: bytes) -> None:
    whole = ANSWER + body
    head = Head(206, 12, b"61-1", len(ANSWER))
    assert head_in(whole[:cut]) == (head if cut == len(ANSWER) else None)
    assert head_in(whole) == head


def test_a_mark_survives_the_way() -> None:
    mark = mark_of(OWNER, 12)
    answer = b"HTTP/1.1 200 OK\r\ncontent-length:3\r\nactorrt-mark:" + mark + b"\r\n\r\n"
    assert head_in(answer) == Head(200, 3, mark, len(answer))


@pytest.mark.parametrize("status", [400, 404, 416, 500, 503])
def test_a_refusal_needs_no_length(status: int) -> None:
    assert head_in(b"HTTP/1.1 %d No\r\n\r\n" % status) == Head(status, 0, b"", 19)


@given(answer=st.binary(max_size=200))
def test_what_is_no_answer_is_an_error_and_nothing_else(answer: bytes) -> None:
    with pytest.raises(LinkError):
        head_in(answer.replace(b"HTTP", b"") + b"\r\n\r\n")


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\nActorrt-Mark: 61-1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\nActorrt-Mark: 61-1",
        b"HTTP/1.1 200 OK\r\nActorrt-Mark: 61-1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nActorrt-Mark: " + b"6" * 65,
        b"HTTP/1.1 2000 OK\r\nContent-Length: 10\r\nActorrt-Mark: 61-1",
        b"SSH-2.0-OpenSSH",
    ],
)
def test_a_head_that_does_not_say_what_comes_is_an_error(head: bytes) -> None:
    with pytest.raises(LinkError):
        head_in(head + b"\r\n\r\n")


def test_a_head_without_end_is_an_error_before_it_takes_memory() -> None:
    assert head_in(b"a" * HEAD_LIMIT) is None
    with pytest.raises(LinkError, match="does not end"):
        head_in(b"a" * (HEAD_LIMIT + 1))
