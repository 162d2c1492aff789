"""The ledger of shared memory: every transition, what happens when memory is short, and a model that is never wrong."""

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule

from actorrt.core.item_numbers import first_item, next_item
from actorrt.core.segment_life import (
    HOLDS_FILE,
    HOLDS_MEMORY,
    TABLE,
    Event,
    Hold,
    ObjectKey,
    Segment,
    SegmentId,
    State,
    Step,
    consequence,
)
from actorrt.core.storage import CUT_OFF, DEAD_OWNERS, Ledger, LedgerError, Statistics, UnknownObjectError
from actorrt.core.storage_actions import Action, DropFile, DropMemory, Grant, Recall, Refuse, Return, Spill

from ..depth import DEPTH

ALICE: Final = b"alice..."
BOB: Final = b"bob....."
CAROL: Final = b"carol..."
NOTHING: Final = Statistics(0, 0, 0, 0, 0, 0, 0)


def seal(ledger: Ledger, serial: int, size: int = 100, *, kept: bool = False, now: float = 0) -> tuple[Action, ...]:
    return ledger.sealed((ALICE, serial), SegmentId(ALICE, serial), size, size, now, kept=kept)


def segment(serial: int) -> SegmentId:
    return SegmentId(ALICE, serial)


# -- the table


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_every_pair_is_in_the_table_or_an_error_that_names_both(state: State, event: Event) -> None:
    ledger = Ledger(1000, 1000)
    seal(ledger, 1)
    found = ledger.find((ALICE, 1))
    assert found is not None
    # Into the state without the way there: what counts is the pair.
    ledger._count(found, -1)
    found.state = state
    ledger._count(found, 1)
    row = TABLE.get((state, event))
    if row is None:
        with pytest.raises(LedgerError) as caught:
            ledger._apply(found, event, settle=False)
        assert event.name in str(caught.value)
        assert state.name in str(caught.value)
        assert found.state is state
        return
    ledger._apply(found, event, settle=False)
    assert found.state is row[0]


def test_every_state_is_reached_and_only_gone_is_final() -> None:
    reached = {State.IN_MEMORY} | {after for after, _ in TABLE.values()}
    assert reached == set(State)
    assert {before for before, _ in TABLE} == set(State) - {State.GONE}


def test_what_is_held_is_dropped_exactly_when_the_state_says_so() -> None:
    # A file is there only once SPILLED was reported, so neither failing nor doom drops one.
    with_file = HOLDS_FILE - {State.SPILLING, State.DOOMED}
    for (before, event), (after, steps) in TABLE.items():
        assert (Step.DROP_MEMORY in steps) == (before in HOLDS_MEMORY and after not in HOLDS_MEMORY), (before, event)
        has_file = before in with_file or event is Event.SPILLED
        assert (Step.DROP_FILE in steps) == (has_file and after not in with_file), (before, event)


def test_every_consequence_has_a_row() -> None:
    for state in State:
        for hold in Hold:
            facts = Segment(segment(1), 1)
            facts.state, facts.hold = state, hold
            if (event := consequence(facts)) is not None:
                assert (state, event) in TABLE
            facts.readers[BOB] = 1
            assert consequence(facts) is None


# -- one object


def test_an_object_that_nobody_keeps_goes_when_it_is_freed() -> None:
    ledger = Ledger(1000, 1000)
    assert seal(ledger, 1) == ()
    assert ledger.statistics().memory == 100
    assert ledger.freed((ALICE, 1)) == (DropMemory(segment(1)),)
    assert ledger.statistics() == NOTHING


def test_an_object_that_is_read_goes_with_its_last_reader() -> None:
    ledger = Ledger(1000, 1000)
    seal(ledger, 1)
    assert ledger.opened((ALICE, 1), BOB, 1) == (segment(1), ())
    ledger.opened((ALICE, 1), BOB, 2)
    ledger.opened((ALICE, 1), CAROL, 2)
    assert ledger.freed((ALICE, 1)) == ()
    assert ledger.closed(segment(1), BOB, 3) == ()
    assert ledger.closed(segment(1), CAROL, 3) == ()
    assert ledger.statistics().memory == 100
    assert ledger.closed(segment(1), BOB, 3) == (DropMemory(segment(1)),)
    assert ledger.statistics() == NOTHING


def test_a_freed_object_cannot_be_opened_even_if_it_lingers() -> None:
    ledger = Ledger(1000, 1000)
    seal(ledger, 1)
    ledger.opened((ALICE, 1), BOB, 1)
    ledger.freed((ALICE, 1))
    with pytest.raises(UnknownObjectError):
        ledger.opened((ALICE, 1), CAROL, 2)
    with pytest.raises(UnknownObjectError):
        ledger.opened((ALICE, 2), CAROL, 2)


