"""The answer to a dial is read the same for any cut of its bytes, and what is none is an error at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.exceptions import LinkError
from actorrt.wire.greeting import HELLO_LIMIT, hello_in, request_with

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nDate: today\r\n\r\n"


def answer(hello: bytes) -> bytes:
    return HEAD + b"%X\r\n%b\r\n" % (len(hello), hello)


@given(hello=st.binary(min_size=1, max_size=HELLO_LIMIT))
def test_the_hello_is_there_with_the_last_byte_and_not_before(hello: bytes) -> None:
    whole = answer(hello)
    assert hello_in(whole) == hello
    for end in {*range(min(len(HEAD) + 8, len(whole))), len(whole) - 2, len(whole) - 1}:
        assert hello_in(whole[:end]) is None


@pytest.mark.parametrize("behind", [b"0\r\n\r\n"[:size] for size in range(6)])
def test_the_end_of_the_body_may_come_with_the_hello_of_who_refuses(behind: bytes) -> None:
    assert hello_in(answer(b"refused") + behind) == b"refused"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", "the peer answered 'HTTP/1.1 400 Bad Request'"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "the peer answered 'SSH-2.0-OpenSSH_9.2'"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "did not say hello"),
        (b"x" * 5000, "did not say hello"),
        (HEAD + b"0\r\n\r\n", "did not say hello"),
        (HEAD + b"+5\r\nhello\r\n", "did not say hello"),
        (HEAD + b"-5\r\nhello\r\n", "did not say hello"),
        (HEAD + b"0" * 20, "did not say hello"),
        (HEAD + b"%x\r\n" % (HELLO_LIMIT + 1), "did not say hello"),
        (answer(b"hello") + b"more", "did not say hello"),
    ],
)
def test_what_is_no_answer_is_an_error(said: bytes, why: str) -> None:
    with pytest.raises(LinkError, match=why):
        hello_in(said)


def test_a_size_that_is_no_number_is_an_error() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        hello_in(HEAD + b"five\r\nhello\r\n")


def test_a_request_holds_its_hello_as_the_first_chunk_of_a_body_without_an_end() -> None:
    assert request_with(b"hello there") == (
        b"POST /link HTTP/1.1\r\nHost: actorrt\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello there\r\n"
    )
