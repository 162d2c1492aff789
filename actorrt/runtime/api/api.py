"""The public functions beside `init` and `remote`: get, put, wait, cancel, kill and questions about the cluster."""

from __future__ import annotations

import asyncio
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn, TypeVar, cast, overload

from actorrt import exceptions
from actorrt.core import option_checks as check
from actorrt.wire.messages import Facts, ListNames, Names, Query

from ..links.running import running_call
from ..machine import gpus
from ..owner import current
from ..owner.actor_creation import find_named
from ..owner.generators import ObjectRefGenerator
from ..owner.handles import ActorHandle, client_of, make_handle
from ..owner.references import ObjectRef
from ..owner.waiting import entry_of
from ..worker.actor_threads import actor_here
from . import program
from .actor import Actor

T = TypeVar("T")
Waitable = TypeVar("Waitable", bound=ObjectRef[Any] | ObjectRefGenerator[Any])

# All files of actorrt, Serve's too.
_PACKAGE: Final = os.path.dirname(os.path.dirname(os.path.dirname(__file__))) + os.sep
_AT_LEAST_ONE: Final = check.whole(1)


def put(value: T) -> ObjectRef[T]:
    """Store a value and give a ref to it. What is over 100 KB lies in shared memory. A ref cannot be put: TypeError."""
    if isinstance(value, ObjectRef):
        raise TypeError("put() takes a value, not a ref: pass the ref itself on, or put a list that holds it")
    return program.runtime().put(value)


@overload
def get(refs: ObjectRef[T], *, timeout: float | None = None) -> T: ...
@overload
def get(refs: Sequence[ObjectRef[T]], *, timeout: float | None = None) -> list[T]: ...
def get(refs: Any, *, timeout: float | None = None) -> Any:
    """Wait for one ref, or a list of them, and give the values, in order.

    Raises the error of the first that failed, as the user's own class, as soon as one has; GetTimeoutError after
    `timeout` seconds (0 only looks). In a coroutine, `await ref` instead: `get` blocks the loop, and warns.
    """
    if isinstance(refs, ObjectRef):
        # Most programs get a ref at a time: what a list needs is left out.
        one = cast("ObjectRef[Any]", refs)
        if timeout is not None:
            timeout = check.seconds("timeout", timeout)
        if not one.done():
            _warn_if_on_a_loop("get", "await ref")
        elif current.has_ended():
            # What came before the session ended is still known.
            return one.peek()
        return program.session().get_one(one, timeout)
    wanted: list[Any]
    if hasattr(refs, "__iter__"):
        wanted = list(refs)
        for ref in wanted:
            if not isinstance(ref, ObjectRef):
                raise TypeError(f"get() takes refs, not {type(ref).__name__}")
    else:
        raise TypeError(f"get() takes a ref or a list of refs, not {type(refs).__name__}")
    if timeout is not None:
        timeout = check.seconds("timeout", timeout)
    if any(not ref.done() for ref in wanted):
        _warn_if_on_a_loop("get", "await ref")
    if current.has_ended() and all(ref.done() for ref in wanted):
        return [ref.peek() for ref in wanted]
    return program.session().get(wanted, timeout)


def _warn_if_on_a_loop(name: str, better: str) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    runtime = program.maybe_runtime()
    # Whoever called into this package: for what waits inside of it there is no ref that could be awaited.
    level, frame = 2, sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        name, better = frame.f_code.co_name, f"await asyncio.to_thread({frame.f_code.co_name}, ...)"
        level, frame = level + 1, frame.f_back
    if runtime is not None:
        # Once: a notebook runs each cell on a loop.
        if name in runtime.warned_of:
            return
        runtime.warned_of.add(name)
    warnings.warn(
        f"{name}() blocks the event loop that it is called on; use `{better}`", RuntimeWarning, stacklevel=level + 1
    )


def wait(
    refs: Sequence[Waitable], *, num_returns: int = 1, timeout: float | None = None, fetch_local: bool = True
) -> tuple[list[Waitable], list[Waitable]]:
    """Wait until `num_returns` of the refs are done, at most `timeout` seconds: (done, rest), each in the given order.

    No more than `num_returns` come back as done. A generator is done when its next item is there. Refs must be unique.
    """
    if isinstance(refs, ObjectRef | ObjectRefGenerator):
        raise TypeError("wait() takes a list of refs")
    given = cast(list[Any], refs) if type(refs) is list else list(refs)
    if not given:
        return [], []
    if type(num_returns) is not int or not num_returns > 0:
        num_returns = _AT_LEAST_ONE("num_returns", num_returns)
    if num_returns > len(given):
        raise ValueError(f"num_returns must be between 1 and the {len(given)} refs given, not {num_returns}")
    if timeout is not None:
        timeout = check.seconds("timeout", timeout)
    return cast("tuple[list[Waitable], list[Waitable]]", program.session().wait(given, num_returns, timeout))


