"""Figures become verdicts: pairs of rounds, medians, directions, and what is said where a figure is missing."""

import json

import pytest

from loadtests.catalogue import MEASURES, OURS, ROWS, Bound, Relation, Row
from loadtests.markdown import BEGIN, END, new_page, number, put_into
from loadtests.plan import WORKLOADS, choose_rows, choose_sides, choose_workloads, steps
from loadtests.record import Record, from_json
from loadtests.report import Outcome, Verdict, changes, judge, verdict
from loadtests.revision import resolve
from loadtests.sides import BEFORE, ENVIRONMENTS, SIDES

RATIO = Bound("calls.in_flight", 0.5, 1.5, "aiohttp_link", Relation.TIMES)
ROW = Row("calls", "calls", (RATIO,))


def outcome(number: int, side: str, figure: float, measure: str = "calls.in_flight") -> Outcome:
    return Outcome(number, "calls", side, {measure: figure})


def test_every_bound_stands_on_a_measure_that_both_sides_give() -> None:
    giver = {name: workload for workload in WORKLOADS for name in workload.gives}
    for row in ROWS:
        for bound in row.bounds:
            assert OURS in giver[bound.measure].sides
            if bound.against is not None:
                assert bound.against in giver[bound.theirs].sides
            if bound.relation is Relation.TIMES:
                assert MEASURES[bound.measure].more_is_better


def test_every_measure_is_given_by_one_workload() -> None:
    given = [name for workload in WORKLOADS for name in workload.gives]
    assert sorted(given) == sorted(MEASURES)


def test_every_side_of_a_workload_is_known_and_can_be_installed() -> None:
    for workload in WORKLOADS:
        for side in workload.sides:
            assert SIDES[side].environment is None or SIDES[side].environment in ENVIRONMENTS


def test_row_keys_are_unique() -> None:
    keys = [row.key for row in ROWS]
    assert len(set(keys)) == len(keys)


def test_the_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    # The machine slows down by half in the third round: the figures move, the ratio does not.
    outcomes = [outcome(0, OURS, 100), outcome(0, "aiohttp_link", 50)]
    outcomes += [outcome(1, OURS, 110), outcome(1, "aiohttp_link", 50)]
    outcomes += [outcome(2, OURS, 50), outcome(2, "aiohttp_link", 25)]
    (line,) = judge([ROW], outcomes, {})
    assert (line.value, line.low, line.high) == (2.0, 2.0, 2.2)
    assert (line.ours, line.theirs) == (100, 50)
    assert line.verdict is Verdict.AIM


def test_a_round_in_which_one_side_failed_is_left_out() -> None:
    outcomes = [outcome(0, OURS, 100), Outcome(0, "calls", "aiohttp_link", error="died")]
    outcomes += [outcome(1, OURS, 30), outcome(1, "aiohttp_link", 100)]
    (line,) = judge([ROW], outcomes, {})
    assert line.value == pytest.approx(0.3)
    assert line.verdict is Verdict.NOT_MET


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1.5, Verdict.AIM), (1.49, Verdict.MET), (0.5, Verdict.MET), (0.49, Verdict.NOT_MET)],
)
def test_a_ratio_reaches_its_bounds_from_below(value: float, expected: Verdict) -> None:
    assert verdict(RATIO, value) is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.55, Verdict.AIM), (0.56, Verdict.MET), (0.8, Verdict.MET), (0.81, Verdict.NOT_MET)],
)
def test_seconds_reach_their_bounds_from_above(value: float, expected: Verdict) -> None:
    assert verdict(Bound("startup.first_task", 0.8, 0.55), value) is expected


def test_a_difference_is_better_the_smaller_it_is() -> None:
    bound = Bound("http.c1_p50", 0.25, 0.08, "uvicorn", Relation.OVER)
    outcomes = [outcome(0, OURS, 0.3, "http.c1_p50"), outcome(0, "uvicorn", 0.1, "http.c1_p50")]
    (line,) = judge([Row("p50", "p50", (bound,))], outcomes, {})
    assert line.value == pytest.approx(0.2)
    assert line.verdict is Verdict.MET


def test_an_aim_without_a_duty_is_met_or_not() -> None:
    bound = Bound("million_actors.seconds", None, 60)
    assert verdict(bound, 59) is Verdict.AIM
    assert verdict(bound, 61) is Verdict.NOT_MET


def test_a_bound_without_limits_is_only_reported() -> None:
    assert verdict(Bound("streams.delay_p99", None, None), 3) is Verdict.REPORTED


def test_a_missing_side_is_named_with_its_reason() -> None:
    (line,) = judge([ROW], [outcome(0, OURS, 100)], {"aiohttp_link": "no wheel"})
    assert line.verdict is Verdict.MISSING
    assert line.ours == 100
    assert line.why == "aiohttp_link is not installed"
    (line,) = judge([ROW], [Outcome(0, "calls", OURS, error="died"), outcome(0, "aiohttp_link", 1)], {})
    assert line.why == "actorrt failed"


