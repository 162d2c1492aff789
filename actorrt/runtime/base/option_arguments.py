"""The options as a type checker sees them: the keyword arguments of `remote`, `method` and `.options`.

What they mean, their defaults and their checks are in core/options.py. `num_returns` stands apart: it changes what
`.remote()` gives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

RetryExceptions = bool | Sequence[type[BaseException]] | None


class SharedArguments(TypedDict, total=False):
    num_cpus: float | None
    num_gpus: float | None
    memory: int | None
    resources: Mapping[str, float] | None
    name: str | None
    runtime_env: Mapping[str, Any] | None
    scheduling_strategy: Literal["DEFAULT", "SPREAD"] | None
    generator_backpressure: int | None
    enable_task_events: Literal[False] | None


class TaskArguments(SharedArguments, total=False):
    max_retries: int | None
    retry_exceptions: RetryExceptions
    _generator_backpressure_num_objects: int | None


class ActorArguments(SharedArguments, total=False):
    namespace: str | None
    get_if_exists: bool | None
    lifetime: Literal["detached", "non_detached"] | None
    max_restarts: int | None
    max_task_retries: int | None
    max_concurrency: int | None
    max_pending_calls: int | None
    isolated: bool | None
    on_runtime_loop: bool
    _actor_generator_backpressure_num_objects: int | None


class DecoratorArguments(TaskArguments, ActorArguments, total=False):
    """What `@remote(...)` takes, for a function or a class."""

    max_calls: int | None
    concurrency_groups: Mapping[str, int] | None


class MethodArguments(TypedDict, total=False):
    name: str | None
    concurrency_group: str | None
    max_task_retries: int | None
    retry_exceptions: RetryExceptions
    generator_backpressure: int | None
    _generator_backpressure_num_objects: int | None
    enable_task_events: Literal[False] | None


class MethodDecoratorArguments(MethodArguments, total=False):
    """What `@method(...)` takes."""

    thread: bool | None
    may_block: bool | None
