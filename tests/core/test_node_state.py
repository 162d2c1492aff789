"""A node's leases and workers: whatever happens to whom, each request has one answer, and all balances to zero."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actorrt import exceptions
from actorrt.core import node_actions as do
from actorrt.core.leases import OLD, UNIT
from actorrt.core.node_state import MOST_SHARED, NodeState, Wanted
from actorrt.core.worker_pool import GOODBYE_S, LATE, Limits
from actorrt.core.workers import ProcessEnd, State
from actorrt.types import Employer, GroupId, JobKey, LeaseId, ProcessId, Strategy

NODE = ProcessId(b"the node")
OWNERS = tuple(ProcessId(name) for name in (b"driver A", b"driver B", NODE))
EMPLOYERS = (Employer(JobKey(OWNERS[0])), Employer(JobKey(OWNERS[0]), True), Employer(JobKey(OWNERS[1])))
Bundles = dict[int, dict[str, int]]
GROUP = GroupId(b"a group")
LIMITS = Limits(start_s=10.0, idle_s=60.0, shutdown_s=5.0)
TOTAL = {"CPU": 2 * UNIT, "GPU": UNIT, "disk": 3 * UNIT}
CPU = {"CPU": UNIT}
FAILED = ProcessEnd("exit code 1")
SIGKILL = ProcessEnd("killed by signal 9 (SIGKILL)", killed=True, by_others=True)


def _mark(attempt: int) -> ProcessId:
    """What the strategies of leases in an attempt are told apart by; the node does not look at it."""
    return ProcessId(b"attempt %d" % attempt)


class Shell:
    """Performs what a node's state asks for, on paper, and reports what comes of it when the test says so."""

    def __init__(self) -> None:
        numbers = itertools.count(1)
        self.state = NodeState(NODE, TOTAL, 2, LIMITS, lambda: ProcessId(next(numbers).to_bytes(8, "big")))
        for employer in EMPLOYERS:
            self.state.employ(employer)
        self.now = 0.0
        self.requests = itertools.count(1)
        # Asked of the zygote; and those that it has made and that have not been reaped.
        self.forking: dict[ProcessId, do.Fork] = {}
        self.alive: dict[ProcessId, do.Fork] = {}
        # Those that have a link, those that were told to end, and those that were killed.
        self.linked: set[ProcessId] = set()
        self.told: set[ProcessId] = set()
        self.killed: set[ProcessId] = set()
        self.questioned: set[ProcessId] = set()
        self.timers: dict[do.Timer, float] = {}
        self.waiting: dict[int, Wanted | None] = {}
        self.askers: dict[int, ProcessId] = {}
        self.granted: dict[LeaseId, tuple[do.Grant, Wanted]] = {}
        self.leases: list[LeaseId] = []
        self.refused: dict[int, exceptions.ActorrtError] = {}
        self.shared: dict[int, tuple[ProcessId, ...]] = {}
        self.buried: dict[ProcessId, str] = {}
        self.called_back: list[do.CallBack] = []
        self.again: list[do.StartAgain] = []
        # Attempts to place groups: what was asked for, set aside, and released while something ran in it.
        self.asked: dict[tuple[GroupId, int], Bundles] = {}
        self.set_aside: dict[tuple[GroupId, int], Bundles] = {}
        self.released: dict[tuple[GroupId, int], Bundles] = {}

    def perform(self, actions: tuple[do.NodeAction, ...]) -> None:
        for action in actions:
            match action:
                case do.Fork():
                    self.forking[action.process] = action
                case do.Kill():
                    assert action.process in self.alive
                    self.killed.add(action.process)
                case do.SendRetire():
                    assert action.process in self.alive
                case do.SendLeave():
                    assert action.process in self.alive
                    self.told.add(action.process)
                case do.AskIfNeeded():
                    assert action.process not in self.questioned
                    self.questioned.add(action.process)
                case do.CallBack():
                    self.called_back.append(action)
                case do.Grant():
                    wanted = self.waiting.pop(action.request)
                    assert wanted is not None
                    held = {grant.process for grant, _ in self.granted.values()}
                    assert action.process not in held | self.killed | self.told
                    self.granted[action.lease] = (action, wanted)
                    self.leases.append(action.lease)
                case do.Share():
                    assert self.waiting.pop(action.request) is None
                    assert not self.killed & set(action.workers)
                    self.shared[action.request] = action.workers
                case do.Refuse():
                    del self.waiting[action.request]
                    self.refused[action.request] = action.error
                case do.Remind():
                    self.timers[action.timer] = action.delay_s
                case do.Unremind():
                    self.timers.pop(action.timer, None)
                case do.StartAgain():
                    self.again.append(action)
                case do.Bury():
                    self.buried[action.process] = action.cause
                case do.Unmake():
                    del self.forking[action.process]
                case do.Reserved():
                    key = (action.group, action.attempt)
                    self.set_aside[key] = self.asked.pop(key)
                case do.Unreserved():
                    del self.asked[action.group, action.attempt]
                case do.Freed():
                    pass

    # ---- placement groups

    def reserve(self, group: GroupId, attempt: int, bundles: Bundles, waits: bool = False) -> None:
        self.asked[group, attempt] = bundles
        self.perform(self.state.reserve(group, attempt, bundles, waits))

    def release(self, group: GroupId, attempt: int, why: str = "it was removed") -> None:
        self.asked.pop((group, attempt), None)
        if (bundles := self.set_aside.pop((group, attempt), None)) is not None:
            self.released[group, attempt] = bundles
        self.perform(self.state.release(group, attempt, why))

    def held_by_groups(self, name: str) -> int:
        """What is set aside; of what was released, while something runs in it."""
        running = {wanted.strategy for _, wanted in self.granted.values()}
        for key in list(self.released):
            if not any((one.group, one.node) == (key[0], _mark(key[1])) for one in running):
                del self.released[key]
        every = [*self.set_aside.values(), *self.released.values()]
        return sum(bundle.get(name, 0) for bundles in every for bundle in bundles.values())

    # ---- what may happen

    def ask(self, wanted: Wanted, owner: ProcessId = OWNERS[0]) -> int:
        number = next(self.requests)
        self.waiting[number] = wanted
        self.askers[number] = owner
        self.perform(self.state.ask(number, owner, wanted))
        return number

    def ask_shared(self, employer: Employer = EMPLOYERS[0], want: int = 1) -> int:
        number = next(self.requests)
        self.waiting[number] = None
        self.perform(self.state.ask_shared(number, employer, (), want))
        return number

    def withdraw(self, number: int) -> None:
        wanted = self.waiting.pop(number)
        self.perform(self.state.withdraw_shared(number) if wanted is None else self.state.withdraw(number))

    def fork(self, process: ProcessId) -> None:
        self.alive[process] = self.forking.pop(process)
        self.perform(self.state.forked(process))

    def fork_fails(self, process: ProcessId) -> None:
        self.linked.discard(process)
        self.perform(self.state.fork_failed(process, exceptions.WorkerCrashedError("a new worker", "no", False)))

    def zygote_ends(self, process: ProcessId) -> None:
        self.linked.discard(process)
        known = set(self.forking)
        self.perform(self.state.fork_lost(process, exceptions.NodeDiedError("a node", "its zygote ended")))
        assert process not in self.forking
        # At most one other process takes its place.
        assert len(set(self.forking) - known) <= 1

    def ready(self, process: ProcessId) -> None:
        self.linked.add(process)
        self.perform(self.state.ready(process))

    def exit(self, process: ProcessId, end: ProcessEnd = SIGKILL) -> None:
        del self.alive[process]
        self.linked.discard(process)
        self.questioned.discard(process)
        for lease in [lease for lease, (grant, _) in self.granted.items() if grant.process == process]:
            del self.granted[lease]
        self.perform(self.state.exited(process, end, self.now))
        assert process not in self.timers

    def due(self, timer: do.Timer) -> None:
        self.now += self.timers.pop(timer)
        self.perform(self.state.due(timer))

    def give_back(self, lease: LeaseId, end: bool = False) -> None:
        self.granted.pop(lease, None)
        self.perform(self.state.give_back(lease, end))

    def stays(self, process: ProcessId) -> None:
        for lease in [lease for lease, (grant, _) in self.granted.items() if grant.process == process]:
            del self.granted[lease]
        self.perform(self.state.stays(process))

    def needed(self, process: ProcessId, needed: bool) -> None:
        self.questioned.remove(process)
        self.perform(self.state.needed(process, needed))

    def owner_ends(self, owner: ProcessId) -> None:
        # Its link is gone, and with it what it asks for.
        theirs = {number for number, wanted in self.waiting.items() if wanted and self.askers[number] == owner}
        self.perform(self.state.owner_ended(owner))
        assert {number for number in theirs if isinstance(self.refused.get(number), exceptions.LinkError)} == theirs

    def worker(self, wanted: Wanted | None = None) -> LeaseId:
        """The last lease, once all is ready that is being made."""
        self.ask(wanted or Wanted(CPU, EMPLOYERS[0], "sync"))
        while self.forking:
            process = next(iter(self.forking))
            self.fork(process)
            self.ready(process)
        return self.leases[-1] if self.leases else LeaseId(NODE, 0)

    def end(self) -> None:
        """Everything that may end does."""
        while self.waiting:
            self.withdraw(next(iter(self.waiting)))
        for owner in OWNERS:
            self.owner_ends(owner)
        for employer in EMPLOYERS:
            self.perform(self.state.dismiss(employer, "its program ended"))
        while self.timers or self.forking or self.alive:
            for process in list(self.forking):
                self.fork(process)
            for timer in list(self.timers):
                self.due(timer)
            for process in list(self.alive):
                self.exit(process)


