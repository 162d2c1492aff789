"""What is looked for among many things, some at a time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.core.state_records import KINDS, ActorState, id_column
from actorrt.core.state_scan import Columns, Filter, IdText, Scan, checked_filters, checked_limit, short_id

Thing = tuple[int, str]
COLUMNS: Columns[Thing] = {"actor_id": lambda one: f"{one[0]:032x}", "state": lambda one: one[1]}
THINGS = st.lists(st.tuples(st.integers(0, 2**64 - 1), st.sampled_from(["ALIVE", "DEAD"])), max_size=30)


def scan(things: list[Thing], slice_of: int = 7, **wanted: Any) -> dict[str, Any]:
    found = Scan("actors", things, COLUMNS, **wanted)
    while not found.step(slice_of):
        pass
    return found.answer


@given(things=THINGS, slice_of=st.integers(1, 40), limit=st.integers(1, 40), equal=st.booleans())
def test_slices_of_any_length_find_the_first_ones_and_count_all(
    things: list[Thing], slice_of: int, limit: int, equal: bool
) -> None:
    found = scan(things, slice_of, limit=limit, filters=[Filter("state", equal, "alive")])
    kept = [one for one in things if (one[1] == "ALIVE") is equal]
    assert found["total"] == len(kept)
    assert [row["actor_id"] for row in found["rows"]] == [f"{number:032x}" for number, _ in kept[:limit]]


@given(things=THINGS)
def test_groups_are_counted_in_place_of_rows(things: list[Thing]) -> None:
    found = scan(things, group_by=["state"])
    assert found["rows"] == []
    states = [state for _, state in things]
    assert dict(found["groups"]) == {state: states.count(state) for state in set(states)}


def test_a_column_is_made_only_where_it_is_looked_at() -> None:
    def never(_: Thing) -> str:
        raise AssertionError("nobody has asked for it")

    columns: Columns[Thing] = {**COLUMNS, "name": never}
    found = Scan("actors", [(1, "DEAD")] * 3, columns, filters=[Filter("state", True, "ALIVE")])
    assert found.step(10)
    assert found.answer["total"] == 0


@given(owner=st.binary(min_size=8, max_size=8), number=st.integers(0, 2**64 - 1), digits=st.integers(1, 32))
def test_an_id_is_found_by_its_first_digits_and_by_what_tables_show(owner: bytes, number: int, digits: int) -> None:
    id = owner.hex() + f"{number:016x}"
    assert IdText.read(id[:digits]).matches(id)
    assert IdText.read(short_id(id)).matches(id)
    assert IdText.read(short_id(id).upper()).matches(id)
    assert IdText.read(short_id(owner.hex())).matches(owner.hex())
    assert not IdText.read(f"{owner.hex()}-{number + 1:x}").matches(id)


@pytest.mark.parametrize("text", ["", "-", "xyz", "5f-", "-5f", "5f-2a-1", "5f 2a"])
def test_what_is_no_id_is_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="is no id"):
        IdText.read(text)


def test_an_id_of_another_kind_is_refused() -> None:
    with pytest.raises(TypeError, match="an id is a string of hexadecimal digits, not bytes"):
        IdText.read(b"5f")


def test_filters_are_compared_as_text_without_regard_to_case() -> None:
    assert Filter("state", True, "alive").matches("ALIVE")
    assert Filter("is_detached", True, "true").matches(True)
    assert Filter("pid", False, "12").matches(13)
    assert checked_filters("actors", [("pid", "=", 12)]) == [Filter("pid", True, "12")]


@pytest.mark.parametrize(
    ("filters", "error", "said"),
    [
        ([("stat", "=", "x")], ValueError, "actors have no column 'stat'; did you mean 'state'?"),
        ([("zzz", "=", "x")], ValueError, "actors have no column 'zzz': they have actor_id, state, "),
        ([("state", "<", "x")], ValueError, 'a filter compares by "=" or "!=", not by \'<\''),
        (["state=x"], TypeError, 'a filter is (column, "=" or "!=", value), not \'state=x\''),
        ([("state",)], TypeError, 'a filter is (column, "=" or "!=", value), not (\'state\',)'),
    ],
)
def test_a_wrong_filter_is_a_sentence(filters: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error) as raised:
        checked_filters("actors", filters)
    assert str(raised.value).startswith(said)


@pytest.mark.parametrize(
    ("limit", "error"), [(0, ValueError), (10_001, ValueError), (True, TypeError), ("9", TypeError)]
)
def test_a_wrong_limit_is_a_sentence(limit: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="limit is"):
        checked_limit(limit)
    assert checked_limit(10_000) == 10_000


def test_records_are_read_like_rays() -> None:
    record = ActorState(actor_id="5f", state="ALIVE")
    assert record["state"] == record.state == record.get("state") == "ALIVE"
    assert record.get("colour", 3) == 3
    with pytest.raises(KeyError):
        record["colour"]
    assert record.asdict()["pid"] == 0
    assert [id_column(kind) for kind in KINDS][2] == "actor_id"
