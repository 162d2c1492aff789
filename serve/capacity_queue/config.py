"""What users write about a capacity queue: `request_router_kwargs` of `request_router="capacity_queue"`, checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import import_module
from typing import Any, Final, TypeVar, cast

from ..base.encodable import is_encodable
from ..capacity.fair_order import Band
from ..capacity.need import Limits
from ..capacity.queue import BANDS, QueueLimits, TenantLimits
from ..policies.policy import MOST
from .messages import LONGEST_TEXT

T = TypeVar("T")

# An int of more bits may have too many digits to be said.
_MOST_BITS: Final = 4096

NAME: Final = "capacity_queue"
# A method of a deployment's code that says what a replica holds.
OFFER: Final = "queue_offer"
# One that says what its engine has now: tokens in its cache, and requests; None of what it does not know.
LOAD: Final = "queue_load"
UNITS: Final = ("auto", "requests", "tokens")
OTHERS: Final = TenantLimits()


@dataclass(frozen=True, slots=True)
class CapacityQueueConfig:
    """How a deployment's requests are admitted. Seconds for times, tokens for sizes."""

    units: str = "auto"
    """"tokens", "requests" (each replica takes max_ongoing_requests), or "auto": tokens where the deployment's code
    says how many it holds, as language models do, else requests."""
    kv_tokens: int | None = None
    """Tokens that a replica holds at once, where its code does not say it and `units` is "tokens"."""
    prefill_rate: float = 10_000.0
    """Tokens of prompts that a replica reads in a second, until that is measured."""
    headroom: float = 0.9
    """How much of a replica's tokens may be given; the rest is for answers that are longer than expected."""
    backlog_s: float = 2.0
    """Seconds of prompts that may wait to be read at a replica that gets another request."""
    bands: tuple[Band, ...] = BANDS
    """From the most urgent down. Read when the queue starts: other ones need a new deployment."""
    default_band: str = "default"
    """Of requests that name none."""
    tenants: Mapping[str, TenantLimits] = field(default_factory=dict[str, TenantLimits])
    """Weights and limits by tenant."""
    other_tenants: TenantLimits = OTHERS
    """Of those that are not named."""
    waiting_requests: int = 10_000
    """More that wait are refused (429); those of lower bands, which came last, make way for one of a higher band."""
    waiting_tokens: int = 10_000_000
    """The same in tokens."""
    deadline_s: float | None = None
    """Seconds: the queue refuses a request that would wait longer (429, with when to come again). None: no limit. A
    request may have a deadline of its own."""
    sheds: bool = False
    """Whether requests of the last band that run are stopped where one of a higher band would fit that fits nowhere.
    Read when the queue starts, as `bands`. Routers have no credits then."""
    load_tokens: int = 512
    """What it costs a replica to load an adapter that has not run there of late, in tokens of prompts: so much busier
    one that has it may be, to be chosen all the same."""
    output_quantile: float = 0.7
    """Which quantile of earlier answers an answer is expected to be as long as."""
    prefill: str | None = None
    """A deployment of the same application whose replicas read the prompts of this one's requests: each has one grant
    at a replica of both. Set by LLMConfig.prefill; another one begins a new queue. Routers have no credits then."""
    cost: Callable[..., Any] | str | None = None
    """What a call takes, where its caller has not said: called with its arguments it gives tokens or a Cost. Or
    "module:name" of one. It is given requests by HTTP as method, path, headers (a dict, names in lower case) and how
    many bytes the body has, a number: 0 while that is not here whole."""
    credit_share: float | None = None
    """Of what each replica holds, so much may lie with the routers that fill it by themselves while nothing waits; 0:
    each request asks the queue. None: 0.5 of requests, and nothing of tokens."""
    lease_ttl_s: float = 5.0
    """A router that is silent for so long has ended, and with it what it had and sent to no replica."""
    grace_s: float = 5.0
    """After a restart of the queue, how long a replica that does not say what it runs counts as full but for one
    request."""
    silence_s: float = 3.0
    """A queue that says nothing for so long is done without."""

    def credits(self, *, in_requests: bool) -> float:
        """The part of each replica that may lie with routers. Of tokens only where a setting says so: a router that
        places a request by a credit knows nothing of the prompts that replicas are reading for other routers."""
        if self.credit_share is not None:
            return self.credit_share
        return 0.5 if in_requests else 0.0

    def limits(self) -> Limits:
        return Limits(self.headroom, self.backlog_s)

    def most(self, max_queued: int) -> QueueLimits:
        requests = self.waiting_requests if max_queued < 0 else min(max_queued, self.waiting_requests)
        return QueueLimits(self.waiting_tokens, requests)

    def tenant(self, name: str) -> TenantLimits:
        return self.tenants.get(name, self.other_tenants)

    def band(self, name: str) -> int:
        """Its number; of "" that of the default. ValueError if there is none."""
        wanted = name or self.default_band
        for number, band in enumerate(self.bands):
            if band.name == wanted:
                return number
        raise ValueError(f"there is no band {wanted!r}: there are {', '.join(each.name for each in self.bands)}")


