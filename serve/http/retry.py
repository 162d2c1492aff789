"""When a client that was refused may ask again, as headers. Clients of OpenAI's read all three."""

from __future__ import annotations

import math
from typing import Final

# OpenAI's client waits as it is told up to this, and asks too early beyond.
LONGEST_WAIT_S: Final = 120.0


TICKET: Final = b"x-actorrt-ticket"
"""What a retry brings along to keep its place."""


def retry_headers(wait_s: float | None, ticket: str = "") -> list[tuple[bytes, bytes]]:
    """For so many seconds; None: it is not worth a try, and nothing is said."""
    if wait_s is None:
        return []
    headers = [(b"retry-after", b"%d" % math.ceil(wait_s)), (b"retry-after-ms", b"%d" % math.ceil(wait_s * 1000))]
    if wait_s > LONGEST_WAIT_S:
        headers.append((b"x-should-retry", b"false"))
    if ticket:
        headers.append((TICKET, ticket.encode()))
    return headers
