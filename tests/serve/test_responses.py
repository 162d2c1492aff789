import datetime as dt
import json
import uuid
from dataclasses import dataclass
from enum import Enum
from typing import Any

import h11
import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.serve.http.request_head import (
    CLOSE,
    HEAD,
    HTTP_1_0,
    REQUEST_ID,
    connection_line,
    method_and_path,
    pack_head,
    scope_of,
)
from actorrt.serve.http.responses import Plain, ResponseBytes, ResponseError, coerce, error_page, ok, to_json, whole
from actorrt.serve.http.retry import retry_headers
from actorrt.serve.http.routes import Route, RouteTable


class Model(pydantic.BaseModel):
    at: dt.date


@dataclass
class Point:
    x: int


class Colour(Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "kind", "body"),
    [
        ("é", b"text/plain; charset=utf-8", "é".encode()),
        (b"\x00", b"application/octet-stream", b"\x00"),
        (bytearray(b"ab"), b"application/octet-stream", b"ab"),
        (memoryview(b"ab"), b"application/octet-stream", b"ab"),
        (None, b"application/json", b"null"),
        ({"a": [1, 2.5, None, True]}, b"application/json", b'{"a":[1,2.5,null,true]}'),
        ({1: "x"}, b"application/json", b'{"1":"x"}'),
        (Model(at=dt.date(2026, 1, 2)), b"application/json", b'{"at":"2026-01-02"}'),
        ([Point(1)], b"application/json", b'[{"x":1}]'),
        (Colour.RED, b"application/json", b'"red"'),
        (uuid.UUID(int=1), b"application/json", b'"00000000-0000-0000-0000-000000000001"'),
        (np.float32(1.5), b"application/json", b"1.5"),
        ({"a": np.arange(3)}, b"application/json", b'{"a":[0,1,2]}'),
    ],
)
def test_what_user_code_returns_becomes_a_response(value: object, kind: bytes, body: bytes) -> None:
    assert coerce(value) == Plain(200, [(b"content-type", kind)], body)


@given(
    value=st.one_of(st.text(), st.binary(), st.none(), st.dictionaries(st.text(), st.integers(-(2**60), 2**60))),
    framing=st.integers(0, 7),
)
def test_the_short_way_gives_the_same_bytes(value: object, framing: int) -> None:
    each = b"x-request-id: r\r\n"
    short, plain = ok(value, framing, each), whole(coerce(value), framing, each)
    assert (sorted(short.split(b"\r\n")), short[-5:]) == (sorted(plain.split(b"\r\n")), plain[-5:])


def test_a_value_without_a_json_form_is_named() -> None:
    with pytest.raises(TypeError, match="no response and cannot be JSON: a object has no JSON form"):
        to_json({"a": object()})


class Nothing(pydantic.BaseModel):
    at: float


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_none_is_an_error_that_says_where_it_is(number: float) -> None:
    for value, where in [
        (number, ""),
        ([None, {"a": (1.0, number)}], r" at \[1\]\['a'\]\[1\]"),
        ({1: Nothing(at=number)}, r" at \['1'\]\['at'\]"),
        ([2**70, np.float32(number)], r" at \[1\]"),
    ]:
        with pytest.raises(ValueError, match=rf"has no nan and no infinity: {number}{where}$"):
            to_json(value)


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers(-(2**70), 2**70) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_is_refused_if_and_only_if_a_number_in_it_is_none(value: object) -> None:
    try:
        wanted = json.loads(json.dumps(value, allow_nan=False))
    except ValueError:
        with pytest.raises(ValueError, match="no nan and no infinity"):
            to_json(value)
    else:
        assert json.loads(to_json(value)) == wanted


