"""What the head of a request must be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.serve.proxy.head_rules import NO_HOST, NOT_SPOKEN, TOO_LARGE, Complaint, complaint, is_host


@pytest.mark.parametrize(
    ("size", "version", "hosts", "expected"),
    [
        (100, "1.1", 1, None),
        (101, "1.1", 1, TOO_LARGE),
        (101, "2.0", 0, TOO_LARGE),
        (100, "1.0", 0, None),
        (100, "1.0", 1, None),
        (100, "1.0", 2, NO_HOST),
        (100, "1.1", 0, NO_HOST),
        (100, "1.1", 2, NO_HOST),
        (100, "0.9", 1, NOT_SPOKEN),
        (100, "2.0", 2, NOT_SPOKEN),
    ],
)
def test_what_is_wrong_with_a_head(size: int, version: str, hosts: int, expected: Complaint | None) -> None:
    assert complaint(size, 100, version, hosts) == expected


@given(st.integers(0, 200), st.integers(0, 200))
def test_what_is_not_asked_about_is_right(size: int, limit: int) -> None:
    assert complaint(size, limit, "1.1", 1) == (None if size <= limit else TOO_LARGE)


@pytest.mark.parametrize("value", [b"", b"x", b" x:80 ", b"x:", b"[::1]:80", b"a_b.c%20"])
def test_a_host_is_a_name_or_an_address_and_perhaps_a_port(value: bytes) -> None:
    assert is_host(value)


@pytest.mark.parametrize("value", [b"a b", b"x:y", b"a/b", b"a@b", b"[::1", b"::1", b"a,b:80:80"])
def test_a_host_is_nothing_else(value: bytes) -> None:
    assert not is_host(value)
