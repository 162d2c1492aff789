import itertools

import pytest

from actorrt.serve.replica.lifecycle import (
    COMING,
    LEAVING,
    ROUTED,
    TABLE,
    ReplicaAction,
    ReplicaEvent,
    ReplicaState,
    ReplicaTransitionError,
    advance,
)

PAIRS = list(itertools.product(ReplicaState, ReplicaEvent))
IMPOSSIBLE = {
    # No process, so no answer of one; and nothing was asked of it that could have an answer.
    (ReplicaState.PLACING, ReplicaEvent.READY),
    (ReplicaState.PLACING, ReplicaEvent.UPDATE),
    (ReplicaState.PLACING, ReplicaEvent.UPDATED),
    (ReplicaState.PLACING, ReplicaEvent.UPDATE_FAILED),
    (ReplicaState.PLACING, ReplicaEvent.UNHEALTHY),
    (ReplicaState.PLACING, ReplicaEvent.DRAINED),
    (ReplicaState.STARTING, ReplicaEvent.PLACED),
    (ReplicaState.STARTING, ReplicaEvent.UPDATE),
    (ReplicaState.STARTING, ReplicaEvent.UPDATED),
    (ReplicaState.STARTING, ReplicaEvent.UPDATE_FAILED),
    (ReplicaState.STARTING, ReplicaEvent.UNHEALTHY),
    (ReplicaState.STARTING, ReplicaEvent.DRAINED),
    # Placed and constructed only once.
    *((state, event) for state in (ReplicaState.RUNNING, ReplicaState.UPDATING, ReplicaState.DRAINING)
      for event in (ReplicaEvent.PLACED, ReplicaEvent.READY, ReplicaEvent.START_FAILED)),
    # A drain must have been asked for.
    (ReplicaState.RUNNING, ReplicaEvent.DRAINED),
    (ReplicaState.UPDATING, ReplicaEvent.DRAINED),
    # The controller updates only what runs, one update at a time.
    (ReplicaState.UPDATING, ReplicaEvent.UPDATE),
    (ReplicaState.DRAINING, ReplicaEvent.UPDATE),
    (ReplicaState.STOPPING, ReplicaEvent.UPDATE),
}  # fmt: skip


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_every_pair_has_a_row_or_is_refused_by_name(state: ReplicaState, event: ReplicaEvent) -> None:
    if (state, event) in IMPOSSIBLE:
        with pytest.raises(ReplicaTransitionError, match=f"is {state.value} cannot have {event.value}"):
            advance(state, event)
        return
    after, actions = advance(state, event)
    # A replica is told to routers when it becomes routed and when it stops being so, and at no other time.
    assert (ReplicaAction.ROUTE in actions) == (state not in ROUTED and after in ROUTED)
    assert (ReplicaAction.UNROUTE in actions) == (state in ROUTED and after not in ROUTED)
    # It is killed once: on the way into STOPPING.
    assert (ReplicaAction.KILL in actions) == (state is not ReplicaState.STOPPING and after is ReplicaState.STOPPING)
    assert (ReplicaAction.FORGET in actions) == (state is not ReplicaState.STOPPED and after is ReplicaState.STOPPED)


@pytest.mark.parametrize("state", ReplicaState)
def test_a_death_stops_it_whatever_it_does(state: ReplicaState) -> None:
    assert advance(state, ReplicaEvent.DIED)[0] is ReplicaState.STOPPED


@pytest.mark.parametrize("state", ReplicaState)
def test_a_drain_and_a_kill_may_be_asked_at_any_time(state: ReplicaState) -> None:
    for event in (ReplicaEvent.DRAIN, ReplicaEvent.KILL):
        after, _ = advance(state, event)
        assert after in LEAVING or after is ReplicaState.STOPPED


def test_no_way_leads_back_from_leaving() -> None:
    for (state, _), (after, _) in TABLE.items():
        if state in LEAVING or state is ReplicaState.STOPPED:
            assert after not in ROUTED | COMING
