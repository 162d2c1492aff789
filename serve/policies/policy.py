"""What decides which replica a deployment's request gets, when, or that it is refused: the protocol and its values.

A process that sends requests to a deployment has one policy for it, of the class that the deployment's options name.
The router (router.py) asks it and does what it says. The policies of Serve itself are in routing.py and decide without
a clock, a thread or a socket; one of a user's may have all of these.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self

from ..base.news import DeploymentNews

# What JSON and a message between processes hold for certain.
MOST: Final = 2**53


@dataclass(frozen=True, slots=True)
class Cost:
    """What a request takes of a replica. A policy that wants to know more of requests has a subclass with more."""

    requests: int = 1
    tokens: int = 0

    def __post_init__(self) -> None:
        check_count("requests", self.requests)
        check_count("tokens", self.tokens)


def check_count(name: str, value: object) -> None:
    """TypeError or ValueError if it is no number of what a cost counts."""
    if type(value) is int and 0 <= value <= MOST:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} of a cost must be an int, not {type(value).__name__}")
    if value < 0:
        raise ValueError(f"{name} of a cost must be zero or more, not {value}")
    if value > MOST:
        raise ValueError(f"{name} of a cost must be at most {MOST}, not {value}")


ONE_REQUEST: Final = Cost()
NOTHING: Final = Cost(requests=0)
"""The cost of a request that never began."""


class Request(Protocol):
    """A request as a policy sees it. Its identity tells it from others, and it can be a key."""

    @property
    def cost(self) -> Cost: ...


class Grant:
    """The right to run one request on a replica, until it is released to the policy that gave it.

    A policy may give the same object for many requests, or have a subclass in which each says what it is.
    """

    __slots__ = ("policy", "replica")

    # What goes to the replica with the request; None: nothing does.
    tag: Any = None
    # Milliseconds that the request waited for it; None: nobody has looked.
    queue_ms: int | None = None

    def __init__(self, policy: Policy, replica: str) -> None:
        self.policy = policy
        self.replica = replica

    def settle(self, used: Cost) -> None:
        """What its request has used, where that was known only after its release. From any thread."""

    def progress(self, tokens: int) -> None:
        """So many tokens of the answer have come. From the thread that takes them."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.replica})"


class Refused(Exception):
    """Raised by `submit` and `again`, or given by `next`: the request is not taken, and is safe to repeat.

    Clients see `reason` with this HTTP status, and as Retry-After the seconds, rounded up; None: there is no use in it.
    `ticket` is what a retry may bring along, if its router knows what to do with it.
    """

    # Milliseconds that the request waited for a place; None: nobody has looked.
    queue_ms: int | None = None

    def __init__(self, reason: str, retry_after_s: float | None = 1.0, status: int = 503, ticket: str = "") -> None:
        super().__init__(reason, retry_after_s, status, ticket)
        if retry_after_s is not None and not 0 <= retry_after_s < math.inf:
            raise ValueError(f"retry_after_s must be zero or more seconds or None, not {retry_after_s}")
        if status not in REFUSALS:
            raise ValueError(f"status must be one of {', '.join(map(str, REFUSALS))}, not {status}")
        self.reason, self.retry_after_s, self.status, self.ticket = reason, retry_after_s, status, ticket

    def after(self, queue_ms: int) -> Self:
        """The same, of a request that waited so long for a place."""
        self.queue_ms = queue_ms
        return self


# What can never be served is 400 or 413, a request too many 429 or 503.
REFUSALS: Final = (400, 413, 429, 503)


class QueueFull(Refused):
    """`queued` requests wait, and that is the limit."""

    def __init__(self, queued: int, limit: int, retry_after_s: float) -> None:
        super().__init__(f"{queued} requests wait, max_queued_requests is {limit}", retry_after_s)
        self.args = (queued, limit, retry_after_s)
        self.queued, self.limit = queued, limit


@dataclass(frozen=True, slots=True)
class PolicyContext:
    """What a policy is made with. `random` gives a float in [0, 1), `clock` seconds that never go back.

    `ready` may be called at any time and on any thread: the router then takes from `next` what there is.
    """

    deployment: str
    random: Callable[[], float]
    clock: Callable[[], float]
    ready: Callable[[], None]


class Policy(Protocol):
    """Made by `cls(context, **request_router_kwargs)`. Its methods are called one at a time, on any thread, and must
    not wait. What one raises fails the request that it was asked about; other requests and the router go on.
    """

    def update(self, news: DeploymentNews) -> None:
        """These are the replicas and limits now. A replica that has died is never among them again."""
        ...

    def submit(self, request: Request) -> Grant | None:
        """A grant, or None: it waits, until `next` gives it. Refused if it is not taken."""
        ...

    def again(self, request: Request) -> Grant | None:
        """The same for one that had a grant and did not start there. If it must wait, then before all others."""
        ...

    def withdraw(self, request: Request) -> None:
        """It is not wanted any more. It may be one that does not wait here, or not any more."""
        ...

    def next(self) -> tuple[Request, Grant | Refused] | None:
        """One that has waited, with what becomes of it; None if all that wait go on doing so. One that runs may be
        given with a Refused: it is stopped, if it can be, and its grant released as any other.

        It is asked after each release, after news, and after `ready`, until it gives None.
        """
        ...

    def release(self, grant: Grant, used: Cost | None) -> None:
        """Its request has ended, or never began: then `used` is NOTHING. None: as far as is known, it took its cost."""
        ...

    def died(self, replica: str) -> None:
        """This replica has gone, or takes no request any more. Its grants are released one by one."""
        ...

    def filled(self, replica: str) -> None:
        """It refused a request for want of room: others send to it too. No more until `emptied`."""
        ...

    def emptied(self, replica: str) -> None:
        """It has room again."""
        ...

    def close(self) -> None:
        """Another policy is in its place, and has those that wait here. Only releases still come."""
        ...

    def statistics(self) -> dict[str, Any]:
        """Requests at each replica, and whatever else there is to say."""
        ...


METHODS: Final = tuple(name for name in vars(Policy) if not name.startswith("_"))


def trouble_with(cls: type, kwargs: dict[str, Any]) -> str:
    """Why a class cannot be a policy that is made with these; "" if it can."""
    missing = [name for name in METHODS if not callable(getattr(cls, name, None))]
    missing += [name for name in sorted(getattr(cls, "__abstractmethods__", ())) if name not in missing]
    if missing:
        return (
            f"{cls.__name__} has no {' and no '.join(f'{name}()' for name in missing)}: derive it from "
            "serve.request_router.LocalPolicy, which needs choose() alone, or write each method of Policy there"
        )
    try:
        inspect.signature(cls).bind(None, **kwargs)
    except TypeError as error:
        return f"{cls.__name__} is made by {cls.__name__}(context, **request_router_kwargs): {error}"
    except ValueError:
        pass  # its signature cannot be told
    return ""
