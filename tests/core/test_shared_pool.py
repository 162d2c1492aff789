"""Shared workers: every row of their states, which of them is chosen, and when more are asked for."""

from __future__ import annotations

from typing import Final

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actorrt.core.shared_pool import (
    CROWDED,
    TABLE,
    Event,
    LeastLoaded,
    SharedPoolStatistics,
    State,
    WorkerStateError,
)
from actorrt.types import ProcessId

from ..depth import DEPTH

WORKERS: Final = [ProcessId(bytes([number])) for number in range(4)]
# What leads to each state of a worker that is known.
WAYS: Final[dict[State, list[Event]]] = {
    State.DIALLED: [],
    State.DIALLED_BLOCKED: [Event.BLOCKED],
    State.TAKING: [Event.REACHED],
    State.BLOCKED: [Event.REACHED, Event.BLOCKED],
}


def reached(*workers: ProcessId, limit: int = 4) -> LeastLoaded:
    pool = LeastLoaded()
    assert pool.named(workers, limit, ()) == list(workers)
    for worker in workers:
        pool.on(worker, Event.REACHED)
    return pool


@pytest.mark.parametrize("state", [state for state in State if state is not State.GONE])
@pytest.mark.parametrize("event", Event)
def test_every_pair_is_in_the_table_or_an_error_that_names_both(state: State, event: Event) -> None:
    pool = LeastLoaded()
    pool.named(WORKERS[:1], 1, ())
    for before in WAYS[state]:
        pool.on(WORKERS[0], before)
    after = TABLE.get((state, event))
    if after is None:
        with pytest.raises(WorkerStateError, match=f"{event.name}.*{state.name}"):
            pool.on(WORKERS[0], event)
        return
    assert pool.on(WORKERS[0], event) is after
    assert pool.takes == (after is State.TAKING)
    assert (pool.pick() is not None) == pool.takes
    assert pool.is_empty == (after is State.GONE)


def test_what_happens_to_a_worker_that_nobody_knows_changes_nothing() -> None:
    pool = LeastLoaded()
    for event in Event:
        assert pool.on(WORKERS[0], event) is State.GONE
    assert pool.is_empty


def test_the_least_loaded_worker_that_takes_more_is_chosen() -> None:
    pool = reached(*WORKERS[:3])
    assert {pool.pick() for _ in range(3)} == set(WORKERS[:3])
    pool.done(WORKERS[1])
    assert pool.pick() == WORKERS[1]
    pool.on(WORKERS[0], Event.BLOCKED)
    assert WORKERS[0] not in {pool.pick() for _ in range(6)}
    # It has had less to do since.
    pool.on(WORKERS[0], Event.GOES_ON)
    assert pool.pick() == WORKERS[0]


def test_a_worker_that_is_lost_and_named_again_begins_with_nothing_to_do() -> None:
    pool = reached(*WORKERS[:2])
    for _ in range(10):
        pool.pick()
    pool.on(WORKERS[0], Event.LOST)
    pool.done(WORKERS[0])
    assert pool.named(WORKERS[:2], 4, ()) == WORKERS[:1]
    pool.on(WORKERS[0], Event.REACHED)
    assert [pool.pick() for _ in range(5)] == [WORKERS[0]] * 5


def test_one_that_is_known_to_have_ended_is_not_dialled() -> None:
    pool = LeastLoaded()
    assert pool.named(WORKERS[:2], 4, {WORKERS[0]}) == WORKERS[1:2]


def test_one_more_is_asked_for_when_all_are_crowded_and_once_at_a_time() -> None:
    pool = reached(WORKERS[0], limit=2)
    for _ in range(CROWDED):
        assert pool.pick() == WORKERS[0]
        assert not pool.is_crowded(WORKERS[0])
    assert pool.pick() == WORKERS[0]
    assert pool.is_crowded(WORKERS[0])
    assert pool.asks() == 2
    assert not pool.is_crowded(WORKERS[0])
    assert pool.named(WORKERS[:2], 2, ()) == WORKERS[1:2]
    pool.asked()
    assert not pool.is_crowded(WORKERS[0]), "one is on its way"
    pool.on(WORKERS[1], Event.REACHED)
    assert not pool.is_crowded(WORKERS[0]), "there may be no more"


def test_statistics_count_what_is_there() -> None:
    pool = reached(*WORKERS[:2])
    pool.pick()
    pool.on(WORKERS[1], Event.BLOCKED)
    pool.named(WORKERS[2:3], 3, ())
    assert pool.statistics() == SharedPoolStatistics(
        workers={"TAKING": 1, "BLOCKED": 1, "DIALLED": 1}, load=1, limit=3, asking=False
    )


class Histories(RuleBasedStateMachine):
    """A node that names workers, workers that are reached, block and are lost, and what is placed on them."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = LeastLoaded()
        self.dialled: set[ProcessId] = set()
        self.blocked: set[ProcessId] = set()
        self.there: dict[ProcessId, int] = {}
        self.limit = 1

    @rule(workers=st.lists(st.sampled_from(WORKERS), unique=True), limit=st.integers(1, 4))
    def named(self, workers: list[ProcessId], limit: int) -> None:
        new = self.pool.named(workers, limit, ())
        assert set(new) == set(workers) - self.dialled - set(self.there)
        self.dialled.update(new)
        self.blocked.difference_update(workers)
        self.limit = limit

    @precondition(lambda self: self.dialled)
    @rule(answers=st.booleans())
    def dialled_one(self, answers: bool) -> None:
        worker = min(self.dialled)
        self.dialled.discard(worker)
        self.pool.on(worker, Event.REACHED if answers else Event.UNREACHABLE)
        if answers:
            self.there[worker] = 0
        else:
            self.blocked.discard(worker)

    @rule(worker=st.sampled_from(WORKERS), blocked=st.booleans())
    def node_says(self, worker: ProcessId, blocked: bool) -> None:
        self.pool.on(worker, Event.BLOCKED if blocked else Event.GOES_ON)
        if worker in self.dialled or worker in self.there:
            (self.blocked.add if blocked else self.blocked.discard)(worker)

    @precondition(lambda self: self.there)
    @rule(index=st.integers(0, 3))
    def lose(self, index: int) -> None:
        worker = list(self.there)[index % len(self.there)]
        self.pool.on(worker, Event.LOST)
        del self.there[worker]
        self.blocked.discard(worker)

    @rule(times=st.integers(1, 2 * CROWDED))
    def pick(self, times: int) -> None:
        taking = {worker: load for worker, load in self.there.items() if worker not in self.blocked}
        for _ in range(times):
            worker = self.pool.pick()
            assert (worker is None) == (not taking)
            if worker is None:
                return
            assert taking[worker] == min(taking.values())
            taking[worker] += 1
            self.there[worker] += 1
            crowded = taking[worker] > CROWDED and len(taking) < self.limit and not self.dialled
            assert self.pool.is_crowded(worker) == crowded

    @rule(worker=st.sampled_from(WORKERS))
    def done(self, worker: ProcessId) -> None:
        if self.there.get(worker):
            self.there[worker] -= 1
            self.pool.done(worker)

    @invariant()
    def nothing_is_forgotten(self) -> None:
        found = self.pool.statistics()
        assert found.load == sum(self.there.values())
        assert sum(found.workers.values()) == len(self.there) + len(self.dialled)
        assert self.pool.is_empty == (not self.there and not self.dialled)
        assert self.pool.takes == any(worker not in self.blocked for worker in self.there)


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=80 * DEPTH, stateful_step_count=30, deadline=None)
