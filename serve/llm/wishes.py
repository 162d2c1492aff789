"""What a client says of its request that decides when and where it runs, in whichever API: fields and headers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, cast

from ..capacity_queue.http_headers import TIMEOUT, HeaderError, said_in, session_of
from .problems import Problem

BANDS: Final = frozenset({"priority", "flex", "batch"})
_LONGEST_USER: Final = 128


class Wishes(NamedTuple):
    band: str = ""
    """Of `service_tier`; "": the default."""
    user: str = ""
    """Of the tenant: `safety_identifier` or `user`, in Messages `metadata.user_id`."""
    session: str = ""
    """What it is a turn of: the header x-session-id, else `prompt_cache_key`, else a chain of stored responses."""
    timeout_s: float | None = None
    """How long it may wait for its place: the header x-request-timeout-ms."""

    ticket: str = ""
    """What a 429 gave it, to keep its place: the header x-actorrt-ticket."""

    def within(self, session: str) -> Wishes:
        """As a turn of this session, where its client has named none."""
        return self if self.session else self._replace(session=session_of(session))


NO_WISHES: Final = Wishes()


def wishes_of(fields: Mapping[str, Any], headers: Mapping[bytes, bytes]) -> Wishes:
    """Problem 400 for a header that is wrong. Fields of a wrong type say nothing here: they are others' to refuse."""
    try:
        said = said_in(headers.get)
    except HeaderError as error:
        raise Problem(400, str(error), param=TIMEOUT.decode(), code="invalid_value") from None
    tier: Any = fields.get("service_tier")
    return Wishes(
        tier if isinstance(tier, str) and tier in BANDS else "",
        _user_of(fields),
        said.session or session_of(_text(fields.get("prompt_cache_key"))),
        said.timeout_s,
        said.ticket,
    )


def _user_of(fields: Mapping[str, Any]) -> str:
    for name in ("safety_identifier", "user"):
        if isinstance(found := fields.get(name), str):
            return found[:_LONGEST_USER]
    metadata: Any = fields.get("metadata")
    if isinstance(metadata, dict):
        return _text(cast("dict[str, Any]", metadata).get("user_id"))[:_LONGEST_USER]
    return ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
