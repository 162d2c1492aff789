"""Bugs that are easily made, each put into the rules that all histories run through, and each found by them."""

from collections.abc import Callable
from typing import Any, Final, cast

import pytest

from actorrt.core import actor_calls, calls, leases, lifecycle, ownership, shared_pool, task_pool
from actorrt.testing.histories import Outcome, history
from actorrt.types import ProcessId
from actorrt.wire import link

MOST: Final = 2000


def first_to_find() -> Outcome:
    for seed in range(MOST):
        outcome = history(seed)
        if outcome.broken:
            return outcome
    raise AssertionError(f"{MOST} histories have not found it")


def replace_row(monkeypatch: pytest.MonkeyPatch, table: Any, pair: Any, row: Any) -> None:
    assert pair in table
    monkeypatch.setitem(cast("dict[Any, Any]", table), pair, row)


def a_lost_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a cancelled call has called is not told."""
    state = calls.State.AWAY
    nothing = (state, calls.Action.NOTHING)
    replace_row(monkeypatch, calls.TABLE, (state, calls.Event.CANCEL), calls.Row(nothing, nothing, nothing))


def a_double_reply_after_a_redial(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a link goes on, what the peer has and has not acknowledged is written once more."""
    rejoin = link.End.rejoin

    def one_more(end: link.End, peer_received: int) -> list[link.Buffer]:
        return rejoin(end, min(peer_received, end.kept.start))

    monkeypatch.setattr(link.End, "rejoin", one_more)


def a_borrower_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits until an owner knows of a new borrower."""

    def nothing_to_ask(borrows: ownership.Borrows, owner: bytes) -> None:
        return None

    monkeypatch.setattr(ownership.Borrows, "ask", nothing_to_ask)


def a_lease_leaked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who leaves the line for a lease in the moment in which it was granted is taken for one that had none."""

    def withdraw(queue: Any, request: leases.Request) -> bool:
        if not request.granted:
            remove(queue, request)
        return True

    remove: Any = leases.Queue.withdraw
    monkeypatch.setattr(leases.Queue, "withdraw", withdraw)


def a_stale_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller goes on to send to the place where its actor was."""
    state = actor_calls.State.PLACED
    replace_row(monkeypatch, actor_calls.TABLE, (state, actor_calls.Event.LOST), (state, actor_calls.Action.NOTHING))


def a_load_that_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last thing that a shared worker has to do stays counted once it is done."""
    done: Any = shared_pool.LeastLoaded.done

    def all_but_the_last(pool: shared_pool.LeastLoaded, worker: ProcessId) -> None:
        if pool.loads.get(worker, 0) > 1:
            done(pool, worker)

    monkeypatch.setattr(shared_pool.LeastLoaded, "done", all_but_the_last)


def a_restart_that_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """An actor that is lost comes back for nothing."""
    on: Any = lifecycle.Lifecycle.on

    def free(life: lifecycle.Lifecycle, event: lifecycle.Event, *more: Any, **named: Any) -> Any:
        before = life.state, life.restarts_left
        actions = on(life, event, *more, **named)
        if event is lifecycle.Event.LOST and before[0] is lifecycle.State.ALIVE and life.state is not before[0]:
            life.restarts_left = before[1]
        return actions

    monkeypatch.setattr(lifecycle.Lifecycle, "on", free)


def an_idle_lease_that_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease for which there is nothing to do stays with who has it."""
    timer_over: Any = task_pool.LeasePool.timer_over

    def nothing_is_idle(pool: Any, timer: task_pool.Timer, now: float) -> Any:
        return [] if timer is task_pool.Timer.IDLE else timer_over(pool, timer, now)

    monkeypatch.setattr(task_pool.LeasePool, "timer_over", nothing_is_idle)


def a_call_that_runs_on_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who calls is told in time, and nobody tells the callee."""
    late = (calls.State.ENDED, calls.Action.END_CANCELLED)
    replace_row(monkeypatch, calls.TABLE, (calls.State.AWAY, calls.Event.LATE), calls.Row(late, late, late))


PLANTED: Final = (
    a_lost_cancel,
    a_double_reply_after_a_redial,
    a_borrower_forgotten,
    a_lease_leaked,
    a_stale_address,
    a_load_that_stays,
    a_restart_that_is_not_counted,
    an_idle_lease_that_is_kept,
    a_call_that_runs_on_after_its_time,
)


@pytest.mark.parametrize("plant", PLANTED)
def test_a_planted_bug_is_found(plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        plant(patch)
        found = first_to_find()
        # One that does not fit the rule any more is no bug that was found.
        assert "TypeError" not in found.broken[-1]
        # The seed finds it again, and tells of it.
        assert history(found.seed).story() == found.story()
    # It is the bug that it finds.
    assert history(found.seed).broken == []
    print(f"{plant.__name__}: seed {found.seed}: {found.broken[0]}")