def in_group(shape: dict[str, int], bundle: int = -1, actor: str = "") -> Wanted:
    return Wanted(shape, EMPLOYERS[0], "sync", (), actor, Strategy(group=GROUP, bundle=bundle))


@pytest.fixture
def shell() -> Shell:
    return Shell()


# ---- by events


def test_an_idle_worker_is_used_again_by_who_wants_one_of_its_kind(shell: Shell) -> None:
    lease = shell.worker()
    process = shell.granted[lease][0].process
    shell.give_back(lease)
    assert shell.timers == {process: LIMITS.idle_s}
    assert shell.granted[shell.worker()][0].process == process
    assert shell.timers == {}


@pytest.mark.parametrize(
    "other",
    [
        Wanted(CPU, EMPLOYERS[0], "loop"),
        Wanted(CPU, EMPLOYERS[1], "sync"),
        Wanted(CPU, EMPLOYERS[0], "sync", (("A", "1"),)),
        Wanted({"CPU": 2 * UNIT}, EMPLOYERS[0], "sync"),
        Wanted({"GPU": UNIT}, EMPLOYERS[0], "sync"),
    ],
)
def test_and_by_nobody_else(shell: Shell, other: Wanted) -> None:
    lease = shell.worker()
    process = shell.granted[lease][0].process
    shell.give_back(lease)
    assert shell.granted[shell.worker(other)][0].process != process