def test_unknown_rows_and_peers_are_named() -> None:
    with pytest.raises(ValueError, match="no row 'http_nope'"):
        choose_rows(["http_nope"])
    with pytest.raises(ValueError, match="no peer 'rey'"):
        choose_sides(["rey"])


def test_only_what_the_chosen_rows_need_is_run() -> None:
    chosen = choose_workloads(choose_rows(["put_large"]), choose_sides([OURS, "memcpy"]), quick=False)
    assert [(workload.key, workload.sides) for workload in chosen] == [("large_put", (OURS, "memcpy"))]


def test_each_round_turns_the_order_of_the_sides_round() -> None:
    workloads = choose_workloads(choose_rows(["tasks_in_flight"]), [OURS, "ray"], quick=False)
    assert [step.side for step in steps(workloads, 2)] == [OURS, "ray", "ray", OURS]


def test_a_side_that_no_bound_compares_with_runs_in_two_rounds() -> None:
    workloads = choose_workloads(choose_rows(["tasks_in_flight"]), [OURS, "dask"], quick=False)
    assert [step.round for step in steps(workloads, 4) if step.side == "dask"] == [0, 1]
    assert [step.round for step in steps(workloads, 4) if step.side == OURS] == [0, 1, 2, 3]


def test_an_earlier_revision_runs_beside_the_present_one_in_every_round_and_only_where_it_is_asked_for() -> None:
    rows = choose_rows(["tasks_in_flight"])
    assert BEFORE not in choose_sides([])
    with pytest.raises(ValueError, match=f"no peer {BEFORE!r}"):
        choose_sides([BEFORE])
    workloads = choose_workloads(rows, [*choose_sides([OURS]), BEFORE], quick=False)
    assert [step.side for step in steps(workloads, 3)] == [OURS, BEFORE, BEFORE, OURS, OURS, BEFORE]


def test_of_a_change_more_is_better_whatever_is_measured() -> None:
    outcomes = [outcome(0, OURS, 90), outcome(0, BEFORE, 100), outcome(1, OURS, 120), outcome(1, BEFORE, 100)]
    outcomes += [outcome(2, OURS, 110), outcome(2, BEFORE, 100), outcome(3, OURS, 5)]
    outcomes += [outcome(0, OURS, 2.0, "startup.first_task"), outcome(0, BEFORE, 1.0, "startup.first_task")]
    rate, start = changes(outcomes)
    assert (rate.measure, rate.ratio, rate.ratios) == ("calls.in_flight", 1.1, (0.9, 1.2, 1.1))
    assert (start.measure, start.ratio, start.now, start.before) == ("startup.first_task", 0.5, 2.0, 1.0)
    page = Record({}, {}, {}, {}, outcomes).as_markdown([ROW])
    assert "| async actor calls, 1,000 in flight | 100 1/s | 100 1/s | 1.1 (0.9 to 1.2) |" in page


def test_a_revision_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="no revision 'no-such-branch'"):
        resolve("no-such-branch")


def test_a_record_survives_json_and_gives_the_same_report() -> None:
    outcomes = [outcome(0, OURS, 60), outcome(0, "aiohttp_link", 100), Outcome(0, "calls", "ray", error="x | y")]
    record = Record({"cores": "2"}, {"command": "c"}, {OURS: {"actorrt": "1"}}, {"dask": "no wheel"}, outcomes)
    again = from_json(json.loads(json.dumps(record.as_json([ROW]))))
    assert again.as_markdown([ROW]) == record.as_markdown([ROW])
    assert again.lines([ROW]) == record.lines([ROW])


def test_the_page_shows_every_row_and_every_failure() -> None:
    outcomes = [outcome(0, OURS, 60), outcome(0, "aiohttp_link", 100), Outcome(0, "calls", "ray", error="x | y")]
    page = Record({"cores": "2"}, {"command": "c"}, {}, {}, outcomes).as_markdown(ROWS)
    for row in ROWS:
        assert f"| {row.title} |" in page
    assert "| ray | calls | 1 | x / y |" in page
    assert "| 0.6 x | 0.5 x | 1.5 x | met |" in page


def test_what_was_written_by_hand_stays() -> None:
    page = new_page("old").replace("# Benchmarks\n", "# Benchmarks\n\nby hand\n") + "\nalso by hand\n"
    changed = put_into(page, "new")
    assert "old" not in changed
    assert changed.startswith("# Benchmarks\n\nby hand\n")
    assert changed.endswith("\nalso by hand\n")
    assert changed.count(BEGIN) == changed.count(END) == 1
    with pytest.raises(ValueError, match="no marks"):
        put_into("# a page of somebody else\n", "new")


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (123456.7, "123,457"), (99.44, "99.4"), (0.01234, "0.0123"), (0.0, "0")]
)
def test_numbers_have_three_digits(value: float | None, text: str) -> None:
    assert number(value) == text
