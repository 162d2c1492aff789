"""What a request takes, as its caller said or as the deployment's cost function says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from ..policies.policy import Cost, Refused, Request
from .http_headers import NOTHING_SAID, HeaderError, said_in
from .messages import QueueCost

# What most requests take of what is no language model.
PLAIN: Final = QueueCost(max_tokens=0)
_NOTHING_SAID: Final[tuple[tuple[Any, ...], dict[str, Any]]] = ((), {})


def is_one(cost: Cost) -> bool:
    """Whether it says no more than ONE_REQUEST, of which a process may have copies."""
    return type(cost) is Cost and cost.requests == 1 and not cost.tokens


def cost_of(request: Request, function: Callable[..., Any] | None) -> QueueCost:
    """`function` is asked where the caller named no tokens. Whatever it raises is the error of this request alone;
    Refused (400) for a header that is wrong.
    """
    cost = _without_headers(request, function)
    header = getattr(request, "header", None)
    if header is None:
        return cost
    try:
        said = said_in(header)
    except HeaderError as error:
        raise Refused(str(error), None, 400) from None
    if said is NOTHING_SAID:
        return cost
    deadline_s = said.timeout_s if cost.deadline_s is None else cost.deadline_s
    session, ticket = cost.session or said.session, cost.ticket or said.ticket
    return replace(cost, deadline_s=deadline_s, session=session, ticket=ticket)


def _without_headers(request: Request, function: Callable[..., Any] | None) -> QueueCost:
    cost = request.cost
    if function is None and is_one(cost):
        return PLAIN
    if function is not None and type(cost) is Cost and not cost.tokens:
        cost = _checked(function, request)
    if isinstance(cost, QueueCost):
        return cost
    return QueueCost(cost.requests, cost.tokens, max_tokens=0)


def _checked(function: Callable[..., Any], request: Request) -> Cost:
    call = getattr(request, "call", None)
    args, kwargs = call() if call is not None else _NOTHING_SAID
    return checked(function(*args, **kwargs))


def checked(found: Any) -> Cost:
    """What a cost function gave, as a Cost. TypeError or ValueError if it is none."""
    if isinstance(found, Cost):
        return found
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise TypeError(f"the cost function gave a {type(found).__name__}: tokens as an int, or a Cost, are wanted")
    if not 0 <= found < 2**53:
        raise ValueError(f"the cost function gave {found}: zero or more tokens are wanted")
    return Cost(1, int(found))