def test_a_worker_that_nobody_waits_for_any_more_goes_to_the_next_who_asks(shell: Shell) -> None:
    wanted = Wanted(CPU, EMPLOYERS[0], "sync")
    first = shell.ask(wanted)
    (process,) = shell.forking
    shell.withdraw(first)
    shell.ask(wanted, OWNERS[1])
    assert list(shell.forking) == [process]
    shell.fork(process)
    shell.ready(process)
    assert [grant.process for grant, _ in shell.granted.values()] == [process]


def test_a_zygote_that_ends_under_the_question_costs_no_attempt_and_its_process_is_another(shell: Shell) -> None:
    wanted = Wanted(CPU, EMPLOYERS[0], "sync")
    number = shell.ask(wanted)
    seen: set[ProcessId] = set()
    for _ in range(10):
        (process,) = shell.forking
        assert process not in seen
        seen.add(process)
        # It may have come so far that its link is there.
        shell.ready(process)
        shell.zygote_ends(process)
    assert shell.waiting == {number: wanted}
    (process,) = shell.forking
    shell.fork(process)
    shell.ready(process)
    assert [grant.process for grant, _ in shell.granted.values()] == [process]


def test_one_that_is_ended_for_memory_is_buried_so(shell: Shell) -> None:
    number = shell.ask(Wanted(CPU, EMPLOYERS[0], "sync"))
    (process,) = shell.forking
    shell.fork(process)
    shell.ready(process)
    assert number not in shell.waiting
    shell.perform(shell.state.end_for_memory(process, "memory ran short"))
    # Only the first reason counts for one that is being ended.
    assert shell.state.end_for_memory(process, "once more") == ()
    actions = shell.state.exited(process, ProcessEnd("killed by signal 9", killed=True), shell.now)
    assert do.Bury(process, "memory ran short", True) in actions
    shell.perform(actions)


def test_one_that_was_to_be_killed_is_not_made_again(shell: Shell) -> None:
    number = shell.ask(Wanted(CPU, EMPLOYERS[0], "sync"))
    (process,) = shell.forking
    shell.perform(shell.state.kill(process, "somebody killed it"))
    shell.zygote_ends(process)
    assert not shell.forking
    assert "somebody killed it" in str(shell.refused[number])


