"""The life of a worker: each row of its table, and what its end is blamed on."""

from __future__ import annotations

import pytest

from actorrt.core.workers import TABLE, Event, ProcessEnd, Start, State, Step, Worker, WorkerError, WorkerKind
from actorrt.types import Employer, JobKey, LeaseId, ProcessId

PROCESS = ProcessId(b"workers!")
KIND = WorkerKind(Employer(JobKey(ProcessId(b"a driver"))), "sync")
BORN = (Event.FORKED, Event.LEASE)
# Ways into each state, from the beginning.
WAYS: dict[State, tuple[Event, ...]] = {
    State.FORKING: (),
    State.EARLY: (Event.READY,),
    State.CONDEMNED: (Event.KILL,),
    State.STARTING: (Event.FORKED,),
    State.IDLE: (Event.FORKED, Event.REST),
    State.QUESTIONED: (Event.FORKED, Event.REST, Event.TIMEOUT),
    State.LEASED: BORN,
    State.SHARED: (Event.FORKED, Event.SHARE),
    State.RETIRING: (*BORN, Event.RETIRE),
    State.STAYING: (*BORN, Event.RETIRE, Event.RETIRED),
    State.LEAVING: (*BORN, Event.DISMISS),
    State.LOST: (*BORN, Event.LINK_LOST),
    State.KILLED: (*BORN, Event.KILL),
    State.GONE: (*BORN, Event.EXITED),
}
LIVING = [state for state in State if state is not State.GONE]
WITH_A_PROCESS = [state for state in LIVING if state not in (State.FORKING, State.EARLY, State.CONDEMNED)]


def worker_in(state: State) -> Worker:
    worker = Worker(PROCESS, KIND, Start(1, KIND, 10.0, 1))
    for event in WAYS[state]:
        worker.on(event)
    assert worker.state is state
    return worker


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_each_pair_does_what_its_row_says_and_any_other_names_both(state: State, event: Event) -> None:
    worker = worker_in(state)
    row = TABLE.get((state, event))
    if row is None:
        with pytest.raises(WorkerError, match=rf"{event.name} cannot happen to worker .*\({state.name}\)"):
            worker.on(event)
        assert worker.state is state
    else:
        assert (worker.on(event), worker.state) == (row[1], row[0])


@pytest.mark.parametrize("state", WITH_A_PROCESS)
def test_any_worker_with_a_process_may_end_and_may_be_killed(state: State) -> None:
    worker_in(state).on(Event.EXITED)
    worker = worker_in(state)
    assert Step.KILL in worker.on(Event.KILL)
    worker.on(Event.EXITED)
    assert worker.state is State.GONE


@pytest.mark.parametrize("state", [State.FORKING, State.EARLY])
def test_one_that_is_killed_before_it_is_there_is_killed_as_soon_as_it_is(state: State) -> None:
    worker = worker_in(state)
    assert worker.on(Event.KILL) == ()
    assert worker.on(Event.READY) == ()
    assert worker.on(Event.FORKED) == (Step.KILL,)
    assert worker.state is State.KILLED


@pytest.mark.parametrize("state", [State.LEAVING, State.LOST, State.KILLED, State.CONDEMNED])
def test_one_that_has_to_go_is_never_given_to_anybody_again(state: State) -> None:
    reached = {state}
    left = [state]
    while left:
        here = left.pop()
        for (before, _), (after, _) in TABLE.items():
            if before is here and after not in reached:
                reached.add(after)
                left.append(after)
    assert reached <= {State.LEAVING, State.LOST, State.KILLED, State.CONDEMNED, State.GONE}


@pytest.mark.parametrize("state", [State.STARTING, State.IDLE, State.RETIRING, State.LEAVING, State.LOST])
def test_what_has_a_limit_in_time_has_a_row_for_its_end(state: State) -> None:
    worker_in(state).on(Event.TIMEOUT)


@pytest.mark.parametrize("state", [State.LEASED, State.SHARED, State.STAYING, State.KILLED, State.QUESTIONED])
def test_what_has_no_limit_in_time_is_never_reminded(state: State) -> None:
    limits = {Step.LIMIT_START, Step.LIMIT_IDLE, Step.LIMIT_END}
    for (before, event), (after, steps) in TABLE.items():
        if after is state and before is not state and event is not Event.TIMEOUT:
            assert not limits & set(steps)
            # Whatever limit there was before is lifted.
            if before not in (State.FORKING, State.EARLY, State.CONDEMNED):
                assert Step.UNLIMITED in steps or before in (
                    State.LEASED,
                    State.SHARED,
                    State.STAYING,
                    State.QUESTIONED,
                )
    assert (state, Event.TIMEOUT) not in TABLE


def test_the_first_reason_of_its_node_stands_unless_it_is_killed_for_another_one() -> None:
    worker = worker_in(State.LEASED)
    worker.accuse("nobody needed it")
    worker.accuse("the session ended")
    assert worker.story_of(ProcessEnd("killed by signal 9 (SIGKILL)", killed=True)) == "nobody needed it"
    worker.accuse("it did not answer", again=True)
    assert worker.story_of(ProcessEnd("exit code 1")) == "it did not answer"


def test_one_that_was_retired_has_ended_in_order_if_its_exit_code_is_0() -> None:
    worker = worker_in(State.RETIRING)
    worker.note_retirement("its work was done")
    assert worker.story_of(ProcessEnd("exit code 0", clean=True)) == "its work was done"
    assert worker.story_of(ProcessEnd("exit code 3")) == "exit code 3"


def test_one_that_went_with_its_zygote_says_so() -> None:
    end = ProcessEnd("killed by signal 9 (SIGKILL)", killed=True, by_others=True, lost="the zygote has ended")
    assert worker_in(State.LEASED).story_of(end) == "killed by signal 9 (SIGKILL) since the zygote has ended"
    assert not end.by_itself


@pytest.mark.parametrize(
    ("end", "by_itself"),
    [
        (ProcessEnd("exit code 1"), True),
        (ProcessEnd("killed by signal 11 (SIGSEGV)"), True),
        (ProcessEnd("killed by signal 9 (SIGKILL)", killed=True, by_others=True), False),
        (ProcessEnd("out of memory: ...", killed=True, by_others=True, out_of_memory=True), True),
    ],
)
def test_an_end_that_others_caused_says_nothing_of_the_next_worker(end: ProcessEnd, by_itself: bool) -> None:
    assert end.by_itself is by_itself


def test_a_worker_knows_its_lease_until_that_ends() -> None:
    worker = worker_in(State.LEASED)
    lease = LeaseId(ProcessId(b"the node"), 1)
    worker.begin_lease(lease)
    assert worker.lease == lease
    worker.end_lease()
    assert worker.lease is None