def test_a_kept_segment_goes_to_its_creators_pool_once_nobody_reads_it_and_is_filled_again() -> None:
    ledger = Ledger(1000, 1000)
    seal(ledger, 1, kept=True)
    ledger.opened((ALICE, 1), BOB, 1)
    assert ledger.freed((ALICE, 1)) == ()
    assert ledger.closed(segment(1), BOB, 2) == (Return(segment(1)),)
    assert ledger.statistics().pooled == ledger.statistics().memory == 100
    assert ledger.sealed((ALICE, 7), segment(1), 100, 80, 3, kept=True) == ()
    assert ledger.statistics() == Statistics(100, 0, 0, 0, 0, 1, 0)
    with pytest.raises(UnknownObjectError):
        ledger.opened((ALICE, 1), BOB, 4)
    assert ledger.opened((ALICE, 7), BOB, 4) == (segment(1), ())


def test_a_segment_is_not_filled_again_while_it_holds_an_object() -> None:
    ledger = Ledger(1000, 1000)
    seal(ledger, 1, kept=True)
    with pytest.raises(LedgerError, match=r"SEALED cannot happen to segment .*IN_MEMORY"):
        ledger.sealed((ALICE, 2), segment(1), 100, 100, 0, kept=True)


def test_a_segment_does_not_change_its_size() -> None:
    ledger = Ledger(1000, 1000)
    seal(ledger, 1, kept=True)
    ledger.freed((ALICE, 1))
    with pytest.raises(LedgerError, match="has 100 bytes, not 200"):
        ledger.sealed((ALICE, 2), segment(1), 200, 200, 0, kept=True)


def test_the_pools_have_a_limit_and_the_oldest_goes_first() -> None:
    ledger = Ledger(1000, 250)
    for serial in (1, 2, 3):
        seal(ledger, serial, kept=True)
    assert ledger.freed((ALICE, 1)) == (Return(segment(1)),)
    assert ledger.freed((ALICE, 2)) == (Return(segment(2)),)
    assert ledger.freed((ALICE, 3)) == (Return(segment(3)), Recall(segment(1)))
    assert ledger.statistics() == Statistics(300, 200, 100, 0, 0, 3, 0)
    assert ledger.let_go(segment(1)) == (DropMemory(segment(1)),)
    assert ledger.statistics().memory == 200


def test_what_lies_idle_in_a_pool_is_recalled() -> None:
    ledger = Ledger(1000, 1000)
    seal(ledger, 1, kept=True, now=1)
    seal(ledger, 2, kept=True, now=50)
    # How long the object lived says nothing about how long the segment lay idle.
    ledger.freed((ALICE, 1))
    assert ledger.expire(10, 60) == ()
    assert ledger.expire(10, 60.5) == (Recall(segment(1)),)
    assert ledger.expire(10, 99) == ()
    assert ledger.let_go(segment(1)) == (DropMemory(segment(1)),)


def test_a_recall_that_crosses_a_new_object_is_answered_later() -> None:
    ledger = Ledger(1000, 0)
    seal(ledger, 1, kept=True)
    assert ledger.freed((ALICE, 1)) == (Return(segment(1)), Recall(segment(1)))
    assert ledger.sealed((ALICE, 2), segment(1), 100, 100, 1, kept=True) == ()
    assert ledger.let_go(segment(1)) == ()
    assert ledger.freed((ALICE, 2)) == (DropMemory(segment(1)),)


def test_a_second_copy_of_an_object_takes_the_place_of_the_first() -> None:
    ledger = Ledger(1000, 1000)
    ledger.sealed((ALICE, 1), SegmentId(BOB, 1), 100, 100, 0, kept=False)
    ledger.opened((ALICE, 1), ALICE, 1)
    assert ledger.sealed((ALICE, 1), SegmentId(CAROL, 1), 100, 100, 2, kept=False) == ()
    assert ledger.opened((ALICE, 1), ALICE, 3) == (SegmentId(CAROL, 1), ())
    assert ledger.closed(SegmentId(BOB, 1), ALICE, 4) == (DropMemory(SegmentId(BOB, 1)),)
    assert ledger.statistics().memory == 100


def test_nobody_closes_or_lets_go_of_what_he_does_not_hold() -> None:
    ledger = Ledger(1000, 1000)
    seal(ledger, 1)
    with pytest.raises(LedgerError, match="has not opened"):
        ledger.closed(segment(1), BOB, 0)
    with pytest.raises(LedgerError, match="has not opened"):
        ledger.closed(segment(2), BOB, 0)
    with pytest.raises(LedgerError, match="does not hold"):
        ledger.let_go(segment(1))
    with pytest.raises(LedgerError, match="there is no segment"):
        ledger.let_go(segment(2))
    with pytest.raises(LedgerError, match=r"SPILLED cannot happen to segment .*IN_MEMORY"):
        ledger.spilled(segment(1))


