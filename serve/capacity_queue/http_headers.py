"""What clients say to a capacity queue by headers of their requests, whatever deployment they ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from ..http.retry import TICKET

TIMEOUT: Final = b"x-request-timeout-ms"
"""How long the request may wait for its place, in whole milliseconds."""
SESSION: Final = b"x-session-id"
"""Which conversation it is a turn of: any text."""

LONGEST_MS: Final = 86_400_000
LONGEST_SESSION: Final = 128
LONGEST_TICKET: Final = 128
_DIGITS: Final = 8


class HeaderError(ValueError):
    """A header says what it must not; the sentence names it."""


class Said(NamedTuple):
    timeout_s: float | None = None
    session: str = ""
    ticket: str = ""
    """Of the header `retry.TICKET`: whether it is one is the queue's to find out."""


NOTHING_SAID: Final = Said()


def said_in(header: Callable[[bytes], bytes | None]) -> Said:
    """`header` gives a value by a name. HeaderError for a timeout that is none."""
    timeout, session, ticket = header(TIMEOUT), header(SESSION), header(TICKET)
    if timeout is session is ticket is None:
        return NOTHING_SAID
    return Said(
        None if timeout is None else _seconds(timeout),
        session_of((session or b"").decode("latin-1")),
        (ticket or b"").strip()[:LONGEST_TICKET].decode("latin-1"),
    )


def session_of(name: str) -> str:
    """As much of its name as tells sessions apart."""
    return name.strip()[:LONGEST_SESSION]


def _seconds(value: bytes) -> float:
    text = value.strip()
    if not text.isdigit() or len(text) > _DIGITS or not 1 <= int(text) <= LONGEST_MS:
        shown = value[:32].decode("latin-1")
        raise HeaderError(
            f"{TIMEOUT.decode()} must be a whole number of milliseconds from 1 to {LONGEST_MS}, not {shown!r}"
        )
    return int(text) / 1000
