"""Coroutines at the same lines are told of once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actorrt.core.stacks import MOST_NAMES, MOST_STACKS, Coroutines, Frame, Gathering, Thread, coroutines_in, threads_in


@given(places=st.lists(st.integers(0, 5), max_size=40))
def test_each_coroutine_counts_at_its_lines(places: list[int]) -> None:
    gathering = Gathering()
    for number, line in enumerate(places):
        place = (("a.py", line),)
        if not gathering.is_known(place, f"task {number}"):
            gathering.add(place, f"task {number}", [Frame("a.py", line, "f")], "")
    counts = {each.frames[0].line: each.number for each in gathering.found}
    assert counts == {line: places.count(line) for line in set(places)}
    assert all(len(each.names) == min(MOST_NAMES, each.number) for each in gathering.found)
    assert sorted(counts.values(), reverse=True) == [each.number for each in gathering.found]


def test_those_beyond_the_limit_are_counted() -> None:
    gathering = Gathering()
    for line in range(MOST_STACKS + 3):
        if not gathering.is_known((("a.py", line),), "task"):
            gathering.add((("a.py", line),), "task", [], "")
    assert (len(gathering.found), gathering.left_out) == (MOST_STACKS, 3)


def test_stacks_are_read_as_they_were_sent() -> None:
    frame = Frame("a.py", 3, "f", "await x", True)
    assert threads_in([["main", [list(frame)], "work"]]) == [Thread("main", [frame], "work")]
    assert coroutines_in([[["A.f"], 2, [list(frame)], ""]]) == [Coroutines(["A.f"], 2, [frame], "")]
