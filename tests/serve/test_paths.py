"""Which application a path belongs to, what a proxy answers by itself, and what a websocket's client is shown."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.exceptions import ActorrtError
from actorrt.serve.http.websocket_rules import (
    ACCEPT,
    CLOSE,
    DENY,
    DENY_BODY,
    INTERNAL_ERROR,
    SEND,
    Shown,
    WebsocketState,
    failure,
)
from actorrt.serve.proxy.paths import LONGEST_MATCHED, MOST_MATCHED, Paths, own_answer, websocket_denial

ROUTES = {"/": "all", "/a": "a", "/a/b": "b"}


def app(paths: Paths, raw_path: bytes) -> str | None:
    route = paths.match(raw_path)[0]
    return route.app if route is not None else None


@pytest.mark.parametrize("root", ["", "/root"])
def test_a_path_is_matched_below_the_root_path_and_without_it(root: str) -> None:
    paths = Paths(root)
    assert app(paths, b"/a") is None
    paths.told(ROUTES)
    for before in {"", root}:
        raw = before.encode()
        assert app(paths, raw + b"/a/x") == "a"
        assert app(paths, raw + b"/a/b/x") == "b"
        assert app(paths, raw + b"/x") == "all"
        assert paths.match(raw + b"/a/%20") == (paths.match(b"/a")[0], b"/a/%20", "/a/ ")
        # The proxy's own.
        assert paths.match(raw + b"/-/routes") == (None, b"/-/routes", "/-/routes")
    assert paths.root_path_of("/") == root.encode()
    assert paths.root_path_of("/a") == root.encode() + b"/a"


@given(st.lists(st.sampled_from((b"/a", b"/a/b", b"/a%2fb", b"/x", b"/-/x", b"/a/" + b"y" * LONGEST_MATCHED))))
def test_what_is_remembered_is_what_would_be_found(asked: list[bytes]) -> None:
    paths = Paths("")
    paths.told(ROUTES)
    for raw_path in asked:
        fresh = Paths("")
        fresh.told(ROUTES)
        assert paths.match(raw_path) == fresh.match(raw_path)
    paths.told({})
    assert {app(paths, raw_path) for raw_path in asked} <= {None}


def test_no_client_makes_a_proxy_remember_without_end() -> None:
    paths = Paths("")
    for number in range(3 * MOST_MATCHED):
        paths.match(b"/%d" % number)
        paths.match(b"/%d" % number + b"x" * LONGEST_MATCHED)
        assert len(paths._matched) <= MOST_MATCHED


@pytest.mark.parametrize("draining", [False, True])
@pytest.mark.parametrize("awaited", ["", "the controller"])
@pytest.mark.parametrize("path", ["/-/healthz", "/-/routes", "/-/other", "/other"])
def test_what_a_proxy_answers_by_itself(path: str, awaited: str, draining: bool) -> None:
    answer = own_answer(path, 0, b"x-request-id: 7\r\n", is_draining=draining, awaited=awaited, routes={"/a": "a"})
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\nx-request-id: 7" in head
    status = int(head[9:12])
    if path == "/-/healthz" and draining:
        assert (status, body) == (503, b"draining")
    elif awaited and path in ("/-/healthz", "/other"):
        assert (status, body) == (503, b"starting: the controller")
        assert b"\r\nretry-after: 1" in head
    elif path == "/-/healthz":
        assert (status, body) == (200, b"success")
    elif path == "/-/routes":
        assert (status, body) == (200, b'{"/a":"a"}')
    else:
        assert status == 404
        assert body == f"no application has the path {path!r}; /-/routes lists their prefixes".encode()


def test_a_websocket_that_nobody_takes_may_come_again_where_somebody_may() -> None:
    assert [websocket_denial(awaited)[0]["status"] for awaited in (False, True)] == [403, 503]


EVENTS = (ACCEPT, SEND, CLOSE, DENY, DENY_BODY)


@pytest.mark.parametrize("shown", [(), *itertools.product(EVENTS, repeat=1), *itertools.product(EVENTS, repeat=2)])
def test_a_client_hears_of_a_lost_replica_once_and_in_the_form_that_fits(shown: tuple[str, ...]) -> None:
    client = Shown()
    assert all(client.takes(kind) for kind in shown)
    events = client.broken_off(ActorrtError("it crashed"), "app/d", "d#1")
    if client.state is WebsocketState.CONNECTING:
        assert events[0]["status"] == 503
    elif client.state is WebsocketState.OPEN:
        assert events == [{"type": CLOSE, "code": INTERNAL_ERROR, "reason": ""}]
    else:
        assert events == failure(client.state, None)


def test_a_client_that_has_gone_is_shown_nothing_more() -> None:
    client = Shown()
    assert client.takes(ACCEPT)
    client.left()
    assert not client.takes(SEND)
    assert client.state is WebsocketState.OPEN
