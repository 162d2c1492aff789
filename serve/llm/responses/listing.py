"""A page of the items that went into a response, as a query asks for it. No I/O."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..fields import FieldError
from .items import Item


def page_of(items: Sequence[Item], query: Mapping[str, str]) -> dict[str, Any]:
    """`items`: all, the oldest first. Raises FieldError for a query that nobody could answer."""
    limit = whole_number(query, "limit", 20, least=1, most=100)
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise FieldError(("order",), f"must be 'asc' or 'desc', not {order[:64]!r}")
    ordered = list(items) if order == "asc" else list(reversed(items))
    begin = 0
    if (after := query.get("after")) is not None:
        begin = 1 + next((at for at, item in enumerate(ordered) if item["id"] == after), -1)
        if not begin:
            raise FieldError(("after",), f"there is no item {after[:128]!r} in this response")
    page = ordered[begin : begin + limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else "",
        "last_id": page[-1]["id"] if page else "",
        "has_more": begin + limit < len(ordered),
    }


def whole_number(query: Mapping[str, str], name: str, default: int, *, least: int, most: int = 2**53) -> int:
    given = query.get(name)
    if given is None:
        return default
    try:
        number = int(given)
    except ValueError:
        raise FieldError((name,), f"must be an integer, not {given[:64]!r}") from None
    if not least <= number <= most:
        raise FieldError((name,), f"must be at least {least}" if number < least else f"must be at most {most}")
    return number