def test_or_is_idle_once_it_is_ready(shell: Shell) -> None:
    number = shell.ask(Wanted(CPU, EMPLOYERS[0], "sync"))
    (process,) = shell.forking
    shell.withdraw(number)
    # Ready before the zygote has said that it is there.
    shell.ready(process)
    shell.fork(process)
    assert shell.state.statistics().workers == {State.IDLE: 1}
    assert shell.state.statistics().free == TOTAL


def test_who_lacks_for_good_is_refused_at_once(shell: Shell) -> None:
    number = shell.ask(Wanted({"CPU": 3 * UNIT}, EMPLOYERS[0], "sync"))
    assert isinstance(shell.refused[number], exceptions.TaskUnschedulableError)
    number = shell.ask(Wanted({"moon": 1}, EMPLOYERS[0], "sync", actor="Astronaut"))
    assert isinstance(shell.refused[number], exceptions.ActorUnschedulableError)


def test_holders_of_what_is_short_are_asked_for_it_but_not_actors_nor_the_askers_own_kind(shell: Shell) -> None:
    tasks = shell.worker()
    shell.worker(Wanted(CPU, EMPLOYERS[0], "sync", actor="Actor"))
    shell.ask(Wanted(CPU, EMPLOYERS[0], "sync"))
    assert shell.called_back == []
    shell.ask(Wanted(CPU, EMPLOYERS[2], "sync"), OWNERS[1])
    assert shell.called_back == [do.CallBack(OWNERS[0], (tasks,))]


def test_bundles_are_set_aside_together_and_leases_are_given_from_them(shell: Shell) -> None:
    shell.reserve(GROUP, 1, {0: CPU, 2: {"CPU": UNIT, "GPU": UNIT}})
    assert shell.state.free == {"CPU": 0, "GPU": 0, "disk": 3 * UNIT}
    early = shell.ask(in_group(CPU))
    assert "its bundles are not on this node" in str(shell.refused[early])
    shell.perform(shell.state.commit(GROUP, 1))
    first, second = shell.worker(in_group(CPU, 2)), shell.worker(in_group({"GPU": UNIT}))
    assert shell.granted[first][0].gpus == ()
    assert shell.granted[second][0].gpus == (0,)
    third = shell.ask(in_group(CPU, 2))
    assert third in shell.waiting
    shell.worker(in_group(CPU))
    assert third in shell.waiting
    shell.give_back(first)
    assert third not in shell.waiting
    assert shell.state.free == {"CPU": 0, "GPU": 0, "disk": 3 * UNIT}


def test_what_no_bundle_can_ever_give_is_refused_at_once(shell: Shell) -> None:
    shell.reserve(GROUP, 1, {0: CPU, 1: CPU})
    shell.perform(shell.state.commit(GROUP, 1))

    def why(wanted: Wanted) -> str:
        return str(shell.refused[shell.ask(wanted)]).rpartition("give it: ")[2]

    assert why(in_group({"CPU": 2 * UNIT}, 1)) == "its bundle 1 lacks 1 more CPU"
    text = "none of the bundles of its placement group has that; the largest lacks 1 more CPU"
    assert why(in_group({"CPU": 2 * UNIT})) == text
    assert why(in_group(CPU, 7)) == "there is no bundle 7 in its placement group"
    assert isinstance(shell.refused[shell.ask(in_group(CPU, 7, "Actor"))], exceptions.ActorUnschedulableError)


def test_a_group_that_is_released_ends_what_runs_in_it_and_is_free_once_that_has_ended(shell: Shell) -> None:
    shell.reserve(GROUP, 1, {0: CPU})
    shell.perform(shell.state.commit(GROUP, 1))
    lease = shell.worker(in_group(CPU, actor="Actor"))
    process = shell.granted[lease][0].process
    waits = shell.ask(in_group(CPU))
    shell.release(GROUP, 1, "it was removed")
    assert shell.killed == {process}
    gone = shell.refused[waits]
    assert isinstance(gone, exceptions.TaskPlacementGroupRemoved)
    assert gone.cause == "it was removed"
    assert shell.state.cause_of(process) == "its placement group is gone: it was removed"
    assert shell.state.free["CPU"] == UNIT
    shell.exit(process)
    assert shell.state.free == TOTAL


