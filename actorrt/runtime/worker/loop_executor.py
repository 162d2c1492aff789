"""Run user code on an event loop in the worker's main thread: coroutine actors, async tasks, async process actors.

Calls come from the runtime loop in batches with one wake-up each; replies leave together at the end of a turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from enum import Enum, auto
from functools import partial
from types import AsyncGeneratorType, CoroutineType
from typing import Any, Final, TypeVar, cast

import uvloop

from actorrt.core.cancellation import Action, Reach, reach_of
from actorrt.core.giving_back import Fate, GivingBack, Kind
from actorrt.core.instance import ENDED, LEAVES, OVER, READY
from actorrt.core.outcome import ActorExit, ActorGone, End, end_of_leaver, left_by
from actorrt.types import ActorKey, FunctionKey, ProcessId
from actorrt.wire import codec
from actorrt.wire.messages import (
    GIVEN_BACK,
    STREAM_END,
    ActorCall,
    AnyMessage,
    Cancel,
    Credit,
    Item,
    Outcome,
    Reply,
    StartActor,
    StopActor,
    TaskCall,
)

from ..base.credits import more_credits
from ..base.definitions import TERMINATE
from ..base.loop_gate import LoopGate
from ..links.link import Link
from ..links.pipe_turns import PipeTurns
from ..links.pipes import PipeLink
from ..links.running import NOT_ASKED, TOLD, RunningCall, running_call
from ..machine.named_output import finish_lines
from ..owner.entries import Entry
from ..owner.objects import new_borrows
from ..owner.outcomes import Outcomes, serialize_result
from ..owner.program import UserSide
from ..owner.snapshots import take_snapshot
from ..owner.yielded import BehindValues, Yielded
from .actor_methods import Mark, find_method, mark_of
from .actor_threads import ContextThreads
from .arguments import noting_borrows, read_arguments, segment_entries, to_confirm
from .cancelling import cancel_calls, end_by_force, reach_later
from .code import Code
from .eager import EagerRunner
from .excuses import Excuses
from .executor import OWN_ERRORS, SHARED_ERRORS, ExecutorStatistics, ended, tell_blocked
from .forks import leave_fork
from .host import Host
from .instance import CallLimiter, Instance
from .intake import Work, incoming_of
from .loop_actors import LoopActors
from .method_threads import MethodThreads
from .thread_gate import END
from .title import Title

T = TypeVar("T")

_Coroutine: Final[Any] = CoroutineType
# What writes large results into shared memory.
WRITER_THREADS: Final = 4


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """As any loop does, but of code that has left its actor, which is no error."""
    if not isinstance(context.get("exception"), ActorExit):
        loop.default_exception_handler(context)


class _Intake(Enum):
    """How the loop stands to what lies in its inbox."""

    IDLE = auto()
    # It takes from it soon.
    WOKEN = auto()
    # It begins a frame's work, and looks for the next frame behind that.
    TAKING = auto()


_IDLE: Final = _Intake.IDLE
_WOKEN: Final = _Intake.WOKEN
_TAKING: Final = _Intake.TAKING


class LoopExecutor:
    """User code as coroutines. `run` is the worker's main thread."""

    def __init__(self, host: Host, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._host = host
        self._process = host.process
        self._runtime_thread = host.thread
        self._tenancy = host.tenancy
        self._inline_limit = host.settings.inline_limit
        self.outcomes = Outcomes(host)
        self.code = Code()
        self._title = Title(lambda: host.node)
        # What may block the loop on purpose.
        self.excuses = Excuses()
        # While the process ends.
        self._on_idle: Callable[[], None] | None = None
        self.loop: asyncio.AbstractEventLoop = loop or uvloop.new_event_loop()
        self.loop.set_exception_handler(_report)
        self.thread: threading.Thread = threading.main_thread() if loop is None else host.thread.thread
        self.actors = LoopActors(self, host)
        if loop is None:
            self.loop.set_default_executor(ContextThreads())
            # It is for coroutines.
            self.loop.set_task_factory(self.actors.new_task)  # pyright: ignore[reportArgumentType]
        # Taken from by the user's thread, and, while its loop is blocked, by the runtime's.
        self._inbox: deque[tuple[Link, list[Work]]] = deque()
        self._taking = threading.Lock()
        self._intake = _IDLE
        self._dirty: set[PipeLink] = set()
        self._due_flush: asyncio.Handle | None = None
        self._pipe_turns = PipeTurns(self.loop, self._dirty, self.flush)
        self._eager = EagerRunner(self.loop, self._suspended, self.flush)
        self._threads = MethodThreads(self.loop, self.outcomes)
        self._writers = ThreadPoolExecutor(WRITER_THREADS, thread_name_prefix="actorrt-writer")
        self._on_work: Callable[[], None] | None = None
        self.incoming = incoming_of(self, self)
        self.user_side = UserSide(
            self._blocked, self.is_here, self._flushes_with_turn, self.flush, self._pipe_turns_here
        )

    def run(self) -> None:
        """Run the user's loop until the worker ends."""
        asyncio.set_event_loop(self.loop)
        while True:
            try:
                self.loop.run_forever()
                return
            except SystemExit as error:
                # By a task that a call has left behind, which ends its actor in a moment, or by a callback.
                if not self.actors.exit_by_callback(error):
                    self.loop.call_soon(self._report_exit, error)
            except KeyboardInterrupt as error:
                # Of one actor's or call's task or callback: it ends a process that is that actor's, and no neighbour.
                if self.actors.have_the_process:
                    raise
                self.loop.call_exception_handler({"message": "KeyboardInterrupt on a shared loop", "exception": error})

    def _report_exit(self, error: SystemExit) -> None:
        """Print a SystemExit that has ended nothing: no actor is known whose code raised it."""
        if not self.actors.left_by(error):
            self.loop.call_exception_handler({"message": "SystemExit on a shared loop", "exception": error})

    def finalize(self, timeout_s: float) -> None:
        self.loop.run_until_complete(self.actors.finalized(timeout_s))

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)

    @property
    def busy(self) -> bool:
        """True while calls run here; from any thread."""
        return self.actors.constructing is not None or any(link.serving for link in self._links())

    def _links(self) -> list[Link]:
        return self._host.peers.all_links()

    def statistics(self) -> ExecutorStatistics:
        """What is under way here; from any thread."""
        links = self._links()
        return ExecutorStatistics(
            actors=len(self.actors.instances),
            running=sum(len(link.serving) for link in links),
            waiting=sum(len(link.waiting) for link in links),
            handed_over=len(self._inbox),
            code=self.code.statistics(),
        )

    def watch_work(self, told: Callable[[], None]) -> None:
        """Call `told` from now on, on the runtime loop, before anything is handed over to the user's."""
        self._on_work = told

    def tell_idle(self, told: Callable[[], None]) -> None:
        self._on_idle = told

    def drop_actor(self) -> None:
        """It went as its life ended."""

    @property
    def running(self) -> RunningCall | None:
        """The call whose step runs right now, if it is one; from any thread."""
        if self.actors.constructing is not None:
            return self.actors.constructing
        if self._eager.now is not None:
            return self._eager.now
        task = asyncio.current_task(self.loop)
        if task is not None:
            for link in self._links():
                for run in list(link.serving.values()):
                    if run.task is task:
                        return run
        return None

    @property
    def last(self) -> RunningCall | None:
        """The call whose first step ran last."""
        return self._eager.last

    def load(self, key: FunctionKey) -> Any:
        if self.code.is_loaded(key):
            return self.code.load(key)
        # It may import what it needs.
        with self.excuses:
            return self.code.load(key)

    def _read(self, call: ActorCall | TaskCall, segments: list[Entry], owners: list[ProcessId]) -> tuple[Any, Any]:
        """The arguments of a call. To read large ones takes a while, which is not their receiver's doing."""
        with self.excuses if segments else contextlib.nullcontext(), noting_borrows(owners):
            return read_arguments(call, segments)

    def excuse(self) -> None:
        """What may block the loop on purpose has ended."""
        self.excuses.end()

    def has_its_process(self, title: str) -> None:
        """An actor has this process for itself from now on."""
        self._title.is_now(title)

    def flush_from_outside(self) -> None:
        """Send the replies that are ready while the user's loop is stuck; from the runtime loop."""
        self._pipe_turns.bring()
        for link in self._links():
            link.flush()

    def is_here(self) -> bool:
        return threading.current_thread() is self.thread

    def _blocked(self, blocked: bool) -> None:
        run = running_call.get()
        if run is not None:
            self.block(run.lease or self._tenancy.lease, blocked)

    def block(self, lease: int, blocked: bool) -> None:
        tell_blocked(self._host.node, lease, blocked)

    # ---- handing over

    def enqueue(self, link: Link, work: list[Work]) -> None:
        if self._on_work is not None:
            # First: once it is handed over it may keep the GIL, and nothing here goes on.
            self._on_work()
        self._inbox.append((link, work))
        if self._intake is _IDLE:
            self._intake = _WOKEN
            self.loop.call_soon_threadsafe(self._drain)

    def enqueue_here(self, link: Link, work: list[ActorCall]) -> None:
        """The same for calls that code on this loop makes to actors here. They begin in a turn of their own."""
        self._inbox.append((link, [*work]))
        if self._intake is _IDLE:
            self._intake = _WOKEN
            self.loop.call_soon(self._drain)

    def give_back(self) -> None:
        """Return what the blocked loop has not begun and others can: new actors, and tasks; from the runtime loop."""
        look: GivingBack[ActorKey] = GivingBack()
        with self._taking:
            # What comes meanwhile, from either thread, stays behind all that is left.
            frames = [self._inbox.popleft() for _ in range(len(self._inbox))]
            kept = [(link, [one for one in work if not self._gives_back(look, link, one)]) for link, work in frames]
            self._inbox.extendleft(reversed([frame for frame in kept if frame[1]]))
        if self._inbox and self._intake is _IDLE:
            # The loop went on meanwhile and found nothing.
            self._intake = _WOKEN
            self.loop.call_soon_threadsafe(self._drain)
        for link in {link for link, _ in frames}:
            link.flush()

    def _gives_back(self, look: GivingBack[ActorKey], link: Link, message: Work) -> bool:
        """Give a message back if others can do what it asks for. False: it stays."""
        if link.closed:
            return False
        match look.fate(*_kind_of(message)):
            case Fate.STAY:
                return False
            case Fate.GO_BACK if isinstance(message, StartActor | TaskCall):
                link.push(Outcome(message.seq, GIVEN_BACK))
            case Fate.FIND_NO_ACTOR if isinstance(message, ActorCall):
                link.push(self.outcomes.no_actor(message.seq))
            case _:
                pass
        return True

    @property
    def holds_up(self) -> bool:
        """Whether somebody waits for this loop beside who runs on it now; from any thread."""
        now = self.statistics()
        return now.actors > 1 or now.handed_over > 0 or now.waiting > 0 or now.running > 1

    def _drain(self) -> None:
        """Take one frame's work; the rest comes in turns of its own: what runs already has its turns in between."""
        self._intake = _TAKING
        inbox = self._inbox
        try:
            with self._taking:
                if not inbox:
                    return
                link, work = inbox.popleft()
            for message in work:
                if type(message) is ActorCall:
                    self._call(link, message)
                else:
                    self._take_one(link, message)
            if self._due_flush is not None:
                # That an actor was made is said before its calls run, so that nobody takes them for unrun if those
                # end this process.
                self.flush()
            self._eager.run_queued()
        finally:
            # First: what is added from here on wakes the loop again.
            self._intake = _IDLE
            if inbox:
                self._intake = _WOKEN
                self.loop.call_soon(self._drain)

    def _take_one(self, link: Link, message: Work) -> None:
        if isinstance(message, TaskCall):
            self._task(link, message)
        elif isinstance(message, StartActor):
            self.actors.start(link, message)
        else:
            # After what came before it.
            self._eager.run_queued()
            if isinstance(message, StopActor):
                self.actors.stop(message)
            elif isinstance(message, Cancel):
                self._cancel(link, message)
            elif isinstance(message, Credit):
                self._credit(link, message)

    def reply(self, link: Link, message: AnyMessage) -> None:
        """Queue an outcome; all of this turn leave together."""
        link.push(message)
        self._flush_with_turn(link)

    def _flush_with_turn(self, link: Link) -> None:
        self._dirty.add(link)
        # What a first step replies is flushed when the first steps are done.
        if self._due_flush is None and self._eager.now is None:
            self._due_flush = self.loop.call_soon(self.flush)

    def _flushes_with_turn(self, link: Link) -> bool:
        """Have what was pushed written with the replies of this turn; False in another thread than the loop's."""
        here = self.is_here()
        if here:
            self._flush_with_turn(link)
        return here

    def _pipe_turns_here(self) -> PipeTurns | None:
        return self._pipe_turns if self.is_here() else None

    def flush(self) -> None:
        self._due_flush = None
        dirty = self._dirty
        if dirty:
            finish_lines()
        while dirty:
            dirty.pop().flush()

    def link_lost(self, link: Link) -> None:
        """A caller is gone: what it called ends, and the actors that it owns; on the runtime loop."""
        self.end_calls(list(link.serving.values()), Reach.TREE)
        self.code.link_lost(link)
        self.outcomes.peer_lost(link.peer)
        for instance in list(self.actors.instances.values()):
            if instance.owner == link.peer:
                self.loop.call_soon_threadsafe(self.actors.end, instance)

    # ---- calls

    def _call(self, link: Link, call: ActorCall) -> None:
        instance = self.actors.instances.get(call.actor)
        if instance is None:
            self.reply(link, self.outcomes.no_actor(call.seq))
            return
        try:
            plain = instance.groups is None and not call.group
            limiter = instance.limiter if plain else instance.limiter_of(call.method, call.group)
        except ValueError as error:
            self._refuse(link, call, instance, error)
            return
        if instance.state is not READY or limiter.running >= limiter.limit:
            self.actors.waits(link, call, instance, limiter)
            return
        # As `InstanceLife.admit` does it, which takes twice as long.
        limiter.running += 1
        self.begin(link, call, instance, limiter)

    def _refuse(self, link: Link, call: ActorCall, instance: Instance, error: ValueError) -> None:
        """A call of a concurrency group that its actor does not have."""
        if instance.state in LEAVES:
            self.reply(link, self.outcomes.no_actor(call.seq))
        else:
            run = RunningCall(link, call.seq, call.name or call.method, instance)
            self.reply(link, self.outcomes.failure(run, error))

    def begin(self, link: Link, call: ActorCall, instance: Instance, limiter: CallLimiter) -> None:
        """Start a call whose turn has come; its limiter has counted it."""
        if link.waiting:
            link.waiting.pop(call.seq, None)
        run = RunningCall(link, call.seq, call.name or call.method, instance)
        if call.credits:
            run.streams(LoopGate(call.credits), call.first_item)
        start = self._eager.start if self._intake is _TAKING else self._eager.start_soon
        start(run, self._run_method(run, call, instance, limiter))

    def _suspended(self, run: RunningCall) -> None:
        """A call goes on later: from now on it can be found and cancelled."""
        run.link.serving[run.seq] = run
        instance: Instance | None = run.actor
        if instance is not None:
            instance.suspended(run)
        if run.link.closed:
            # Its caller is gone; whoever cancelled that caller's calls may have been here before.
            self._end(run, Reach.TREE)

    def _finished(self, run: RunningCall) -> None:
        if run.task is not None:
            run.link.serving.pop(run.seq, None)
            if run.actor is not None and run.actor.calls is not None:
                run.actor.calls.discard(run)
            run.leaves_task()
            if self._on_idle is not None:
                self._on_idle()

    async def _run_method(self, run: RunningCall, call: ActorCall, instance: Instance, limiter: CallLimiter) -> None:
        running_call.set(run)
        link = run.link
        owners: list[ProcessId] = []
        args: Any
        kwargs: Any
        result: Any
        outcome: AnyMessage | None
        mark: Mark | None = None
        try:
            if instance.state is not READY and instance.state in ENDED:
                # What began before it runs on; this one came to its first step too late.
                raise ActorGone
            mark = mark_of(instance.cls, call.method)
            if call.slots is None:
                if codec.NAMES_A_CALL in call.args:
                    # As `noting_borrows` does it. Nothing is put back after an error: the call's context is its own.
                    token = new_borrows.set(owners)
                    args = codec.deserialize(call.args)
                    new_borrows.reset(token)
                else:
                    args = codec.deserialize(call.args)
                kwargs = _NO_KWARGS
                if type(args) is list:
                    args, kwargs = cast(list[Any], args)
            else:
                segments = segment_entries(call)
                for entry in segments:
                    await self._host.map_segment(entry)
                args, kwargs = self._read(call, segments, owners)
            method = self._method(instance, limiter, call.method)
            if mark is Mark.THREADED:
                outcome = await self._threads.run(run, call, method, args, kwargs)
            else:
                result = method(*args, **kwargs)
                if type(result) is _Coroutine or inspect.isawaitable(result):
                    result = await result
                    swallowed = run.asked is TOLD
                else:
                    # Plain code is told by a flag alone.
                    swallowed = run.asked is not NOT_ASKED
                if swallowed:
                    run.cancel(Reach.ALONE)
                    raise asyncio.CancelledError
                if call.credits:
                    outcome = await self._stream(run, result)
                elif call.returns == 1 and (data := codec.dumps_atom(result)) is not None:
                    outcome = Reply(call.seq, data)
                else:
                    box, result = [result], None
                    outcome = await self._result(run, box, call.returns)
        except BaseException as error:
            end = OWN_ERRORS.end_of(error, run.cancelled, instance.state is OVER)
            leaves = end is End.LEAVES
            outcome = self.exited(run, instance, error) if leaves else await self._ended(run, end, error)
        if owners:
            await self._confirm(link, owners)
        if mark is Mark.MAY_BLOCK:
            self.excuse()
        self._finished(run)
        frame = None if run.pipe is None else run.pipe.close()
        if not link.closed and outcome is not None:
            if frame is not None and type(outcome) is Reply:
                link.take_along(call.seq, frame)
            self.reply(link, outcome)
        # Written out: a call more for each call.
        limiter.running -= 1
        if limiter.waiting or instance.state is not READY:
            self.actors.next(instance, limiter)

    async def _confirm(self, link: Link, owners: list[ProcessId]) -> None:
        """Return once the owners of what a call has borrowed know of that: its caller may let go of it then."""
        if foreign := to_confirm(owners, link.peer, self._process):
            await to_its_end(self._runtime_thread.call_async(self._host.objects.confirm(foreign)))

    def exited(self, run: RunningCall, instance: Instance, raised: BaseException) -> AnyMessage | None:
        """The outcome of a call that leaves its actor. None: the end of the process is its outcome."""
        error = left_by(raised)
        if instance.has_process:
            self._tenancy.note_last(run.living_children())
        self.actors.exits(instance, error)
        return ended(self.outcomes, run, end_of_leaver(self._tenancy.exit_code), error)

    def leave_actor(self, instance: Instance, run: RunningCall | None) -> BaseException:
        if threading.current_thread() is not self.thread:
            self.loop.call_soon_threadsafe(self.actors.exits, instance, ActorExit())
            return SystemExit()  # which ends a thread without a word
        if run is None or not (run is self._eager.now or run is self.actors.constructing or self._is_in_task_of(run)):
            self.actors.exits(instance, ActorExit())
        return ActorExit()

    def _is_in_task_of(self, run: RunningCall) -> bool:
        return run.task is not None and run.task is asyncio.current_task(self.loop)

    def forked(self) -> None:
        """User code has forked this process: the child is no worker, and ends where it comes out of that code."""
        leave: Any = leave_fork
        self.outcomes.forked(leave)
        vars(self).update(reply=leave, exited=leave, block=_nothing, _finished=leave)
        self._eager.forked(leave_fork)
        # A child whose code waits comes back to this loop, which is its parent's.
        self.loop.call_soon(leave_fork)

    def _method(self, instance: Instance, limiter: CallLimiter, name: str) -> Any:
        if name == TERMINATE:
            return partial(self.actors.leave, instance, limiter)
        return find_method(instance, name)

    async def _result(self, run: RunningCall, box: list[Any], returns: int) -> AnyMessage:
        """The outcome of a call that returned what is in `box`: its value at this moment.

        Large values are written in a thread, so that the loop goes on. The box has the only reference that is ours.
        """
        if type(box[0]) is AsyncGeneratorType:
            generator = cast("AsyncGenerator[Any, Any]", box[0])
            pickled = await Yielded(run.name, returns).take_all_async(generator)
        else:
            pickled = self.outcomes.pickled(run, box[0], returns)
        if all(map(self.outcomes.is_inline, pickled)):
            return self.outcomes.success(run, pickled)
        for one in pickled:
            take_snapshot(one, box)
        box.clear()
        self.excuse()
        return await self._written(self.outcomes.success, run, pickled)

    async def _ended(self, run: RunningCall, end: End, error: BaseException) -> AnyMessage | None:
        """The outcome of a call whose code raised; the values before the error may be large."""
        if type(error) is BehindValues:
            return await self._written(ended, self.outcomes, run, end, error)
        return ended(self.outcomes, run, end, error)

    async def _written(self, make: Callable[..., T], *args: Any) -> T:
        return await to_its_end(self.loop.run_in_executor(self._writers, make, *args))

    async def _stream(self, run: RunningCall, result: Any) -> AnyMessage:
        """Send the items of a generator as they come, within the credits."""
        index = 0
        gate: LoopGate = run.gate
        # The credit comes first: the code between two values belongs to the later one.
        if hasattr(result, "__aiter__"):
            try:
                items = aiter(result)
                while True:
                    if not gate.take_now():
                        await gate.take()
                    try:
                        box = [await anext(items)]
                    except StopAsyncIteration:
                        break
                    if not self._sent_at_once(run, index, box):
                        await self._send_item(run, index, box)
                    index += 1
            finally:
                close = getattr(result, "aclose", None)
                if close is not None:
                    await close()
        elif hasattr(result, "__iter__"):
            try:
                values = iter(result)
                while True:
                    if not gate.take_now():
                        await gate.take()
                    box = [next(values, END)]
                    if box[0] is END:
                        break
                    if not self._sent_at_once(run, index, box):
                        await self._send_item(run, index, box)
                    index += 1
                    # Each item is a turn of its own: others run in between, and a cancellation arrives.
                    await asyncio.sleep(0)
            finally:
                close = getattr(result, "close", None)
                if close is not None:
                    close()
        else:
            raise TypeError(f"{run.name} should stream and returned {type(result).__name__}, which is no generator")
        if run.asked is TOLD:
            raise asyncio.CancelledError
        return Outcome(run.seq, STREAM_END, count=index)

    def _sent_at_once(self, run: RunningCall, index: int, box: list[Any]) -> bool:
        """Send what is in `box`, if it is one of the plain values that most streams bring."""
        data = codec.dumps_item(box[0])
        if data is None or len(data) > self._inline_limit:
            return False
        box.clear()
        self._reply_item(run, Item(run.seq, index, data))
        return True

    async def _send_item(self, run: RunningCall, index: int, box: list[Any]) -> None:
        """Send what is in `box`, as it is at this moment."""
        serialized = serialize_result(box[0], run.name)
        inline = self.outcomes.is_inline(serialized)
        if serialized.buffers and not inline:
            take_snapshot(serialized, box)
        box.clear()
        if inline:
            item = self.outcomes.item_of(run, index, serialized)
        else:
            item = await self._written(self.outcomes.item_of, run, index, serialized)
        self._reply_item(run, item)

    def _reply_item(self, run: RunningCall, item: AnyMessage) -> None:
        self.reply(run.link, item)
        if run.task is not None and run.task.cancelling():
            # The cancellation may have come while the item was being written, which it does not interrupt.
            raise asyncio.CancelledError

    # ---- tasks

    def _task(self, link: Link, call: TaskCall) -> None:
        run = RunningCall(link, call.seq, call.name, None, call.lease)
        if call.credits:
            run.streams(LoopGate(call.credits), call.first_item)
        if call.lease:
            self._title.is_now(call.name)
        self._eager.start(run, self._run_task(run, call))

    async def _run_task(self, run: RunningCall, call: TaskCall) -> None:
        running_call.set(run)
        link = run.link
        owners: list[ProcessId] = []
        try:
            segments = segment_entries(call)
            for entry in segments:
                await self._host.map_segment(entry)
            args, kwargs = self._read(call, segments, owners)
            result = self.load(call.function)(*args, **kwargs)
            if inspect.isawaitable(result):
                result = await result
            if run.asked is TOLD:
                raise asyncio.CancelledError
            if call.credits:
                outcome = await self._stream(run, result)
            else:
                box, result = [result], None
                outcome = await self._result(run, box, call.returns)
        except BaseException as error:
            outcome = await self._ended(run, SHARED_ERRORS.end_of(error, run.cancelled), error)
        if owners:
            await self._confirm(link, owners)
        self._finished(run)
        if not link.closed and outcome is not None:
            self.reply(link, outcome)

    # ---- cancelling, and credits for streams

    def cancel(self, link: Link, message: Cancel) -> None:
        """On the runtime loop. Its code is interrupted on the user's, behind what was handed over before: the call may
        lie in the inbox still. What it has called is cancelled from here if that takes a while.
        """
        if message.unbegun:
            # What has begun goes on.
            self.enqueue(link, [message])
            return
        now = self._eager.now
        if now is not None and now.seq == message.seq and now.link is link:
            # Code that has not come to an await may end before its loop gets to this message.
            now.ask()
            run = now
        else:
            run = link.serving.get(message.seq)
        if run is not None:
            end_by_force(run, message)
            if message.recursive:
                self._reach_later(run, message.force)
        self.enqueue(link, [message])

    def _reach_later(self, run: RunningCall, force: bool) -> None:
        reach_later(self._runtime_thread.loop, run, force, partial(self._runs, run))

    def _runs(self, run: RunningCall) -> bool:
        """Whether the call has not ended."""
        return run is self._eager.now or run.link.serving.get(run.seq) is run

    def end_calls(self, runs: Iterable[RunningCall], reach: Reach) -> None:
        for run in runs:
            self.loop.call_soon_threadsafe(self._end, run, reach)
            if reach is not Reach.ALONE:
                self._reach_later(run, reach is Reach.TREE_BY_FORCE)

    def _cancel(self, link: Link, message: Cancel) -> None:
        if self.actors.withdraw(link, message.seq):
            self.reply(link, self.outcomes.unbegun(message))
        elif not message.unbegun and (run := link.serving.get(message.seq)) is not None:
            run.ask()
            self._end(run, reach_of(message.recursive, message.force))

    def _end(self, run: RunningCall, reach: Reach) -> None:
        """Interrupt a call that has come to an await, once, and then what it has called; on the user's loop."""
        match run.cancel(reach):
            case Action.INTERRUPT:
                self.end_run(run)
            case Action.REACH:
                self._cancel_children(run)
            case Action.NOTHING:
                pass

    def end_run(self, run: RunningCall) -> None:
        """Interrupt it, whether or not it was before; on the user's loop."""
        run.cancel(Reach.ALONE)
        if run.task is not None:
            # Not at once: a task that is cancelled before its first step would never run its coroutine.
            self.loop.call_soon(self._interrupt, run)

    def _interrupt(self, run: RunningCall) -> None:
        if run.task is None:
            return  # it has ended
        if run.task.cancel():
            # If its user's code has ended already, it is its outcome that is on its way, and that counts.
            run.told()
        if (told := getattr(run, "on_cancel", None)) is not None:
            told()
        # Only what it has called until now: its `finally` blocks, which run next, call what is left alone.
        self._cancel_children(run)

    def _cancel_children(self, run: RunningCall) -> None:
        if run.reaches_children and (children := run.living_children()):
            self._runtime_thread.run_soon(partial(cancel_calls, children, run.by_force))

    def credit(self, link: Link, message: Credit) -> None:
        self.enqueue(link, [message])

    def _credit(self, link: Link, message: Credit) -> None:
        run = link.serving.get(message.seq)
        if run is not None:
            if run.gate is not None:
                run.gate.add(message.n)
        elif (waiting := link.waiting.get(message.seq)) is not None:
            waiting[1].credits = more_credits(waiting[1].credits, message.n)