def test_an_error_tells_what_happened_before() -> None:
    ledger = Ledger(1000, 1000)
    seal(ledger, 1, kept=True)
    ledger.freed((ALICE, 1))
    with pytest.raises(LedgerError, match=r"before: .*FREED--> LINGERING.*RETURN--> RETURNED"):
        ledger.spilled(segment(1))


# -- deaths


def test_a_reader_that_dies_holds_nothing_any_more() -> None:
    ledger = Ledger(1000, 1000)
    seal(ledger, 1)
    ledger.opened((ALICE, 1), BOB, 1)
    ledger.opened((ALICE, 1), BOB, 1)
    ledger.freed((ALICE, 1))
    assert ledger.process_died(BOB, 2) == (DropMemory(segment(1)),)


def test_what_a_dead_process_created_stays_for_its_owner_and_its_pool_is_dropped() -> None:
    ledger = Ledger(1000, 1000)
    ledger.reserve(BOB, 1, 300)
    ledger.sealed((ALICE, 1), SegmentId(BOB, 1), 100, 100, 0, kept=True)
    ledger.sealed((ALICE, 2), SegmentId(BOB, 2), 100, 100, 0, kept=True)
    ledger.freed((ALICE, 2))
    assert ledger.process_died(BOB, 1) == (DropMemory(SegmentId(BOB, 2)),)
    assert ledger.statistics() == Statistics(100, 0, 0, 0, 0, 1, 0)
    assert ledger.opened((ALICE, 1), ALICE, 2) == (SegmentId(BOB, 1), ())
    ledger.closed(SegmentId(BOB, 1), ALICE, 2)
    assert ledger.freed((ALICE, 1)) == (DropMemory(SegmentId(BOB, 1)),)


def test_a_creator_that_read_its_own_object_and_dies_is_offered_nothing() -> None:
    ledger = Ledger(1000, 1000)
    seal(ledger, 1, kept=True)
    ledger.opened((ALICE, 1), ALICE, 1)
    ledger.freed((ALICE, 1))
    assert ledger.process_died(ALICE, 1) == (DropMemory(segment(1)),)


def test_what_a_dead_owner_owned_is_freed_wherever_it_was_made() -> None:
    ledger = Ledger(1000, 1000)
    ledger.sealed((ALICE, 1), SegmentId(BOB, 1), 100, 100, 0, kept=False)
    ledger.sealed((ALICE, 2), SegmentId(ALICE, 1), 100, 100, 0, kept=False)
    ledger.sealed((CAROL, 1), SegmentId(BOB, 2), 100, 100, 0, kept=False)
    assert ledger.owner_died(ALICE) == (DropMemory(SegmentId(BOB, 1)), DropMemory(SegmentId(ALICE, 1)))
    assert ledger.owner_died(ALICE) == ()
    assert ledger.statistics().segments == 1


def test_what_is_sealed_for_an_owner_that_has_died_goes_at_once() -> None:
    ledger = Ledger(1000, 1000)
    ledger.owner_died(ALICE)
    assert ledger.sealed((ALICE, 1), SegmentId(BOB, 1), 100, 100, 0, kept=False) == (DropMemory(SegmentId(BOB, 1)),)
    assert ledger.sealed((ALICE, 2), SegmentId(BOB, 2), 100, 100, 0, kept=True) == (Return(SegmentId(BOB, 2)),)
    for number in range(DEAD_OWNERS):
        ledger.owner_died(number.to_bytes(8, "big"))
    assert len(ledger._dead_owners) == DEAD_OWNERS


# -- items of streams that were cut off


def lay(ledger: Ledger, run: int, index: int, *, owner: bytes = ALICE) -> ObjectKey:
    """BOB lays an item of a run of the owner's."""
    key = (owner, first_item(run) + index)
    serial = len(ledger._segments) + 1
    ledger.sealed(key, SegmentId(BOB, serial), 100, 100, 0, kept=False)
    return key


def test_the_items_of_a_stream_that_never_came_are_freed_and_those_that_came_stay() -> None:
    ledger = Ledger(1000, 1000)
    came, lost, also = (lay(ledger, 7, index) for index in range(3))
    others = [lay(ledger, 8, 1), lay(ledger, 7, 1, owner=CAROL)]
    assert [type(action) for action in ledger.cut_off(lost)] == [DropMemory, DropMemory]
    assert [ledger.find(key) is not None for key in (came, lost, also, *others)] == [True, False, False, True, True]


