"""Who hears of messages that are lost since they cannot be written or read."""

from __future__ import annotations

from typing import Any

import pytest

from actorrt.wire.link import Ending
from actorrt.wire.messages import ActorCall, Define, Item, ItemValue, Outcome, Ping, Reply, StartActor, TaskCall, tag_of
from actorrt.wire.undelivered import CALLS, RESULTS, Hears, unreadable, unsendable


@pytest.mark.parametrize("kind", [ActorCall, TaskCall, StartActor])
@pytest.mark.parametrize("awaited", [False, True])
def test_a_call_fails_at_its_caller(kind: type[Any], awaited: bool) -> None:
    assert unsendable(kind) is Hears.HERE
    assert unreadable(tag_of(kind), awaited) is Hears.PEER


@pytest.mark.parametrize("kind", [Reply, Outcome, Item, ItemValue])
def test_a_result_fails_the_call_that_it_is_of(kind: type[Any]) -> None:
    assert unsendable(kind) is Hears.PEER
    assert unreadable(tag_of(kind), awaited=True) is Hears.HERE
    assert unreadable(tag_of(kind), awaited=False) is Hears.NOBODY


@pytest.mark.parametrize("kind", [Define, Ping])
def test_what_belongs_to_no_call_is_only_logged(kind: type[Any]) -> None:
    assert unsendable(kind) is Hears.NOBODY
    assert unreadable(tag_of(kind), awaited=True) is Hears.NOBODY


def test_what_fails_a_call_has_its_number() -> None:
    assert all("seq" in kind.__struct_fields__ for kind in (*CALLS, *RESULTS))


@pytest.mark.parametrize("ending", Ending)
def test_a_link_that_is_lost_says_nothing_about_the_process_behind_it(ending: Ending) -> None:
    assert ending.is_death == (ending is Ending.DIED)
    assert ending.leaves_doubt == (ending is Ending.LOST)
