"""The workers of a node: who is made for whom, who is idle, who is shared, and when one has to go. No I/O.

Events come in as method calls; what is to be done is appended to `actions`. The life of a single worker is in
`workers.py`; who has which lease, with which resources, decides `node_state.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

import msgspec

from actorrt.exceptions import ActorrtError, WorkerCrashedError
from actorrt.types import Employer, ProcessId

from .node_actions import (
    AskIfNeeded,
    Bury,
    Fork,
    Kill,
    NodeAction,
    Remind,
    SendLeave,
    SendRetire,
    StartAgain,
    Unmake,
    Unremind,
)
from .workers import HAS_NO_PROCESS, Event, ProcessEnd, Start, State, Step, Worker, WorkerKind

_K = TypeVar("_K")
_V = TypeVar("_V")
# A worker that has said goodbye may take this long to flush its output and end.
GOODBYE_S: Final = 1.0
LATE: Final = "it did not start in time"
PROGRAM_ENDED: Final = "its program has ended"


class Limits(msgspec.Struct, frozen=True):
    """Seconds: to start, to stay idle, and to end after having been told to."""

    start_s: float
    idle_s: float
    shutdown_s: float


class Employed(Protocol):
    """Who has asked for workers."""

    def got(self, claim: int, worker: Worker, /) -> None:
        """The worker that was asked for as `claim` is ready."""

    def refused(self, claim: int, error: ActorrtError, /) -> None: ...
    def shared_changed(self, kind: WorkerKind, error: ActorrtError | None, /) -> None:
        """A further worker to share is ready, or could not be made."""


class WorkerPool:
    """All workers of a node."""

    def __init__(
        self, limits: Limits, new_process: Callable[[], ProcessId], employed: Employed, actions: list[NodeAction]
    ) -> None:
        """`new_process` makes up the id of a process."""
        self._limits = limits
        self._new_process = new_process
        self._employed = employed
        self._actions = actions
        self._employers: set[Employer] = set()
        self._workers: dict[ProcessId, Worker] = {}
        self._idle: dict[WorkerKind, list[Worker]] = {}
        self._shared: dict[WorkerKind, list[Worker]] = {}
        # Those whose loop is blocked.
        self._blocked: set[ProcessId] = set()
        # What is being started, by who has claimed it; what nobody has claimed any more, the next who asks gets.
        self._claimed: dict[int, Start] = {}
        self._unclaimed: dict[WorkerKind, list[Start]] = {}
        self._starting_shared: dict[WorkerKind, Start] = {}
        # Starts that wait until the next process is made.
        self._pausing: dict[int, Start] = {}
        self._last_start = 0
        self._stopping = ""

    def __len__(self) -> int:
        return len(self._workers)

    def get(self, process: ProcessId) -> Worker | None:
        return self._workers.get(process)

    def of(self, job: ProcessId) -> list[Worker]:
        """All that work for a program, or for its detached actors."""
        return [worker for worker in self._workers.values() if worker.kind.employer.job == job]

    def states(self) -> dict[State, int]:
        return dict(Counter(worker.state for worker in self._workers.values()))

    @property
    def starts(self) -> int:
        """Workers that are wanted and not ready, whether somebody waits for them or not."""
        return len(self._claimed) + sum(map(len, self._unclaimed.values())) + len(self._starting_shared)

    # ---- for whom

    def employ(self, employer: Employer) -> None:
        """Workers may be made for it from now on."""
        self._employers.add(employer)

    def dismiss(self, employer: Employer, reason: str) -> None:
        """It has ended: its workers get a moment to clean up, then they are killed."""
        self._employers.discard(employer)
        for worker in [worker for worker in self._workers.values() if worker.kind.employer == employer]:
            self._dismiss(worker, reason, self._limits.shutdown_s)

    def stop(self, reason: str, grace_s: float) -> None:
        """All workers end, and no other is made."""
        self._stopping = reason
        for worker in list(self._workers.values()):
            self._dismiss(worker, reason, grace_s)

    def _dismiss(self, worker: Worker, reason: str, grace_s: float) -> None:
        worker.accuse(reason)
        self._apply(worker, Event.DISMISS, grace_s)

    # ---- getting one

    def hire(self, claim: int, kind: WorkerKind) -> None:
        """`got` or `refused` follows for `claim`, now or later: an idle worker, else one that nobody waits for any
        more, else a new one."""
        if idle := self._idle.get(kind):
            worker = idle[-1]
            self._apply(worker, Event.LEASE)
            self._employed.got(claim, worker)
        elif unclaimed := self._unclaimed.get(kind):
            start = unclaimed[-1]
            _take_out(self._unclaimed, kind, start)
            start.take_over(claim)
            self._claimed[claim] = start
        else:
            self._last_start += 1
            start = self._claimed[claim] = Start(self._last_start, kind, self._limits.start_s, claim)
            self._make(start)

    def unclaim(self, claim: int) -> None:
        """Who waits for a worker does not want it any more: the next who asks gets it, else it is idle."""
        start = self._claimed.pop(claim)
        start.give_up_claim()
        self._unclaimed.setdefault(start.kind, []).append(start)

    def shared(self, kind: WorkerKind) -> tuple[list[Worker], list[Worker]]:
        """Those that are shared, and those of them whose loop is not blocked."""
        known = self._shared.get(kind, [])
        return list(known), [worker for worker in known if worker.process not in self._blocked]

    def start_shared(self, kind: WorkerKind) -> None:
        """One more, unless one is being started already; `shared_changed` follows."""
        if kind not in self._starting_shared:
            self._last_start += 1
            start = self._starting_shared[kind] = Start(self._last_start, kind, self._limits.start_s, None)
            self._make(start)

    def blocked(self, process: ProcessId, blocked: bool) -> None:
        """The loop of a shared worker is blocked, or goes on."""
        if not blocked:
            self._blocked.discard(process)
        elif process in self._workers:
            self._blocked.add(process)

    def _make(self, start: Start) -> None:
        if self._stopping or start.kind.employer not in self._employers:
            self._fail(start, ActorrtError(PROGRAM_ENDED))
            return
        process = self._new_process()
        self._workers[process] = Worker(process, start.kind, start)
        self._actions.append(Fork(process, start.kind))

    def _fail(self, start: Start, error: ActorrtError) -> None:
        if start.is_shared:
            del self._starting_shared[start.kind]
            self._employed.shared_changed(start.kind, error)
        elif start.claim is None:
            _take_out(self._unclaimed, start.kind, start)
        else:
            del self._claimed[start.claim]
            self._employed.refused(start.claim, error)

    # ---- what becomes of it

    def forked(self, process: ProcessId) -> None:
        """The zygote has made it."""
        worker = self._workers[process]
        if worker.state is State.EARLY:
            self._is_ready(worker)
        else:
            self._apply(worker, Event.FORKED)

    def fork_failed(self, process: ProcessId, error: ActorrtError) -> None:
        worker = self._workers[process]
        self._apply(worker, Event.FORK_FAILED)
        del self._workers[process]
        self._actions.append(Unmake(process))
        if (start := worker.leave_start()) is not None:
            self._fail(start, error)

    def fork_lost(self, process: ProcessId, error: ActorrtError) -> None:
        """The zygote has ended under the question: what it may have made has ended with it.

        Another process is made for the same start. It is another one to all who may have heard of the first.
        """
        worker = self._workers[process]
        self._apply(worker, Event.FORK_FAILED)
        del self._workers[process]
        self._actions.append(Unmake(process))
        if (start := worker.leave_start()) is None:
            return
        if worker.cause:
            self._fail(start, WorkerCrashedError("a new worker", worker.cause, False))
        elif self._stopping:
            self._fail(start, error)
        else:
            self._make(start)

    def ready(self, process: ProcessId) -> None:
        """It listens."""
        worker = self._workers.get(process)
        if worker is None:
            return
        if worker.state is State.STARTING:
            self._is_ready(worker)
        else:
            self._apply(worker, Event.READY)

    def _is_ready(self, worker: Worker) -> None:
        start = worker.leave_start()
        assert start is not None
        if start.is_shared:
            del self._starting_shared[start.kind]
            self._apply(worker, Event.SHARE)
            self._employed.shared_changed(start.kind, None)
        elif start.claim is None:
            _take_out(self._unclaimed, start.kind, start)
            self.rest(worker)
        else:
            del self._claimed[start.claim]
            self._apply(worker, Event.LEASE)
            self._employed.got(start.claim, worker)

    def rest(self, worker: Worker) -> None:
        """Nobody has it (any more): it is kept for the next who wants one of its kind."""
        self._apply(worker, Event.REST)
        if worker.state is State.IDLE and worker.kind.employer not in self._employers:
            self.kill(worker.process, "its program ended")

    def retire(self, worker: Worker, reason: str, *, finish: bool = True) -> None:
        """It gets no more work, and ends once nobody needs what it owns."""
        worker.note_retirement(reason)
        self._apply(worker, Event.RETIRE, finish=finish)

    def stays(self, process: ProcessId) -> Worker | None:
        """It says that its work is done, and that others need what it owns: it goes on without its lease."""
        worker = self._workers.get(process)
        if worker is None or worker.state in HAS_NO_PROCESS or worker.state is State.STARTING:
            return None
        worker.note_retirement("its work was done")
        self._apply(worker, Event.RETIRED)
        return worker if worker.state is State.STAYING else None

    def needed(self, process: ProcessId, needed: bool) -> None:
        """What a worker says that was asked whether others need what it owns."""
        worker = self._workers.get(process)
        if worker is None:
            return
        if not needed and worker.state is State.QUESTIONED:
            worker.accuse("nobody needed it")
        self._apply(worker, Event.NEEDED if needed else Event.UNNEEDED)

    def due(self, timer: ProcessId | int) -> None:
        """What was to be reminded of."""
        if isinstance(timer, int):
            start = self._pausing.pop(timer, None)
            if start is not None:
                self._make(start)
            return
        worker = self._workers.get(timer)
        if worker is None:
            return
        if worker.state is State.STARTING:
            worker.accuse(LATE)
        self._apply(worker, Event.TIMEOUT)
        if (start := worker.leave_start()) is not None:
            self._fail(start, WorkerCrashedError("a new worker", LATE, False))

    # ---- the ends

    def kill(self, process: ProcessId, reason: str, *, for_memory: bool = False) -> None:
        """Kill a worker with all that it started; what is said last is why."""
        worker = self._workers.get(process)
        if worker is not None:
            worker.accuse(reason, again=True, for_memory=for_memory)
            self._apply(worker, Event.KILL)

    def link_lost(self, process: ProcessId, farewell: bool, cause: str) -> None:
        """It has closed its link, or is dead: either way nothing can be asked of it any more.

        One that starts may dial again; if it does not, it ends by itself or is late.
        """
        worker = self._workers.get(process)
        if worker is not None:
            if cause and worker.start is None:
                worker.accuse(cause)
            self._apply(worker, Event.LINK_LOST, GOODBYE_S if farewell else 0.0)

    def exited(self, process: ProcessId, end: ProcessEnd, now: float) -> Worker:
        """Its process was reaped."""
        worker = self._workers[process]
        self._apply(worker, Event.EXITED)
        del self._workers[process]
        self._blocked.discard(process)
        cause = worker.story_of(end)
        self._actions.append(Bury(process, cause, end.out_of_memory or worker.ended_for_memory))
        start = worker.leave_start()
        if start is not None:
            self._start_again(start, worker, end, cause, now)
        return worker

    def _start_again(self, start: Start, worker: Worker, end: ProcessEnd, cause: str, now: float) -> None:
        pause_s, story = start.ended(now, end, cause)
        if worker.cause or pause_s is None:
            self._fail(start, WorkerCrashedError("a new worker", story, False))
            return
        self._actions.append(StartAgain(story, pause_s))
        self._pausing[start.number] = start
        self._actions.append(Remind(start.number, pause_s))

    # ---- the table

    def _apply(self, worker: Worker, event: Event, end_s: float | None = None, *, finish: bool = True) -> None:
        """Let the table decide, and say what it wants. `end_s`: how long it has to end; else as long as any."""
        before = worker.state
        steps = worker.on(event)
        self._index(worker, before)
        process, say = worker.process, self._actions.append
        for step in steps:
            match step:
                case Step.KILL:
                    say(Kill(process))
                case Step.SEND_RETIRE:
                    say(SendRetire(process, finish))
                case Step.SEND_LEAVE:
                    say(SendLeave(process, worker.cause))
                case Step.ASK_IF_NEEDED:
                    say(AskIfNeeded(process))
                case Step.LIMIT_START:
                    say(Remind(process, self._limits.start_s))
                case Step.LIMIT_IDLE:
                    say(Remind(process, self._limits.idle_s))
                case Step.LIMIT_END:
                    say(Remind(process, self._limits.shutdown_s if end_s is None else end_s))
                case Step.UNLIMITED:
                    say(Unremind(process))

    def _index(self, worker: Worker, before: State) -> None:
        """Keep the tables of those that are idle or shared."""
        if worker.state is before:
            return
        for state, table in ((State.IDLE, self._idle), (State.SHARED, self._shared)):
            if before is state:
                _take_out(table, worker.kind, worker)
            elif worker.state is state:
                table.setdefault(worker.kind, []).append(worker)


def _take_out(table: dict[_K, list[_V]], key: _K, value: _V) -> None:
    """Take a value out of a table of lists, without leaving an empty one."""
    values = table[key]
    values.remove(value)
    if not values:
        del table[key]
