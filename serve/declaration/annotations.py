"""The names that annotations use which are text as yet: postponed ones, and forward references inside of others."""

from __future__ import annotations

from collections.abc import Iterable
from types import CodeType
from typing import Any, ForwardRef, cast


def names_in(annotations: Iterable[object]) -> set[str]:
    """The global names, and perhaps some that are attributes."""
    found: set[str] = set()
    waiting = list(annotations)
    while waiting:
        each = waiting.pop()
        if isinstance(each, ForwardRef):
            each = each.__forward_arg__
        if isinstance(each, str):
            try:
                code = compile(each.strip(), "<annotation>", "eval")
            except (SyntaxError, ValueError):
                continue
            found.update(code.co_names)
            waiting.extend(_texts_in(code))
        elif not isinstance(each, type) or hasattr(each, "__args__"):
            inside: Any = getattr(each, "__args__", None)
            if isinstance(inside, tuple):
                waiting.extend(cast("tuple[object, ...]", inside))
    return found


def _texts_in(code: CodeType) -> list[object]:
    found: list[object] = []
    for constant in code.co_consts:
        if isinstance(constant, tuple):
            found += [each for each in cast("tuple[object, ...]", constant) if isinstance(each, str)]
        elif isinstance(constant, str) and constant != code.co_filename:
            found.append(constant)
    return found
