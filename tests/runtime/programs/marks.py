"""A module with objects that stand for themselves."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

UNSET = object()


class Mark:
    def __init__(self, name: str) -> None:
        self.name = name


stateful_mark = Mark("mark")


class Option:
    def __init__(self, value: Any = UNSET) -> None:
        self.value = value


def loud(function: Callable[[str], str]) -> Callable[[str], str]:
    @functools.wraps(function)
    def wrapper(text: str) -> str:
        return function(text).upper()

    return wrapper


@loud
def shouted(text: str) -> str:
    return text
