"""The part of each path that stands in front of an application: a server's root path, and the application's prefix.

A path is known by two forms: as clients write it, percent-encoded, and as people and ASGI do. Nothing here waits.
"""

from typing import Final
from urllib.parse import quote, unquote

# RFC 3986: what a path may hold without being encoded, besides letters and digits.
_PLAIN: Final = "/!$&'()*+,;=:@-._~"


def encoded(path: str) -> bytes:
    """A path as clients write it."""
    return quote(path, safe=_PLAIN).encode("ascii")


def decoded(raw_path: bytes) -> str:
    path = raw_path.decode("latin-1")
    return unquote(path) if "%" in path else path


def check_path(what: str, path: str) -> None:
    """ValueError if no request can ever have this path."""
    if any(mark in path for mark in "{}?#") or "//" in path or any(ord(letter) < 32 for letter in path):
        raise ValueError(f"{what} must be a plain path, not {path!r}")
    if unquote(path) != path:
        raise ValueError(f"{what} is compared with decoded paths: write {unquote(path)!r}, not {path!r}")
    if any(part in (".", "..") for part in path.split("/")):
        raise ValueError(f"{what} must not hold '.' or '..', which clients take out of paths: {path!r}")
    try:
        path.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} must be text that has a UTF-8 form, not {path!r}") from None


def check_root_path(path: str) -> None:
    if path and not path.startswith("/"):
        raise ValueError(f"root_path must be empty or start with '/', not {path!r}")
    check_path("root_path", path)


class RootPath:
    """What a server in front of this one answers under, and has taken off the paths of requests, or has not."""

    def __init__(self, path: str) -> None:
        self.path = path.rstrip("/")
        self.raw = encoded(self.path)
        self._folder = self.path + "/"
        self._depth = self.path.count("/")

    def taken_off(self, raw_path: bytes, path: str) -> tuple[bytes, str] | None:
        """Both forms of a path without this in front of it; None if it does not lie below."""
        if not self._depth or not (path.startswith(self._folder) or path == self.path):
            return None
        parts = raw_path.split(b"/", self._depth + 1)
        if decoded(b"/".join(parts[: self._depth + 1])) != self.path:
            return None  # one of its slashes is encoded
        return b"/" + b"".join(parts[self._depth + 1 :]), path[len(self.path) :] or "/"
