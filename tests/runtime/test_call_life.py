"""The rows of core/calls.py that a call's shell writes out, since every call takes them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from actorrt.core.calls import CallLife
from actorrt.runtime.owner.calls import Call
from actorrt.wire.messages import ActorCall, Cancel


def call_and_link() -> tuple[Call, Any, list[Any]]:
    runtime: Any = SimpleNamespace(process=b"")
    sent: list[Any] = []
    link = SimpleNamespace(inflight={}, push=sent.append)
    return Call(runtime, ActorCall(1, b"", "method", b""), None, "method"), link, sent


def life_of(call: CallLife) -> dict[str, Any]:
    return {name: getattr(call, name) for name in CallLife.__slots__}


def test_a_call_begins_its_life_as_all_do() -> None:
    call, _, _ = call_and_link()
    assert life_of(call) == life_of(CallLife())


def test_a_call_is_sent_and_answered_as_the_table_has_it() -> None:
    (call, link, sent), life = call_and_link(), CallLife()
    call.push(link)
    life.sent()
    assert life_of(call) == life_of(life)
    assert sent == [call.message]
    assert link.inflight == {1: call}
    call.succeed(b"first")
    assert life.answered()
    assert life_of(call) == life_of(life)
    # A call ends once.
    call.succeed(b"second")
    assert call.entry.data == b"first"


def test_a_cancellation_follows_a_call_that_was_asked_for_while_it_came_back() -> None:
    call, link, sent = call_and_link()
    call.ask(force=True)
    call.push(link)
    assert sent == [call.message, Cancel(1, True)]
