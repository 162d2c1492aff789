"""Which application a path belongs to, and what a proxy answers by itself. Pure.

What lies under `/-/` is the proxy's, below the root path as without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ..http.responses import JSON, TEXT, Plain, error_page, to_json, whole
from ..http.root_path import RootPath, decoded
from ..http.routes import Route, RouteTable
from ..http.unavailable import NOT_AVAILABLE, RETRY_AFTER_S
from ..http.websocket_rules import denial

# An application, or none; and both forms of a path below the root path.
Match = tuple[Route | None, bytes, str]
# Paths that are remembered: so many, and none that is longer.
MOST_MATCHED: Final = 1024
LONGEST_MATCHED: Final = 256

OWN: Final = "/-/"
HEALTH: Final = "/-/healthz"
ROUTES: Final = "/-/routes"


class Paths:
    """What is known of the applications' prefixes."""

    __slots__ = ("_matched", "_table", "root")

    def __init__(self, root_path: str) -> None:
        self.root = RootPath(root_path)
        self._table = RouteTable({})
        # What the paths of late were found to belong to, since the last news.
        self._matched: dict[bytes, Match] = {}

    def told(self, routes: Mapping[str, str]) -> None:
        """Applications by their prefixes."""
        self._table = RouteTable(routes)
        self._matched.clear()

    def as_dict(self) -> dict[str, str]:
        return self._table.as_dict()

    def root_path_of(self, prefix: str) -> bytes:
        """What an application with this prefix has as its root path."""
        return (self.root.path + ("" if prefix == "/" else prefix)).encode()

    def match(self, raw_path: bytes) -> Match:
        """The application of a path, of requests and websockets alike, and both forms of it below the root path."""
        if (found := self._matched.get(raw_path)) is not None:
            return found
        found = self._find(raw_path)
        if len(raw_path) <= LONGEST_MATCHED:
            if len(self._matched) >= MOST_MATCHED:
                self._matched.clear()
            self._matched[raw_path] = found
        return found

    def _find(self, raw_path: bytes) -> Match:
        path = decoded(raw_path)
        if self.root.path and (below := self.root.taken_off(raw_path, path)) is not None:
            own = below[1].startswith(OWN)
            route = None if own else self._table.match(below[1])
            if own or route is not None:
                return route, *below
        return None if path.startswith(OWN) else self._table.match(path), raw_path, path


def own_answer(
    path: str, framing: int, each: bytes, *, is_draining: bool, awaited: str, routes: Mapping[str, str]
) -> bytes:
    """The answer to a request that belongs to no application. `awaited`: why nothing is served yet; "": something is.

    `each`: header lines that every response has.
    """
    if path == HEALTH and is_draining:
        return error_page(503, "draining", framing, each)
    if awaited and (path == HEALTH or not path.startswith(OWN)):
        return error_page(503, f"starting: {awaited}", framing, each, RETRY_AFTER_S)
    if path == HEALTH:
        return whole(Plain(200, [TEXT], b"success"), framing, each)
    if path == ROUTES:
        return whole(Plain(200, [JSON], to_json(routes)), framing, each)
    text = f"no application has the path {path[:200]!r}; {ROUTES} lists their prefixes"
    return error_page(404, text, framing, each)


def websocket_denial(is_awaited: bool) -> list[dict[str, Any]]:
    """What a websocket hears that no application takes; `is_awaited`: one may come, or this proxy goes."""
    return denial(503, NOT_AVAILABLE, RETRY_AFTER_S) if is_awaited else denial(403, "nothing is here")