def test_a_group_waits_in_line_and_what_it_lacks_is_called_back(shell: Shell) -> None:
    lease = shell.worker(Wanted({"GPU": UNIT}, EMPLOYERS[0], "sync"))
    shell.reserve(GROUP, 1, {0: {"GPU": UNIT}})
    assert not shell.asked
    shell.reserve(GROUP, 2, {0: {"GPU": UNIT}}, waits=True)
    assert shell.called_back == [do.CallBack(OWNERS[0], (lease,))]
    assert (GROUP, 2) in shell.asked
    shell.give_back(lease)
    assert (GROUP, 2) in shell.set_aside


def test_a_group_that_waits_in_line_can_leave_it(shell: Shell) -> None:
    shell.worker(Wanted({"GPU": UNIT}, EMPLOYERS[0], "sync"))
    shell.reserve(GROUP, 1, {0: {"GPU": UNIT}}, waits=True)
    shell.release(GROUP, 1)
    shell.end()
    assert shell.state.free == TOTAL


def test_one_that_asks_for_much_is_held_for_once_it_is_old(shell: Shell) -> None:
    lease = shell.worker()
    large = shell.ask(Wanted({"CPU": 2 * UNIT}, EMPLOYERS[0], "sync"))
    for _ in range(OLD):
        shell.due(do.AGEING)
    small = shell.ask(Wanted(CPU, EMPLOYERS[2], "sync"), OWNERS[1])
    assert not shell.forking
    shell.give_back(lease)
    assert large in shell.waiting
    assert small in shell.waiting
    (fork,) = shell.forking.values()
    assert fork.kind.cpus == 2


def test_a_lease_says_that_others_wait_already(shell: Shell) -> None:
    first, second = shell.worker(), shell.worker()
    shell.ask(Wanted(CPU, EMPLOYERS[0], "sync"))
    shell.ask(Wanted(CPU, EMPLOYERS[2], "sync"), OWNERS[1])
    shell.give_back(first)
    assert shell.granted[shell.leases[-1]][0].wanted
    assert not shell.granted[second][0].wanted


def test_the_worker_of_an_actor_a_gpu_or_a_limited_function_is_not_used_again(shell: Shell) -> None:
    for wanted, end in (
        (Wanted({}, EMPLOYERS[0], "sync", actor="Actor"), False),
        (Wanted({"GPU": UNIT}, EMPLOYERS[0], "sync"), False),
        (Wanted({}, EMPLOYERS[0], "sync"), True),
    ):
        lease = shell.worker(wanted)
        process = shell.granted[lease][0].process
        shell.give_back(lease, end)
        assert shell.timers[process] == LIMITS.shutdown_s
        shell.exit(process, ProcessEnd("exit code 0", clean=True))
        assert shell.buried[process] == "its work was done"


def test_one_that_retires_may_stay_for_what_it_owns_without_its_lease(shell: Shell) -> None:
    lease = shell.worker()
    process = shell.granted[lease][0].process
    shell.owner_ends(OWNERS[0])
    assert shell.state.statistics().leases == 1
    shell.stays(process)
    known = shell.state.statistics()
    assert (known.leases, known.free, known.workers) == (0, TOTAL, {State.STAYING: 1})
    assert shell.timers == {}


def test_one_that_is_idle_for_long_is_asked_whether_it_is_needed(shell: Shell) -> None:
    lease = shell.worker()
    process = shell.granted[lease][0].process
    shell.give_back(lease)
    shell.due(process)
    assert shell.questioned == {process}
    shell.needed(process, True)
    shell.due(process)
    shell.needed(process, False)
    assert shell.told == {process}
    shell.exit(process)
    assert shell.buried[process] == "nobody needed it"


def test_a_start_that_is_late_is_refused_and_its_worker_killed(shell: Shell) -> None:
    number = shell.ask(Wanted(CPU, EMPLOYERS[0], "sync"))
    (process,) = shell.forking
    shell.fork(process)
    shell.due(process)
    assert (str(shell.refused[number].args[1]), shell.killed) == (LATE, {process})
    assert shell.state.statistics().free == TOTAL


def test_workers_that_end_by_themselves_while_they_start_are_given_up_after_three(shell: Shell) -> None:
    number = shell.ask(Wanted(CPU, EMPLOYERS[0], "sync"))
    for _ in range(3):
        for timer in list(shell.timers):
            shell.due(timer)
        (process,) = shell.forking
        shell.fork(process)
        shell.exit(process, FAILED)
    assert "as did 2 before it" in str(shell.refused[number])
    assert [again.pause_s for again in shell.again] == [0.0, 0.0]


