"""Who is in the cluster: not to reach a node is not its death, and what is dead stays so."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from actorrt.core.membership import (
    ANSWER_HOLDS_S,
    DEAD_S,
    LONGEST_DOUBT_S,
    LOOK_S,
    SUSPECT_S,
    TABLE,
    Action,
    AskWitness,
    Buried,
    Cleared,
    Event,
    Membership,
    State,
    Suspected,
    TellDead,
)
from actorrt.types import ProcessId

HEAD = "head"
A, B, C = (ProcessId(bytes([number]) * 8) for number in (1, 2, 3))


class Cluster:
    """A membership and its time, looked at as often as it asks for."""

    def __init__(self, *nodes: ProcessId) -> None:
        self.now = 100.0
        self.members = Membership(HEAD, self.now)
        for node in nodes:
            assert self.members.join(node, f"machine {node.hex()}", self.now) == (True, ())

    def pass_time(self, seconds: float, *heard: ProcessId) -> list[Action]:
        """`heard` say something all the while."""
        actions: list[Action] = []
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + LOOK_S)
            for node in heard:
                actions += self.members.heard(node, self.now)
            actions += self.members.look(self.now)
        return actions

    def state(self, node: ProcessId) -> State:
        standing = self.members.standing(node)
        assert standing is not None
        return standing.state


def buried(actions: list[Action]) -> list[ProcessId]:
    return [action.node for action in actions if isinstance(action, Buried)]


def test_what_is_not_in_the_table_cannot_come_about() -> None:
    missing = set(product(State, Event)) - set(TABLE)
    # To be given up it has to be suspected first, and it is given up once.
    assert missing == {(state, Event.GIVEN_UP) for state in State if state is not State.SUSPECTED}


@pytest.mark.parametrize("state", [State.DEAD, State.LEFT])
def test_what_has_ended_stays_so(state: State) -> None:
    assert {TABLE[state, event][0] for event in Event if (state, event) in TABLE} == {state}


def test_a_silent_node_is_suspected_and_others_are_asked() -> None:
    cluster = Cluster(A, B)
    actions = cluster.pass_time(SUSPECT_S + 0.1, B)
    assert actions == [Suspected(A), AskWitness(B, A)]
    assert cluster.state(A) is State.SUSPECTED
    assert not cluster.members.takes_work(A)
    assert cluster.members.heard(A, cluster.now) == (Cleared(A),)
    assert cluster.members.takes_work(A)


def test_a_fault_of_five_seconds_kills_nothing() -> None:
    cluster = Cluster(A, B)
    assert buried(cluster.pass_time(5)) == []
    cluster.pass_time(1, A, B)
    assert cluster.state(A) is cluster.state(B) is State.JOINED


def test_a_node_is_dead_once_a_second_one_cannot_reach_it_either() -> None:
    cluster = Cluster(A, B)
    cluster.pass_time(SUSPECT_S, B)
    cluster.members.answered(B, A, False, cluster.now)
    assert buried(cluster.pass_time(DEAD_S - SUSPECT_S - LOOK_S, B)) == []
    cluster.members.answered(B, A, False, cluster.now)
    (death,) = [action for action in cluster.pass_time(1, B) if isinstance(action, Buried)]
    assert death == Buried(A, "it has been silent for 10 s, and 1 other node cannot reach it either")


def test_a_node_that_another_one_reaches_is_never_given_up() -> None:
    cluster = Cluster(A, B, C)
    for _ in range(100):
        actions = cluster.pass_time(ANSWER_HOLDS_S - 1, B, C)
        assert buried(actions) == []
        cluster.members.answered(B, A, True, cluster.now)
        cluster.members.answered(C, A, False, cluster.now)
    assert cluster.state(A) is State.SUSPECTED


def test_what_a_node_has_said_of_another_holds_though_it_is_silent_itself_by_now() -> None:
    cluster = Cluster(A, B)
    cluster.pass_time(SUSPECT_S + LOOK_S, B)
    while cluster.now < DEAD_S - LOOK_S:
        cluster.members.answered(B, A, True, cluster.now)
        cluster.pass_time(LOOK_S)
    assert buried(cluster.pass_time(SUSPECT_S)) == []
    assert cluster.state(A) is cluster.state(B) is State.SUSPECTED
    assert buried(cluster.pass_time(ANSWER_HOLDS_S)) == [A]


def test_where_nobody_can_be_asked_ten_seconds_of_silence_are_the_end() -> None:
    cluster = Cluster(A)
    assert buried(cluster.pass_time(DEAD_S - 0.1)) == []
    (death,) = [action for action in cluster.pass_time(0.2) if isinstance(action, Buried)]
    assert death.cause == "it has been silent for 10 s, and no other node can be asked for it"


def test_a_node_of_the_heads_own_machine_is_no_witness() -> None:
    cluster = Cluster(A)
    cluster.members.join(B, HEAD, cluster.now)
    actions = cluster.pass_time(DEAD_S + LOOK_S, B)
    assert not [action for action in actions if isinstance(action, AskWitness)]
    assert buried(actions) == [A]


def test_witnesses_that_never_answer_are_waited_for_twice_as_long() -> None:
    cluster = Cluster(A, B)
    assert buried(cluster.pass_time(LONGEST_DOUBT_S - LOOK_S, B)) == []
    assert buried(cluster.pass_time(2 * LOOK_S, B)) == [A]


def test_a_refused_dial_is_the_end_at_once() -> None:
    cluster = Cluster(A, B)
    assert cluster.members.link_broke(A, cluster.now) == (Suspected(A), AskWitness(B, A))
    assert cluster.members.gone(A, "nobody listens there", cluster.now) == (Buried(A, "nobody listens there"),)
    assert cluster.members.gone(A, "nobody listens there", cluster.now) == ()


def test_who_was_given_up_in_error_is_told_and_comes_back_as_another() -> None:
    cluster = Cluster(A)
    cluster.pass_time(DEAD_S + 1)
    assert cluster.members.heard(A, cluster.now) == (TellDead(A),)
    assert cluster.members.join(A, "its machine", cluster.now) == (False, (TellDead(A),))
    assert cluster.members.join(B, "its machine", cluster.now, before=A) == (True, ())
    assert list(cluster.members) == [B]


def test_another_incarnation_says_that_the_one_before_has_ended() -> None:
    cluster = Cluster(A)
    took, actions = cluster.members.join(B, "its machine", cluster.now, before=A)
    assert took
    assert actions == (Buried(A, "its machine has started another one in its place"),)


def test_a_goodbye_is_no_death_and_nobody_is_told_of_it_as_one() -> None:
    cluster = Cluster(A, B)
    assert cluster.members.leaves(A, cluster.now) == (Buried(A, "it has left the cluster"),)
    assert cluster.members.heard(A, cluster.now) == ()
    assert cluster.state(A) is State.LEFT


@given(stopped_s=st.floats(DEAD_S, 1e6))
def test_a_head_that_was_stopped_or_whose_clock_jumps_gives_nobody_up(stopped_s: float) -> None:
    cluster = Cluster(A, B)
    cluster.pass_time(5, A, B)
    cluster.now += stopped_s
    assert cluster.members.look(cluster.now) == ()
    cluster.now -= stopped_s
    assert buried([*cluster.members.look(cluster.now), *cluster.pass_time(1, A, B)]) == []


def test_a_node_that_was_never_heard_of_has_to_join_first() -> None:
    cluster = Cluster()
    assert cluster.members.heard(A, cluster.now) == ()
    assert cluster.members.standing(A) is None


class Histories(RuleBasedStateMachine):
    """Nodes on machines of their own, and a network that loses, delays and reorders what they and the head say.

    A node that reads that it is dead joins as another; one that has ended is started again, or not.
    """

    nodes = Bundle("nodes")

    @initialize()
    def begin(self) -> None:
        self.now = 0.0
        self.members = Membership(HEAD, self.now)
        self.count = 0
        # Those whose process runs, by machine; all that were given up; what is under way to the head and to nodes.
        self.running: dict[int, ProcessId] = {}
        self.machine_of: dict[ProcessId, int] = {}
        self.dead: set[ProcessId] = set()
        self.to_head: list[tuple[str, ProcessId, ProcessId, bool]] = []
        self.to_nodes: list[Action] = []
        # Seconds of this head since each was heard, or has last been reached by a witness whose answer came.
        self.quiet: dict[ProcessId, float] = {}
        self.vouched: dict[ProcessId, float] = {}
        self.refused: set[ProcessId] = set()

    def _start(self, machine: int, before: ProcessId | None = None) -> None:
        self.count += 1
        node = ProcessId(self.count.to_bytes(8, "big"))
        self.running[machine] = node
        self.machine_of[node] = machine
        self.to_head.append(("join", node, before or ProcessId(b""), True))

    def _perform(self, actions: tuple[Action, ...]) -> None:
        for action in actions:
            if isinstance(action, Buried):
                node = action.node
                assert node not in self.dead, "it is buried once"
                self.dead.add(node)
                known_end = node in self.refused
                assert known_end or self.quiet[node] >= DEAD_S, "silence alone, and not long enough"
                assert known_end or self.vouched.get(node, 1e9) > ANSWER_HOLDS_S, "another node reaches it"
            elif isinstance(action, TellDead | AskWitness):
                self.to_nodes.append(action)

    @rule(machine=st.integers(1, 4))
    def start(self, machine: int) -> None:
        if machine not in self.running:
            self._start(machine)

    @rule(machine=st.integers(1, 4))
    def say(self, machine: int) -> None:
        if machine in self.running:
            self.to_head.append(("beat", self.running[machine], ProcessId(b""), True))

    @rule(machine=st.integers(1, 4), says_goodbye=st.booleans())
    def end(self, machine: int, says_goodbye: bool) -> None:
        node = self.running.pop(machine, None)
        if node is not None:
            self.to_head.append(("leaves" if says_goodbye else "gone", node, ProcessId(b""), True))

    @rule(index=st.integers(0), lost=st.booleans())
    def head_reads(self, index: int, lost: bool) -> None:
        """Any message next: they cross and come late."""
        if not self.to_head:
            return
        what, node, other, reached = self.to_head.pop(index % len(self.to_head))
        if lost and what == "join":
            # Who is not answered asks again.
            self.to_head.append((what, node, other, reached))
        if lost:
            return
        match what:
            case "join":
                if other:
                    self.refused.add(other)
                took, actions = self.members.join(node, str(self.machine_of[node]), self.now, other or None)
                assert took is (node not in self.dead)
            case "beat":
                actions = self.members.heard(node, self.now)
            case "leaves":
                self.refused.add(node)
                actions = self.members.leaves(node, self.now)
            case "gone":
                self.refused.add(node)
                actions = self.members.gone(node, "refused", self.now)
            case _:
                actions = self.members.answered(node, other, reached, self.now)
                standing = self.members.standing(other)
                if reached and standing is not None and standing.state is State.SUSPECTED:
                    self.vouched[other] = 0.0
        self.quiet[node] = 0.0
        self._perform(actions)

    @rule(index=st.integers(0), lost=st.booleans(), cut=st.booleans())
    def node_reads(self, index: int, lost: bool, cut: bool) -> None:
        if not self.to_nodes:
            return
        action = self.to_nodes.pop(index % len(self.to_nodes))
        if lost:
            return
        if isinstance(action, TellDead):
            machine = self.machine_of[action.node]
            assert action.node in self.dead
            if self.running.get(machine) == action.node:
                self._start(machine, before=action.node)
        elif isinstance(action, AskWitness) and self.running.get(self.machine_of[action.witness]) == action.witness:
            reaches = not cut and self.running.get(self.machine_of[action.about]) == action.about
            self.to_head.append(("answer", action.witness, action.about, reaches))

    @rule(steps=st.integers(1, 12))
    def pass_time(self, steps: int) -> None:
        for _ in range(steps):
            self.now += LOOK_S
            for table in (self.quiet, self.vouched):
                for node in table:
                    table[node] += LOOK_S
            self._perform(self.members.look(self.now))

    @rule(stopped_s=st.floats(2, 1000))
    def head_is_stopped(self, stopped_s: float) -> None:
        self.now += stopped_s
        for table in (self.quiet, self.vouched):
            for node in table:
                table[node] += 3 * LOOK_S
        self._perform(self.members.look(self.now))

    @invariant()
    def the_dead_are_not_here(self) -> None:
        assert not self.dead & set(self.members)
        for node in self.dead:
            standing = self.members.standing(node)
            assert standing is not None
            assert standing.state in (State.DEAD, State.LEFT)

    def teardown(self) -> None:
        """In the end, when all that was said has come and nobody speaks any more, nobody is left."""
        if not hasattr(self, "members"):
            return
        self.to_nodes.clear()
        while self.to_head:
            self.head_reads(0, False)
        for _ in range(int((LONGEST_DOUBT_S + SUSPECT_S) / LOOK_S) + 2):
            self.now += LOOK_S
            for node in self.quiet:
                self.quiet[node] += LOOK_S
            for node in self.vouched:
                self.vouched[node] += LOOK_S
            self._perform(self.members.look(self.now))
        assert len(self.members) == 0


Histories.TestCase.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
TestHistories = Histories.TestCase
