"""Which pages of other origins may call, as browsers ask it (the Fetch standard's CORS protocol)."""

from collections.abc import Iterable
from typing import Final

Headers = list[tuple[bytes, bytes]]

_A_DAY_S: Final = 86400
# What a page may read besides the harmless ones.
_EXPOSED: Final = (
    b"x-request-id, request-id, retry-after, retry-after-ms, x-actorrt-resumes, x-actorrt-queue-ms, x-actorrt-ticket"
)


class Cors:
    def __init__(self, origins: Iterable[str]) -> None:
        self._origins = frozenset(each.encode() for each in origins)

    def headers(self, origin: bytes | None) -> Headers:
        """What each response to this origin has."""
        if (allowed := self._allowed(origin)) is None:
            return []
        return [
            (b"access-control-allow-origin", allowed),
            (b"access-control-expose-headers", _EXPOSED),
            *_vary(allowed),
        ]

    def preflight(
        self, origin: bytes | None, methods: bytes, asked_headers: bytes | None, *, private: bool = False
    ) -> Headers:
        """What an OPTIONS request is answered.

        `private`: a page of a public site asks whether it may call into a private network (the Private Network Access
        draft). Those of the origins that are named may: "*" names none.
        """
        headers = [(b"allow", methods)]
        if (allowed := self._allowed(origin)) is None:
            return headers
        return [
            *headers,
            (b"access-control-allow-origin", allowed),
            (b"access-control-allow-methods", methods),
            (b"access-control-allow-headers", asked_headers or b"*"),
            (b"access-control-max-age", b"%d" % _A_DAY_S),
            *([(b"access-control-allow-private-network", b"true")] if private and origin in self._origins else []),
            *_vary(allowed),
        ]

    def _allowed(self, origin: bytes | None) -> bytes | None:
        if origin is None:
            return None
        if b"*" in self._origins:
            return b"*"
        return origin if origin in self._origins else None


def _vary(allowed: bytes) -> Headers:
    return [] if allowed == b"*" else [(b"vary", b"origin")]
