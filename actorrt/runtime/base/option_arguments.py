"""The options as a type checker sees them: the keyword arguments of `remote`, `method` and `.options`.

What they mean, their defaults and their checks are in core/options.py. `num_returns` stands apart: it changes what
`.remote()` gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from actorrt.core.scheduling_strategies import SchedulingStrategy

from actorrt.types import RetryPolicy

RetryExceptions = bool | Sequence[type[BaseException]] | None


class SharedArguments(TypedDict, total=False):
    """Options of tasks and of actors. None leaves an option as it was."""

    num_cpus: float | None
    """CPUs that a node sets aside, in steps of 1/10000: 1 for a `def` task, 0 for others, unless given."""
    num_gpus: float | None
    """GPUs that a node sets aside; CUDA_VISIBLE_DEVICES names them to the code."""
    memory: int | None
    """Bytes that a node sets aside. It is bookkeeping: nothing limits what the code takes."""
    resources: Mapping[str, float] | None
    """Further resources by the names that `init(resources=...)` gave them."""
    name: str | None
    """For a task, what errors and logs call it; for an actor, the name that `get_actor` finds it by."""
    runtime_env: Mapping[str, Any] | None
    """`{"env_vars": {...}}`: environment variables of the worker; what the code calls inherits them."""
    scheduling_strategy: Literal["DEFAULT", "SPREAD"] | SchedulingStrategy | None
    """Where it runs: in a placement group, on a node, by labels; see actorrt.util.scheduling_strategies."""
    generator_backpressure: int | None
    """Items that a stream may be ahead of its consumer; -1 is without limit."""
    enable_task_events: Literal[False] | None
    """Accepted for compatibility, as False only: the runtime records no events of tasks."""


class TaskArguments(SharedArguments, total=False):
    """Options of tasks."""

    max_retries: int | None
    """How often a task is sent again whose worker died; 3 unless given, -1 is without limit."""
    retry_exceptions: RetryExceptions
    """Errors of the code that are retried too: True for all, or a list of classes."""
    timeout_s: float | None
    """How many seconds a call may take in all, with pauses and repetitions; then it is cancelled, and its caller gets
    CallTimeoutError. An infinity is without limit."""
    start_timeout_s: float | None
    """The same for how many seconds a call may wait until it begins."""
    retry_policy: RetryPolicy | None
    """Pauses between the attempts of a call, and errors for which it is not repeated."""
    _generator_backpressure_num_objects: int | None
    """Ray's spelling of `generator_backpressure`."""


class ActorArguments(SharedArguments, total=False):
    """Options of actors."""

    namespace: str | None
    """Where the name counts; None: the namespace of the session."""
    get_if_exists: bool | None
    """Give a handle of the actor that has the name already, where there is one."""
    lifetime: Literal["detached", "non_detached"] | None
    """A detached actor outlives its last handle and its program; it ends by `kill` or with its session."""
    max_restarts: int | None
    """How often the runtime restarts an actor whose process died; 0 unless given, -1 is without limit."""
    max_task_retries: int | None
    """How often a call is sent again whose actor died; 0 unless given, -1 is without limit."""
    max_concurrency: int | None
    """Calls that run at once; 1,000 for an actor with `async def` methods, 1 for others, unless given."""
    max_pending_calls: int | None
    """Calls of one caller that may wait; more raise PendingCallsLimitExceeded. -1 is without limit."""
    isolated: bool | None
    """A process of its own, also for an actor of coroutines that asks for no resources."""
    on_runtime_loop: bool
    """Run the coroutines on the runtime's own loop, without a hop: for code that never blocks."""
    _actor_generator_backpressure_num_objects: int | None
    """Ray's spelling of `generator_backpressure`."""


class DecoratorArguments(TaskArguments, ActorArguments, total=False):
    """Options that only `@remote(...)` takes."""

    max_calls: int | None
    """Calls of the function after which its worker ends; 0 is without limit."""
    concurrency_groups: Mapping[str, int] | None
    """Groups of methods and how many calls of each run at once: `{"io": 2}`."""


class MethodArguments(TypedDict, total=False):
    """Options of calls of a method."""

    name: str | None
    """What errors and logs call it."""
    concurrency_group: str | None
    """The group of the class that the method belongs to."""
    max_task_retries: int | None
    """How often a call is sent again whose actor died; 0 unless given, -1 is without limit."""
    retry_exceptions: RetryExceptions
    """Errors of the code that are retried too: True for all, or a list of classes."""
    timeout_s: float | None
    """How many seconds a call may take in all, with pauses and repetitions; then it is cancelled, and its caller gets
    CallTimeoutError. An infinity is without limit."""
    start_timeout_s: float | None
    """The same for how many seconds a call may wait until it begins."""
    retry_policy: RetryPolicy | None
    """Pauses between the attempts of a call, and errors for which it is not repeated."""
    generator_backpressure: int | None
    """Items that a stream may be ahead of its consumer; -1 is without limit."""
    _generator_backpressure_num_objects: int | None
    """Ray's spelling of `generator_backpressure`."""
    enable_task_events: Literal[False] | None
    """Accepted for compatibility, as False only: the runtime records no events of tasks."""


class MethodDecoratorArguments(MethodArguments, total=False):
    """Options that only `@method(...)` takes."""

    thread: bool | None
    """Run a `def` method of an actor of coroutines in a thread, so that it may block."""
    may_block: bool | None
    """The method blocks the loop on purpose and is not reported."""
