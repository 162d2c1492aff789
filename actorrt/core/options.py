"""Turn the options that a user writes into frozen values, with every default filled in.

A name that is unknown is a ValueError with the nearest known one, a wrong type a TypeError; None always means "as it
was". What the options bring about is decided elsewhere.
"""

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, Literal, Self, TypeVar

import msgspec
from msgspec import structs

from actorrt.core import option_checks as check
from actorrt.core.call_terms import Limits
from actorrt.core.nearest import did_you_mean
from actorrt.core.option_checks import PRECISION, Check, NumReturns, Pairs
from actorrt.core.scheduling_strategies import strategy_of
from actorrt.types import Strategy

UNLIMITED: Final = -1
IN_STRATEGY: Final = "give scheduling_strategy=PlacementGroupSchedulingStrategy(...)"
ASYNC_CONCURRENCY: Final = 1000
SYNC_CONCURRENCY: Final = 1


@lru_cache
def _shape_of(num_cpus: float, num_gpus: float, memory: int, resources: Pairs) -> Mapping[str, int]:
    """What is asked for, in units of 1/10000; nothing that is zero."""
    named = {"CPU": num_cpus, "GPU": num_gpus, "memory": memory, **dict(resources)}
    return MappingProxyType({name: round(amount * PRECISION) for name, amount in named.items() if amount})


def shape_of_bundle(name: str, bundle: Any) -> dict[str, int]:
    """What a bundle of a placement group sets aside, in units of 1/10000: something, and nothing that is zero."""
    shape = {resource: round(amount * PRECISION) for resource, amount in check.bundle(name, bundle) if amount}
    if not shape:
        raise check.wrong_value(name, "a dict with a resource at least that is not zero", bundle)
    return shape


class TaskOptions(msgspec.Struct, frozen=True):
    """How one function's calls run. Get one from `default_task_options` or `parse_task_options`."""

    num_cpus: float
    num_returns: NumReturns
    num_gpus: float = 0.0
    memory: int = 0
    resources: Pairs = ()
    name: str | None = None
    max_retries: int = 3
    retry_exceptions: bool | tuple[type[BaseException], ...] = False
    max_calls: int = 0
    generator_backpressure: int = UNLIMITED
    # None: nobody said. Then it may be captured.
    strategy: Strategy | None = None
    env_vars: tuple[tuple[str, str], ...] = ()
    # How long a call may take, and how it is repeated; None: nothing is said of that.
    limits: Limits | None = None

    @property
    def shape(self) -> Mapping[str, int]:
        """The resources that are asked for, in units of 1/10000."""
        return _shape_of(self.num_cpus, self.num_gpus, self.memory, self.resources)


class ActorOptions(msgspec.Struct, frozen=True):
    """How one class's actors live."""

    # None: nobody said. Then 0, or 1 if other resources are named.
    num_cpus: float | None = None
    num_gpus: float = 0.0
    memory: int = 0
    resources: Pairs = ()
    name: str | None = None
    namespace: str | None = None
    get_if_exists: bool = False
    lifetime: Literal["detached", "non_detached"] | None = None
    max_restarts: int = 0
    max_task_retries: int = 0
    # None: 1000 for an actor with async methods, 1 for others.
    max_concurrency: int | None = None
    concurrency_groups: tuple[tuple[str, int], ...] = ()
    max_pending_calls: int = UNLIMITED
    generator_backpressure: int = UNLIMITED
    isolated: bool = False
    # Its coroutines run on the runtime's own loop, without a hop: for code that never blocks, such as a proxy's.
    on_runtime_loop: bool = False
    # None: nobody said. Then it may be captured.
    strategy: Strategy | None = None
    env_vars: tuple[tuple[str, str], ...] = ()

    @property
    def shape(self) -> Mapping[str, int]:
        """The resources that are asked for, in units of 1/10000."""
        others = bool(self.num_gpus or self.memory or self.resources)
        cpus = float(others) if self.num_cpus is None else self.num_cpus
        return _shape_of(cpus, self.num_gpus, self.memory, self.resources)

    @property
    def detached(self) -> bool:
        return self.lifetime == "detached"

    def exclusive(self, has_async: bool) -> bool:
        """Whether the actor gets a process of its own."""
        is_bound = self.strategy is not None and self.strategy.is_bound
        return self.isolated or self.on_runtime_loop or not has_async or is_bound or bool(self.shape)

    def concurrency(self, has_async: bool) -> int:
        """How many calls run at once outside of the named groups."""
        return self.max_concurrency or (ASYNC_CONCURRENCY if has_async else SYNC_CONCURRENCY)