class RuntimeLoopExecutor(LoopExecutor):
    """Runs an actor's coroutines on the runtime's own loop: no hop between threads, nobody to rescue a blocked loop."""

    def __init__(self, host: Host) -> None:
        super().__init__(host, host.thread.loop)
        self._stopped = threading.Event()

    def run(self) -> None:
        self._stopped.wait()

    def finalize(self, timeout_s: float) -> None:
        self._runtime_thread.call_sync(self.actors.finalized(timeout_s))

    def stop(self) -> None:
        self._stopped.set()

    def enqueue(self, link: Link, work: list[Work]) -> None:
        # A frame is being received, outside of any task: its calls can run their first steps at once.
        self._inbox.append((link, work))
        if self._intake is _IDLE:
            self._drain()


_NO_KWARGS: Final[dict[str, Any]] = {}
_NONE: Final = codec.serialize(None).data


async def to_its_end(work: Awaitable[T]) -> T:
    """Await it even if this call is cancelled meanwhile: what its user wrote has ended, the outcome is known."""
    future = asyncio.ensure_future(work)
    while not future.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([future])
    return future.result()


def _nothing(*_: object) -> None: ...


def _kind_of(message: Work) -> tuple[Kind, ActorKey | None]:
    """What a message asks for, and of which actor."""
    match message:
        case StartActor(process=False):
            return Kind.START, message.actor
        case TaskCall(lease=0):
            return Kind.TASK, None
        case ActorCall():
            return Kind.CALL, message.actor
        case StopActor():
            return Kind.STOP, message.actor
        case _:
            return Kind.OTHER, None
