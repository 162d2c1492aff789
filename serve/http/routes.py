"""Find the application that an HTTP path belongs to: the longest route prefix that matches whole segments."""

from collections.abc import Mapping
from typing import NamedTuple


class Route(NamedTuple):
    prefix: str
    app: str


class RouteTable:
    """`/a` matches `/a` and `/a/b`, not `/ab`; `/` matches everything."""

    __slots__ = ("_everything", "_routes")

    def __init__(self, routes: Mapping[str, str]) -> None:
        # Applications are few and paths may be long: prefixes are tried on the path, not its parts looked up.
        self._routes = [
            (prefix, prefix + "/", Route(prefix, app))
            for prefix, app in sorted(routes.items(), key=lambda item: -len(item[0]))
            if prefix != "/"
        ]
        self._everything = Route("/", routes["/"]) if "/" in routes else None

    def match(self, path: str) -> Route | None:
        for prefix, folder, route in self._routes:
            if path.startswith(folder) or path == prefix:
                return route
        return self._everything

    def as_dict(self) -> dict[str, str]:
        found = {route.prefix: route.app for _, _, route in self._routes}
        return {**found, "/": self._everything.app} if self._everything else found
