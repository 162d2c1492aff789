"""What a running call has called: those that go on are remembered, at a cost that does not grow with their number."""

from __future__ import annotations

from typing import Any

from actorrt.core.cancellation import Action, Reach
from actorrt.runtime.links.running import RunningCall

LINK: Any = None


class Child:
    """Counts how often somebody looks whether any of them is done."""

    looks = 0

    def __init__(self, is_done: bool = False) -> None:
        self.is_done = is_done

    @property
    def done(self) -> bool:
        Child.looks += 1
        return self.is_done

    def cancel(self, force: bool) -> None: ...
    async def settled(self) -> None: ...


def test_what_goes_on_is_remembered_and_looked_at_a_few_times_only() -> None:
    run = RunningCall(LINK, 1, "call")
    living = [Child() for _ in range(5_000)]
    Child.looks = 0
    for child in living:
        run.add_child(child)
    assert Child.looks < 2 * len(living)
    assert run.living_children() == living


def test_what_has_ended_is_forgotten() -> None:
    run = RunningCall(LINK, 1, "call")
    kept = [Child() for _ in range(100)]
    ended = [Child(is_done=True) for _ in range(5_000)]
    for child in [*kept, *ended]:
        run.add_child(child)
    assert run.children is not None
    assert len(run.children) < 256
    assert run.living_children() == kept


def test_a_call_that_waits_is_claimed_once() -> None:
    run = RunningCall(LINK, 1, "call", waits=True)
    assert run.claim()
    assert not run.claim()


def test_a_call_says_how_far_its_cancellation_reaches() -> None:
    run = RunningCall(LINK, 1, "call")
    assert (run.cancelled, run.reaches_children, run.by_force) == (False, False, False)
    assert run.cancel(Reach.ALONE) is Action.INTERRUPT
    assert (run.cancelled, run.reaches_children, run.by_force) == (True, False, False)
    assert run.cancel(Reach.TREE) is Action.REACH
    assert (run.cancelled, run.reaches_children, run.by_force) == (True, True, False)
    assert run.cancel(Reach.TREE_BY_FORCE) is Action.REACH
    assert (run.cancelled, run.reaches_children, run.by_force) == (True, True, True)