def test_an_item_that_is_sealed_after_its_stream_was_cut_off_goes_at_once() -> None:
    ledger = Ledger(1000, 1000)
    ledger.cut_off((ALICE, first_item(7) + 1))
    assert ledger.find(lay(ledger, 7, 1)) is None
    assert ledger.find(lay(ledger, 7, 2)) is None
    # What the caller has is before the cut, or of another run.
    assert ledger.find(lay(ledger, 7, 0)) is not None
    assert ledger.find(lay(ledger, 8, 1)) is not None


def test_an_item_that_came_is_freed_by_itself_after_its_stream_was_cut_off() -> None:
    ledger = Ledger(1000, 1000)
    came = lay(ledger, 7, 0)
    ledger.cut_off((ALICE, next_item(came[1])))
    assert ledger.freed(came) == (DropMemory(SegmentId(BOB, 1)),)
    assert ledger.statistics() == NOTHING


def test_a_stream_is_cut_off_more_than_once_without_harm() -> None:
    ledger = Ledger(1000, 1000)
    came, lost = lay(ledger, 7, 0), lay(ledger, 7, 1)
    assert ledger.cut_off(lost)
    assert ledger.cut_off(lost) == ()
    assert ledger.find(came) is not None


def test_so_many_streams_that_were_cut_off_are_remembered_and_no_more() -> None:
    ledger = Ledger(1000, 1000)
    for run in range(CUT_OFF + 10):
        ledger.cut_off((ALICE, first_item(run)))
    assert len(ledger._cut_off) == CUT_OFF
    assert ledger.find(lay(ledger, CUT_OFF, 0)) is None


def test_only_items_belong_to_a_stream() -> None:
    with pytest.raises(LedgerError, match=f"{ALICE.hex()}:12 "):
        Ledger(1000, 1000).cut_off((ALICE, 12))


# -- short of memory


def test_room_is_granted_while_there_is_some_and_used_up_by_sealing() -> None:
    ledger = Ledger(250, 250)
    assert ledger.reserve(ALICE, 1, 100) == (Grant(ALICE, 1),)
    assert ledger.reserve(ALICE, 2, 150) == (Grant(ALICE, 2),)
    assert ledger.statistics().reserved == 250
    seal(ledger, 1)
    assert ledger.statistics() == Statistics(100, 0, 0, 150, 0, 1, 0)
    assert ledger.unreserve(ALICE, 150) == ()
    assert ledger.statistics().reserved == 0
    with pytest.raises(LedgerError, match="gives back 1 reserved bytes and has 0"):
        ledger.unreserve(ALICE, 1)


def test_what_was_used_longest_ago_is_spilled_first() -> None:
    ledger = Ledger(300, 300)
    for serial in (1, 2, 3):
        seal(ledger, serial)
    ledger.opened((ALICE, 1), BOB, 1)
    ledger.closed(segment(1), BOB, 1)
    assert ledger.reserve(ALICE, 1, 150) == (Spill(segment(2)), Spill(segment(3)))
    assert ledger.spilled(segment(2)) == (DropMemory(segment(2)),)
    assert ledger.spilled(segment(3)) == (DropMemory(segment(3)), Grant(ALICE, 1))
    assert ledger.statistics() == Statistics(100, 0, 0, 150, 200, 3, 0)
    # It is read from the file, and the file goes when it is freed.
    assert ledger.opened((ALICE, 2), BOB, 2) == (segment(2), ())
    assert ledger.freed((ALICE, 2)) == ()
    assert ledger.closed(segment(2), BOB, 2) == (DropFile(segment(2)),)
    assert ledger.statistics().disk == 100


def test_pools_are_emptied_before_anything_is_spilled() -> None:
    ledger = Ledger(300, 300)
    seal(ledger, 1)
    seal(ledger, 2, kept=True)
    ledger.freed((ALICE, 2))
    assert ledger.reserve(BOB, 1, 150) == (Recall(segment(2)),)
    assert ledger.reserve(BOB, 2, 150) == ()
    assert ledger.let_go(segment(2)) == (DropMemory(segment(2)), Grant(BOB, 1), Spill(segment(1)))
    assert ledger.spilled(segment(1)) == (DropMemory(segment(1)), Grant(BOB, 2))


def test_what_is_read_is_not_spilled_and_room_that_cannot_be_made_is_refused() -> None:
    ledger = Ledger(300, 300)
    for serial in (1, 2, 3):
        seal(ledger, serial)
    ledger.opened((ALICE, 1), BOB, 1)
    ledger.opened((ALICE, 2), BOB, 1)
    # Nothing is spilled for a request that would be refused all the same.
    assert ledger.reserve(CAROL, 1, 150) == (Refuse(CAROL, 1, 150, "what is there is being read"),)
    assert ledger.reserve(CAROL, 2, 100) == (Spill(segment(3)),)


