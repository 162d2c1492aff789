"""The options of a deployment: their names, types, defaults and checks.

A wrong option is refused here, where the user wrote it, and not when a replica starts. Nothing here acts on them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, cast

from ..base.encodable import is_encodable
from ..base.unknown_names import unknown
from ..policies.policy import MOST
from .router_options import DEFAULT_ROUTER, RequestRouterConfig, parse_request_router

ACTOR_OPTIONS: Final = ("num_cpus", "num_gpus", "memory", "resources", "runtime_env")
# What Ray's users may write and what is not here yet is told apart from a typing error.
NOT_YET: Final = (
    "autoscaling_config",
    "backpressure_config",
    "deployment_actors",
    "gang_scheduling_config",
    "logging_config",
    "max_replicas_per_node",
    "max_surge_percent",
    "placement_group_bundle_label_selector",
    "placement_group_bundles",
    "placement_group_strategy",
    "rolling_update_percentage",
    "version",
)


@dataclass(frozen=True, slots=True)
class DeploymentOptions:
    """Seconds for times. -1 for `max_queued_requests` means no limit. `actor_options` asks for what a replica needs.

    `request_router` is given as "power_of_two", "round_robin", "least_requests", a class (see request_router.py) or a
    RequestRouterConfig.
    """

    name: str
    num_replicas: int = 1
    max_ongoing_requests: int = 5
    max_queued_requests: int = -1
    user_config: Any = None
    actor_options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    request_router: RequestRouterConfig = DEFAULT_ROUTER
    health_check_period_s: float = 10.0
    health_check_timeout_s: float = 30.0
    # A replica that has not taken a new user_config by then keeps the one before, and the update has failed.
    reconfigure_timeout_s: float = 60.0
    # A replica that drains takes no notice of late requests before this long, unless every router has been told.
    graceful_shutdown_wait_loop_s: float = 2.0
    # Then it has this long for the requests it has.
    graceful_shutdown_timeout_s: float = 20.0
    max_constructor_retry_count: int = 20


KNOWN: Final = tuple(each.name for each in fields(DeploymentOptions))
# As Ray spells them.
ALSO: Final = {"ray_actor_options": "actor_options", "request_router_config": "request_router"}


def parse_options(given: Mapping[str, Any], base: DeploymentOptions) -> DeploymentOptions:
    """`base` with the given options. ValueError names an unknown option or a bad value, TypeError a wrong type."""
    values: dict[str, Any] = {}
    for name, value in given.items():
        key = ALSO.get(name, name)
        if key not in KNOWN:
            raise ValueError(unknown("deployment option", name, (*KNOWN, *ALSO), NOT_YET))
        if key in values:
            other = next(also for also, plain in ALSO.items() if plain == key)
            raise ValueError(f"give {key} or {other}, not both: they are the same")
        values[key] = CHECKS[key](name, value)
    return replace(base, **values)


def _name(option: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{option} must be a str, not {type(value).__name__}")
    if not value or value.strip() != value or any(mark in value for mark in "#/\n"):
        raise ValueError(
            f"{option} must not be empty, hold '#', '/' or a line break, or start or end with a space: {value!r}"
        )
    if not is_encodable(value):
        raise ValueError(f"{option} must be a text that UTF-8 has, not {value!r}")
    return value


def _whole(least: int, also: tuple[int, ...] = ()) -> Callable[[str, object], int]:
    def check(option: str, value: object) -> int:
        if option == "num_replicas" and value == "auto":
            raise ValueError("num_replicas='auto' is not supported yet: give a number")
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{option} must be an int, not {type(value).__name__}")
        if value < least and value not in also:
            allowed = f"at least {least}" + "".join(f" or {each}" for each in also)
            raise ValueError(f"{option} must be {allowed}, not {value}")
        if value > MOST:
            raise ValueError(f"{option} must be at most {MOST}, not {value}")
        return value

    return check


def _seconds(zero: bool) -> Callable[[str, object], float]:
    def check(option: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{option} must be a number of seconds, not {type(value).__name__}")
        seconds = float(value)
        if not (0 <= seconds < float("inf")) or (seconds == 0 and not zero):
            raise ValueError(f"{option} must be {'zero or more' if zero else 'more than zero'}, not {value}")
        return seconds

    return check


def _any(option: str, value: object) -> object:
    return value


def _actor_options(option: str, value: object) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"{option} must be a dict, not {type(value).__name__}")
    options = dict(cast(Mapping[str, Any], value))
    for name in options:
        if name not in ACTOR_OPTIONS:
            raise ValueError(
                unknown(
                    f"key in {option}", name, ACTOR_OPTIONS, ("accelerator_type", "label_selector", "fallback_strategy")
                )
            )
    return options


CHECKS: Final[Mapping[str, Callable[[str, object], Any]]] = {
    "name": _name,
    "num_replicas": _whole(1),
    "max_ongoing_requests": _whole(1),
    "max_queued_requests": _whole(0, (-1,)),
    "user_config": _any,
    "actor_options": _actor_options,
    "request_router": parse_request_router,
    "health_check_period_s": _seconds(zero=False),
    "health_check_timeout_s": _seconds(zero=False),
    "reconfigure_timeout_s": _seconds(zero=False),
    "graceful_shutdown_wait_loop_s": _seconds(zero=True),
    "graceful_shutdown_timeout_s": _seconds(zero=True),
    "max_constructor_retry_count": _whole(1),
}
