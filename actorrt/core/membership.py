"""Which nodes are in the cluster, as its head knows: a table, and what applies it. No I/O; times are arguments.

    JOINED --QUIET--> SUSPECTED --GIVEN_UP--> DEAD
      <----- HEARD -----'

Not to reach a node is not its death. One that is silent is suspected: it gets no new work, and keeps what it has. It is
dead once

* a dial of it is refused, or its own machine says that its process has ended, or
* it has been silent for DEAD_S, and another node that was asked cannot reach it either, or there is none to ask.

One that others reach stays suspected, however long the head does not hear it. An id names one incarnation: what is dead
stays so, whatever is heard of it, and is told; it ends its workers and joins under another id.

A head that was stopped itself has heard nobody meanwhile: silence is counted while the head runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import auto
from typing import Final, NamedTuple

from actorrt.types import ProcessId

from .labels import Label
from .recent import Recent
from .story import Story

# A node says something each second; of one that has said nothing for so long others are asked.
SUSPECT_S: Final = 3.0
DEAD_S: Final = 10.0
# Nodes that are heard and do not say what they see are waited for no longer.
LONGEST_DOUBT_S: Final = 2 * DEAD_S
# Others are asked anew so often, and what they have said holds for so long.
ASK_AGAIN_S: Final = 2.0
ANSWER_HOLDS_S: Final = 5.0
MOST_WITNESSES: Final = 3
# How often `look` is to be called; a longer pause between two events is this head's own.
LOOK_S: Final = 0.5
_LONGEST_STEP_S: Final = 3 * LOOK_S
ENDED_REMEMBERED: Final = 4096


class State(Label):
    JOINED = auto()
    # It may live, and is not heard.
    SUSPECTED = auto()
    # Its process has ended, or is to end: it was given up.
    DEAD = auto()
    # It has said goodbye.
    LEFT = auto()


class Event(Label):
    HEARD = auto()
    # Nothing was heard for SUSPECT_S, or its connection broke.
    QUIET = auto()
    # Its dial is refused, or its own machine says that it has ended.
    GONE = auto()
    # It was silent for too long, and nobody else reaches it.
    GIVEN_UP = auto()
    LEAVES = auto()


class Step(Label):
    # No new work for it.
    SUSPECT = auto()
    CLEAR = auto()
    # What it had is lost: all are told.
    BURY = auto()
    # It is told that it was given up.
    TELL_DEAD = auto()


S, E = State, Event

TABLE: Final[Mapping[tuple[State, Event], tuple[State, tuple[Step, ...]]]] = {
    (S.JOINED, E.HEARD): (S.JOINED, ()),
    (S.JOINED, E.QUIET): (S.SUSPECTED, (Step.SUSPECT,)),
    (S.JOINED, E.GONE): (S.DEAD, (Step.BURY,)),
    (S.JOINED, E.LEAVES): (S.LEFT, (Step.BURY,)),
    (S.SUSPECTED, E.HEARD): (S.JOINED, (Step.CLEAR,)),
    # It is silent, and then its connection breaks, or the other way round.
    (S.SUSPECTED, E.QUIET): (S.SUSPECTED, ()),
    (S.SUSPECTED, E.GONE): (S.DEAD, (Step.BURY,)),
    (S.SUSPECTED, E.GIVEN_UP): (S.DEAD, (Step.BURY,)),
    (S.SUSPECTED, E.LEAVES): (S.LEFT, (Step.BURY,)),
    # It was given up in error, and does not know.
    (S.DEAD, E.HEARD): (S.DEAD, (Step.TELL_DEAD,)),
    (S.DEAD, E.QUIET): (S.DEAD, ()),
    (S.DEAD, E.GONE): (S.DEAD, ()),
    (S.DEAD, E.LEAVES): (S.DEAD, ()),
    # What it had said before its goodbye came late, over another connection.
    (S.LEFT, E.HEARD): (S.LEFT, ()),
    (S.LEFT, E.QUIET): (S.LEFT, ()),
    (S.LEFT, E.GONE): (S.LEFT, ()),
    (S.LEFT, E.LEAVES): (S.LEFT, ()),
}


class MembershipError(Exception):
    """An event that cannot happen to a node in this state: a bug of ours. It tells the last transitions."""


# ---- what is to be done, in order


class Suspected(NamedTuple):
    """The node gets no new work; what it has goes on."""

    node: ProcessId


class Cleared(NamedTuple):
    """It was heard again."""

    node: ProcessId


class Buried(NamedTuple):
    """All are told that the node is gone, and why."""

    node: ProcessId
    cause: str


class TellDead(NamedTuple):
    """The node is told that it was given up: it ends its workers, and joins under another id."""

    node: ProcessId


class AskWitness(NamedTuple):
    """`witness` is asked whether it reaches `about`; report `answered`."""

    witness: ProcessId
    about: ProcessId


Action = Suspected | Cleared | Buried | TellDead | AskWitness


class Standing(NamedTuple):
    """How one node stands. `silent_s`: for so long it has not been heard."""

    state: State
    machine: str
    silent_s: float
    cause: str = ""


class _Said(NamedTuple):
    reached: bool
    at: float


class _Member:
    """One incarnation of a node."""

    __slots__ = ("_story", "asked", "heard", "machine", "node", "said", "state")

    def __init__(self, node: ProcessId, machine: str, now: float) -> None:
        self.node = node
        self.machine = machine
        self.state = S.JOINED
        self.heard = now
        # Since it is suspected: when each witness was asked last, and what it has said last.
        self.asked: dict[ProcessId, float] = {}
        self.said: dict[ProcessId, _Said] = {}
        self._story = Story()

    def on(self, event: Event) -> tuple[Step, ...]:
        row = TABLE.get((self.state, event))
        if row is None:
            raise MembershipError(
                f"{event.name} cannot happen to node {self.node.hex()}, which is {self.state.name}: {self._story}"
            )
        self._story.add(f"{self.state.name} --{event.name}--> {row[0].name}")
        self.state, steps = row
        return steps


class Membership:
    """The nodes of one cluster. Each method returns what is to be done now."""

    def __init__(self, machine: str, now: float) -> None:
        """`machine`: that of the head; nodes there see what the head sees, and are not asked about others."""
        self._machine = machine
        self._members: dict[ProcessId, _Member] = {}
        # How nodes ended that are here no more.
        self._ended: Recent[ProcessId, Standing] = Recent(ENDED_REMEMBERED)
        self._last = now
        # Seconds that this head has run for.
        self._awake = 0.0

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[ProcessId]:
        """Those that are here, suspected ones too."""
        return iter(self._members)

    def _clock(self, now: float) -> float:
        self._awake += min(max(0.0, now - self._last), _LONGEST_STEP_S)
        self._last = now
        return self._awake

    # ---- events

    def join(
        self, node: ProcessId, machine: str, now: float, before: ProcessId | None = None
    ) -> tuple[bool, tuple[Action, ...]]:
        """A node wants to be in the cluster, or to go on being. False: this incarnation has ended, and may not.

        `before`: the incarnation of the same machine's node that this one takes the place of.
        """
        awake = self._clock(now)
        actions: list[Action] = []
        if before is not None and before != node:
            actions += self._on(before, E.GONE, "its machine has started another one in its place")
        if self._ended.get(node) is not None:
            return False, (*actions, *self._on(node, E.HEARD))
        if node not in self._members:
            self._members[node] = _Member(node, machine, awake)
        return True, (*actions, *self._hear(node, awake))

    def heard(self, node: ProcessId, now: float) -> tuple[Action, ...]:
        """Anything came from it."""
        return self._hear(node, self._clock(now))

    def link_broke(self, node: ProcessId, now: float) -> tuple[Action, ...]:
        """Its connection broke, and is dialled again."""
        return self._suspect(node, self._clock(now))

    def gone(self, node: ProcessId, cause: str, now: float) -> tuple[Action, ...]:
        """Its dial is refused, or its own machine says that its process has ended."""
        self._clock(now)
        return self._on(node, E.GONE, cause)

    def leaves(self, node: ProcessId, now: float) -> tuple[Action, ...]:
        self._clock(now)
        return self._on(node, E.LEAVES, "it has left the cluster")

    def answered(self, witness: ProcessId, about: ProcessId, reached: bool, now: float) -> tuple[Action, ...]:
        """A node says whether it reaches another one."""
        awake = self._clock(now)
        actions = self._hear(witness, awake)
        member = self._members.get(about)
        if member is not None and witness in member.asked:
            member.said[witness] = _Said(reached, awake)
        return actions

    def look(self, now: float) -> tuple[Action, ...]:
        """Time has passed; to be called every LOOK_S."""
        awake = self._clock(now)
        actions: list[Action] = []
        for member in list(self._members.values()):
            if member.state is S.JOINED and awake - member.heard >= SUSPECT_S:
                actions += self._suspect(member.node, awake)
            elif member.state is S.SUSPECTED:
                if cause := self._why_dead(member, awake):
                    actions += self._on(member.node, E.GIVEN_UP, cause)
                else:
                    actions += self._ask(member, awake)
        return tuple(actions)

    # ---- what is known

    def standing(self, node: ProcessId) -> Standing | None:
        """How a node stands, or how it ended; None if it was never heard of, or ended too long ago."""
        member = self._members.get(node)
        if member is None:
            return self._ended.get(node)
        return Standing(member.state, member.machine, max(0.0, self._awake - member.heard))

    def takes_work(self, node: ProcessId) -> bool:
        member = self._members.get(node)
        return member is not None and member.state is S.JOINED

    # ---- decisions

    def _hear(self, node: ProcessId, awake: float) -> tuple[Action, ...]:
        member = self._members.get(node)
        if member is not None:
            member.heard = awake
            member.asked.clear()
            member.said.clear()
        return self._on(node, E.HEARD)

    def _suspect(self, node: ProcessId, awake: float) -> tuple[Action, ...]:
        actions = self._on(node, E.QUIET)
        member = self._members.get(node)
        return (*actions, *self._ask(member, awake)) if member is not None and actions else actions

    def _on(self, node: ProcessId, event: Event, cause: str = "") -> tuple[Action, ...]:
        member = self._members.get(node)
        if member is None:
            ended = self._ended.get(node)
            # What is not known is of another head's time, and has to join first.
            return () if ended is None else self._actions(node, TABLE[ended.state, event][1], ended.cause)
        steps = member.on(event)
        if member.state is S.DEAD or member.state is S.LEFT:
            del self._members[node]
            self._ended.put(node, Standing(member.state, member.machine, 0.0, cause))
        return self._actions(node, steps, cause)

    def _actions(self, node: ProcessId, steps: tuple[Step, ...], cause: str) -> tuple[Action, ...]:
        actions: list[Action] = []
        for step in steps:
            match step:
                case Step.SUSPECT:
                    actions.append(Suspected(node))
                case Step.CLEAR:
                    actions.append(Cleared(node))
                case Step.BURY:
                    actions.append(Buried(node, cause))
                case Step.TELL_DEAD:
                    actions.append(TellDead(node))
        return tuple(actions)

    def _witnesses(self, about: _Member) -> list[_Member]:
        """Who can be asked: nodes that are heard, on other machines than the head's and its own."""
        here = {self._machine, about.machine}
        return [one for one in self._members.values() if one.state is S.JOINED and one.machine not in here]

    def _why_dead(self, member: _Member, awake: float) -> str:
        silent_s = awake - member.heard
        if silent_s < DEAD_S:
            return ""
        holding = {node: each for node, each in member.said.items() if awake - each.at <= ANSWER_HOLDS_S}
        if any(each.reached for each in holding.values()):
            # Also where who said so is silent itself by now.
            return ""
        witnesses = {one.node for one in self._witnesses(member)}
        silence = f"it has been silent for {silent_s:.0f} s"
        if not witnesses:
            return f"{silence}, and no other node can be asked for it"
        said = holding.keys() & witnesses
        if said:
            return f"{silence}, and {len(said)} other node{'s' if len(said) > 1 else ''} cannot reach it either"
        return f"{silence}, and no other node says that it reaches it" if silent_s >= LONGEST_DOUBT_S else ""

    def _ask(self, member: _Member, awake: float) -> Iterator[Action]:
        """Have others say whether they reach it: those first that were not asked, or not for the longest time."""
        asked = member.asked
        if asked and awake - max(asked.values()) < ASK_AGAIN_S:
            return
        witnesses = sorted(self._witnesses(member), key=lambda one: asked.get(one.node, -1.0))
        for one in witnesses[:MOST_WITNESSES]:
            asked[one.node] = awake
            yield AskWitness(one.node, member.node)
