"""From `.remote()` to a call that is on its way: arguments are pickled, results get their numbers and refs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import random
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from actorrt.core.call_terms import CallTerms, RetryOn
from actorrt.wire import codec
from actorrt.wire.messages import ActorCall, TaskCall

from ..links.running import Child, running_call
from . import current
from .actor_client import ActorClient
from .call_clock import CallClock
from .calls import Arguments, Call, Caller, Home, behind_retries, pack_arguments, when_resolved
from .entries import Entry
from .generators import DEFAULT_WINDOW, ObjectRefGenerator, Stream
from .references import ObjectRef
from .shared_tasks import SharedTasks
from .tasks import TaskPool, Tasks

if TYPE_CHECKING:
    from actorrt.core.options import MethodOptions, TaskOptions

    from ..base.definitions import RemoteFunctionDef
    from ..links.pipes import PipeReceiver

# Without a type argument each time: `ObjectRef[Any](...)` costs a microsecond more.
_ref: Callable[[Entry], ObjectRef[Any]] = ObjectRef
_generator: Callable[[Call, Stream], ObjectRefGenerator[Any]] = ObjectRefGenerator


class Numbers(Protocol):
    """Who numbers the objects of this process."""

    @property
    def next_seq(self) -> Callable[[], int]: ...
    def next_seqs(self, count: int) -> int: ...


class Callees(Home, Protocol):
    """Who sends calls to actors."""

    def call(self, client: ActorClient, call: Call) -> None: ...


class CallMaker:
    """Makes the calls of a process and hands them to who sends them; from any thread."""

    def __init__(
        self,
        caller: Caller,
        numbers: Numbers,
        actors: Callees,
        tasks: Tasks,
        shared_tasks: SharedTasks,
        clock: CallClock,
    ) -> None:
        self._caller = caller
        self._thread = caller.thread
        self._inline_limit = caller.settings.inline_limit
        # Bound here, since each call needs them.
        self._next_seq = numbers.next_seq
        self._next_seqs = numbers.next_seqs
        self._actors = actors
        self._call_actor = actors.call
        self._adopt = adopt
        self._tasks = tasks
        self._shared_tasks = shared_tasks
        self._clock = clock
        # Tasks whose arguments are awaited.
        self._resolving: set[Call] = set()

    @property
    def busy(self) -> bool:
        """True while tasks wait for their arguments; from any thread."""
        return any(not call.done for call in list(self._resolving))

    def resolving(self) -> list[Call]:
        """The tasks that wait for their arguments; from any thread."""
        return list(self._resolving)

    def call_task(
        self, function: RemoteFunctionDef, args: tuple[Any, ...], kwargs: dict[str, Any], options: TaskOptions
    ) -> Any:
        """Queue a task; see RemoteFunction.remote."""
        name = options.name or function.name
        tasks = self._tasks
        tasks.learn(function, options.max_calls)
        pool = tasks.pool_for(options, function.is_async)
        shared = pool.shares
        payload = codec.dumps_call(args, kwargs, self._inline_limit)
        arguments = None if payload is not None else pack_arguments(self._caller, name, args, kwargs)
        returns, window = 1, None
        if options.num_returns == 1:
            seq = self._next_seq()
        else:
            returns, window = returns_and_window(options)
            seq = self._next_seqs(returns)
        terms: RetryOn | CallTerms = options.retry_exceptions
        if options.limits is not None:
            terms = CallTerms(options.limits, terms, random)
        if arguments is None:
            message = TaskCall(seq, function.function_id, payload or b"", None, returns, window or 0, name)
        else:
            message = TaskCall(
                seq, function.function_id, arguments.payload, arguments.slots, returns, window or 0, name
            )
        call = Call(
            self._caller,
            message,
            pool,
            name,
            options.max_retries,
            terms,
            arguments,
            returns,
            window,
            None,
            function,
            self._shared_tasks if shared else tasks,
        )
        result: Any = _ref(call.entry) if call.stream is None and returns == 1 else result_of(call, returns)
        self._adopt(call)
        if call.waiting is not None:
            go = self._go_shared if shared else self._go
            self._resolving.add(call)
            self._thread.run_soon(partial(self._resolve_then, call, go))
        elif shared:
            self._thread.run_soon(partial(self._go_shared, call))
        else:
            tasks.hand_over(call, pool)
        if options.limits is not None:
            self._clock.watch(call, options.limits)
        return result

    def _resolve_then(self, call: Call, go: Callable[[Call], None]) -> None:
        def resolved(call: Call) -> None:
            self._resolving.discard(call)
            go(call)

        if not when_resolved(call, resolved, self._thread.run_soon):
            resolved(call)

    def _go(self, call: Call) -> None:
        self._tasks.submit([(call, call.target)])

    def _go_shared(self, call: Call) -> None:
        pool: TaskPool = call.target
        self._shared_tasks.submit(call, pool.env)

    def call_method(
        self,
        actor: ActorClient,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: MethodOptions,
        receiver: PipeReceiver | None = None,
    ) -> Any:
        """Queue an actor call; see ActorMethod.remote."""
        name = options.name
        traits = actor.traits
        attempts = options.max_task_retries
        if attempts is None:
            attempts = traits.max_task_retries
        retry_on = options.retry_exceptions
        if retry_on:
            actor.expect_repeats()
        if receiver is not None:
            # Bytes that have come cannot be taken back, so it is not repeated.
            attempts, retry_on = 0, False
        terms: RetryOn | CallTerms = retry_on
        if options.limits is not None:
            terms = CallTerms(options.limits, retry_on, random)
        payload = codec.dumps_call(args, kwargs, self._inline_limit)
        arguments = None
        if payload is None:
            arguments = self._packed(actor, name or method, args, kwargs)
            payload = arguments.payload
        returns, window = 1, None
        if options.num_returns == 1:
            seq = self._next_seq()
        else:
            returns, window = returns_and_window(options)
            seq = self._next_seqs(returns)
        group = options.concurrency_group
        if returns == 1 and arguments is None and window is None and not name and not group:
            message = ActorCall(seq, actor.actor, method, payload)
        else:
            slots = None if arguments is None else arguments.slots
            message = ActorCall(seq, actor.actor, method, payload, slots, returns, window or 0, group or "", name or "")
        call = Call(
            self._caller,
            message,
            actor,
            name or method,
            attempts,
            terms,
            arguments,
            returns,
            window,
            receiver,
            None,
            self._actors,
        )
        result: Any = _ref(call.entry) if returns == 1 and window is None else result_of(call, returns)
        parent = running_call.get()
        if parent is not None:
            parent.add_child(call)
        self._call_actor(actor, call)
        if options.limits is not None:
            self._clock.watch(call, options.limits)
        return result

    def _packed(self, actor: ActorClient, what: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        arguments = pack_arguments(self._caller, what, args, kwargs)
        if arguments.pins is not None and actor.repeats and actor.traits.one_at_a_time:
            return behind_retries(arguments, actor)
        return arguments

    # ---- the end

    def note_calls(self, note: Callable[[Child], None]) -> None:
        """This process is about to end: tell `note` of each call from now on."""
        call_actor, adopt = self._call_actor, self._adopt

        def call_and_note(actor: ActorClient, call: Call) -> None:
            note(call)
            call_actor(actor, call)

        def adopt_and_note(call: Call) -> None:
            note(call)
            adopt(call)

        self._call_actor, self._adopt = call_and_note, adopt_and_note


def adopt(call: Call) -> None:
    """Note a call as a child of the one that this code runs in, so that a cancellation reaches it."""
    parent = running_call.get()
    if parent is not None:
        parent.add_child(call)


def returns_and_window(options: TaskOptions | MethodOptions) -> tuple[int, int | None]:
    """How many values a call returns, and, if it streams, how far it may be ahead."""
    returns = options.num_returns
    if isinstance(returns, int):
        return returns, None
    window = options.generator_backpressure
    return 1, DEFAULT_WINDOW if window is None or window < 0 else window


def result_of(call: Call, returns: int) -> Any:
    """What `.remote()` returns for a call."""
    if call.stream is not None:
        return _generator(call, call.stream)
    if returns == 1:
        return _ref(call.entry)
    return None if returns == 0 else [_ref(entry) for entry in call.all_entries()]


# ---- what a runtime does instead that makes no calls any more


def refuse_past(actor: ActorClient, method: str, *_: object, **__: object) -> NoReturn:
    """The session is over."""
    if current.has_ended():
        raise RuntimeError(current.ENDED)
    raise RuntimeError(
        f"{actor.title}.{method} cannot be called: its handle is of a session that was shut down; make the actor anew "
        "in this session, or find a detached one by get_actor()"
    )


def refuse_forked(*_: object, **__: object) -> NoReturn:
    """This process is a fork of the session's."""
    raise RuntimeError(current.FORKED)
