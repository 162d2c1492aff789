"""Requests that people look for by their names: who asks hears what each router says of them, until he goes. Pure."""

from __future__ import annotations

from typing import Final, TypeAlias

from ..base.encodable import is_encodable

# No request has a longer name: proxies cut what clients say.
LONGEST_NAME: Final = 1024

# What somebody has heard of the requests that he looks for, by their routers, ids and leases.
Look: TypeAlias = dict[tuple[str, int, int], str]


def check_name(name: object) -> None:
    """TypeError, or ValueError for what no request can be called: it would go to routers with all else they hear."""
    if not isinstance(name, str):
        raise TypeError(f"a request's id must be a str, not {type(name).__name__}")
    if len(name) > LONGEST_NAME:
        raise ValueError(f"no request has an id of {len(name)} characters: they have {LONGEST_NAME} at most")
    if not is_encodable(name):
        raise ValueError(f"no request has the id {name!r}: it is not UTF-8")


class Looks:
    def __init__(self) -> None:
        # By the name that is looked for: of each who looks a sentence for each request.
        self._looks: dict[str, list[Look]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._looks

    def begin(self, name: str) -> Look:
        """Others may look for it at the same time. As `check_name` raises."""
        check_name(name)
        look: Look = {}
        self._looks.setdefault(name, []).append(look)
        return look

    def hear(self, name: str, router: str, id: int, number: int, sentence: str) -> None:
        for look in self._looks.get(name, ()):
            look[router, id, number] = sentence

    def end(self, name: str, look: Look) -> list[str]:
        """What is known of it by now, a sentence for each that has the name. What is said later is not heard."""
        others = [each for each in self._looks.pop(name, []) if each is not look]
        if others:
            self._looks[name] = others
        return list(look.values())