DEFAULT: Final = CapacityQueueConfig()
FIELDS: Final = tuple(each.name for each in fields(CapacityQueueConfig))


def parse_config(option: str, given: Mapping[str, Any]) -> CapacityQueueConfig:
    """The configuration of these keyword arguments. TypeError or ValueError names the one that is wrong."""
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in FIELDS:
            raise ValueError(f"unknown argument {name!r} of {option} {NAME!r}: there are {', '.join(FIELDS)}")
        values[name] = _CHECKS[name](f"{name} of {option} {NAME!r}", value)
    config = CapacityQueueConfig(**values)
    if config.units == "tokens" and config.kv_tokens is not None and config.kv_tokens < 2:
        raise ValueError(f"kv_tokens of {option} {NAME!r} must be at least 2, not {config.kv_tokens}")
    try:
        config.band("")
    except ValueError as error:
        raise ValueError(f"default_band of {option} {NAME!r}: {error}") from None
    return config


def cost_function(found: Callable[..., Any] | str | None) -> Callable[..., Any] | None:
    """As it is given. ValueError if it is named and not there."""
    if not isinstance(found, str):
        return found
    module, _, name = found.partition(":")
    try:
        return cast("Callable[..., Any]", getattr(import_module(module), name))
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"cost function {found} is not there: {error}") from error


def check_sizes(config: CapacityQueueConfig, target: object) -> None:
    """ValueError if nobody would ever say how many tokens a replica of this class or function holds."""
    if config.units == "tokens" and config.kv_tokens is None and not hasattr(target, OFFER):
        raise ValueError(
            f"request_router {NAME!r} with units='tokens' needs kv_tokens, the tokens that a replica holds, "
            f"or a method {OFFER}() of the deployment that says it"
        )


def _check_digits(name: str, value: float) -> None:
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        raise ValueError(f"{name} must be at most {MOST}, not an int of {value.bit_length()} bits")


def _number(least: float, *, above: bool = False, most: float = MOST, none: bool = False) -> Callable[[str, Any], Any]:
    def check(name: str, value: Any) -> Any:
        if value is None and none:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{name} must be a number, not {type(value).__name__}")
        _check_digits(name, value)
        if not (value > least if above else value >= least) or not value <= most:
            said = f"above {least:g}" if above else f"at least {least:g}"
            if most < MOST:
                said += f" and at most {most:g}"
            elif value > MOST:
                said = f"at most {MOST}"
            raise ValueError(f"{name} must be {said}, not {value}")
        return value

    return check


def _whole(least: int, *, none: bool = False) -> Callable[[str, Any], Any]:
    def check(name: str, value: Any) -> Any:
        if value is None and none:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be an int, not {type(value).__name__}")
        _check_digits(name, value)
        if value < least:
            raise ValueError(f"{name} must be at least {least}, not {value}")
        if value > MOST:
            raise ValueError(f"{name} must be at most {MOST}, not {value}")
        return value

    return check


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {type(value).__name__}")
    return value


