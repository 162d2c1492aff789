"""What the head of a request must be, and what its client is told where it is not. Pure."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

# RFC 9110, 7.2: a name or an address, and perhaps a port. Empty where a target has no authority.
_HOST_FORM: Final = re.compile(rb"(?:[\w.~!$&'()*+,;=%-]*|\[[\w.:~!$&'()*+,;=-]+\])(?::[0-9]*)?")


class Complaint(NamedTuple):
    """`status` and `text` of the answer that ends the connection."""

    status: int
    text: str


MALFORMED: Final = Complaint(400, "malformed request")
MALFORMED_BODY: Final = Complaint(400, "malformed request body")
TOO_LARGE: Final = Complaint(431, "the head of the request is too large")
NOT_SPOKEN: Final = Complaint(400, "only HTTP/1.1 and HTTP/1.0 are spoken here")
NO_HOST: Final = Complaint(400, "a request has one Host field, with a name or an address")


def is_host(value: bytes) -> bool:
    return _HOST_FORM.fullmatch(value.strip()) is not None


def complaint(size: int, limit: int, version: str, hosts: int) -> Complaint | None:
    """What is wrong with a head of this size and version. `hosts`: so many Host fields, a wrong one counted twice.

    A head of HTTP/1.1 with one host and no more bytes than the limit is right, and need not be asked about.
    """
    if size > limit:
        return TOO_LARGE
    if version not in ("1.1", "1.0"):
        return NOT_SPOKEN
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        return NO_HOST
    return None