def test_an_object_larger_than_the_limit_is_refused_at_once() -> None:
    ledger = Ledger(300, 300)
    seal(ledger, 1)
    assert ledger.reserve(CAROL, 1, 301) == (Refuse(CAROL, 1, 301, "it is larger than all of it"),)


def test_without_a_disk_room_comes_from_the_pools_alone() -> None:
    ledger = Ledger(300, 300, can_spill=False)
    seal(ledger, 1)
    seal(ledger, 2, kept=True)
    ledger.freed((ALICE, 2))
    assert ledger.reserve(CAROL, 1, 250) == (Refuse(CAROL, 1, 250, "there is no disk to spill to"),)
    assert ledger.reserve(CAROL, 2, 200) == (Recall(segment(2)),)


def test_a_disk_that_fails_refuses_who_waits_and_is_tried_again_for_the_next() -> None:
    ledger = Ledger(300, 300)
    seal(ledger, 1, 300)
    assert ledger.reserve(BOB, 1, 100) == (Spill(segment(1)),)
    assert ledger.spill_failed(segment(1)) == (Refuse(BOB, 1, 100, "the disk to spill to is full or fails"),)
    assert ledger.opened((ALICE, 1), BOB, 1)[0] == segment(1)
    ledger.closed(segment(1), BOB, 1)
    assert ledger.reserve(BOB, 2, 100) == (Spill(segment(1)),)
    assert ledger.spilled(segment(1)) == (DropMemory(segment(1)), Grant(BOB, 2))


def test_a_request_that_cannot_be_met_does_not_hold_back_the_next() -> None:
    ledger = Ledger(300, 300)
    seal(ledger, 1, 100)
    assert ledger.reserve(BOB, 1, 300) == (Spill(segment(1)),)
    assert ledger.reserve(BOB, 2, 50) == ()
    refused = Refuse(BOB, 1, 300, "what is there is being read")
    assert ledger.opened((ALICE, 1), CAROL, 1) == (segment(1), (refused, Grant(BOB, 2)))


def test_a_spill_that_is_overtaken_by_a_reader_is_answered_at_once() -> None:
    ledger = Ledger(300, 300)
    seal(ledger, 1, 300)
    assert ledger.reserve(BOB, 1, 100) == (Spill(segment(1)),)
    refused = Refuse(BOB, 1, 100, "what is there is being read")
    assert ledger.opened((ALICE, 1), CAROL, 1) == (segment(1), (refused,))
    # Who opened it meanwhile reads it from memory, which goes when he is done.
    assert ledger.spilled(segment(1)) == ()
    assert ledger.statistics() == Statistics(300, 0, 0, 0, 300, 1, 0)
    assert ledger.closed(segment(1), CAROL, 2) == (DropMemory(segment(1)),)
    assert ledger.statistics() == Statistics(0, 0, 0, 0, 300, 1, 0)


def test_a_spilled_segment_that_its_creator_keeps_is_recalled_and_goes_when_both_are_done() -> None:
    ledger = Ledger(300, 300)
    seal(ledger, 1, 300, kept=True)
    assert ledger.reserve(BOB, 1, 100) == (Spill(segment(1)), Recall(segment(1)))
    assert ledger.spilled(segment(1)) == ()
    assert ledger.let_go(segment(1)) == (DropMemory(segment(1)), Grant(BOB, 1))


def test_an_object_freed_while_it_is_copied_goes_when_the_copy_is_done_or_failed() -> None:
    for report in (Ledger.spilled, Ledger.spill_failed):
        ledger = Ledger(300, 300)
        seal(ledger, 1, 300)
        ledger.reserve(BOB, 1, 100)
        assert ledger.freed((ALICE, 1)) == ()
        actions = report(ledger, segment(1))
        assert actions[-2:] == (DropMemory(segment(1)), Grant(BOB, 1))
        assert (DropFile(segment(1)) in actions) == (report is Ledger.spilled)


def test_a_recalled_segment_that_is_freed_is_not_offered_again() -> None:
    ledger = Ledger(300, 300)
    seal(ledger, 1, 300, kept=True)
    ledger.reserve(BOB, 1, 100)
    ledger.freed((ALICE, 1))
    assert ledger.spilled(segment(1)) == (DropFile(segment(1)),)
    assert ledger.let_go(segment(1)) == (DropMemory(segment(1)), Grant(BOB, 1))


def test_a_dead_process_waits_for_nothing() -> None:
    ledger = Ledger(300, 300)
    seal(ledger, 1, 300)
    ledger.reserve(BOB, 1, 200)
    ledger.reserve(CAROL, 1, 200)
    assert ledger.process_died(BOB, 1) == ()
    assert ledger.spilled(segment(1)) == (DropMemory(segment(1)), Grant(CAROL, 1))