def read(data: bytes, method: str = "GET", closed: bool = False) -> tuple[h11.Response, bytes, bool]:
    """What a strict client makes of the bytes, and whether it may use the connection again."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    if closed:
        client.receive_data(b"")
    response = client.next_event()
    assert isinstance(response, h11.Response)
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage), event
    return response, body, client.their_state is h11.DONE


PARTS = st.lists(st.binary(max_size=50), max_size=5)


@given(
    parts=PARTS,
    length=st.booleans(),
    method=st.sampled_from(["GET", "HEAD"]),
    close=st.booleans(),
    http10=st.booleans(),
)
def test_any_response_in_any_parts_is_read_back_by_a_strict_client(
    parts: list[bytes], length: bool, method: str, close: bool, http10: bool
) -> None:
    framing = (HEAD if method == "HEAD" else 0) | (CLOSE if close else 0)
    framing |= HTTP_1_0 if http10 else 0
    made = ResponseBytes(framing, b"x-request-id: r\r\n")
    whole_body = b"".join(parts)
    made.start(200, [(b"content-length", b"%d" % len(whole_body))] if length else [])
    data = b"".join([made.body(part, more=True) for part in parts]) + made.body(b"")
    response, body, reusable = read(data, method, closed=made.close)
    assert body == (b"" if method == "HEAD" else whole_body)
    assert dict(response.headers)[b"x-request-id"] == b"r"
    assert reusable or made.close
    assert made.complete


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_has_none(status: int) -> None:
    data = whole(Plain(status, [], b"ignored"), 0)
    assert data.endswith(b"\r\n\r\n")
    assert b"content-length" not in data
    assert b"chunked" not in data


def test_head_and_first_part_leave_in_one_piece() -> None:
    made = ResponseBytes(0)
    made.start(200, [])
    assert made.body(b"abc", more=True).endswith(b"\r\n\r\n3\r\nabc\r\n")
    assert made.body(b"", more=True) == b""
    assert made.body(b"de") == b"2\r\nde\r\n0\r\n\r\n"


def test_an_application_can_ask_for_the_end_of_the_connection_and_not_for_other_framing() -> None:
    made = ResponseBytes(0, b"x-request-id: ours\r\n")
    made.start(200, [(b"Connection", b"Close"), (b"Transfer-Encoding", b"chunked"), (b"X-Request-ID", b"theirs")])
    data = made.body(b"x")
    assert made.close
    assert data.count(b"connection: close\r\n") == 1
    assert data.count(b"transfer-encoding: chunked\r\n") == 1
    assert data.count(b"x-request-id") == 1


def test_what_an_application_sets_of_the_lines_of_every_head_is_what_its_client_gets() -> None:
    each = b"date: ours\r\nx-request-id: ours\r\n"
    made = ResponseBytes(0, each)
    made.start(200, [(b"X-Request-ID", b"theirs")])
    assert made.body(b"").partition(b"\r\n")[2].startswith(b"x-request-id: theirs\r\n")
    assert whole(Plain(200, [], b""), 0, each).count(b"ours") == 2
    for own in ((b"x-request-id", b"theirs"), (b"date", b"theirs")):
        data = whole(Plain(200, [own], b"x"), 0, each)
        assert data.count(own[0]) == 1
        assert data.count(b"theirs") == data.count(b"ours") == 1


@pytest.mark.parametrize(
    "header",
    [(b"a b", b"x"), (b"a\r\nb", b"x"), (b"a", b"x\r\ny: z"), (b"", b"x"), (b"content-length", b"-1"), (b"a", b"\x00")],
)
def test_a_header_that_would_split_the_response_is_refused(header: tuple[bytes, bytes]) -> None:
    with pytest.raises(ResponseError, match="bad"):
        ResponseBytes(0).start(200, [header])


def test_a_body_of_another_length_than_promised_is_refused() -> None:
    for parts in ([b"ab"], [b"abcd"], [b"a", b"abc"]):
        made = ResponseBytes(0)
        made.start(200, [(b"content-length", b"3")])
        with pytest.raises(ResponseError, match="length"):
            [made.body(part, more=part is not parts[-1]) for part in parts]
        assert not made.complete


def test_parts_out_of_order_are_refused() -> None:
    made = ResponseBytes(0)
    with pytest.raises(ResponseError):
        made.body(b"x")
    made.start(200, [])
    with pytest.raises(ResponseError, match="twice"):
        made.start(200, [])
    made.body(b"")
    with pytest.raises(ResponseError):
        made.body(b"x")
    with pytest.raises(ResponseError, match="no HTTP status"):
        ResponseBytes(0).start(7, [])


def test_an_error_page_says_when_to_come_again() -> None:
    response, body, _ = read(error_page(503, "full", 0, retry_after_s=1))
    assert (response.status_code, dict(response.headers)[b"retry-after"], body) == (503, b"1", b"full")


@pytest.mark.parametrize(
    ("wait_s", "said"),
    [
        (None, {}),
        (0.25, {b"retry-after": b"1", b"retry-after-ms": b"250"}),
        (120.0, {b"retry-after": b"120", b"retry-after-ms": b"120000"}),
        (120.5, {b"retry-after": b"121", b"retry-after-ms": b"120500", b"x-should-retry": b"false"}),
    ],
)
def test_who_is_to_wait_longer_than_clients_do_is_told_not_to_ask_again(
    wait_s: float | None, said: dict[bytes, bytes]
) -> None:
    assert dict(retry_headers(wait_s)) == said


SAFE = st.binary(max_size=30).filter(lambda value: b"\n" not in value)


@given(fields=st.lists(st.tuples(SAFE, SAFE)), query=SAFE, client=st.one_of(st.none(), st.just(("::1", 5))))
def test_a_head_is_the_same_after_the_trip(
    fields: list[tuple[bytes, bytes]], query: bytes, client: tuple[str, int] | None
) -> None:
    flat = [part for field in fields for part in field]
    line = connection_line("http", client, ("127.0.0.1", 8000))
    packed = pack_head(line, b"/r", b"GET", b"1.1", b"/r/a%20%C3%A9", query, b"id", flat)
    split = packed.split(b"\n")
    scope: dict[str, Any] = scope_of(split)
    assert scope["headers"] == fields
    assert (scope["query_string"], scope["client"], scope["server"]) == (query, client, ("127.0.0.1", 8000))
    assert (scope["path"], scope["raw_path"], scope["root_path"]) == ("/r/a é", b"/r/a%20%C3%A9", "/r")
    assert (split[REQUEST_ID], method_and_path(split)) == (b"id", "GET /r/a%20%C3%A9")


def test_a_line_break_never_gets_into_a_head() -> None:
    with pytest.raises(ValueError, match="line break"):
        pack_head(connection_line("http", None, None), b"", b"GET", b"1.1", b"/", b"", b"id", [b"a", b"b\nc: d"])


def test_the_longest_prefix_of_whole_segments_wins() -> None:
    table = RouteTable({"/": "root", "/a": "a", "/a/b": "ab"})
    found = {path: table.match(path) for path in ("/", "/x", "/a", "/a/", "/ab", "/a/b", "/a/b/c", "/a/bc")}
    assert {path: route.app for path, route in found.items() if route} == {
        "/": "root", "/x": "root", "/a": "a", "/a/": "a", "/ab": "root", "/a/b": "ab", "/a/b/c": "ab", "/a/bc": "a",
    }  # fmt: skip
    assert table.as_dict() == {"/": "root", "/a": "a", "/a/b": "ab"}
    assert RouteTable({"/a": "a"}).match("/b") is None
    assert RouteTable({"/a": "a"}).match("/a/x") == Route("/a", "a")
