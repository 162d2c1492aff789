"""The life of a worker process as its node sees it: a table, and a small class that applies it. No I/O.

    FORKING --FORKED--> STARTING --the node has it ready--> IDLE <--> LEASED, or SHARED
    IDLE --for too long--> QUESTIONED --not needed--> LEAVING --> KILLED --> GONE
    LEASED --its owner ends, or it may run no more--> RETIRING --others need what it owns--> STAYING

A worker that is killed, or has been told to go, is never given to anybody again. Whatever it says meanwhile changes
nothing; only its end, which its parent reports, does.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import auto
from typing import Final, NamedTuple

from actorrt.types import Employer, LeaseId, ProcessId

from .labels import Label
from .start_attempts import StartAttempts
from .story import Story

Env = tuple[tuple[str, str], ...]


class WorkerKind(NamedTuple):
    """Workers of one kind can stand in for each other."""

    employer: Employer
    mode: str
    # Of the call, sorted.
    env: Env = ()
    # What its environment says that it has for itself: whole CPUs, 0 where it does not say, and GPUs by index.
    cpus: int = 0
    gpus: tuple[int, ...] = ()


class State(Label):
    # The zygote has been asked for it.
    FORKING = auto()
    # It has said that it is ready before the zygote has said that it is there.
    EARLY = auto()
    # It is to be killed as soon as it is there.
    CONDEMNED = auto()
    STARTING = auto()
    IDLE = auto()
    # Idle for long: it is being asked whether others need what it owns.
    QUESTIONED = auto()
    LEASED = auto()
    # By many, for coroutines.
    SHARED = auto()
    # It gets no more work, and ends unless it says that others need what it owns.
    RETIRING = auto()
    # It has said so.
    STAYING = auto()
    # It has been told to end.
    LEAVING = auto()
    # Its link is gone: it ends, or is made to.
    LOST = auto()
    KILLED = auto()
    GONE = auto()


class Event(Label):
    FORKED = auto()
    FORK_FAILED = auto()
    # It listens, and can be leased.
    READY = auto()
    LEASE = auto()
    SHARE = auto()
    # Nobody has it (any more), and it may be used again.
    REST = auto()
    # The time for what it does is over: to start, to be idle, to end.
    TIMEOUT = auto()
    NEEDED = auto()
    UNNEEDED = auto()
    # It is to get no more work.
    RETIRE = auto()
    # It says that its work is done, and that it stays for what it owns.
    RETIRED = auto()
    # It is to end, with a moment for cleaning up.
    DISMISS = auto()
    KILL = auto()
    LINK_LOST = auto()
    EXITED = auto()


class Step(Label):
    KILL = auto()
    SEND_RETIRE = auto()
    SEND_LEAVE = auto()
    ASK_IF_NEEDED = auto()
    # What happens to it is limited in time from now on; a limit takes the place of the one before.
    LIMIT_START = auto()
    LIMIT_IDLE = auto()
    LIMIT_END = auto()
    UNLIMITED = auto()


S, E, P = State, Event, Step

Row = tuple[State, tuple[Step, ...]]

# What may happen to any worker that is ready and has not been told to go.
_ANY: Final[Mapping[Event, Row]] = {
    E.RETIRE: (S.RETIRING, (P.SEND_RETIRE, P.LIMIT_END)),
    E.RETIRED: (S.STAYING, (P.UNLIMITED,)),
    E.DISMISS: (S.LEAVING, (P.SEND_LEAVE, P.LIMIT_END)),
    E.KILL: (S.KILLED, (P.UNLIMITED, P.KILL)),
    E.LINK_LOST: (S.LOST, (P.LIMIT_END,)),
    E.EXITED: (S.GONE, (P.UNLIMITED,)),
}
# What says nothing (any more) about a worker that has been told to go: its lease ends, it answers a question.
_LATE: Final = (E.READY, E.REST, E.NEEDED, E.UNNEEDED, E.RETIRE, E.RETIRED, E.DISMISS, E.LINK_LOST)


def _rows(state: State, rows: Mapping[Event, Row]) -> dict[tuple[State, Event], Row]:
    """`rows` for a state, and those of _ANY for what they do not name."""
    # READY: it has dialled again, and says it once more.
    every = {**_ANY, E.READY: (state, ()), **rows}
    return {(state, event): row for event, row in every.items()}


def _late(state: State, rows: Mapping[Event, Row]) -> dict[tuple[State, Event], Row]:
    """`rows` for the state of a worker on its way out, in which all else that may come changes nothing."""
    every: dict[Event, Row] = {**dict.fromkeys(_LATE, (state, ())), **rows}
    return {(state, event): row for event, row in every.items()}


_KILLED: Final[Row] = (S.KILLED, (P.UNLIMITED, P.KILL))
_GONE: Final[Row] = (S.GONE, (P.UNLIMITED,))

TABLE: Final[Mapping[tuple[State, Event], Row]] = {
    (S.FORKING, E.FORKED): (S.STARTING, (P.LIMIT_START,)),
    (S.FORKING, E.FORK_FAILED): (S.GONE, ()),
    (S.FORKING, E.READY): (S.EARLY, ()),
    # Its link was lost before it had said anything over it: it may dial again.
    (S.FORKING, E.LINK_LOST): (S.FORKING, ()),
    (S.FORKING, E.KILL): (S.CONDEMNED, ()),
    # It has nothing to clean up.
    (S.FORKING, E.DISMISS): (S.CONDEMNED, ()),
    (S.EARLY, E.LINK_LOST): (S.FORKING, ()),
    (S.EARLY, E.READY): (S.EARLY, ()),
    (S.EARLY, E.KILL): (S.CONDEMNED, ()),
    (S.EARLY, E.DISMISS): (S.CONDEMNED, ()),
    (S.EARLY, E.FORK_FAILED): (S.GONE, ()),
    # With FORKED, which makes it ready.
    (S.EARLY, E.LEASE): (S.LEASED, ()),
    (S.EARLY, E.SHARE): (S.SHARED, ()),
    (S.EARLY, E.REST): (S.IDLE, (P.LIMIT_IDLE,)),
    **_late(S.CONDEMNED, {E.FORKED: (S.KILLED, (P.KILL,)), E.FORK_FAILED: (S.GONE, ()), E.KILL: (S.CONDEMNED, ())}),
    # With READY.
    (S.STARTING, E.LEASE): (S.LEASED, (P.UNLIMITED,)),
    (S.STARTING, E.SHARE): (S.SHARED, (P.UNLIMITED,)),
    (S.STARTING, E.REST): (S.IDLE, (P.LIMIT_IDLE,)),
    (S.STARTING, E.TIMEOUT): _KILLED,
    (S.STARTING, E.LINK_LOST): (S.STARTING, ()),
    (S.STARTING, E.KILL): _KILLED,
    (S.STARTING, E.DISMISS): _KILLED,
    (S.STARTING, E.EXITED): _GONE,
    **_rows(S.IDLE, {E.LEASE: (S.LEASED, (P.UNLIMITED,)), E.TIMEOUT: (S.QUESTIONED, (P.ASK_IF_NEEDED,))}),
    **_rows(
        S.QUESTIONED,
        {E.NEEDED: (S.IDLE, (P.LIMIT_IDLE,)), E.UNNEEDED: (S.LEAVING, (P.SEND_LEAVE, P.LIMIT_END))},
    ),
    **_rows(S.LEASED, {E.REST: (S.IDLE, (P.LIMIT_IDLE,))}),
    **_rows(S.SHARED, {}),
    # It keeps its lease until it ends, or says that it stays.
    **_rows(
        S.RETIRING,
        {
            E.REST: (S.RETIRING, ()),
            E.RETIRE: (S.RETIRING, ()),
            E.TIMEOUT: _KILLED,
            E.NEEDED: (S.RETIRING, ()),
            E.UNNEEDED: (S.RETIRING, ()),
        },
    ),
    **_rows(
        S.STAYING,
        {
            E.REST: (S.STAYING, ()),
            E.RETIRE: (S.STAYING, ()),
            E.RETIRED: (S.STAYING, ()),
            E.NEEDED: (S.STAYING, ()),
            E.UNNEEDED: (S.STAYING, ()),
        },
    ),
    **_late(
        S.LEAVING,
        {E.TIMEOUT: _KILLED, E.KILL: _KILLED, E.EXITED: _GONE, E.LINK_LOST: (S.LOST, (P.LIMIT_END,))},
    ),
    **_late(S.LOST, {E.TIMEOUT: _KILLED, E.KILL: _KILLED, E.EXITED: _GONE}),
    # Once more does no harm, and somebody may have stopped it meanwhile.
    **_late(S.KILLED, {E.KILL: (S.KILLED, (P.KILL,)), E.EXITED: _GONE}),
}

# As far as its node knows: the zygote has not answered yet.
HAS_NO_PROCESS: Final = frozenset({S.FORKING, S.EARLY, S.CONDEMNED})


# The numbers of signals on Linux.
SIGKILL: Final = 9
SIGTERM: Final = 15
# Who dies of one of these was killed by somebody: no fault of its own raises them.
SENT_BY_OTHERS: Final = frozenset({SIGKILL, SIGTERM})


class ProcessEnd(NamedTuple):
    """How a process ended, as its parent knows it."""

    words: str
    # With exit code 0.
    clean: bool = False
    # By SIGKILL.
    killed: bool = False
    # By a signal that no fault of its own raises.
    by_others: bool = False
    out_of_memory: bool = False
    # How its zygote ended, if it was lost with that.
    lost: str = ""

    @classmethod
    def of(cls, words: str, signal: int, *, clean: bool, out_of_memory: bool, lost: str) -> ProcessEnd:
        """`signal`: what it died of; 0: none."""
        return cls(words, clean, signal == SIGKILL, signal in SENT_BY_OTHERS, out_of_memory, lost)

    @property
    def by_itself(self) -> bool:
        """The next one is likely to end in the same way. The end of its zygote says nothing of that."""
        return not self.lost and (self.out_of_memory or not self.by_others)


def lacks_memory(signal: int, lost: str, may_lack: bool) -> bool:
    """Whether to ask if the kernel has killed a process for want of memory: it died as it would of that, not with its
    zygote, and (`may_lack`) not by its node."""
    return signal == SIGKILL and not lost and may_lack


class WorkerError(Exception):
    """An event that cannot happen to a worker in this state: a bug of ours. It tells the last transitions."""


class Start:
    """A worker that is wanted: it may take several processes, one after the other, until one is ready."""

    __slots__ = ("_attempts", "claim", "is_shared", "kind", "number")

    def __init__(self, number: int, kind: WorkerKind, patience_s: float, claim: int | None) -> None:
        """`claim`: who has asked for it; None: it is to be shared."""
        self.number = number
        self.kind = kind
        self.is_shared = claim is None
        self.claim = claim
        self._attempts = StartAttempts(patience_s)

    def give_up_claim(self) -> None:
        """Who has asked for it does not want it any more."""
        self.claim = None

    def take_over(self, claim: int) -> None:
        self.claim = claim

    def ended(self, now: float, end: ProcessEnd, cause: str) -> tuple[float | None, str]:
        """Its process has ended: after how many seconds the next one is made, None if none is; and the story so far."""
        pause_s = self._attempts.ended(now, by_itself=end.by_itself)
        return pause_s, self._attempts.story(cause)


class Worker:
    """One worker process. `start` is what it was forked for, until it is ready or that has failed."""

    __slots__ = (
        "_cause",
        "_for_memory",
        "_retired",
        "_story",
        "_lease",
        "is_shared",
        "kind",
        "process",
        "start",
        "state",
    )

    def __init__(self, process: ProcessId, kind: WorkerKind, start: Start) -> None:
        self.process = process
        self.kind = kind
        self.is_shared = start.is_shared
        self.state = State.FORKING
        self.start: Start | None = start
        self._lease: LeaseId | None = None
        self._cause = ""
        self._for_memory = False
        self._retired = ""
        self._story = Story()

    def __str__(self) -> str:
        return f"worker {self.process.hex()} ({self.state.name})"

    @property
    def lease(self) -> LeaseId | None:
        return self._lease

    @property
    def cause(self) -> str:
        """Why it is being ended, if its node does it."""
        return self._cause

    @property
    def retired(self) -> str:
        """Why it gets no more work, though it may stay for what it owns."""
        return self._retired

    def on(self, event: Event) -> tuple[Step, ...]:
        """Apply `event`; what to do now. Raises WorkerError for a pair that the table does not have."""
        row = TABLE.get((self.state, event))
        if row is None:
            raise WorkerError(f"{event.name} cannot happen to {self}; before: {self._story}")
        self._story.add(f"{self.state.name} --{event.name}--> {row[0].name}")
        self.state, steps = row
        return steps

    def begin_lease(self, lease: LeaseId) -> None:
        self._lease = lease

    def end_lease(self) -> None:
        self._lease = None

    def leave_start(self) -> Start | None:
        """What it was forked for does not wait for it any more; None if that was so before."""
        start, self.start = self.start, None
        return start

    @property
    def ended_for_memory(self) -> bool:
        """Whether its node ends it since memory runs short."""
        return self._for_memory

    def accuse(self, cause: str, *, again: bool = False, for_memory: bool = False) -> None:
        """Its node ends it, for this reason: the first one stands, or (`again`) the last. `for_memory`: since memory
        runs short."""
        if again or not self._cause:
            self._cause, self._for_memory = cause, for_memory

    def note_retirement(self, reason: str) -> None:
        if not self._cause and not self._retired:
            self._retired = reason

    def story_of(self, end: ProcessEnd) -> str:
        """Why it has ended, in words."""
        if self._cause:
            return self._cause
        cause = self._retired if self._retired and end.clean else end.words
        return f"{cause} since {end.lost}" if end.killed and end.lost else cause
