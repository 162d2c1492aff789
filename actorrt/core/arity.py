"""Decide whether arguments fit a signature, before they travel: a slip is an error in the caller's own line.

The common case costs two comparisons. Types are not looked at.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from inspect import Parameter, Signature
from typing import Any, Final

from actorrt.core.nearest import did_you_mean

_UNBOUNDED: Final = 1 << 30

ParameterRow = tuple[str, int, bool]
"""A parameter's name, its kind (as in `inspect`), and whether it must be given."""


class Arity:
    """What a callable takes. `least` to `most` positional arguments fit as they are, if nothing is given by name."""

    __slots__ = ("_known", "_needed", "_positional", "_takes_any_name", "_total", "least", "most", "rows")

    def __init__(self, rows: Iterable[ParameterRow]) -> None:
        self.rows: tuple[ParameterRow, ...] = tuple(rows)
        positional = [
            row for row in self.rows if row[1] in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
        ]
        kinds = {row[1] for row in self.rows}
        self._positional = sum(needed for _, _, needed in positional)
        self._needed = frozenset(
            name for name, kind, needed in self.rows if needed and kind != Parameter.POSITIONAL_ONLY
        )
        # Where a name would also be filled by position; names that only go by name come after all positions.
        self._known = {
            name: place for place, (name, kind, _) in enumerate(positional) if kind == Parameter.POSITIONAL_OR_KEYWORD
        } | {name: _UNBOUNDED for name, kind, _ in self.rows if kind == Parameter.KEYWORD_ONLY}
        self._takes_any_name = Parameter.VAR_KEYWORD in kinds
        self.most = _UNBOUNDED if Parameter.VAR_POSITIONAL in kinds else len(positional)
        self._total = self._positional + sum(needed for _, kind, needed in self.rows if kind == Parameter.KEYWORD_ONLY)
        self.least = self._positional if self._total == self._positional else _UNBOUNDED + 1

    @classmethod
    def of(cls, code: Callable[..., Any], *, bound: bool = False) -> Arity:
        """That of a function or class, or ANYTHING where it cannot be known. `bound` leaves the first parameter out."""
        try:
            # That of a decorator's wrapper, which may give or take parameters, and not that of what it wraps.
            parameters = list(inspect.signature(code, follow_wrapped=False).parameters.values())
        except (TypeError, ValueError):
            return ANYTHING
        if bound and parameters and parameters[0].kind != Parameter.VAR_POSITIONAL:
            del parameters[0]
        return cls(
            (each.name, int(each.kind), each.default is Parameter.empty and each.kind not in _VARIADIC)
            for each in parameters
        )

    def fits(self, count: int, names: Mapping[str, Any]) -> bool:
        """Whether so many positional arguments and these named ones fit."""
        if not names:
            return self.least <= count <= self.most
        if count > self.most:
            return False
        given = min(count, self._positional)
        for name in names:
            place = self._known.get(name, -1)
            if place < 0:
                if not self._takes_any_name:
                    return False
            elif place < count:
                return False
            elif name in self._needed:
                given += 1
        return given == self._total

    def check(self, what: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raise the TypeError that a local call would have raised, unless the arguments fit."""
        if self.fits(len(args), kwargs):
            return
        try:
            self.signature().bind(*args, **kwargs)
        except TypeError as error:
            unknown = next((name for name in kwargs if name not in self._known), "")
            hint = did_you_mean(unknown, self._known) if unknown else ""
            raise TypeError(f"{what}: {error}{hint}; it takes {self.signature()}") from None

    def signature(self) -> Signature:
        """A signature with the same names; every default shows as `...`."""
        return Signature(
            [
                Parameter(
                    name, _KINDS[kind], default=Parameter.empty if needed or _KINDS[kind] in _VARIADIC else _DEFAULT
                )
                for name, kind, needed in self.rows
            ]
        )

    def __eq__(self, other: object) -> bool:
        return self.rows == other.rows if isinstance(other, Arity) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.rows)

    def __reduce__(self) -> tuple[Any, ...]:
        return Arity, (self.rows,)


_KINDS: Final = (
    Parameter.POSITIONAL_ONLY,
    Parameter.POSITIONAL_OR_KEYWORD,
    Parameter.VAR_POSITIONAL,
    Parameter.KEYWORD_ONLY,
    Parameter.VAR_KEYWORD,
)


class _Default:
    def __repr__(self) -> str:
        return "..."


_DEFAULT: Final = _Default()
_VARIADIC: Final = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
ANYTHING: Final = Arity([("args", int(Parameter.VAR_POSITIONAL), False), ("kwargs", int(Parameter.VAR_KEYWORD), False)])
