"""The table of kept responses: its bounds, what goes first, what is shared, and that nothing is left behind."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.serve.llm.responses.stored import ItemBytes, NoRoomError, ResponseTable


def _items(*texts: str) -> list[ItemBytes]:
    return [ItemBytes(text, text.encode()) for text in texts]


def _put(table: ResponseTable, id: str, *own: str, before: str | None = None, **options: Any) -> bool:
    return table.put(("t", id), b"response", before=before, own=_items(*own), output=_items(f"of {id}"), **options)


def test_a_response_follows_all_that_went_before() -> None:
    table = ResponseTable(10, 10_000)
    _put(table, "a", "1")
    _put(table, "b", "2", before="a")
    _put(table, "c", "3", before="b")
    record = table.get(("t", "c"))
    assert record is not None
    assert [kept.id for kept in record.given] == ["1", "of a", "2", "of b", "3"]
    assert [kept.id for kept in record.output] == ["of c"]


def test_an_item_that_several_hold_is_there_once_and_as_long_as_one_holds_it() -> None:
    table = ResponseTable(10, 10_000)
    _put(table, "a", "1" * 100)
    alone = table.bytes
    _put(table, "b", before="a")
    assert table.bytes < alone + 100
    table.remove(("t", "a"))
    assert table.item(("t", "1" * 100)) is not None
    table.remove(("t", "b"))
    assert table.item(("t", "1" * 100)) is None
    assert (table.bytes, len(table)) == (0, 0)


def test_what_was_unused_for_longest_goes_first() -> None:
    table = ResponseTable(2, 10_000)
    _put(table, "a")
    _put(table, "b")
    table.get(("t", "a"))
    _put(table, "c")
    assert [id for id in "abc" if table.get(("t", id)) is not None] == ["a", "c"]


def test_bytes_are_a_bound_too() -> None:
    table = ResponseTable(100, 1000)
    for number in range(20):
        _put(table, str(number), "x" * 200)
    assert table.bytes <= 1000
    assert 0 < len(table) < 5


def test_a_previous_response_that_is_gone_is_said() -> None:
    table = ResponseTable(2, 10_000)
    assert not _put(table, "b", before="a")
    assert table.get(("t", "b")) is None


def test_what_one_tenant_keeps_is_not_there_for_another() -> None:
    table = ResponseTable(2, 10_000)
    _put(table, "a", "1")
    assert table.get(("other", "a")) is None
    assert table.item(("other", "1")) is None
    assert not table.remove(("other", "a"))
    assert not table.put(("other", "b"), b"", before="a", own=())


def test_what_is_being_made_stays_and_too_much_of_it_is_refused() -> None:
    table = ResponseTable(2, 10_000)
    _put(table, "a", running=True)
    _put(table, "b", running=True)
    with pytest.raises(NoRoomError):
        _put(table, "c", running=True)
    # There is no room for one that is made either: it is the one that may go.
    _put(table, "d")
    assert [id for id in "abcd" if table.get(("t", id)) is not None] == ["a", "b"]
    assert table.finish(("t", "a"), b"made", ())
    _put(table, "c", running=True)
    assert [id for id in "abc" if table.get(("t", id)) is not None] == ["b", "c"]


def test_what_is_being_made_is_bounded_by_its_size_too() -> None:
    table = ResponseTable(100, 1_000)
    large = [ItemBytes("1", b"x" * 900)]
    assert table.put(("t", "a"), b"", before=None, own=large, running=True)
    with pytest.raises(NoRoomError):
        table.put(("t", "b"), b"", before=None, own=large, running=True)
    _put(table, "c", running=True)
    assert table.finish(("t", "a"), b"made", ())
    assert table.put(("t", "b"), b"", before=None, own=large, running=True)


def test_what_has_ended_takes_no_more_events() -> None:
    table = ResponseTable(2, 10_000)
    _put(table, "a", running=True, streams=True)
    assert table.add_events(("t", "a"), [b"1", b"2"], b"so far")
    assert table.finish(("t", "a"), b"made", ())
    assert not table.add_events(("t", "a"), [b"3"])
    assert not table.finish(("t", "a"), b"made again", ())
    record = table.get(("t", "a"))
    assert record is not None
    assert (record.events, record.response) == ([b"1", b"2"], b"made")


IDS = st.sampled_from("abcdef")
STEPS = st.one_of(
    st.tuples(st.just("put"), IDS, st.none() | IDS, st.lists(IDS, max_size=3), st.booleans()),
    st.tuples(st.just("get"), IDS),
    st.tuples(st.just("remove"), IDS),
    st.tuples(st.just("finish"), IDS, st.lists(IDS, max_size=2)),
    st.tuples(st.just("add"), IDS, st.lists(st.binary(max_size=9), max_size=3)),
)


@given(steps=st.lists(STEPS, max_size=40), most=st.integers(1, 4), most_bytes=st.integers(0, 200))
def test_whatever_happens_the_bounds_hold_and_the_count_is_right(
    steps: list[tuple[Any, ...]], most: int, most_bytes: int
) -> None:
    table = ResponseTable(most, most_bytes)
    for step in steps:
        match step:
            case ("put", name, before, own, running):
                try:
                    _put(table, name, *own, before=before, running=running)
                except NoRoomError:
                    assert running
            case ("get", name):
                table.get(("t", name))
            case ("remove", name):
                table.remove(("t", name))
            case ("finish", name, output):
                table.finish(("t", name), b"made", _items(*output))
            case (_, name, events):
                table.add_events(("t", name), events)
        records = [record for name in "abcdef" if (record := table.get(("t", name))) is not None]
        held = {id(kept): kept for record in records for kept in (*record.given, *record.output)}
        assert table.bytes == sum(len(record.response) + sum(map(len, record.events)) for record in records) + sum(
            len(kept.data) for kept in held.values()
        )
        for kept in held.values():
            assert kept.holders == sum((*record.given, *record.output).count(kept) for record in records)
        assert len(records) == len(table) <= most
        assert table.bytes <= most_bytes or all(record.running for record in records)
    for name in "abcdef":
        table.remove(("t", name))
    assert (table.bytes, len(table)) == (0, 0)
    assert [name for name in "abcdef" if table.item(("t", name)) is not None] == []
