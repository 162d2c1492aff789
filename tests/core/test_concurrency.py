"""How many calls of an actor run at once: never more than the limit, in order, and none is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actorrt.core.concurrency import Groups, Limiter


def test_a_call_waits_behind_the_limit_and_begins_in_order() -> None:
    limiter: Limiter[str] = Limiter(1)
    limiter.begin()
    assert limiter.is_full
    limiter.wait("second")
    limiter.wait("third")
    assert limiter.next() is None
    assert limiter.under_way == 3
    limiter.end()
    assert limiter.next() == "second"
    assert limiter.next() is None
    limiter.end()
    assert limiter.next() == "third"
    limiter.end()
    assert (limiter.next(), limiter.under_way) == (None, 0)


def test_a_call_that_is_withdrawn_does_not_begin() -> None:
    limiter: Limiter[str] = Limiter(1)
    limiter.wait("first")
    limiter.wait("second")
    assert limiter.withdraw("first")
    assert not limiter.withdraw("first")
    assert limiter.next() == "second"


def test_what_is_refused_waits_no_more() -> None:
    limiter: Limiter[str] = Limiter(1)
    limiter.begin()
    limiter.wait("second")
    assert limiter.refuse() == ["second"]
    assert limiter.refuse() == []
    assert limiter.under_way == 1


def test_a_call_names_its_group_or_belongs_to_that_of_its_method() -> None:
    groups: Groups[str] = Groups({"io": 2, "db": 1}, {"read": "io"})
    assert {name: limiter.limit for name, limiter in groups.limiters.items()} == {"io": 2, "db": 1}
    assert groups.name_of("read", "") == "io"
    assert groups.name_of("read", "db") == "db"
    assert groups.name_of("other", "") == ""


@given(limit=st.integers(1, 3), steps=st.lists(st.sampled_from(["come", "end", "withdraw"]), max_size=60))
def test_whatever_happens_calls_begin_in_order_and_no_room_stays_empty(limit: int, steps: list[str]) -> None:
    limiter: Limiter[int] = Limiter(limit)
    waiting: list[int] = []
    running: list[int] = []
    for number, step in enumerate(steps):
        if step == "come" and len(running) < limit:
            assert not limiter.is_full
            limiter.begin()
            running.append(number)
        elif step == "come":
            assert limiter.is_full
            limiter.wait(number)
            waiting.append(number)
        elif step == "withdraw" and waiting:
            assert limiter.withdraw(waiting.pop(len(waiting) // 2))
        elif step == "end" and running:
            running.pop()
            limiter.end()
            begun = limiter.next()
            assert begun == (waiting[0] if waiting else None)
            if begun is not None:
                running.append(waiting.pop(0))
        assert limiter.running == len(running) <= limit
        assert limiter.under_way == len(running) + len(waiting)
        assert not waiting or len(running) == limit