def _units(name: str, value: Any) -> str:
    if value not in UNITS:
        raise ValueError(f"{name} must be one of {', '.join(UNITS)}, not {value!r}")
    return cast(str, value)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, not {type(value).__name__}")
    if not is_encodable(value):
        raise ValueError(f"{name} must be a text that UTF-8 has, not {value!r}")
    return value


def _name(name: str, value: Any) -> str:
    text = _text(name, value)
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"{name} must have at most {LONGEST_TEXT} characters, as in a cost, not {len(text)}")
    return text


def _deployment(name: str, value: Any) -> str | None:
    if value is not None and not _text(name, value):
        raise ValueError(f"{name} must be the name of a deployment, or None")
    return value


def _bands(name: str, value: Any) -> tuple[Band, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise TypeError(f"{name} must be a list with a band at least")
    bands = [_made(f"a band in {name}", Band, _OF_BANDS, each) for each in cast("Sequence[Any]", value)]
    names = [each.name for each in bands]
    if len(set(names)) < len(names):
        raise ValueError(f"{name}: two bands have the same name")
    return tuple(bands)


def _tenant(name: str, value: Any) -> TenantLimits:
    return _made(name, TenantLimits, _OF_TENANTS, value)


def _made(name: str, kind: type[T], checks: Mapping[str, Callable[[str, Any], Any]], value: Any) -> T:
    """One of these, of its fields; `checks` of all of them."""
    if isinstance(value, kind):
        value = {each: getattr(value, each) for each in checks}
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict of {', '.join(checks)}, not {type(value).__name__}")
    given = cast("Mapping[str, Any]", value)
    for each, said in given.items():
        if each not in checks:
            raise ValueError(f"{name} has no {each!r}: there are {', '.join(checks)}")
        checks[each](f"{each} of {name}", said)
    if "name" in checks and "name" not in given:
        raise ValueError(f"{name} needs a name")
    return kind(**given)


def _tenants(name: str, value: Any) -> dict[str, TenantLimits]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict of tenants, not {type(value).__name__}")
    given = cast("Mapping[str, Any]", value)
    return {
        _name(f"a tenant in {name}", tenant): _tenant(f"tenant {tenant!r} in {name}", each)
        for tenant, each in given.items()
    }


def check_cost(name: str, value: Any) -> Any:
    """A cost function as it is given. TypeError or ValueError if it is none."""
    if value is None or callable(value):
        return value
    if not isinstance(value, str) or ":" not in value:
        raise TypeError(f"{name} must be a function or 'module:name' of one, not {value!r}")
    try:
        found = cost_function(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if not callable(found):
        raise TypeError(f"{name}: {value} is no function")
    return value


_OF_BANDS: Final = {
    "name": _text,
    "ceiling": _number(0, above=True, most=1),
    "beside": _number(0, above=True, most=1),
    "beside_backlog": _number(0, most=1),
    "ageing_s": _number(0, above=True, none=True),
}
_OF_TENANTS: Final = {
    "weight": _number(0, above=True),
    "waiting_tokens": _whole(0, none=True),
    "waiting_requests": _whole(0, none=True),
    "running_tokens": _whole(0, none=True),
}
_CHECKS: Final[Mapping[str, Callable[[str, Any], Any]]] = {
    "units": _units,
    "kv_tokens": _whole(2, none=True),
    "prefill_rate": _number(0, above=True),
    "headroom": _number(0, above=True, most=1),
    "backlog_s": _number(0, above=True),
    "bands": _bands,
    "default_band": _text,
    "tenants": _tenants,
    "other_tenants": _tenant,
    "waiting_requests": _whole(0),
    "waiting_tokens": _whole(0),
    "deadline_s": _number(0, none=True),
    "sheds": _flag,
    "load_tokens": _whole(0),
    "output_quantile": _number(0, above=True, most=0.999),
    "credit_share": _number(0, most=1, none=True),
    "prefill": _deployment,
    "cost": check_cost,
    "lease_ttl_s": _number(0.1),
    "grace_s": _number(0),
    "silence_s": _number(0.1),
}