class MethodOptions(msgspec.Struct, frozen=True):
    """How one method's calls run. `max_task_retries` None: as its actor's options say."""

    num_returns: NumReturns = 1
    name: str | None = None
    concurrency_group: str | None = None
    max_task_retries: int | None = None
    retry_exceptions: bool | tuple[type[BaseException], ...] = False
    # None: as its actor's options say.
    generator_backpressure: int | None = None
    thread: bool = False
    # It blocks its loop on purpose, as one that loads a model does: not worth a report.
    may_block: bool = False
    # How long a call may take, and how it is repeated; None: nothing is said of that.
    limits: Limits | None = None


class InitOptions(msgspec.Struct, frozen=True):
    """What a program asks of `init`. None: as the settings or the machine say."""

    address: str | None = None
    namespace: str | None = None
    num_cpus: float | None = None
    num_gpus: float | None = None
    resources: Pairs = ()
    object_store_memory: int | None = None
    local_mode: bool = False
    ignore_reinit_error: bool = False
    log_to_driver: bool | None = None
    env_vars: tuple[tuple[str, str], ...] = ()
    preload_modules: tuple[str, ...] = ()

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Self:
        return cls(**_read("init", _INIT, given))


def default_task_options(is_async: bool, is_generator: bool) -> TaskOptions:
    """A `def` task takes a CPU, an `async def` one shares a loop; a generator streams."""
    return TaskOptions(num_cpus=0.0 if is_async else 1.0, num_returns="streaming" if is_generator else 1)


def parse_task_options(given: Mapping[str, Any], base: TaskOptions, *, decorating: bool = False) -> TaskOptions:
    """`base` with what was given. Options that belong to the function itself are taken only while `decorating`."""
    options = _with_limits(base, _read("tasks", _TASK, given, _TASK_DECORATOR_ONLY, decorating))
    _check_window(given, options.num_returns)
    return options


def parse_actor_options(
    given: Mapping[str, Any], base: ActorOptions | None = None, *, decorating: bool = False
) -> ActorOptions:
    """`base` with what was given; ValueError also where two options contradict each other."""
    read = _read("actors", _ACTOR, given, _ACTOR_DECORATOR_ONLY, decorating)
    options = structs.replace(base or ActorOptions(), **read)
    if options.get_if_exists and options.name is None:
        raise ValueError("get_if_exists needs a name to look for")
    return options


def parse_method_options(
    given: Mapping[str, Any], base: MethodOptions | None = None, *, decorating: bool = False
) -> MethodOptions:
    """`base` with what was given. `thread` and `may_block` belong to the method itself: only while `decorating`."""
    read = _read("methods", _METHOD, given, _METHOD_DECORATOR_ONLY, decorating)
    options = _with_limits(base or MethodOptions(), read)
    _check_window(given, options.num_returns)
    return options


Called = TypeVar("Called", TaskOptions, MethodOptions)


def _with_limits(base: Called, read: dict[str, Any]) -> Called:
    """`base` with what was read, of which some lies together."""
    limits = {name: read.pop(name) for name in Limits.__struct_fields__ if name in read}
    if limits:
        read["limits"] = structs.replace(base.limits or Limits(), **limits)
    options = structs.replace(base, **read)
    if "retry_policy" in limits and limits["retry_policy"].never_for and not options.retry_exceptions:
        raise ValueError(
            "never_for of retry_policy says which errors are not retried, and retry_exceptions retries none"
        )
    return options


def _check_window(given: Mapping[str, Any], num_returns: object) -> None:
    name = next((name for name in given if _ALIASES.get(name, name) == "generator_backpressure"), "")
    if name and given[name] is not None and num_returns != "streaming":
        raise ValueError(f'{name} is for what streams: give num_returns="streaming" too, not {num_returns!r}')