def cancel(ref: ObjectRef[Any] | ObjectRefGenerator[Any], *, force: bool = False, recursive: bool = True) -> None:
    """Cancel a call and, if `recursive`, what it has called: its `finally` blocks run, its ref gets TaskCancelledError.

    A coroutine is cancelled at its await, a `def` task gets KeyboardInterrupt, a `def` method a flag
    (`get_runtime_context().is_canceled()`). A value that the code returns after that is dropped; an error that it
    raises is the call's. A value that it had returned before stays the call's.

    `force` ends a task's process; for an actor's call it is a ValueError.
    """
    if isinstance(ref, ObjectRefGenerator):
        entry = entry_of(ref.end)
    elif type(ref) is ObjectRef:
        entry = entry_of(ref)
    else:
        raise TypeError(f"cancel() takes a ref or a generator, not {type(ref).__name__}")
    program.session().cancel(entry, check.boolean("force", force), check.boolean("recursive", recursive))


def kill(actor: ActorHandle[Any] | Actor, *, no_restart: bool = True) -> None:
    """End an actor at once; what it was running fails with ActorDiedError. `no_restart=False` lets it come back."""
    client = client_of(actor)
    check.boolean("no_restart", no_restart)
    runtime = program.session()
    if client.runtime is not runtime:
        raise RuntimeError(current.ENDED)
    runtime.kill_actor(client, no_restart)


def get_actor(name: str, namespace: str | None = None) -> ActorHandle[Any]:
    """A handle to the actor that has this name. ValueError if there is none, TypeError if it is no string."""
    check.text("name", name)
    if namespace is not None:
        check.text("namespace", namespace)
    runtime = program.runtime()
    where = namespace or runtime.membership.namespace
    found = find_named(runtime, name, where)
    if found is None:
        raise exceptions.ActorNotFoundError(name, where)
    return make_handle(*found)


def list_named_actors(all_namespaces: bool = False) -> list[Any]:
    """The names in this program's namespace, or {"name", "namespace"} of all."""
    check.boolean("all_namespaces", all_namespaces)
    runtime = program.runtime()
    names: Names = runtime.thread.call_sync(
        runtime.node.ask(ListNames(None if all_namespaces else runtime.membership.namespace))
    )
    if all_namespaces:
        return [{"name": name, "namespace": namespace} for namespace, name in names.names]
    return [name for _, name in names.names]


def exit_actor() -> NoReturn:
    """Leave the actor whose code this is: its calls fail with ActorDiedError, and so do later ones.

    It may be called in a method, in a task, callback or thread that the actor has started, or in its constructor.
    TypeError where that is no actor's.
    """
    run, runtime, actor = running_call.get(), program.maybe_runtime(), actor_here()
    if actor is None and runtime is not None:
        actor = runtime.tenancy.actor
    if actor is None or runtime is None:
        raise TypeError("exit_actor() is for the code of an actor: its methods, and what they start")
    raise runtime.leave_actor(actor, run)


def _facts(what: str) -> Any:
    runtime = program.runtime()
    facts: Facts = runtime.thread.call_sync(runtime.node.ask(Query(what)))
    return facts.data


def nodes() -> list[dict[str, Any]]:
    """The machines of the cluster."""
    return _facts("nodes")


def cluster_resources() -> dict[str, float]:
    """What the cluster has, such as `{"CPU": 8.0}`."""
    return _facts("resources")


def available_resources() -> dict[str, float]:
    """What of it is free now."""
    return _facts("available")


def statistics(timeout: float = 5.0) -> dict[str, Any]:
    """How the session stands: `{"node": {...}, "processes": [{...}, ...]}`, plain values for people and monitors.

    The node tells its workers by state, leases, segments and links; each process its calls, actors, tasks, objects and
    links. This process is left out. One that does not answer within a second, or most of a shorter `timeout`, has the
    reason in `"trouble"`, which is empty for the others. It costs each process the counting, so ask now and then, and
    not in a loop.

    Which facts there are may change with any release. Raises TimeoutError if the node does not answer in time.
    """
    runtime = program.runtime()
    limit_s = check.seconds("timeout", timeout)
    try:
        facts: Facts = runtime.thread.call_sync(runtime.node.ask(Query("statistics", limit_s or 0.0)), limit_s)
    except TimeoutError:
        raise TimeoutError(f"the node has not answered for {timeout:g} s") from None
    return facts.data


def get_gpu_ids() -> list[int | str]:
    """The GPUs that this worker may use, as its CUDA_VISIBLE_DEVICES names them: numbers, or ids as strings."""
    return gpus.ids(program.runtime().program.gpus)


async def in_thread(work: Callable[[], T]) -> T:
    return await asyncio.to_thread(work)
