"""What a client says of its request that decides when and where it runs, in whichever API: fields and headers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, cast

from ..capacity_queue.http_headers import TIMEOUT, HeaderError, said_in, session_of
from .problems import Problem
from .reading import wrong_type

BANDS: Final = frozenset({"priority", "flex", "batch"})
# The rest of what OpenAI's API and Anthropic's have: the default.
_TIERS: Final = BANDS | {"auto", "default", "scale", "standard_only"}
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
    """Problem 400 for a header or a field that is wrong; of `metadata` each API has its own rules."""
    try:
        said = said_in(headers.get)
    except HeaderError as error:
        raise Problem(400, str(error), param=TIMEOUT.decode(), code="invalid_value") from None
    tier = _text_at(fields, "service_tier")
    if tier and tier not in _TIERS:
        known = ", ".join(map(repr, sorted(_TIERS)))
        message = f"'service_tier' must be one of {known}, not {tier[:64]!r}"
        raise Problem(400, message, param="service_tier", code="invalid_value")
    session = session_of(_text_at(fields, "prompt_cache_key"))
    return Wishes(
        tier if tier in BANDS else "",
        _user_of(fields),
        said.session or session,
        said.timeout_s,
        said.ticket,
    )


def _user_of(fields: Mapping[str, Any]) -> str:
    named = [_text_at(fields, name) for name in ("safety_identifier", "user")]
    if found := next(filter(None, named), ""):
        return found[:_LONGEST_USER]
    metadata: Any = fields.get("metadata")
    if isinstance(metadata, dict):
        user: Any = cast("dict[str, Any]", metadata).get("user_id")
        return user[:_LONGEST_USER] if isinstance(user, str) else ""
    return ""


def _text_at(fields: Mapping[str, Any], name: str) -> str:
    value: Any = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise wrong_type(name, "a string", value)
    return value