def test_those_that_others_kill_are_replaced_for_as_long_as_a_start_may_take(shell: Shell) -> None:
    number = shell.ask(Wanted(CPU, EMPLOYERS[0], "sync"))
    while number in shell.waiting:
        for timer in list(shell.timers):
            shell.due(timer)
        (process,) = shell.forking
        shell.fork(process)
        shell.exit(process)
    assert len(shell.again) > 3
    assert shell.now <= LIMITS.start_s


def test_nothing_is_started_for_a_program_that_has_ended_meanwhile(shell: Shell) -> None:
    number = shell.ask(Wanted(CPU, EMPLOYERS[0], "sync"))
    (process,) = shell.forking
    shell.fork(process)
    shell.exit(process)
    shell.perform(shell.state.dismiss(EMPLOYERS[0], "its program ended"))
    shell.due(next(iter(shell.timers)))
    assert str(shell.refused[number]) == "its program has ended"


def test_shared_workers_grow_to_what_is_wanted_one_at_a_time(shell: Shell) -> None:
    numbers = [shell.ask_shared(want=2) for _ in range(3)]
    (process,) = shell.forking
    shell.fork(process)
    shell.ready(process)
    assert {shell.shared[number] for number in numbers} == {(process,)}
    shell.ask_shared(want=1)
    assert not shell.forking
    shell.ask_shared(want=2)
    assert len(shell.forking) == 1


def test_blocked_ones_are_replaced_until_there_are_too_many(shell: Shell) -> None:
    asked = 0
    while True:
        number = shell.ask_shared()
        asked += 1
        if not shell.forking:
            break
        (process,) = shell.forking
        shell.fork(process)
        shell.ready(process)
        shell.state.loop_blocked(process, True)
    assert asked == MOST_SHARED * 2 + 1
    assert len(shell.shared[number]) == MOST_SHARED * 2


@pytest.mark.parametrize(("farewell", "delay_s"), [(True, GOODBYE_S), (False, 0.0)])
def test_one_that_closes_its_link_gets_a_moment_to_end(shell: Shell, farewell: bool, delay_s: float) -> None:
    process = shell.granted[shell.worker()][0].process
    shell.perform(shell.state.link_lost(process, farewell))
    assert shell.timers == {process: delay_s}
    shell.due(process)
    assert shell.killed == {process}


def test_the_cpus_of_a_worker_that_waits_are_lent_and_come_back_however_it_ends(shell: Shell) -> None:
    for after in (
        lambda lease, process: shell.give_back(lease),
        lambda lease, process: shell.exit(process),
        lambda lease, process: shell.perform(shell.state.block(lease.number, False)) or shell.give_back(lease),
    ):
        ends: Callable[[LeaseId, ProcessId], object] = after
        lease = shell.worker()
        process = shell.granted[lease][0].process
        shell.perform(shell.state.block(lease.number, True))
        assert shell.state.statistics().free == TOTAL
        ends(lease, process)
        assert shell.state.statistics().free == TOTAL
        assert shell.state.statistics().blocked == 0


def test_one_that_was_to_be_killed_before_it_was_there_is_killed_then(shell: Shell) -> None:
    number = shell.ask(Wanted(CPU, EMPLOYERS[0], "sync"))
    (process,) = shell.forking
    shell.perform(shell.state.kill(process, "it was killed by actorrt.kill"))
    shell.fork(process)
    assert shell.killed == {process}
    shell.exit(process)
    assert "it was killed by actorrt.kill" in str(shell.refused[number])


# ---- in any order


