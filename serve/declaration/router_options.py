"""The deployment option `request_router`: its forms and checks. What is no policy is refused where it is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib import import_module
from typing import Any, Final, cast

from ..capacity_queue.config import NAME as CAPACITY_QUEUE
from ..capacity_queue.config import CapacityQueueConfig, parse_config
from ..policies.policy import trouble_with
from ..policies.routing import BUILT_IN

# What Ray's configuration has and what is needless here: nothing is asked for periodically, nor tried after a while.
NOT_HERE: Final = (
    "request_routing_stats_period_s", "request_routing_stats_timeout_s",
    "initial_backoff_s", "backoff_multiplier", "max_backoff_s",
)  # fmt: skip
RAYS_DEFAULT: Final = "PowerOfTwoChoicesRequestRouter"


@dataclass(frozen=True, slots=True)
class RequestRouterConfig:
    """Which policy routes a deployment's requests: one of Serve's by its name, a class, or where that is found as
    "module:name". Of a class, each process that sends requests makes one by `cls(context, **request_router_kwargs)`;
    those of "capacity_queue" are the fields of CapacityQueueConfig.
    """

    request_router_class: str | type = "power_of_two"
    request_router_kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])


NAMES: Final = (*BUILT_IN, CAPACITY_QUEUE)
DEFAULT_ROUTER: Final = RequestRouterConfig()
FIELDS: Final = tuple(each.name for each in fields(RequestRouterConfig))


def parse_request_router(option: str, value: object) -> RequestRouterConfig:
    """The configuration with a name of Serve's or a class. TypeError or ValueError says what is wrong with it."""
    if isinstance(value, Mapping):
        given = cast(Mapping[str, Any], value)
        for name in given:
            if name in NOT_HERE:
                raise ValueError(f"key {name!r} of {option} has no meaning here: routers are told, and need not ask")
            if name not in FIELDS:
                raise ValueError(f"unknown key {name!r} of {option}; there are {' and '.join(FIELDS)}")
        value = RequestRouterConfig(**given)
    if not isinstance(value, RequestRouterConfig):
        value = RequestRouterConfig(cast(Any, value))
    kwargs = cast(object, value.request_router_kwargs)
    if not isinstance(kwargs, Mapping) or not all(isinstance(each, str) for each in cast(Mapping[Any, Any], kwargs)):
        raise TypeError(f"{option} must be given request_router_kwargs that are a dict with names as keys")
    found = _found(option, value.request_router_class)
    if found == CAPACITY_QUEUE:
        parse_config(option, cast(Mapping[str, Any], kwargs))
    elif isinstance(found, str):
        if kwargs:
            raise ValueError(f"{option} {found!r} takes no request_router_kwargs")
    elif trouble := trouble_with(found, dict(cast(Mapping[str, Any], kwargs))):
        raise TypeError(f"{option} must be a policy: {trouble}")
    return RequestRouterConfig(found, dict(cast(Mapping[str, Any], kwargs)))


def queue_config(given: RequestRouterConfig) -> CapacityQueueConfig | None:
    """That of a capacity queue, if the router is one."""
    if given.request_router_class != CAPACITY_QUEUE:
        return None
    return parse_config("request_router", given.request_router_kwargs)


def _found(option: str, value: object) -> str | type:
    """A name of Serve's own, or a class."""
    if isinstance(value, str):
        module, colon, name = value.partition(":")
        if not colon and value not in NAMES:
            raise ValueError(f"unknown {option} {value!r}: there are {', '.join(NAMES)}, a class, or 'module:name'")
        if name == RAYS_DEFAULT:
            return "power_of_two"
        if not colon:
            return value
        try:
            value = getattr(import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f"{option} {module}:{name} is not there: {error}") from error
    if not isinstance(value, type):
        known = ", ".join(map(repr, NAMES))
        raise TypeError(f"{option} must be one of {known}, or a class, not {type(value).__name__}")
    return next((name for name, cls in BUILT_IN.items() if cls is value), value)
