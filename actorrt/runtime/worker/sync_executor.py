"""Run user code in the worker's main thread, one call at a time: `def` tasks, and actors with only `def` methods.

What waits here can be given back to its caller: when the running task blocks in `get`, or runs long, tasks behind it go
to another worker. Actors are in sync_actor.py.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable, Iterable
from contextvars import copy_context
from functools import partial
from typing import Any, Final, cast

from actorrt.core.cancellation import Action, Reach, reach_of
from actorrt.core.long_calls import LONG_S
from actorrt.core.outcome import LEAVES, ActorExit, end_of_leaver, left_by
from actorrt.core.work_queue import ENDED, Event, WorkQueue
from actorrt.types import FunctionKey, ProcessId
from actorrt.wire import codec
from actorrt.wire.messages import (
    GIVEN_BACK,
    STREAM_END,
    ActorCall,
    AnyMessage,
    Cancel,
    Credit,
    LeaseEnds,
    Outcome,
    Reply,
    StartActor,
    TaskCall,
)

from ..base.credits import more_credits
from ..base.progress import Progress
from ..base.surroundings import Surroundings
from ..links.link import Link
from ..links.running import NOT_ASKED, RunningCall, running_call
from ..machine.named_output import finish_lines
from ..machine.process import exit_code
from ..owner.entries import Gate
from ..owner.objects import new_borrows
from ..owner.outcomes import Outcomes, serialize_result
from ..owner.program import UserSide
from ..owner.snapshots import take_snapshot
from .arguments import noting_borrows, read_arguments, segment_entries, to_confirm
from .cancelling import cancel_calls, end_by_force, reach_later
from .code import Code
from .executor import OWN_ERRORS, ExecutorStatistics, ended, tell_blocked
from .forks import leave_fork
from .host import Host
from .instance import Instance
from .intake import Work, incoming_of
from .interrupts import Interrupts
from .retirement import drop_actor
from .sync_actor import SyncActor
from .thread_gate import END, ThreadGate
from .title import Title

logger = logging.getLogger("actorrt")

_NO_KWARGS: Final[dict[str, Any]] = {}


class SyncExecutor:
    """User code in the main thread. `run` is the worker's main."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._process = host.process
        self._runtime_thread = host.thread
        self._runtime_loop = host.thread.loop
        self._tenancy = host.tenancy
        self.outcomes = Outcomes(host)
        self.code = Code()
        self.title = Title(lambda: host.node)
        # While the process ends.
        self._on_idle: Callable[[], None] | None = None
        # A call waits or is in its link's `serving`: it goes from one to the other under the lock. Only what comes is
        # added without it, and nobody looks through what waits in another thread.
        self._lock = threading.Lock()
        self._waiting: WorkQueue[Link, Work, RunningCall] = WorkQueue(_is_task, _number_of)
        self._wake = threading.Lock()
        self._wake.acquire()
        # What the main thread is to do as soon as it has no work.
        self._then: Callable[[], None] | None = None
        # The thread that runs it.
        self._thread = 0
        safe = {SyncExecutor._outcome, SyncExecutor._stream, ThreadGate.take, Gate.wait}
        self._interrupts = Interrupts(self._runtime_loop, {function.__code__ for function in safe}, self._interrupted)
        # With the first task: an actor has its process for itself, and needs neither.
        self._progress: Progress | None = None
        self._surroundings: Surroundings | None = None
        self.actor: SyncActor | None = None
        self.incoming = incoming_of(self)
        self.user_side = UserSide(self._blocked)

    def run(self) -> None:
        """Take work until the worker ends."""
        self._thread = threading.get_ident()
        self._interrupts.install()
        while self._waiting.state is not ENDED:
            taken = self._take()
            if taken is None:
                then, self._then = self._then, None
                if then is not None:
                    then()
                self._wake.acquire()
                continue
            try:
                self._do(*taken)
            except (Exception, KeyboardInterrupt) as error:  # a task's own handler of SIGINT may raise late
                logger.exception("a call could not be answered")
                self._answer_failed(taken[2], error)

    def drop_actor(self) -> None:
        if self.actor is not None:
            self.actor.gone()
        # In the thread that made it.
        self._then = partial(drop_actor, self._host)
        self._nudge()

    def stop(self) -> None:
        with self._lock:
            self._waiting.on(Event.END)
        self._nudge()

    def finalize(self, timeout_s: float) -> None:
        """Only a loop has something to finalize."""

    def statistics(self) -> ExecutorStatistics:
        """What is under way here; from any thread."""
        return ExecutorStatistics(
            actors=int(self.actor is not None and self.actor.is_here),
            running=sum(len(link.serving) for link in self._host.peers.all_links()),
            waiting=len(self._waiting),
            handed_over=0,
            code=self.code.statistics(),
        )

    @property
    def running(self) -> RunningCall | None:
        """The call that the main thread runs; from any thread."""
        return self._interrupts.current

    def tell_idle(self, told: Callable[[], None]) -> None:
        self._on_idle = told

    def _nudge(self) -> None:
        try:
            self._wake.release()
        except RuntimeError:
            return

    # ---- the runtime loop's side

    def enqueue(self, link: Link, work: list[Work]) -> None:
        look = self._waiting.add(link, work, self._interrupts.current)
        self._nudge()
        if look:
            self._runtime_loop.call_later(LONG_S, self._look)

    def _look(self) -> None:
        look = self._waiting.look(self._interrupts.current)
        if look.give_back:
            self._give_back()
        if look.again:
            self._runtime_loop.call_later(LONG_S, self._look)

    def _give_back(self) -> None:
        """Return the tasks that were not started; from any thread."""
        with self._lock:
            back = self._waiting.give_back(self.actor is not None)
        for link, work in back:
            _return(link, work)

    def _blocked(self, blocked: bool) -> None:
        if threading.get_ident() != self._thread:
            return
        if blocked:
            self._give_back()
        run = running_call.get()
        if run is not None:
            self.block(run.lease, blocked)

    def block(self, lease: int, blocked: bool) -> None:
        tell_blocked(self._host.node, lease, blocked)

    def cancel(self, link: Link, message: Cancel) -> None:
        with self._lock:
            run = link.serving.get(message.seq)
            if run is None:
                unstarted = self._waiting.withdraw(link, message.seq)
            elif unstarted := run.claim():
                # It waits for a thread of its actor, which will find it taken.
                del link.serving[message.seq]
        if unstarted:
            link.send(self.outcomes.unbegun(message))
        elif run is not None and not message.unbegun:
            run.ask()
            end_by_force(run, message)
            self._end(run, reach_of(message.recursive, message.force))

    def end_calls(self, runs: Iterable[RunningCall], reach: Reach) -> None:
        for run in runs:
            self._end(run, reach)

    def _end(self, run: RunningCall, reach: Reach) -> None:
        match run.cancel(reach):
            case Action.INTERRUPT:
                self._interrupt(run)
                if run.reaches_children:
                    reach_later(self._runtime_loop, run, run.by_force, partial(self._runs, run))
            case Action.REACH:
                cancel_calls(run.living_children(), run.by_force)
            case Action.NOTHING:
                pass

    def _runs(self, run: RunningCall) -> bool:
        """Whether the call has not ended."""
        return run.link.serving.get(run.seq) is run

    def credit(self, link: Link, message: Credit) -> None:
        with self._lock:
            run = link.serving.get(message.seq)
            if run is None:
                work = self._waiting.find(link, message.seq)
                if isinstance(work, TaskCall | ActorCall):
                    work.credits = more_credits(work.credits, message.n)
            elif run.gate is not None:
                run.gate.add(message.n)

    def _interrupt(self, run: RunningCall) -> None:
        """Make a running call end, as far as its kind allows, and then what it has called."""
        if run.gate is not None:
            run.gate.cancel()
        if run.actor is None:
            self._interrupts.interrupt(run)
        else:
            # A method of a sync actor is not interrupted: it can look at is_canceled().
            self._interrupted(run)

    def _interrupted(self, run: RunningCall) -> None:
        """The code of a call is about to be interrupted: what it has called until now ends with it."""
        if run.reaches_children and (children := run.living_children()):
            self._runtime_thread.run_soon(partial(cancel_calls, children, run.by_force))

    def link_lost(self, link: Link) -> None:
        """A caller is gone: what it called ends, and the actor that it owns."""
        with self._lock:
            self._waiting.source_lost(link)
        self.end_calls(list(link.serving.values()), Reach.TREE)
        self.code.link_lost(link)
        self.outcomes.peer_lost(link.peer)
        if self.actor is not None and self.actor.is_owned_by(link.peer):
            self._retire()

    def _retire(self) -> None:
        self._host.program.retire(False)

    # ---- the user's thread

    def _take(self) -> tuple[Link, Work, RunningCall | None] | None:
        with self._lock:
            while (taken := self._waiting.take()) is not None:
                link, work, begins = taken
                if not begins:
                    _return(link, work)
                    continue
                run: RunningCall | None = None
                if isinstance(work, TaskCall):
                    run = RunningCall(link, work.seq, work.name, None, work.lease)
                elif isinstance(work, ActorCall) and self.actor is not None:
                    run = self.actor.running(link, work)
                if run is not None:
                    if isinstance(work, TaskCall | ActorCall) and work.credits:
                        run.streams(ThreadGate(work.credits, self._blocked), work.first_item)
                    link.serving[run.seq] = run
                return link, work, run
        return None

    def _do(self, link: Link, work: Work, run: RunningCall | None) -> None:
        if isinstance(work, TaskCall):
            assert run is not None
            if self._surroundings is None or self._progress is None:
                self._progress = Progress(self._host.session, self._process)
                self._surroundings = Surroundings()
            self._progress.begins(work.lease, work.seq)
            self.title.is_now(work.name)
            # In a context of its own: what it sets there is for nobody else.
            copy_context().run(self.guarded, run, work, partial(self._task_function, work.function))
        elif isinstance(work, ActorCall):
            if run is None or self.actor is None:
                link.push(self.outcomes.no_actor(work.seq))
                link.flush()
            else:
                self.actor.call(run, work)
        elif isinstance(work, StartActor):
            self.actor = SyncActor(self, self._host)
            self.actor.start(link, work)
        elif self.actor is not None:
            self.actor.stop()

    def _task_function(self, key: FunctionKey) -> Any:
        known = self.code.is_loaded(key)
        function = self.code.load(key)
        if not known and self._surroundings is not None:
            self._surroundings.note()
        return function

    def answer(self, run: RunningCall, outcome: AnyMessage | None) -> None:
        """Send the outcome of a call, unless the end of this process is; from any thread."""
        finish_lines()
        link = run.link
        link.serving.pop(run.seq, None)
        if self._on_idle is not None:
            self._on_idle()
        if link.closed or outcome is None:
            return
        link.push(outcome)
        if self._waiting:
            # More to do here: the runtime loop writes this and what follows soon.
            link.post_flush()
        else:
            link.flush()

    def _answer_failed(self, run: RunningCall | None, error: BaseException) -> None:
        """Nobody waits for ever for a call that failed outside of its own code."""
        if run is not None and run.link.serving.get(run.seq) is run:
            self.answer(run, self.outcomes.failure(run, error))

    def claim(self, run: RunningCall) -> bool:
        """Start a call that waited for a thread. False: it was cancelled, and has been answered."""
        with self._lock:
            return run.claim()

    def guarded(self, run: RunningCall, call: TaskCall | ActorCall, find: Callable[[], Any]) -> None:
        """Run one call to its outcome, whatever happens."""
        owners: list[ProcessId] = []
        token = running_call.set(run)
        main = threading.get_ident() == self._thread
        if main:
            self._interrupts.begin(run)
        try:
            if run.cancelled:
                raise KeyboardInterrupt
            args, kwargs = self.fetch(call, owners)
            outcome = self._outcome(run, call, find(), args, kwargs)
        except BaseException as error:
            end = OWN_ERRORS.end_of(error, run.cancelled)
            outcome = self.exited(run, error) if end is LEAVES else ended(self.outcomes, run, end, error)
        finally:
            if main:
                self._interrupts.end()
                if run.actor is None and self._surroundings is not None:
                    self._surroundings.restore()
            running_call.reset(token)
        if owners:
            self.confirm(run.link, owners)
        self.answer(run, outcome)

    def confirm(self, link: Link, owners: list[ProcessId]) -> None:
        """Return once the owners of what a call has borrowed know of that: its caller may let go of it then."""
        if foreign := to_confirm(owners, link.peer, self._process):
            self._runtime_thread.call_sync(self._host.objects.confirm(foreign))

    def fetch(self, call: TaskCall | ActorCall | StartActor, owners: list[ProcessId]) -> tuple[Any, Any]:
        """The arguments of a call; what they borrow from whom goes into `owners`."""
        if call.slots is None:
            # As `noting_borrows` does it, which takes five times as long.
            token = new_borrows.set(owners)
            try:
                args = codec.deserialize(call.args)
            finally:
                new_borrows.reset(token)
            if type(args) is list:
                both = cast("list[Any]", args)
                return both[0], both[1]
            return args, _NO_KWARGS
        with noting_borrows(owners):
            segments = segment_entries(call)
            for entry in segments:
                self._runtime_thread.call_sync(self._host.segments.map(entry))
            return read_arguments(call, segments)

    def _outcome(
        self, run: RunningCall, call: TaskCall | ActorCall, function: Any, args: Any, kwargs: Any
    ) -> AnyMessage:
        result = function(*args, **kwargs)
        if (
            call.returns == 1
            and not (call.credits or run.asked is not NOT_ASKED)
            and (data := codec.dumps_atom(result)) is not None
        ):
            return Reply(run.seq, data)
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError(f"{run.name} returned a coroutine where only `def` code runs: declare it `async def`")
        if run.asked is not NOT_ASKED:
            return self.outcomes.cancelled(run.seq)
        if call.credits:
            return self._stream(run, result)
        pickled = self.outcomes.pickled(run, result, call.returns)
        if threading.get_ident() != self._thread:
            # Other methods of this actor run meanwhile.
            for one in pickled:
                take_snapshot(one)
        return self.outcomes.success(run, pickled)

    def _stream(self, run: RunningCall, result: Any) -> AnyMessage:
        if not hasattr(result, "__iter__"):
            raise TypeError(f"{run.name} should stream and returned {type(result).__name__}, which is no generator")
        gate: ThreadGate = run.gate
        index = 0
        try:
            items = iter(result)
            while True:
                # First: the code between two values belongs to the later one.
                gate.take()
                if (value := next(items, END)) is END:
                    break
                run.link.post(self.outcomes.item_of(run, index, serialize_result(value, run.name)))
                index += 1
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()
        if run.asked is not NOT_ASKED:
            return self.outcomes.cancelled(run.seq)
        return Outcome(run.seq, STREAM_END, count=index)

    def exited(self, run: RunningCall, raised: BaseException) -> AnyMessage | None:
        """The outcome of a call that leaves its actor, or of a task that ends its process. None: that end is it."""
        error = left_by(raised)
        self._tenancy.note_last(run.living_children())
        if run.actor is not None:
            self.exits(run.actor, error)
            return ended(self.outcomes, run, end_of_leaver(self._tenancy.exit_code), error)
        outcome = self.outcomes.failure(run, error)
        self._tenancy.exit_with(exit_code(error) if isinstance(error, SystemExit) else 0)
        with self._lock:
            self._waiting.on(Event.EXIT)
        # First: its caller, who hears of all in this order, has nothing more for this worker when a task comes back.
        run.link.push(LeaseEnds(run.lease))
        self._give_back()
        self._retire()
        return outcome

    def exits(self, instance: Instance, error: ActorExit | SystemExit) -> None:
        """The actor's own code ends it: by exit_actor, or by sys.exit as it would end a program. From any thread."""
        if self.actor is not None:
            self.actor.exits(instance, error)

    def leave_actor(self, instance: Instance, run: RunningCall | None) -> BaseException:
        if threading.current_thread() is threading.main_thread():
            return ActorExit()
        self.exits(instance, ActorExit())
        return SystemExit()  # which ends a thread without a word

    def forked(self) -> None:
        """User code has forked this process: the child is no worker, and ends where it comes out of that code."""
        leave: Any = leave_fork
        self.outcomes.forked(leave)
        vars(self).update(answer=leave, exited=leave, block=_nothing)


def _is_task(work: Work) -> bool:
    return isinstance(work, TaskCall)


def _number_of(work: Work) -> int | None:
    return work.seq if isinstance(work, TaskCall | ActorCall) else None


def _return(link: Link, work: Work) -> None:
    """Another worker can run it."""
    if isinstance(work, TaskCall) and not link.closed:
        link.post(Outcome(work.seq, GIVEN_BACK))


def _nothing(*_: object) -> None: ...
