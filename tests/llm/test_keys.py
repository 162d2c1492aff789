"""Whose key a request brings, and what it is told that brings none."""

from __future__ import annotations

import hmac

import pytest

from actorrt.serve.llm import ApiKey
from actorrt.serve.llm.keys import NOBODY, Keys
from actorrt.serve.llm.problems import Problem

KEYS = Keys([ApiKey.of("sk-a", "a"), ApiKey.of("sk-b", "b"), ApiKey.of("sk-c", "c")])


@pytest.mark.parametrize(
    ("authorization", "x_api_key", "tenant"),
    [
        (b"Bearer sk-a", None, "a"),
        (b"Bearer sk-b", None, "b"),
        (b"Bearer sk-c", None, "c"),
        (b"bearer sk-a", None, "a"),
        (b"  BEARER   sk-a  ", None, "a"),
        (None, b"sk-b", "b"),
        (None, b" sk-b ", "b"),
        (b"Bearer sk-a", b"sk-b", "a"),
        (b"Bearer sk-a", b"wrong", "a"),
        # What is no bearer's is not looked at.
        (b"Basic sk-a", b"sk-b", "b"),
        (b"Bearer", b"sk-b", "b"),
        (b"Bearer  ", b"sk-b", "b"),
        (b"", b"sk-b", "b"),
    ],
)
def test_a_key_is_found_where_each_api_sends_it(
    authorization: bytes | None, x_api_key: bytes | None, tenant: str
) -> None:
    assert KEYS.tenant_of(authorization, x_api_key) == tenant


@pytest.mark.parametrize(
    ("authorization", "x_api_key", "code"),
    [
        (None, None, "missing_api_key"),
        (b"Basic sk-a", None, "missing_api_key"),
        (b"Bearer", None, "missing_api_key"),
        (b"Bearersk-a", None, "missing_api_key"),
        (None, b"", "missing_api_key"),
        (None, b"  ", "missing_api_key"),
        (b"Bearer sk-", None, "invalid_api_key"),
        (b"Bearer sk-a sk-b", None, "invalid_api_key"),
        (b"Bearer SK-A", None, "invalid_api_key"),
        (b"Bearer \xff", None, "invalid_api_key"),
        (b"Bearer wrong", b"sk-a", "invalid_api_key"),
        (None, b"Bearer sk-a", "invalid_api_key"),
        (None, ApiKey.of("sk-a", "a").sha256.encode(), "invalid_api_key"),
    ],
)
def test_any_other_is_refused(authorization: bytes | None, x_api_key: bytes | None, code: str) -> None:
    with pytest.raises(Problem) as caught:
        KEYS.tenant_of(authorization, x_api_key)
    assert (caught.value.status, caught.value.code) == (401, code)
    assert caught.value.headers == ((b"www-authenticate", b"Bearer"),)


def test_without_keys_everybody_is_nobody_whatever_he_sends() -> None:
    assert Keys([]).tenant_of(None, None) == NOBODY == "default"
    assert Keys([]).tenant_of(b"Bearer x", b"y") == NOBODY


@pytest.mark.parametrize("key", [b"sk-a", b"sk-c", b"wrong"])
def test_each_key_is_compared_in_constant_time_whichever_it_is(key: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bytes] = []
    digest = hmac.compare_digest

    def compare(known: bytes, given: bytes) -> bool:
        compared.append(known)
        return digest(known, given)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    try:
        KEYS.tenant_of(b"Bearer " + key, None)
    except Problem:
        assert key == b"wrong"
    assert [each.hex() for each in compared] == [ApiKey.of(f"sk-{name}", name).sha256 for name in "abc"]
