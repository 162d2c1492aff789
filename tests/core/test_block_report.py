"""What is told of a blocked loop."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.core.block_report import (
    MOST_NAMED,
    Last,
    Sight,
    Told,
    is_on_purpose,
    others_elsewhere,
    report,
    title_of,
)
from actorrt.core.watchdog import LONG_WORK_S

SIGHT = Sight("Counter.add", True, False, "c.py:3, in add", "  File c.py, line 3\n")
NOTHING = Sight("", False, False, "", "")


def test_who_blocks_is_named_with_the_line_and_those_who_wait() -> None:
    told = report(SIGHT, None, ["Other"], kept_the_gil=False)
    assert told.startswith("Counter.add; use await, or @method(thread=True)")
    assert told.endswith("; meanwhile it holds up Other\n  File c.py, line 3\n")
    assert report(SIGHT._replace(who=""), None, [], kept_the_gil=False).startswith("a callback; use await")


def test_an_import_is_told_by_its_line_alone() -> None:
    told = report(SIGHT._replace(importing=True), None, ["Other"], kept_the_gil=False)
    assert told == ("Counter.add, with an import at c.py:3, in add: import modules where they are not waited for\n")


def test_what_is_no_users_doing_is_not_told() -> None:
    assert report(SIGHT._replace(by_user=False), Last("f", False), [], kept_the_gil=False) == ""
    assert report(NOTHING, None, [], kept_the_gil=True) == ""
    assert report(NOTHING, Last("f", True), [], kept_the_gil=True) == ""
    assert report(NOTHING._replace(importing=True), Last("f", False), [], kept_the_gil=True) == ""


def test_code_that_kept_the_gil_and_is_over_is_known_by_the_last_call() -> None:
    told = report(NOTHING, Last("f", False), [], kept_the_gil=True)
    assert told.startswith("code that kept the GIL and has returned, last of f; use await")
    # One that is there still is the one.
    assert report(SIGHT, Last("f", False), [], kept_the_gil=True).startswith("Counter.add; ")


def test_of_many_who_wait_some_are_named() -> None:
    titles = [f"A{number}" for number in range(MOST_NAMED + 3)]
    told = report(SIGHT, None, titles, kept_the_gil=False)
    assert f"A{MOST_NAMED - 1} and 3 more\n" in told
    assert f"A{MOST_NAMED}," not in told


@pytest.mark.parametrize(
    ("call", "actor", "title"),
    [("f", None, "f"), ("add", "Counter", "Counter.add"), ("Counter.add", "Counter", "Counter.add")],
)
def test_a_call_is_named_with_its_actor_once(call: str, actor: str | None, title: str) -> None:
    assert title_of(call, actor) == title


@pytest.mark.parametrize(
    ("has_process", "being_made", "may_block", "on_purpose"),
    [(True, True, False, True), (True, False, False, False), (False, True, False, False), (False, False, True, True)],
)
def test_a_constructor_with_a_process_to_itself_and_a_method_that_says_so_may_block(
    has_process: bool, being_made: bool, may_block: bool, on_purpose: bool
) -> None:
    assert is_on_purpose(has_process, being_made, may_block) is on_purpose


@given(
    who=st.sampled_from(["", "f"]),
    blocked_s=st.floats(0, 2 * LONG_WORK_S),
    users=st.booleans(),
    on_purpose=st.booleans(),
    holds_up=st.booleans(),
    has_process=st.booleans(),
)
def test_others_go_elsewhere_at_once_for_users_code_and_later_for_all_else(
    who: str, blocked_s: float, users: bool, on_purpose: bool, holds_up: bool, has_process: bool
) -> None:
    told = others_elsewhere(
        who, blocked_s, users=users, on_purpose=on_purpose, holds_up=holds_up, has_process=has_process
    )
    by_user = users and not on_purpose
    assert (told is not None) is (not has_process and (by_user or blocked_s >= LONG_WORK_S))
    if told is not None:
        # Harm is what ends a worker: only a user's code that others wait for does any.
        assert told == Told(who or "the runtime", by_user and holds_up)
