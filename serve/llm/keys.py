"""Who asks: keys by their hashes, and the tenant of each."""

import hashlib
import hmac
from collections.abc import Iterable
from typing import Final

from .config import ApiKey
from .problems import Problem

NOBODY: Final = "default"
"""The tenant where no keys are configured."""


class Keys:
    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self._known = [(bytes.fromhex(each.sha256), each.tenant) for each in keys]

    def tenant_if_known(self, authorization: bytes | None, x_api_key: bytes | None) -> str:
        """The same for what may be asked without a key: "" where it is none of them."""
        try:
            return self.tenant_of(authorization, x_api_key)
        except Problem:
            return ""

    def tenant_of(self, authorization: bytes | None, x_api_key: bytes | None) -> str:
        """The tenant whose key it is. Problem 401 if there are keys and this is none of them.

        It takes as long for a wrong key as for a right one, and for the first as for the last.
        """
        if not self._known:
            return NOBODY
        given = _given(authorization, x_api_key)
        if given is None:
            raise _refused("a key is needed: send `Authorization: Bearer KEY` or `x-api-key: KEY`", "missing_api_key")
        digest = hashlib.sha256(given).digest()
        tenant: str | None = None
        for known, its in self._known:
            if hmac.compare_digest(known, digest):
                tenant = its
        if tenant is None:
            raise _refused("the key is not known", "invalid_api_key")
        return tenant


def _given(authorization: bytes | None, x_api_key: bytes | None) -> bytes | None:
    if authorization is not None:
        scheme, _, key = authorization.strip().partition(b" ")
        if scheme.lower() == b"bearer" and (key := key.strip()):
            return key
    return (x_api_key or b"").strip() or None


def _refused(message: str, code: str) -> Problem:
    return Problem(401, message, code=code, headers=((b"www-authenticate", b"Bearer"),))
