"""Which work is ended when memory runs short."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.core.memory_watch import MIB, MemoryWatch, Reading, Work
from actorrt.types import ProcessId

FULL: Final = Reading(96 * MIB, 100 * MIB, "the machine")
READINGS: Final = st.lists(st.builds(Reading, st.integers(0, 1000), st.integers(0, 1000), st.just("memory")))


def process(number: int) -> ProcessId:
    return ProcessId(number.to_bytes(8, "big"))


def work(number: int, age_s: float, may_repeat: bool) -> Work:
    return Work(process(number), f"task {number}", number * MIB, age_s, may_repeat)


WORKS: Final = st.lists(
    st.builds(work, st.integers(0, 20), st.floats(0, 1e6), st.booleans()), unique_by=lambda one: one.process
)


@given(readings=READINGS, threshold=st.floats(0, 1))
def test_memory_is_short_where_more_is_used_than_may_be(readings: list[Reading], threshold: float) -> None:
    found = MemoryWatch(threshold).short(readings)
    over = [one for one in readings if one.limit and one.used > threshold * one.limit]
    assert (found is None) == (not over)
    if found is not None:
        assert all(found.used / found.limit >= one.used / one.limit for one in over)


@given(works=WORKS)
def test_the_newest_that_may_be_repeated_goes_first_then_the_newest_that_may_not(works: list[Work]) -> None:
    watch = MemoryWatch(0.95)
    left = {one.process: one for one in works}
    gone: list[Work] = []
    while left:
        victim = watch.victim(FULL, left.values(), left)
        assert victim is not None
        # It is still ending: nobody else is ended for the same want.
        assert watch.victim(FULL, left.values(), left) is None
        gone.append(left.pop(victim.process))
    assert watch.victim(FULL, (), ()) is None
    assert [one.may_repeat for one in gone] == sorted((one.may_repeat for one in works), reverse=True)
    for some in ([one for one in gone if one.may_repeat], [one for one in gone if not one.may_repeat]):
        assert [one.age_s for one in some] == sorted(one.age_s for one in some)


@pytest.mark.parametrize("may_repeat", [True, False])
def test_the_reason_says_how_much_was_used_by_whom(may_repeat: bool) -> None:
    victim = MemoryWatch(0.95).victim(FULL, [work(7, 1.0, may_repeat)], [process(7)])
    assert victim is not None
    assert "96 of 100 MiB of the machine were used, 7 MiB of them by task 7" in victim.reason
    assert ("may not be repeated" in victim.reason) is not may_repeat
