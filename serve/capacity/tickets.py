"""Tickets: what a refused request takes along, so that its retry has the place of its first arrival.

A ticket says when a request came first, and is sealed with a key that only its queue has: nobody makes one for an
earlier place than he had. It counts once, for its tenant, and for `VALID_S` seconds. A queue that starts anew has a new
key; what is not a ticket of its own is as none.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from hashlib import blake2b
from hmac import compare_digest
from struct import Struct
from typing import Final, NamedTuple

VALID_S: Final = 600.0
# Of tickets that were used so many are remembered; beyond them none counts until the oldest are not valid any more.
MOST_USED: Final = 100_000
_BODY: Final = Struct(">Qddd")
_SEAL: Final = 16
_LENGTH: Final = 4 * ((_BODY.size + _SEAL + 2) // 3)


class First(NamedTuple):
    """When a request came the first time, and the deadline that it had then: its place in the order."""

    arrived: float
    place: float


class Tickets:
    def __init__(self, key: bytes) -> None:
        """`key` is of 16 to 64 random bytes, this queue's own. Raises ValueError for another length."""
        if not 16 <= len(key) <= 64:
            raise ValueError(f"the key of tickets must have 16 to 64 bytes, not {len(key)}")
        self._key = key
        self._number = 0
        # Those that were used, until they would not be valid any more.
        self._used: OrderedDict[int, float] = OrderedDict()

    def _seal(self, body: bytes, tenant: str) -> bytes:
        return blake2b(body + tenant.encode("utf-8", "surrogatepass"), key=self._key, digest_size=_SEAL).digest()

    def issue(self, tenant: str, first: First, now: float) -> str:
        """For a request that is refused now; text for a header."""
        self._number += 1
        body = _BODY.pack(self._number, *first, now)
        return urlsafe_b64encode(body + self._seal(body, tenant)).decode()

    def first(self, ticket: str, tenant: str, now: float, *, again: bool = False) -> First | None:
        """The first arrival of the request that brings this; None if it is no ticket, or does not count any more.

        `again`: it is known to be the request that brought it before, which is asked for anew.
        """
        if len(ticket) != _LENGTH or not ticket.isascii():
            return None
        try:
            whole = urlsafe_b64decode(ticket)
        except ValueError:
            return None
        body, seal = whole[: _BODY.size], whole[_BODY.size :]
        if len(body) != _BODY.size or not compare_digest(seal, self._seal(body, tenant)):
            return None
        number, arrived, place, issued = _BODY.unpack(body)
        self._forget(now)
        if number in self._used:
            return First(min(arrived, now), place) if again else None
        if now - issued > VALID_S or len(self._used) >= MOST_USED:
            return None
        self._used[number] = now
        return First(min(arrived, now), place)

    def _forget(self, now: float) -> None:
        # They were valid for as long after their issue, which was before their use.
        while self._used and now - next(iter(self._used.values())) > VALID_S:
            self._used.popitem(last=False)
