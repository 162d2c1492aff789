"""How long answers and waits will be: what is learnt, from what, and what is said where nothing is known."""

from __future__ import annotations

import random

import pytest

from actorrt.serve.capacity import drain, output_lengths
from actorrt.serve.capacity.drain import DrainRate, retry_after
from actorrt.serve.capacity.output_lengths import FIRST_GUESS, OutputLengths


def test_what_is_not_known_is_guessed_and_never_more_than_was_asked_for() -> None:
    lengths = OutputLengths()
    assert lengths.expect("m", "t", 100) == FIRST_GUESS
    assert lengths.expect("m", "t", 100, max_tokens=7) == 7
    assert lengths.expect("m", "t", 100, max_tokens=0) == 0


def test_the_quantile_of_what_came_is_expected() -> None:
    lengths = OutputLengths(0.7)
    dice = random.Random(1)
    for _ in range(400):
        lengths.learn("m", "t", 100, dice.randint(1, 1000))
    assert 700 <= lengths.expect("m", "t", 100) <= 700 * 1.2 * 1.1
    assert lengths.expect("m", "t", 100, max_tokens=50) == 50


def test_tenants_and_lengths_of_prompts_are_told_apart_once_there_are_enough() -> None:
    lengths = OutputLengths()
    for _ in range(output_lengths.ENOUGH):
        lengths.learn("m", "chats", 100, 20)
        lengths.learn("m", "writes", 100, 2000)
        lengths.learn("m", "chats", 5000, 300)
    assert lengths.expect("m", "chats", 100) < 30
    assert lengths.expect("m", "writes", 100) >= 2000
    assert 300 <= lengths.expect("m", "chats", 5000) < 400
    # A tenant of whom nothing is known is as the model's are, and a new model as all.
    assert lengths.expect("m", "new", 100) >= 300
    assert lengths.expect("new", "new", 100) >= 300


def test_what_changes_is_followed() -> None:
    lengths = OutputLengths()
    for _ in range(5000):
        lengths.learn("m", "t", 100, 10)
    for _ in range(2 * output_lengths.MEMORY):
        lengths.learn("m", "t", 100, 1000)
    assert lengths.expect("m", "t", 100) >= 1000


def test_strangers_do_not_fill_the_memory() -> None:
    lengths = OutputLengths()
    for number in range(output_lengths.MOST_GROUPS * 2):
        lengths.learn("m", str(number), 100, 10)
    assert len(lengths._groups) == output_lengths.MOST_GROUPS  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize("wrong", [0.0, 1.0, -1.0, float("nan")])
def test_a_quantile_that_is_none_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        OutputLengths(wrong)


def test_a_steady_rate_is_known_from_the_beginning_on_and_a_change_within_the_window() -> None:
    rate = DrainRate(now=100.0)
    assert rate.per_s(100.0) == 0
    assert rate.wait_s(10, 100.0) is None
    now = 100.0
    for step in range(1, 301):
        now = 100.0 + step / 10
        rate.add(50, now)
        assert rate.per_s(now) == pytest.approx(500, rel=0.15) or step < 10
    assert rate.wait_s(5000, now) == pytest.approx(10, rel=0.05)
    for step in range(1, 301):
        rate.add(10, now + step / 10)
    assert rate.per_s(now + 30) == pytest.approx(100, rel=0.3)
    assert rate.per_s(now + 30 + 10 * drain.WINDOW_S) < 1


def test_who_is_refused_is_told_when_there_will_be_room() -> None:
    told = retry_after(wait_s=30.0, deadline_s=10.0, chance=0.5)
    assert told.seconds == pytest.approx(21.0)
    assert (told.header, told.milliseconds, told.should_retry) == ("21", "21000", True)
    assert retry_after(None, 10.0, 0.0).header == "1"
    assert retry_after(10.1, 10.0, 0.0).header == "1"
    assert not retry_after(500.0, 10.0, 0.0).should_retry