# One row an option: how a value is checked. `_ALIASES` has the other spellings of Ray's.
_COMMON: Final[Mapping[str, Check]] = {
    "num_cpus": check.amount,
    "num_gpus": check.gpus,
    "memory": check.size,
    "resources": check.resources,
    "name": check.text,
    "runtime_env": check.environment,
    "scheduling_strategy": strategy_of,
    "accelerator_type": check.not_yet("name the machine's kind as a custom resource"),
    "label_selector": check.not_yet("nodes have no labels"),
    "fallback_strategy": check.not_yet("nodes have no labels"),
    "placement_group": check.not_yet(IN_STRATEGY),
    "placement_group_bundle_index": check.not_yet(IN_STRATEGY),
    "placement_group_capture_child_tasks": check.not_yet(IN_STRATEGY),
    "object_store_memory": check.not_yet("the store is one for all tasks of a machine; init() sets its size"),
    "enable_task_events": check.off_only("no events of tasks are recorded"),
    "_labels": check.not_yet("tasks and actors have no labels"),
}
_LIMITS: Final[Mapping[str, Check]] = {
    "timeout_s": check.limit,
    "start_timeout_s": check.limit,
    "retry_policy": check.retry_policy,
}
_TASK: Final[Mapping[str, Check]] = {
    **_COMMON,
    "num_returns": check.num_returns,
    "max_retries": check.whole(0, UNLIMITED),
    "retry_exceptions": check.exception_classes,
    "max_calls": check.whole(0),
    "generator_backpressure": check.whole(1, UNLIMITED),
    **_LIMITS,
}
_ACTOR: Final[Mapping[str, Check]] = {
    **_COMMON,
    "namespace": check.text,
    "get_if_exists": check.boolean,
    "lifetime": check.one_of("detached", "non_detached"),
    "max_restarts": check.whole(0, UNLIMITED),
    "max_task_retries": check.whole(0, UNLIMITED),
    "max_concurrency": check.whole(1),
    "concurrency_groups": check.groups,
    "max_pending_calls": check.whole(1, UNLIMITED),
    "generator_backpressure": check.whole(1, UNLIMITED),
    "isolated": check.boolean,
    "on_runtime_loop": check.boolean,
    "allow_out_of_order_execution": check.not_yet("async actors start calls as their arguments come, others in order"),
    "enable_tensor_transport": check.not_yet("tensors travel like other values"),
}
_METHOD: Final[Mapping[str, Check]] = {
    "num_returns": check.num_returns,
    "name": check.text,
    "concurrency_group": check.text,
    "max_task_retries": check.whole(0, UNLIMITED),
    "retry_exceptions": check.exception_classes,
    "generator_backpressure": check.whole(1, UNLIMITED),
    **_LIMITS,
    "thread": check.boolean,
    "may_block": check.boolean,
    "enable_task_events": check.off_only("no events of tasks are recorded"),
    "tensor_transport": check.not_yet("tensors travel like other values"),
}
_INIT: Final[Mapping[str, Check]] = {
    "num_cpus": check.amount,
    "num_gpus": check.gpus,
    "resources": check.resources,
    "address": check.text,
    "namespace": check.text,
    "object_store_memory": check.whole(1),
    "local_mode": check.boolean,
    "ignore_reinit_error": check.boolean,
    "log_to_driver": check.boolean,
    "runtime_env": check.environment,
    "preload_modules": check.module_names,
    "include_dashboard": check.off_only("there is no dashboard"),
    "dashboard_host": check.not_yet("there is no dashboard"),
    "dashboard_port": check.not_yet("there is no dashboard"),
    "labels": check.not_yet("nodes have no labels"),
    "logging_level": check.not_yet("the variable ACTORRT_LOG_LEVEL sets it"),
    "logging_config": check.not_yet("logs are plain text"),
    "job_config": check.not_yet("runtime_env is an option of init itself"),
}
_TASK_DECORATOR_ONLY: Final = frozenset({"max_calls"})
_ACTOR_DECORATOR_ONLY: Final = frozenset({"concurrency_groups"})
_METHOD_DECORATOR_ONLY: Final = frozenset({"thread", "may_block"})
_ALIASES: Final[Mapping[str, str]] = {
    "_generator_backpressure_num_objects": "generator_backpressure",
    "_actor_generator_backpressure_num_objects": "generator_backpressure",
}
_FIELDS: Final[Mapping[str, str]] = {"runtime_env": "env_vars", "scheduling_strategy": "strategy"}
"""Options that are kept under another name than they are written."""
_CHECKED_ONLY: Final = frozenset({"enable_task_events", "include_dashboard"})
_TABLES: Final[Mapping[str, Mapping[str, Check]]] = {"tasks": _TASK, "actors": _ACTOR, "methods": _METHOD}


def _read(
    what: str,
    table: Mapping[str, Check],
    given: Mapping[str, Any],
    decorator_only: frozenset[str] = frozenset(),
    decorating: bool = True,
) -> dict[str, Any]:
    read: dict[str, Any] = {}
    for written, value in given.items():
        name = _ALIASES.get(written, written)
        if name not in table:
            raise ValueError(_unknown(written, what, table))
        if name in decorator_only and not decorating:
            raise ValueError(f"{written} is set where the {what[:-1]} is defined, it is not taken by .options()")
        if value is not None:
            read[_FIELDS.get(name, name)] = table[name](written, value)
    return {name: value for name, value in read.items() if name not in _CHECKED_ONLY}


def _unknown(name: str, what: str, table: Mapping[str, Check]) -> str:
    owners = [other for other, known in _TABLES.items() if name in known]
    hint = f" but of {' and '.join(owners)}" if owners else did_you_mean(name, table)
    return f"{name!r} is not an option of {what}{hint}"
