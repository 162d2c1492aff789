"""What an engine says that it has takes room away, is not believed at once, and is not needed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actorrt.serve.capacity.credit_messages import Room
from actorrt.serve.capacity.engine_load import NOTHING, STALE_S, Beside, EngineLoad
from actorrt.serve.capacity.ledger import Ledger
from actorrt.serve.capacity.need import LineFacts, LineId, Need

GIVEN = Room(500, 2)
COUNTS = st.none() | st.integers(0, 10_000)


def test_what_an_engine_has_beyond_what_was_given_counts_once_it_has_said_so_twice() -> None:
    beside = Beside()
    assert beside.hear(EngineLoad(900, 5), GIVEN, 0.0) == NOTHING
    assert beside.hear(EngineLoad(800, 6), GIVEN, 1.0) == Room(300, 3)
    assert beside.hear(EngineLoad(None, None), GIVEN, 2.0) == NOTHING


def test_a_word_that_is_old_counts_no_more() -> None:
    beside = Beside()
    for now in (0.0, 1.0):
        beside.hear(EngineLoad(900, 5), GIVEN, now)
    assert not beside.is_stale(1.0 + STALE_S)
    assert beside.is_stale(1.1 + STALE_S)
    # Nor does it make the next one the second.
    assert beside.hear(EngineLoad(900, 5), GIVEN, 1.2 + STALE_S) == NOTHING


@given(st.lists(st.tuples(COUNTS, COUNTS, st.integers(0, 10_000), st.integers(0, 10_000), st.floats(0, 10))))
def test_it_is_never_more_than_what_was_said_of_late_beyond_what_was_given(
    said: list[tuple[int | None, int | None, int, int, float]],
) -> None:
    beside, now = Beside(), 0.0
    for tokens, requests, given_tokens, given_slots, later in said:
        now += later
        room = beside.hear(EngineLoad(tokens, requests), Room(given_tokens, given_slots), now)
        assert 0 <= room.tokens <= max(0, (tokens or 0) - given_tokens)
        assert 0 <= room.slots <= max(0, (requests or 0) - given_slots)
        assert beside.room == room


def ledger_of_two() -> tuple[Ledger, LineId, LineId]:
    ledger, one, other = Ledger(epoch=1), LineId("one"), LineId("other")
    for id in (one, other):
        ledger.set_line(id, LineFacts(1000, 4, 1000.0), 1)
    return ledger, one, other


def fits(ledger: Ledger, tokens: int) -> str | None:
    found = ledger.find(Need(0, tokens))
    return None if found is None else found.line.id.replica


def test_a_line_has_less_room_by_what_others_have_there() -> None:
    ledger, one, other = ledger_of_two()
    for _ in range(2):
        placed = ledger.find(Need(0, 100))
        assert placed
        ledger.admit(placed, Need(0, 100), "r")
    ledger.set_others(one, Room(700, 0))
    assert ledger.lines[one].room == 100
    assert fits(ledger, 200) == "other"
    ledger.set_others(other, Room(0, 3))
    assert fits(ledger, 200) is None
    ledger.take_gained()
    ledger.set_others(other, NOTHING)
    assert list(ledger.take_gained()) == [ledger.lines[other]]
    assert fits(ledger, 200) == "other"


def test_an_engine_that_others_use_is_busier_and_still_gets_one_request_at_a_time() -> None:
    ledger, one, other = ledger_of_two()
    ledger.set_others(one, Room(10_000, 10))
    assert fits(ledger, 100) == "other"
    ledger.open_line(other, False)
    # However much it says that it has: else nothing would be let in there for as long as it errs.
    assert fits(ledger, 100) == "one"
    placed = ledger.find(Need(0, 100))
    assert placed
    ledger.admit(placed, Need(0, 100), "r")
    assert fits(ledger, 1) is None
