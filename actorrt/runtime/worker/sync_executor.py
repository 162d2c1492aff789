"""Run user code in the worker's main thread, one call at a time: `def` tasks, and actors with only `def` methods.

What waits here can be given back to its caller: when the running task blocks in `get`, or runs long, tasks behind it go
to another worker. Actors are in sync_actor.py.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from actorrt import exceptions
from actorrt.types import FunctionKey, ProcessId
from actorrt.wire import codec
from actorrt.wire.messages import (
    GIVEN_BACK,
    STREAM_END,
    ActorCall,
    AnyMessage,
    Cancel,
    Credit,
    Outcome,
    Reply,
    StartActor,
    TaskCall,
)

from ..base.credits import more_credits
from ..base.progress import Progress
from ..base.surroundings import Surroundings
from ..links.link import Link
from ..links.running import RunningCall, running_call
from ..machine.named_output import finish_lines
from ..machine.process import exit_code
from ..owner.entries import Gate
from ..owner.objects import new_borrows
from ..owner.outcomes import serialize_result
from ..owner.program import UserSide
from ..owner.snapshots import take_snapshot
from .executor import ActorExit, Executor, Work, exit_cause, exit_in
from .instance import Instance
from .interrupts import Interrupts
from .retirement import drop_actor
from .sync_actor import SyncActor
from .thread_gate import END, ThreadGate

if TYPE_CHECKING:
    from ..owner.runtime import Runtime

logger = logging.getLogger("actorrt")

# A task that runs for so long has those behind it given back.
LONG_TASK_S: Final = 0.02
_NO_KWARGS: Final[dict[str, Any]] = {}


class SyncExecutor(Executor):
    """User code in the main thread. `run` is the worker's main."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)
        # A call is in `_work` or in its link's `serving`: it goes from one to the other under the lock. Only what comes
        # is added without it, so that the deque stays the same one and nobody looks through it in another thread.
        self._lock = threading.Lock()
        self._work: deque[tuple[Link, Work]] = deque()
        self._wake = threading.Lock()
        self._wake.acquire()
        self._ended = False
        # The thread that runs it.
        self._main = 0
        # The actor has left: what it held goes, in the thread that made it.
        self._drops = False
        safe = {SyncExecutor._outcome, SyncExecutor._stream, ThreadGate.take, Gate.wait}
        self._interrupts = Interrupts(runtime.thread.loop, {function.__code__ for function in safe}, self._interrupted)
        # With the first task: an actor has its process for itself, and needs neither.
        self._progress: Progress | None = None
        self._surroundings: Surroundings | None = None
        self._looking = False
        # From the moment in which a call is taken up, before it is known to those who interrupt it.
        self._in_call = False
        self._seen: RunningCall | None = None
        self.actor: SyncActor | None = None
        self.user_side = UserSide(self._blocked)

    def run(self) -> None:
        """Take work until the worker ends."""
        self._main = threading.get_ident()
        self._interrupts.install()
        while not self._ended:
            taken = self._take()
            if taken is None:
                if self._drops:
                    self._drops = False
                    drop_actor(self.runtime)
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
        self._drops = True
        self._nudge()

    def stop(self) -> None:
        self._ended = True
        self._nudge()

    def _nudge(self) -> None:
        try:
            self._wake.release()
        except RuntimeError:
            return

    # ---- the runtime loop's side

    def enqueue(self, link: Link, work: list[Work]) -> None:
        for message in work:
            self._work.append((link, message))
        self._nudge()
        if len(self._work) > 1 or self._in_call:
            self._watch()

    def _watch(self) -> None:
        """Look in a while whether the same call still runs, with others behind it."""
        if not self._looking:
            self._looking = True
            self._seen = self._interrupts.current
            self.runtime.thread.loop.call_later(LONG_TASK_S, self._look)

    def _look(self) -> None:
        self._looking = False
        current = self._interrupts.current
        if current is not None and current is self._seen:
            self._give_back()
        if self._work:
            self._watch()

    def _give_back(self) -> None:
        """Return the tasks that were not started; from any thread."""
        if self.actor is not None:
            # Its calls can be answered nowhere else.
            return
        for link, work in self._take_out(lambda _, work: isinstance(work, TaskCall)):
            if isinstance(work, TaskCall) and not link.closed:
                link.post(Outcome(work.seq, GIVEN_BACK))

    def _take_out(self, wanted: Callable[[Link, Work], bool]) -> list[tuple[Link, Work]]:
        """Take some of what waits, from any thread; what comes meanwhile stays behind all that is left."""
        found: list[tuple[Link, Work]] = []
        left: list[tuple[Link, Work]] = []
        with self._lock:
            for _ in range(len(self._work)):
                one = self._work.popleft()
                (found if wanted(*one) else left).append(one)
            self._work.extendleft(reversed(left))
        return found

    def _blocked(self, blocked: bool) -> None:
        if threading.get_ident() != self._main:
            return
        if blocked:
            self._give_back()
        run = running_call.get()
        if run is not None:
            self.block(run.lease, blocked)

    def cancel(self, link: Link, message: Cancel) -> None:
        with self._lock:
            run = link.serving.get(message.seq)
            if run is None:
                unstarted = self._remove(link, message.seq)
            elif unstarted := not run.started:
                # It waits for a thread of its actor, which will find it taken.
                run.started = True
                del link.serving[message.seq]
        if unstarted:
            link.send(self.outcomes.cancelled(message.seq))
        else:
            super().cancel(link, message)

    def credit(self, link: Link, message: Credit) -> None:
        with self._lock:
            run = link.serving.get(message.seq)
            if run is None:
                for caller, work in self._work:
                    if caller is link and isinstance(work, TaskCall | ActorCall) and work.seq == message.seq:
                        work.credits = more_credits(work.credits, message.n)
            elif run.gate is not None:
                run.gate.add(message.n)

    def _remove(self, link: Link, seq: int) -> bool:
        for index, (caller, work) in enumerate(self._work):
            if caller is link and isinstance(work, TaskCall | ActorCall) and work.seq == seq:
                del self._work[index]
                return True
        return False

    def interrupt(self, run: RunningCall) -> None:
        if run.gate is not None:
            run.gate.cancel()
        if run.actor is None:
            self._interrupts.interrupt(run)
        else:
            # A method of a sync actor is not interrupted: it can look at is_canceled().
            self._interrupted(run)

    def _interrupted(self, run: RunningCall) -> None:
        """The code of a call is about to be interrupted: what it has called until now ends with it."""
        if run.forcing is not None and (children := run.living_children()):
            self.runtime.thread.run_soon(partial(self.cancel_calls, children, run.forcing))

    def link_lost(self, link: Link) -> None:
        self._take_out(lambda caller, _: caller is link)
        super().link_lost(link)

    def stop_instance(self, instance: Instance) -> None:
        self.runtime.program.retire(False)

    # ---- the user's thread

    def _take(self) -> tuple[Link, Work, RunningCall | None] | None:
        with self._lock:
            while self._work:
                # First: what comes from now on is behind this one, or finds it still in front.
                self._in_call = True
                link, work = self._work.popleft()
                if link.closed:
                    continue
                run: RunningCall | None = None
                if isinstance(work, TaskCall):
                    run = RunningCall(link, work.seq, work.name, None, work.lease)
                    run.started = True
                elif isinstance(work, ActorCall) and self.actor is not None and self.actor.has(work):
                    run = self.actor.running(link, work)
                if run is not None:
                    if isinstance(work, TaskCall | ActorCall) and work.credits:
                        run.gate = ThreadGate(work.credits, self._blocked)
                        run.next_large = work.first_item
                    link.serving[run.seq] = run
                return link, work, run
            self._in_call = False
        return None

    def _do(self, link: Link, work: Work, run: RunningCall | None) -> None:
        if isinstance(work, TaskCall):
            assert run is not None
            if self._surroundings is None or self._progress is None:
                self._progress = Progress(self.runtime.session, self.runtime.process)
                self._surroundings = Surroundings()
            self._progress.begins(work.lease, work.seq)
            self.describe(work.name)
            # In a context of its own: what it sets there is for nobody else.
            copy_context().run(self.guarded, run, work, partial(self._task_function, work.function))
        elif isinstance(work, ActorCall):
            if run is None or self.actor is None:
                link.push(self.outcomes.no_actor(work.seq))
                link.flush()
            else:
                self.actor.call(run, work)
        elif isinstance(work, StartActor):
            self.actor = SyncActor(self)
            self.actor.start(link, work)
        elif self.actor is not None:
            self.actor.stop()

    def _task_function(self, key: FunctionKey) -> Any:
        known = key in self._functions
        function = self.function(key)
        if not known and self._surroundings is not None:
            self._surroundings.note()
        return function

    def answer(self, run: RunningCall, outcome: AnyMessage | None) -> None:
        """Send the outcome of a call, unless the end of this process is; from any thread."""
        finish_lines()
        link = run.link
        link.serving.pop(run.seq, None)
        if self.on_idle is not None:
            self.on_idle()
        if link.closed or outcome is None:
            return
        link.push(outcome)
        if self._work:
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
            claimed = not run.started
            run.started = True
            return claimed

    def guarded(self, run: RunningCall, call: TaskCall | ActorCall, find: Callable[[], Any]) -> None:
        """Run one call to its outcome, whatever happens."""
        owners: list[ProcessId] = []
        token = running_call.set(run)
        main = threading.get_ident() == self._main
        if main:
            self._interrupts.begin(run)
        try:
            if run.cancelled:
                raise KeyboardInterrupt
            args, kwargs = self.fetch(call, owners)
            outcome = self._outcome(run, call, find(), args, kwargs)
        except (KeyboardInterrupt, exceptions.TaskCancelledError) as error:
            # The cancellation of what it waited for may be here before its own.
            outcome = self.outcomes.cancelled(run.seq) if run.cancelled else self.outcomes.failure(run, error)
        except (ActorExit, SystemExit) as error:
            outcome = self.exited(run, error)
        except BaseExceptionGroup as group:
            leaves = exit_in(group)
            outcome = self.outcomes.failure(run, group) if leaves is None else self.exited(run, leaves)
        except BaseException as error:
            outcome = self.outcomes.failure(run, error)
        finally:
            if main:
                self._interrupts.end()
                if run.actor is None and self._surroundings is not None:
                    self._surroundings.restore()
            running_call.reset(token)
        if owners and (foreign := self.foreign(run.link, owners)):
            self.runtime.thread.call_sync(self.runtime.objects.confirm(foreign))
        self.answer(run, outcome)

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
        with self.noting_borrows(owners):
            segments = self.segment_entries(call)
            for entry in segments:
                self.runtime.thread.call_sync(self.runtime.segments.map(entry))
            return self.arguments(call, segments)

    def _outcome(
        self, run: RunningCall, call: TaskCall | ActorCall, function: Any, args: Any, kwargs: Any
    ) -> AnyMessage:
        result = function(*args, **kwargs)
        if call.returns == 1 and not (call.credits or run.asked) and (data := codec.dumps_atom(result)) is not None:
            return Reply(run.seq, data)
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError(f"{run.name} returned a coroutine where only `def` code runs: declare it `async def`")
        if run.asked:
            return self.outcomes.cancelled(run.seq)
        if call.credits:
            return self._stream(run, result)
        pickled = self.outcomes.pickled(run, result, call.returns)
        if threading.get_ident() != self._main:
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
        if run.asked:
            return self.outcomes.cancelled(run.seq)
        return Outcome(run.seq, STREAM_END, count=index)

    def exited(self, run: RunningCall, error: ActorExit | SystemExit) -> AnyMessage | None:
        """The outcome of a call that leaves its actor, or of a task that ends its process. None: that end is it."""
        self.runtime.tenancy.note_last(run.living_children())
        if run.actor is not None:
            self.exits(run.actor, error)
            return None if self.runtime.tenancy.exit_code else self.outcomes.no_actor(run.seq, started=True)
        outcome = self.outcomes.failure(run, error)
        self.runtime.tenancy.exit_with(exit_code(error) if isinstance(error, SystemExit) else 0)
        self._give_back()
        self.runtime.program.retire(False)
        return outcome

    def exits(self, instance: Instance, error: ActorExit | SystemExit) -> None:
        """The actor's own code ends it: by exit_actor, or by sys.exit as it would end a program. From any thread."""
        if instance.failed:
            return
        instance.failed = True
        self.runtime.tenancy.exit_with(exit_code(error) if isinstance(error, SystemExit) else 0)
        if self.actor is not None:
            self.actor.gone()
        if self.runtime.tenancy.exit_code:
            # Its process is lost with that code, which its owner learns, and may start it again.
            self.runtime.thread.run_soon(self.runtime.program.leave)
        else:
            self.ended(instance, exit_cause(error))
            self.runtime.program.retire(False)

    def leave_actor(self, instance: Instance, run: RunningCall | None) -> BaseException:
        if threading.current_thread() is threading.main_thread():
            return ActorExit()
        self.exits(instance, ActorExit())
        return SystemExit()  # which ends a thread without a word
