"""Who is asked how it stands, and what is made of the answers."""

from __future__ import annotations

import json
from enum import Enum, auto
from typing import NamedTuple

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from actorrt.core.roll_call import LINK_DOWN, NO_LINK, Listed, Member, entry, listed, no_answer, patience, plain
from actorrt.types import ProcessId


def _id(number: int) -> ProcessId:
    return ProcessId(number.to_bytes(8))


DRIVER, STATUS, WORKER, FORKING, HEAD = (
    Member(_id(1), "driver", 10),
    Member(_id(2), "driver", 11),
    Member(_id(3), "worker", 12),
    Member(_id(4), "worker", 0),
    Member(_id(5), "head", 13),
)
NUMBERS = st.integers(1, 6)
MEMBERS = st.builds(Member, st.builds(_id, NUMBERS), st.sampled_from(["driver", "worker", "head"]), st.integers(0, 3))


class Colour(Enum):
    RED = auto()


class Pair(NamedTuple):
    one: int
    colour: Colour


class Record(msgspec.Struct, frozen=True):
    pairs: list[Pair]
    by_colour: dict[Colour, int]


class Outer(msgspec.Struct, frozen=True):
    record: Record
    key: bytes
    nothing: None = None


def test_all_are_asked_but_the_one_that_asks() -> None:
    found = listed([HEAD, WORKER, STATUS, DRIVER], {WORKER: "leased"}, down=frozenset(), asker=STATUS.process)
    assert found == [Listed(DRIVER), Listed(WORKER), Listed(HEAD)]


def test_a_worker_without_a_link_is_named_with_its_state() -> None:
    found = listed([], {FORKING: "forking", WORKER: ""}, down=frozenset(), asker=STATUS.process)
    assert found == [Listed(FORKING, f"{NO_LINK}: it is forking"), Listed(WORKER, NO_LINK)]


def test_one_whose_link_is_down_is_named_and_not_asked() -> None:
    assert listed([WORKER], {WORKER: "shared"}, down={WORKER.process}, asker=STATUS.process) == [
        Listed(WORKER, LINK_DOWN)
    ]


@given(linked=st.lists(MEMBERS), expected=st.lists(MEMBERS), down=st.sets(st.builds(_id, NUMBERS)), asker=NUMBERS)
def test_each_process_is_told_of_once(
    linked: list[Member], expected: list[Member], down: set[ProcessId], asker: int
) -> None:
    found = listed(linked, dict.fromkeys(expected, "idle"), down=down, asker=_id(asker))
    told = [one.member.process for one in found]
    assert len(told) == len(set(told))
    assert set(told) == {one.process for one in (*linked, *expected)} - {_id(asker)}
    asked = {one.member.process for one in found if not one.trouble}
    assert asked == {one.process for one in linked} - down - {_id(asker)}


def test_an_entry_has_the_facts_or_the_trouble() -> None:
    assert entry(Listed(WORKER), {"calls": 3}) == {
        "process": WORKER.process.hex(), "role": "worker", "pid": 12, "trouble": "", "calls": 3,
    }  # fmt: skip
    assert (
        entry(Listed(WORKER), {}, no_answer(1.0, "T"))["trouble"]
        == "it has not answered for 1 s: it is stopped (SIGSTOP)"
    )
    assert no_answer(2.0, "") == "it has not answered for 2 s: it is stopped, or cannot be reached"
    assert no_answer(0.14, "R").startswith(
        "it has not answered for 0.14 s: it runs, and its code keeps the interpreter"
    )
    assert entry(Listed(WORKER, LINK_DOWN), {})["trouble"] == LINK_DOWN


def test_statistics_become_what_every_format_has() -> None:
    known = plain(Outer(Record([Pair(1, Colour.RED)], {Colour.RED: 2}), b"\x01"))
    assert known == {
        "record": {"pairs": [{"one": 1, "colour": "red"}], "by_colour": {"red": 2}},
        "key": "01",
        "nothing": None,
    }
    assert json.loads(json.dumps(known)) == msgspec.msgpack.decode(msgspec.msgpack.encode(known)) == known


@given(timeout_s=st.floats(1e-3, 1e6))
def test_a_process_that_does_not_answer_leaves_its_asker_time_for_the_others(timeout_s: float) -> None:
    assert 0 < patience(timeout_s) < 0.8 * timeout_s


def test_a_process_is_waited_for_a_second_unless_its_asker_waits_for_less_or_for_long() -> None:
    assert [patience(timeout_s) for timeout_s in (0.0, 5.0, 10.0, 60.0)] == [1.0, 1.0, 1.0, 6.0]
    assert patience(0.2) < 0.2
