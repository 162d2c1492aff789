"""Every message comes back as it was sent, alone and in a batch; anything else is refused."""

from __future__ import annotations

from enum import Enum
from functools import cache
from types import UnionType
from typing import Any, NewType, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.wire.messages import (
    AnswerBody,
    AnyMessage,
    Ask,
    Hello,
    Outcome,
    Question,
    Reply,
    Unreadable,
    decode_batch,
    decode_each,
    decode_hello,
    encode_batch,
    encode_hello,
    tag_of,
)

# What a fact may be: whatever JSON can say, and bytes.
FACTS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**31), 2**31) | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    # As far as msgpack goes.
    int: st.integers(-(2**63), 2**64 - 1),
    bool: st.booleans(),
    str: st.text(max_size=5),
    bytes: st.binary(max_size=8),
    float: st.floats(allow_nan=False),
    type(None): st.none(),
    Any: FACTS,
}


@cache
def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a type that occurs in messages."""
    if kind in PLAIN:
        return PLAIN[kind]
    if isinstance(kind, NewType):
        return values_of(kind.__supertype__)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return st.sampled_from(kind)
    if isinstance(kind, type) and issubclass(kind, tuple):
        return st.builds(kind, *map(values_of, get_type_hints(kind).values()))
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return st.one_of([values_of(one) for one in inner])
    if origin is list:
        return st.lists(values_of(inner[0]), max_size=3)
    if origin is tuple:
        if inner[1:] == (...,):
            return st.lists(values_of(inner[0]), max_size=2).map(tuple)
        return st.tuples(*map(values_of, inner))
    if origin is dict:
        return st.dictionaries(values_of(inner[0]), values_of(inner[1]), max_size=3)
    return st.builds(kind, *(values_of(field.type) for field in msgspec.structs.fields(kind)))


KINDS = get_args(AnyMessage)
MESSAGES = st.sampled_from(KINDS).flatmap(values_of)


@given(MESSAGES)
def test_a_message_comes_back_as_it_was(message: Any) -> None:
    [back] = decode_batch(encode_batch([message]))
    assert type(back) is type(message)
    assert back == message


@given(st.lists(MESSAGES, max_size=6))
def test_a_batch_keeps_its_order(batch: list[Any]) -> None:
    assert decode_batch(encode_batch(batch)) == batch


@given(values_of(Hello))
def test_a_hello_comes_back_as_it_was(hello: Hello) -> None:
    assert decode_hello(encode_hello(hello)) == hello


@given(st.binary(max_size=60))
def test_noise_is_refused_or_is_a_batch(noise: bytes) -> None:
    try:
        batch = decode_batch(noise)
    except msgspec.DecodeError:
        return
    # Not every batch is written in the shortest way, but each is one.
    assert decode_batch(encode_batch(batch)) == batch


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        msgspec.msgpack.encode(7),
        msgspec.msgpack.encode([[999, 1]]),
        msgspec.msgpack.encode([[3, "no number", b""]]),
        msgspec.msgpack.encode([[90, 1, [3, 1, b""]]]),
        encode_batch([Reply(1, b"x")])[:-1],
    ],
    ids=["nothing", "no array", "no such tag", "a wrong type", "no question", "cut short"],
)
def test_what_is_no_batch_is_refused(wrong: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_batch(wrong)


def test_what_is_left_off_at_the_end_has_its_default() -> None:
    assert decode_batch(msgspec.msgpack.encode([[4, 7, 2]])) == [Outcome(7, 2)]


def test_no_two_messages_share_a_tag() -> None:
    kinds = {*KINDS, *get_args(Question), *get_args(AnswerBody)}
    tags = [kind.__struct_config__.tag for kind in kinds]
    assert len(set(tags)) == len(tags)


def test_a_message_that_is_none_costs_itself_and_says_which_it_was() -> None:
    pieces = msgspec.msgpack.decode(encode_batch([Reply(1, b"x"), Reply(3, b"y")]))
    payload = msgspec.msgpack.encode([pieces[0], [90, 7, [70, None, 5]], [999], "text", pieces[1]])
    first, question, unknown, text, last = decode_each(payload)
    assert (first, last) == (Reply(1, b"x"), Reply(3, b"y"))
    assert isinstance(question, Unreadable)
    assert (question.tag, question.number) == (tag_of(Ask), 7)
    assert [(one.tag, one.number) for one in (unknown, text) if isinstance(one, Unreadable)] == [(999, 0), (0, 0)]


@given(st.lists(st.none() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary() | st.lists(st.integers(0, 99))))
def test_whatever_lies_in_a_frame_each_piece_is_a_message_or_unreadable(pieces: list[object]) -> None:
    assert len(decode_each(msgspec.msgpack.encode(pieces))) == len(pieces)
