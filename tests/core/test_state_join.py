"""One table of what many processes have said."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.core import state_join as join
from actorrt.core.state_records import ActorState
from actorrt.core.state_scan import MAX_LIMIT, Filter
from actorrt.core.survey import ASKED, node_answer
from actorrt.types import ProcessId

NODE, WORKER, OTHER = (number.to_bytes(8).hex() for number in (1, 2, 3))


def part(process: str, trouble: str = "", **told: Any) -> dict[str, Any]:
    return {"process": process, "role": "worker", "pid": 7, "trouble": trouble, **told}


def answers(*parts: dict[str, Any], trouble: str = "") -> list[dict[str, Any]]:
    return [node_answer(ProcessId(bytes.fromhex(NODE)), parts, trouble)]


def task(number: int, state: str, worker: str = "") -> dict[str, Any]:
    return {"task_id": f"{OTHER}{number:016x}", "state": state, "worker_id": worker}


def test_who_does_not_answer_is_named_and_hides_nothing_of_the_others() -> None:
    first = answers(part(WORKER, rows=[{"actor_id": "a", "state": "ALIVE"}], total=1), part(OTHER, "it is stopped"))
    found = join.listing("actors", first, join.rows_in(first), [], 10)
    assert found == [ActorState(actor_id="a", state="ALIVE")]
    assert (found.total, found.missing) == (1, [join.Missing(NODE, OTHER, "worker", 7, "it is stopped")])


def test_a_node_that_does_not_answer_is_named() -> None:
    assert join.missing_in(answers(trouble="it is stopped")) == [join.Missing(NODE, NODE, "node", 0, "it is stopped")]


def test_the_rows_of_all_processes_are_cut_at_the_limit_and_counted_beyond_it() -> None:
    rows = [{"actor_id": f"{number:x}", "state": "ALIVE"} for number in range(4)]
    first = answers(part(WORKER, rows=rows[:3], total=100), part(OTHER, rows=rows[3:], total=5))
    found = join.listing("actors", first, join.rows_in(first), [], 2)
    assert [each.actor_id for each in found] == ["0", "1"]
    assert found.total == 105


def test_a_call_that_its_worker_runs_is_running_and_others_there_are_not() -> None:
    rows = [task(1, "SUBMITTED_TO_WORKER", WORKER), task(2, "SUBMITTED_TO_WORKER", WORKER), task(3, "PENDING_ACTOR")]
    assert join.open_questions("tasks", rows) == {WORKER: [rows[0]["task_id"], rows[1]["task_id"]]}
    join.completed("tasks", rows, answers(part(WORKER, rows=[rows[1]["task_id"], rows[2]["task_id"]])))
    assert [row["state"] for row in rows] == ["SUBMITTED_TO_WORKER", "RUNNING", "PENDING_ACTOR"]


CALL_STATES = ["PENDING_ACTOR", "SUBMITTED_TO_WORKER", "RUNNING"]


@given(
    states=st.lists(st.sampled_from(CALL_STATES), max_size=12),
    filters=st.lists(
        st.builds(Filter, st.just("state"), st.booleans(), st.sampled_from([*CALL_STATES, "running"])), max_size=2
    ),
)
def test_a_filter_by_state_finds_what_it_would_find_if_callers_knew_what_runs(
    states: list[str], filters: list[Filter]
) -> None:
    asked = join.first_filters("tasks", filters)
    seen = [task(number, "SUBMITTED_TO_WORKER" if state == "RUNNING" else state) for number, state in enumerate(states)]
    rows = [row for row in seen if all(each.matches(row["state"]) for each in asked)]
    first = answers(part(OTHER, rows=rows, total=len(rows)))
    running = [task(number, "")["task_id"] for number, state in enumerate(states) if state == "RUNNING"]
    join.completed("tasks", rows, answers(part(WORKER, rows=running)))
    found = join.listing("tasks", first, rows, filters, 100)
    wanted = [number for number, state in enumerate(states) if all(each.matches(state) for each in filters)]
    assert [each.task_id for each in found] == [task(number, "")["task_id"] for number in wanted]
    assert found.total == len(wanted)


def test_what_only_the_second_question_tells_does_not_limit_the_first() -> None:
    where = [Filter("where", True, "disk"), Filter("state", True, "SHARED")]
    assert join.first_filters("objects", where) == where[1:]
    assert join.first_limit("objects", where, 5) == MAX_LIMIT
    assert join.first_limit("objects", where[1:], 5) == 5


def test_where_objects_lie_is_told_by_the_nodes() -> None:
    rows = [{"object_id": "a", "state": "SHARED"}, {"object_id": "b", "state": "INLINE"}]
    assert join.open_questions("objects", rows) == {"": ["a"]}
    join.completed("objects", rows, answers(part(NODE, rows=[{"object_id": "a", "where": "disk", "readers": 2}])))
    assert rows[0] == {"object_id": "a", "state": "SHARED", "where": "disk", "readers": 2, "node_id": NODE}
    assert rows[1] == {"object_id": "b", "state": "INLINE"}


def test_counts_of_processes_are_summed_up() -> None:
    told = answers(part(WORKER, groups=[["C", "ALIVE", 2]]), part(OTHER, groups=[["C", "ALIVE", 1], ["C", "DEAD", 4]]))
    counts = join.Counts(join.counted(told), join.missing_in(told)).as_dict()
    assert counts == {"summary": {"C": {"ALIVE": 3, "DEAD": 4}}, "total": 7, "missing": []}


def test_an_id_that_several_things_have_names_them() -> None:
    several = [ActorState(actor_id=f"{OTHER}{number:016x}", state="ALIVE") for number in range(7)]
    assert join.the_one("actors", "0", join.Listing(several[:1])) is several[0]
    assert join.the_one("actors", "0", join.Listing[ActorState]()) is None
    with pytest.raises(ValueError, match=r"'0' is the id of more than one of the actors: 00000000-0, .*-4, \.\.\."):
        join.the_one("actors", "0", join.Listing(several))


def test_that_there_is_nothing_is_said_only_if_its_owner_has_answered() -> None:
    def missing(process: str, role: str = "worker") -> join.Listing[ActorState]:
        return join.Listing(missing=[join.Missing(NODE, process, role, 7, "it is stopped")])

    for id in (f"{OTHER}{1:016x}", f"{OTHER}-1", OTHER):
        assert join.the_one("actors", id, missing(WORKER)) is None
        with pytest.raises(TimeoutError, match=r"is not known: worker 00000000 \(pid 7\): it is stopped"):
            join.the_one("actors", id, missing(OTHER))
    with pytest.raises(TimeoutError):
        join.the_one("actors", OTHER, missing(NODE, "node"))


def test_somebody_is_asked_for_each_kind() -> None:
    assert all(each.roles or each.node for each in ASKED.values())
