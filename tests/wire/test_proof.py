"""Two sides that have the token prove it to each other; with anything else both end with a sentence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.wire.proof import (
    LINE_LIMIT,
    NONCE_BYTES,
    NOT_ACTORRT,
    OTHER_TOKEN,
    SPEAKS_TLS,
    Dialling,
    Listening,
    Stage,
)

TOKEN = "a token of the cluster"
NONCES = st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES)


def sides(
    mine: str = TOKEN,
    theirs: str = TOKEN,
    protocols: tuple[int, int] = (3, 3),
    bindings: tuple[bytes, bytes] = (b"", b""),
    nonces: tuple[bytes, bytes] = (b"d" * NONCE_BYTES, b"l" * NONCE_BYTES),
) -> tuple[Dialling, Listening]:
    return (
        Dialling(mine, protocols[0], "0.1", nonces[0], bindings[0]),
        Listening(theirs, protocols[1], "0.2", nonces[1], bindings[1]),
    )


def talk(dialler: Dialling, listener: Listening, cut: int = LINE_LIMIT) -> list[bytes]:
    """Let them talk until neither says anything more: all that was said."""
    said = [dialler.first()]
    to, other = listener, dialler
    while said[-1]:
        line, answer = said[-1], b""
        for start in range(0, len(line), cut):
            answer += to.heard(line[start : start + cut])
        said.append(answer)
        to, other = other, to
    return said[:-1]


@given(nonces=st.tuples(NONCES, NONCES), token=st.text(), binding=st.binary(max_size=32), cut=st.integers(1, 60))
def test_with_one_token_both_are_proven_however_the_bytes_are_cut(
    nonces: tuple[bytes, bytes], token: str, binding: bytes, cut: int
) -> None:
    dialler, listener = sides(token, token, bindings=(binding, binding), nonces=nonces)
    said = talk(dialler, listener, cut)
    assert dialler.is_proven
    assert listener.is_proven
    assert not any(token.encode() in line for line in said if len(token) > 10)


@given(mine=st.text(), theirs=st.text())
def test_with_another_token_neither_is_proven_and_both_say_why(mine: str, theirs: str) -> None:
    dialler, listener = sides(mine, theirs)
    talk(dialler, listener)
    assert dialler.is_proven is listener.is_proven is (mine == theirs)
    assert {dialler.why, listener.why} == ({""} if mine == theirs else {OTHER_TOKEN})


def test_who_stands_in_between_with_another_certificate_is_refused() -> None:
    dialler, listener = sides(bindings=(b"the certificate of somebody else", b"the certificate"))
    talk(dialler, listener)
    assert dialler.why == listener.why == OTHER_TOKEN


def test_another_protocol_is_refused_by_a_sentence_on_both_sides() -> None:
    dialler, listener = sides(protocols=(4, 3))
    talk(dialler, listener)
    assert dialler.why == listener.why
    assert "actorrt of the dialler speaks protocol 4, actorrt 0.2 speaks 3" in dialler.why


def test_a_proof_cannot_be_said_back_or_again() -> None:
    dialler, listener = sides()
    _, _, proof, answer = talk(dialler, listener)
    # By the dialler, to another connection of the listener.
    _, again = sides(nonces=(b"d" * NONCE_BYTES, b"m" * NONCE_BYTES))
    again.heard(b"actorrt/0003 " + (b"d" * NONCE_BYTES).hex().encode() + b"\n")
    assert again.heard(proof).startswith(b"refused ")
    # To the dialler, its own.
    other, _ = sides()
    other.heard(b"actorrt/0003 " + (b"l" * NONCE_BYTES).hex().encode() + b"\n")
    assert other.heard(proof).startswith(b"refused ")
    assert answer != proof


def test_a_dialler_gives_a_listener_nothing_but_a_nonce_before_it_has_one() -> None:
    dialler, _ = sides()
    assert dialler.first() == b"actorrt/0003 " + b"64" * NONCE_BYTES + b"\n"


@pytest.mark.parametrize("said", [b"\x16\x03\x01\x02\x00", b"\x15\x03\x03\x00\x02"])
def test_who_speaks_tls_is_told_so(said: bytes) -> None:
    for side in sides():
        assert side.heard(said) == b"refused " + SPEAKS_TLS.encode() + b"\n"


@given(said=st.lists(st.binary(max_size=400), min_size=1), begins=st.sampled_from([b"", b"actorrt/", b"actorrt/0003 "]))
def test_nothing_but_the_lines_is_held_or_believed(said: list[bytes], begins: bytes) -> None:
    for side in sides():
        side.heard(begins)
        for data in said:
            if side.why:
                break
            side.heard(data[: side.room])
            assert 0 < side.room <= LINE_LIMIT
            assert not side.is_proven
        assert side.why.isprintable()


def test_what_is_refused_with_is_shown_without_what_moves_a_cursor() -> None:
    dialler, _ = sides()
    dialler.heard(b"refused \x1b[2Jgo away\n")
    assert (dialler.stage, dialler.why) == (Stage.REFUSED, "[2Jgo away")
    empty, _ = sides()
    empty.heard(b"refused \n")
    assert empty.why == NOT_ACTORRT
