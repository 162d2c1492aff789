"""Counts and histograms as plain numbers, and how many values a label may have."""

from __future__ import annotations

import pickle

import pytest

from actorrt.serve.llm.tallies import MOST_VALUES, OTHER, Bounded, Counter, Histogram


def test_a_label_has_a_thousand_values_and_those_it_has_stay() -> None:
    label = Bounded()
    values = [str(number) for number in range(MOST_VALUES)]
    assert (MOST_VALUES, OTHER) == (1000, "other")
    assert [label(each) for each in values] == values
    assert [label("new"), label("newer"), label("new")] == [OTHER] * 3
    assert [label(each) for each in values] == values


@pytest.mark.parametrize(("most", "found"), [(0, ["other"] * 3), (1, ["a", "other", "a"]), (2, ["a", "b", "a"])])
def test_a_label_has_as_many_values_as_it_may(most: int, found: list[str]) -> None:
    label = Bounded(most)
    assert [label(each) for each in "aba"] == found


@pytest.mark.parametrize(
    ("value", "counts"),
    [
        (-1, [1, 0, 0]),
        (0, [1, 0, 0]),
        (1, [1, 0, 0]),
        (1.001, [0, 1, 0]),
        (2, [0, 1, 0]),
        (2.001, [0, 0, 1]),
        (float("inf"), [0, 0, 1]),
    ],
)
def test_a_value_lies_below_the_first_bound_that_it_does_not_exceed(value: float, counts: list[int]) -> None:
    histogram = Histogram((1, 2))
    histogram.add(("a",), value)
    assert histogram.series == {("a",): (counts, [value])}


def test_each_series_of_a_histogram_has_its_own_counts_and_sum() -> None:
    histogram = Histogram(iter((1, 2)))
    assert histogram.bounds == (1, 2)
    for labels, value in [(("a",), 1.5), (("b",), 5), (("a",), 0.5), (("a",), 1.5)]:
        histogram.add(labels, value)
    assert histogram.series == {("a",): ([1, 2, 0], [3.5]), ("b",): ([0, 0, 1], [5])}


def test_a_counter_adds_one_or_what_is_given_and_goes_down_too() -> None:
    counter = Counter()
    counter.add(("a",))
    assert counter.series == {("a",): 1}
    counter.add(("a",))
    counter.add(("b",), 5)
    counter.add(("a",), -1)
    assert counter.series == {("a",): 1, ("b",): 5}


def test_what_is_counted_can_be_sent_to_another_process() -> None:
    histogram, counter = Histogram((1,)), Counter()
    histogram.add(("a",), 2)
    counter.add(("a",), 2)
    again = pickle.loads(pickle.dumps((histogram, counter)))
    assert again[0].bounds == (1,)
    assert (again[0].series, again[1].series) == (histogram.series, counter.series)