def test_objects_that_came_without_a_reservation_push_others_out() -> None:
    ledger = Ledger(300, 300)
    seal(ledger, 1, 200)
    assert seal(ledger, 2, 200) == (Spill(segment(1)),)


# -- a model


@dataclass
class Process:
    """What a process really holds. `seals` and answers travel to the node in order, in `outbox`."""

    name: bytes
    # Segments it created and still holds; those in the pool are free to be filled.
    holds: set[int] = field(default_factory=set[int])
    pool: set[int] = field(default_factory=set[int])
    recalled: set[int] = field(default_factory=set[int])
    reads: Counter[SegmentId] = field(default_factory=Counter[SegmentId])
    outbox: deque[tuple[str, tuple[object, ...]]] = field(default_factory=deque[tuple[str, tuple[object, ...]]])
    inbox: deque[Action] = field(default_factory=deque[Action])
    granted: int = 0
    asked: set[int] = field(default_factory=set[int])


SIZES: Final = (10, 20, 50)
LIMIT: Final = 150


class World(RuleBasedStateMachine):
    """A ledger with processes that answer late, disks that fail, readers and owners that come and go.

    The world knows what is physically there (descriptors of the node, mappings, files), and each action is checked
    against it.
    """

    objects = Bundle("objects")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(LIMIT, 80)
        self.now = 0.0
        self.number = 0
        self.processes: dict[bytes, Process] = {}
        self.births = 0
        for _ in range(3):
            self._born()
        self.sizes: dict[SegmentId, int] = {}
        self.in_memory: set[SegmentId] = set()
        self.files: set[SegmentId] = set()
        self.copying: list[SegmentId] = []
        self.mapped_memory: Counter[SegmentId] = Counter()
        self.mapped_file: Counter[SegmentId] = Counter()
        self.mapping_of: dict[tuple[bytes, SegmentId], list[str]] = {}
        self.holds: dict[SegmentId, ObjectKey] = {}

    def _born(self) -> None:
        name = f"proc{self.births:04}".encode()
        self.births += 1
        self.processes[name] = Process(name)

    def _next(self) -> int:
        self.number += 1
        return self.number

    def _do(self, actions: tuple[Action, ...]) -> None:
        for action in actions:
            match action:
                case Spill(which):
                    assert which in self.in_memory
                    assert which not in self.copying
                    self.copying.append(which)
                case DropMemory(which):
                    assert which not in self.copying
                    assert not self.mapped_memory[which], "memory dropped under a reader"
                    creator = self.processes.get(which.creator)
                    assert creator is None or which.serial not in creator.holds, "memory dropped under its creator"
                    self.in_memory.remove(which)
                case DropFile(which):
                    assert not self.mapped_file[which], "file dropped under a reader"
                    self.files.remove(which)
                case Return(which):
                    assert not self.mapped_memory[which], "offered for reuse under a reader"
                    assert which in self.in_memory
                    self.holds.pop(which)
                    if which.creator in self.processes:
                        self.processes[which.creator].inbox.append(action)
                case Recall(which):
                    self.processes[which.creator].inbox.append(action)
                case Grant(creator, request):
                    process = self.processes[creator]
                    process.asked.remove(request)
                    process.granted = request
                case Refuse(creator, request):
                    self.processes[creator].asked.remove(request)

    def _pick(self, data: st.DataObject, among: list[bytes]) -> Process:
        return self.processes[data.draw(st.sampled_from(among))]

    # Writers.

    @rule(data=st.data(), size=st.sampled_from((*SIZES, LIMIT + 1)))
    def ask_for_room(self, data: st.DataObject, size: int) -> None:
        free = [p.name for p in self.processes.values() if not p.asked and not p.granted]
        if not free:
            return
        process = self._pick(data, free)
        request = self._next()
        process.asked.add(request)
        self.sizes[SegmentId(process.name, request)] = size
        self._do(self.ledger.reserve(process.name, request, size))

    @rule(target=objects, data=st.data(), kept=st.booleans(), again=st.booleans())
    def write(self, data: st.DataObject, kept: bool, again: bool) -> object:
        """Into a segment of the pool if there is one, else into a new one if room was granted."""
        able = [p.name for p in self.processes.values() if p.granted or p.pool]
        if not able:
            return multiple()
        owner = data.draw(st.sampled_from(sorted(self.processes)))
        key = (owner, data.draw(st.sampled_from((self._next(), 1))))
        return self._write(self._pick(data, able), key, kept, again)

    def _write(self, process: Process, key: ObjectKey, kept: bool, again: bool) -> ObjectKey:
        if process.pool and (again or not process.granted):
            serial, kept = process.pool.pop(), True
            assert not self.mapped_memory[SegmentId(process.name, serial)], "filled under a reader"
        else:
            serial, process.granted = process.granted, 0
            if kept:
                process.holds.add(serial)
        process.outbox.append(("sealed", (key, SegmentId(process.name, serial), kept)))
        if serial in process.recalled:
            self._let_go(process, serial)
        return key

    @rule(target=objects, data=st.data(), size=st.sampled_from(SIZES), kept=st.booleans())
    def put(self, data: st.DataObject, size: int, kept: bool) -> object:
        """Ask, write and tell, without anything in between, where that is possible."""
        process = self._pick(data, sorted(self.processes))
        while process.inbox:
            self._hear(process)
        if not process.pool and not process.granted:
            if process.asked:
                return multiple()
            request = self._next()
            process.asked.add(request)
            self.sizes[SegmentId(process.name, request)] = size
            self._do(self.ledger.reserve(process.name, request, size))
            if not process.granted:
                return multiple()
        key = self._write(process, (process.name, self._next()), kept, True)
        self._flush(process)
        return key

    @precondition(lambda self: any(p.granted for p in self.processes.values()))
    @rule(data=st.data())
    def give_up_writing(self, data: st.DataObject) -> None:
        process = self._pick(data, [p.name for p in self.processes.values() if p.granted])
        # What was sealed before arrives before.
        self._flush(process)
        size = self.sizes[SegmentId(process.name, process.granted)]
        process.granted = 0
        self._do(self.ledger.unreserve(process.name, size))

    @precondition(lambda self: any(p.inbox for p in self.processes.values()))
    @rule(data=st.data())
    def a_process_hears(self, data: st.DataObject) -> None:
        process = self._pick(data, [p.name for p in self.processes.values() if p.inbox])
        self._hear(process)

    def _hear(self, process: Process) -> None:
        match process.inbox.popleft():
            case Return(which):
                if which.serial in process.holds:
                    process.pool.add(which.serial)
            case Recall(which):
                if which.serial in process.holds:
                    self._let_go(process, which.serial)
            case other:
                raise AssertionError(other)

    @precondition(lambda self: any(p.holds for p in self.processes.values()))
    @rule(data=st.data())
    def a_process_lets_go_on_its_own(self, data: st.DataObject) -> None:
        process = self._pick(data, [p.name for p in self.processes.values() if p.holds])
        self._let_go(process, data.draw(st.sampled_from(sorted(process.holds))))

    def _let_go(self, process: Process, serial: int) -> None:
        process.holds.discard(serial)
        process.pool.discard(serial)
        process.recalled.discard(serial)
        process.outbox.append(("let_go", (SegmentId(process.name, serial),)))

    @precondition(lambda self: any(p.outbox for p in self.processes.values()))
    @rule(data=st.data())
    def the_node_hears(self, data: st.DataObject) -> None:
        self._deliver(self._pick(data, [p.name for p in self.processes.values() if p.outbox]))

    def _deliver(self, process: Process) -> None:
        match process.outbox.popleft():
            case "sealed", (key, which, kept):
                assert isinstance(which, SegmentId)
                if which not in self.in_memory:
                    self.in_memory.add(which)
                if (old := self.ledger.find(key)) is not None:  # type: ignore[arg-type]
                    assert old.id != which
                size = self.sizes[which]
                self.holds[which] = key  # type: ignore[assignment]
                self.now += 1
                self._do(self.ledger.sealed(key, which, size, size - 1, self.now, kept=bool(kept)))  # type: ignore[arg-type]
            case "let_go", (which,):
                self._do(self.ledger.let_go(which))  # type: ignore[arg-type]
            case other:
                raise AssertionError(other)

    def _flush(self, process: Process) -> None:
        while process.outbox:
            self._deliver(process)

    # Readers and owners.

    @rule(data=st.data(), key=objects)
    def read(self, data: st.DataObject, key: ObjectKey) -> None:
        process = self._pick(data, sorted(self.processes))
        self.now += 1
        try:
            which, actions = self.ledger.opened(key, process.name, self.now)
        except UnknownObjectError:
            assert key not in self.holds.values() or self.ledger.find(key) is None
            return
        assert self.holds[which] == key, "another object was read"
        process.reads[which] += 1
        # What the node would name: memory as long as it has it.
        place = "memory" if which in self.in_memory else "file"
        assert which in (self.in_memory if place == "memory" else self.files)
        (self.mapped_memory if place == "memory" else self.mapped_file)[which] += 1
        self.mapping_of.setdefault((process.name, which), []).append(place)
        self._do(actions)

    @precondition(lambda self: any(p.reads for p in self.processes.values()))
    @rule(data=st.data())
    def stop_reading(self, data: st.DataObject) -> None:
        process = self._pick(data, [p.name for p in self.processes.values() if p.reads])
        which = data.draw(st.sampled_from(sorted(process.reads)))
        self._unmap(process, which)
        self.now += 1
        self._do(self.ledger.closed(which, process.name, self.now))

    def _unmap(self, process: Process, which: SegmentId) -> None:
        process.reads[which] -= 1
        if not process.reads[which]:
            del process.reads[which]
        place = self.mapping_of[(process.name, which)].pop()
        (self.mapped_memory if place == "memory" else self.mapped_file)[which] -= 1

    @rule(key=consumes(objects))
    def free(self, key: ObjectKey) -> None:
        self._do(self.ledger.freed(key))

    # The disk, time and death.

    @precondition(lambda self: self.copying)
    @rule(data=st.data(), works=st.booleans())
    def a_copy_ends(self, data: st.DataObject, works: bool) -> None:
        which = data.draw(st.sampled_from(self.copying))
        self.copying.remove(which)
        if works:
            self.files.add(which)
            self._do(self.ledger.spilled(which))
        else:
            self._do(self.ledger.spill_failed(which))

    @rule(idle=st.sampled_from((0, 5, 50)))
    def time_passes(self, idle: float) -> None:
        self.now += 1
        self._do(self.ledger.expire(idle, self.now))

    @rule(data=st.data(), really=st.sampled_from((False, False, False, True)))
    def a_process_dies(self, data: st.DataObject, really: bool) -> None:
        if not really:
            return
        process = self._pick(data, sorted(self.processes))
        self._flush(process)
        self._bury(process)
        self._born()

    def _bury(self, process: Process) -> None:
        del self.processes[process.name]
        for which in list(process.reads.elements()):
            self._unmap(process, which)
        self.now += 1
        self._do(self.ledger.process_died(process.name, self.now))
        self._do(self.ledger.owner_died(process.name))

    # What must always hold.

    @invariant()
    def the_sums_are_those_of_the_segments(self) -> None:
        found = list(self.ledger._segments.values())
        said = self.ledger.statistics()
        assert said.memory == sum(s.size for s in found if s.state in HOLDS_MEMORY)
        assert said.pooled == sum(s.size for s in found if s.state is State.RETURNED)
        assert said.leaving == sum(s.size for s in found if s.is_leaving)
        assert said.disk == sum(s.length for s in found if s.state in HOLDS_FILE)
        assert self.ledger._spillable == sum(s.size for s in found if s.may_spill)
        assert set(self.ledger._unread) == {s.id for s in found if s.may_spill}
        assert said.pooled <= self.ledger.pool_limit
        assert said.waiting == sum(len(p.asked) for p in self.processes.values())

    @invariant()
    def the_sums_are_what_is_physically_there(self) -> None:
        said = self.ledger.statistics()
        assert said.memory == sum(self.sizes[which] for which in self.in_memory)
        assert {s.id for s in self.ledger._segments.values() if s.state in HOLDS_MEMORY} == self.in_memory
        copied = {s.id for s in self.ledger._segments.values() if s.state in HOLDS_FILE}
        assert copied - set(self.copying) == self.files

    @invariant()
    def memory_and_promises_stay_below_the_limit(self) -> None:
        said = self.ledger.statistics()
        assert said.memory + said.reserved <= LIMIT

    @invariant()
    def readers_are_those_that_read(self) -> None:
        for which, known in self.ledger._segments.items():
            readers = {p.name: p.reads[which] for p in self.processes.values() if p.reads[which]}
            assert known.readers == readers

    @invariant()
    def who_waits_has_something_to_wait_for(self) -> None:
        if self.ledger.statistics().waiting:
            assert self.ledger.statistics().leaving

    def teardown(self) -> None:
        """Everybody answers and ends: nothing is left."""
        while any(p.inbox or p.outbox for p in self.processes.values()) or self.copying:
            for process in self.processes.values():
                while process.inbox:
                    self._hear(process)
                self._flush(process)
            while self.copying:
                self.files.add(self.copying[0])
                self._do(self.ledger.spilled(self.copying.pop(0)))
        assert not any(p.asked for p in self.processes.values()), "a request was never answered"
        for process in list(self.processes.values()):
            self._flush(process)
            self._bury(process)
        while self.copying:
            self.files.add(self.copying[0])
            self._do(self.ledger.spilled(self.copying.pop(0)))
        assert self.ledger.statistics() == NOTHING
        assert not self.in_memory
        assert not self.files
        assert not self.ledger._live
        assert not self.ledger._owned


TestWorld = World.TestCase
TestWorld.settings = settings(max_examples=30 * DEPTH, stateful_step_count=60, deadline=None)