class Node(RuleBasedStateMachine):
    """Processes end in every state, owners end, requests are withdrawn, leases are wanted back."""

    def __init__(self) -> None:
        super().__init__()
        self.shell = Shell()
        self.blocked: set[LeaseId] = set()
        self.attempt = 0

    @precondition(lambda self: not self.shell.asked and not self.shell.set_aside)
    @rule(
        bundles=st.lists(
            st.sampled_from([CPU, {"GPU": UNIT // 2}, {"CPU": UNIT, "GPU": UNIT // 2}, {"disk": UNIT}]),
            min_size=1,
            max_size=2,
        ),
        waits=st.booleans(),
    )
    def group_is_reserved(self, bundles: list[dict[str, int]], waits: bool) -> None:
        self.attempt += 1
        self.shell.reserve(GROUP, self.attempt, dict(enumerate(bundles)), waits)

    @precondition(lambda self: self.shell.set_aside)
    @rule()
    def group_is_there(self) -> None:
        self.shell.perform(self.shell.state.commit(GROUP, self.attempt))

    @precondition(lambda self: self.shell.asked or self.shell.set_aside)
    @rule()
    def group_is_released(self) -> None:
        self.shell.release(GROUP, self.attempt)

    @precondition(lambda self: self.shell.set_aside)
    @rule(
        owner=st.sampled_from(OWNERS),
        employer=st.sampled_from(EMPLOYERS),
        shape=st.sampled_from([{}, CPU, {"GPU": UNIT // 2}]),
        bundle=st.integers(-1, 2),
        actor=st.sampled_from(["", "Actor"]),
    )
    def asks_in_group(
        self, owner: ProcessId, employer: Employer, shape: dict[str, int], bundle: int, actor: str
    ) -> None:
        strategy = Strategy(group=GROUP, bundle=bundle, node=_mark(self.attempt))
        self.shell.ask(Wanted(shape, employer, "sync", (), actor, strategy), owner)

    @rule(
        owner=st.sampled_from(OWNERS),
        employer=st.sampled_from(EMPLOYERS),
        shape=st.sampled_from([{}, CPU, {"CPU": 2 * UNIT}, {"GPU": UNIT // 2}, {"disk": UNIT}, {"disk": 4 * UNIT}]),
        mode=st.sampled_from(["sync", "loop"]),
        actor=st.sampled_from(["", "Actor"]),
    )
    def asks(self, owner: ProcessId, employer: Employer, shape: dict[str, int], mode: str, actor: str) -> None:
        self.shell.ask(Wanted(shape, employer, mode, (), actor), owner)

    @rule(employer=st.sampled_from(EMPLOYERS), want=st.integers(0, 3))
    def asks_for_shared(self, employer: Employer, want: int) -> None:
        self.shell.ask_shared(employer, want)

    @precondition(lambda self: self.shell.waiting)
    @rule(data=st.data())
    def withdraws(self, data: st.DataObject) -> None:
        self.shell.withdraw(data.draw(st.sampled_from(list(self.shell.waiting))))

    @precondition(lambda self: self.shell.forking)
    @rule(data=st.data(), answer=st.sampled_from(["fork", "fork", "fork", "fork_fails", "zygote_ends"]))
    def zygote_answers(self, data: st.DataObject, answer: str) -> None:
        process = data.draw(st.sampled_from(list(self.shell.forking)))
        getattr(self.shell, answer)(process)

    @precondition(lambda self: self.shell.forking or self.shell.alive)
    @rule(data=st.data())
    def is_ready(self, data: st.DataObject) -> None:
        self.shell.ready(data.draw(st.sampled_from([*self.shell.forking, *self.shell.alive])))

    @precondition(lambda self: self.shell.alive)
    @rule(data=st.data(), end=st.sampled_from([FAILED, SIGKILL, ProcessEnd("exit code 0", clean=True)]))
    def ends(self, data: st.DataObject, end: ProcessEnd) -> None:
        self.shell.exit(data.draw(st.sampled_from(list(self.shell.alive))), end)

    @precondition(lambda self: self.shell.linked)
    @rule(data=st.data(), farewell=st.booleans())
    def loses_its_link(self, data: st.DataObject, farewell: bool) -> None:
        process = data.draw(st.sampled_from(sorted(self.shell.linked)))
        self.shell.linked.remove(process)
        self.shell.questioned.discard(process)
        self.shell.perform(self.shell.state.link_lost(process, farewell))

    @precondition(lambda self: self.shell.leases)
    @rule(data=st.data(), end=st.booleans())
    def gives_back(self, data: st.DataObject, end: bool) -> None:
        # Also one that has ended already.
        self.shell.give_back(data.draw(st.sampled_from(self.shell.leases)), end)

    @precondition(lambda self: self.shell.leases)
    @rule(data=st.data(), blocked=st.booleans())
    def waits_or_goes_on(self, data: st.DataObject, blocked: bool) -> None:
        lease = data.draw(st.sampled_from(self.shell.leases))
        self.shell.perform(self.shell.state.block(lease.number, blocked))
        (self.blocked.add if blocked else self.blocked.discard)(lease)

    @precondition(lambda self: self.shell.linked)
    @rule(data=st.data())
    def says_that_it_stays(self, data: st.DataObject) -> None:
        process = data.draw(st.sampled_from(sorted(self.shell.linked)))
        worker = self.shell.state.worker(process)
        if process in self.shell.alive and worker is not None and worker.state is State.RETIRING:
            self.shell.stays(process)

    @precondition(lambda self: self.shell.questioned)
    @rule(data=st.data(), needed=st.booleans())
    def answers(self, data: st.DataObject, needed: bool) -> None:
        self.shell.needed(data.draw(st.sampled_from(sorted(self.shell.questioned))), needed)

    @precondition(lambda self: self.shell.timers)
    @rule(data=st.data())
    def is_reminded(self, data: st.DataObject) -> None:
        self.shell.due(data.draw(st.sampled_from(list(self.shell.timers))))

    @rule(owner=st.sampled_from(OWNERS))
    def owner_ends(self, owner: ProcessId) -> None:
        self.shell.owner_ends(owner)

    @rule(employer=st.sampled_from(EMPLOYERS))
    def program_ends(self, employer: Employer) -> None:
        self.shell.perform(self.shell.state.dismiss(employer, "its program ended"))

    @rule(employer=st.sampled_from(EMPLOYERS))
    def program_comes(self, employer: Employer) -> None:
        self.shell.state.employ(employer)

    @precondition(lambda self: self.shell.alive)
    @rule(data=st.data(), stalled=st.booleans())
    def is_killed(self, data: st.DataObject, stalled: bool) -> None:
        process = data.draw(st.sampled_from([*self.shell.alive, *self.shell.forking]))
        kill = self.shell.state.stalled if stalled else self.shell.state.kill
        self.shell.perform(kill(process, "it was stopped"))

    @precondition(lambda self: self.shell.alive)
    @rule(data=st.data(), blocked=st.booleans())
    def loop_is_blocked(self, data: st.DataObject, blocked: bool) -> None:
        self.shell.state.loop_blocked(data.draw(st.sampled_from(list(self.shell.alive))), blocked)

    @invariant()
    def resources_are_conserved(self) -> None:
        known = self.shell.state.statistics()
        assert known.leases == len(self.shell.granted)
        assert sum(known.workers.values()) == len(self.shell.alive) + len(self.shell.forking)
        self.blocked &= set(self.shell.granted)
        assert known.blocked == len(self.blocked)
        if known.requests == known.waiting:
            of_machine = {lease: one for lease, one in self.shell.granted.items() if not one[1].strategy.group}
            for name, amount in TOTAL.items():
                taken = sum(wanted.shape.get(name, 0) for _, wanted in of_machine.values())
                lent = sum(of_machine[lease][1].shape.get(name, 0) for lease in self.blocked & set(of_machine))
                taken += self.shell.held_by_groups(name)
                assert known.free[name] == amount - taken + (lent if name == "CPU" else 0)

    @invariant()
    def what_runs_in_a_group_fits_into_its_bundles(self) -> None:
        for (group, attempt), bundles in (self.shell.set_aside | self.shell.released).items():
            theirs = [
                (grant, wanted)
                for lease, (grant, wanted) in self.shell.granted.items()
                if (wanted.strategy.group, wanted.strategy.node) == (group, _mark(attempt))
                and lease not in self.blocked
            ]
            for name in TOTAL:
                room = sum(bundle.get(name, 0) for bundle in bundles.values())
                # Who goes on after a block takes its CPU back.
                assert name == "CPU" or sum(wanted.shape.get(name, 0) for _, wanted in theirs) <= room

    @rule(
        employer=st.sampled_from(EMPLOYERS[:2]),
        shape=st.sampled_from([{}, CPU, {"GPU": UNIT // 2}]),
        actor=st.sampled_from(["", "", "Actor"]),
    )
    def gets_a_worker(self, employer: Employer, shape: dict[str, int], actor: str) -> None:
        self.shell.worker(Wanted(shape, employer, "sync", (), actor))

    @precondition(lambda self: self.shell.granted)
    @rule(data=st.data(), end=st.sampled_from([False, False, True]))
    def gives_back_what_it_has(self, data: st.DataObject, end: bool) -> None:
        self.shell.give_back(data.draw(st.sampled_from(list(self.shell.granted))), end)

    @precondition(lambda self: self.shell.granted)
    @rule(data=st.data())
    def waits(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(list(self.shell.granted)))
        self.shell.perform(self.shell.state.block(lease.number, True))
        self.blocked.add(lease)

    def teardown(self) -> None:
        self.shell.release(GROUP, self.attempt)
        self.shell.end()
        known = self.shell.state.statistics()
        assert (known.free, known.workers, known.starts, known.leases, known.requests) == (TOTAL, {}, 0, 0, 0)
        assert (known.waiting, known.waiting_for_shared, known.blocked) == (0, 0, 0)


TestNode = Node.TestCase
TestNode.settings = settings(max_examples=100, stateful_step_count=80, deadline=None)
