"""Look through many things for those that are asked for, some at a time, and tell of the first ones. No I/O.

A process may have 100,000 actors, and others wait for its loop meanwhile: whoever looks through them takes a pause
between two steps. Of each thing only the columns are made that a filter reads, and all columns only of what is told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final, Generic, NamedTuple, TypeVar

from actorrt.types import PROCESS_ID_SIZE

from .nearest import nearest
from .state_records import KINDS, id_column

T = TypeVar("T")

# Most that one question may ask for, as with Ray.
MAX_LIMIT: Final = 10_000

_DIGITS: Final = frozenset("0123456789abcdef")
_PROCESS_DIGITS: Final = 2 * PROCESS_ID_SIZE
# Digits of a process's id that tables show.
_SHORT: Final = 8

Columns = Mapping[str, Callable[[T], Any]]


class Filter(NamedTuple):
    """`column = value` or `column != value`, compared as text and without regard to case, as Ray does."""

    column: str
    is_equal: bool
    value: str

    def matches(self, value: object) -> bool:
        return (as_text(value) == as_text(self.value)) is self.is_equal


def as_text(value: object) -> str:
    """A value of a column as it is compared."""
    return str(value).lower()


def checked_filters(kind: str, filters: Iterable[Sequence[object]]) -> list[Filter]:
    """What a user has written. Raises ValueError or TypeError that says what is wrong."""
    found: list[Filter] = []
    columns = KINDS[kind].__struct_fields__
    for each in filters:
        if isinstance(each, str) or len(each) != 3:
            raise TypeError(f'a filter is (column, "=" or "!=", value), not {each!r}')
        column, operator, value = each
        if operator not in ("=", "!="):
            raise ValueError(f'a filter compares by "=" or "!=", not by {operator!r}')
        if column not in columns:
            close = nearest(str(column), columns)
            hint = f"; did you mean {close!r}?" if close else f": they have {', '.join(columns)}"
            raise ValueError(f"{kind} have no column {column!r}{hint}")
        found.append(Filter(str(column), operator == "=", str(value)))
    return found


def checked_limit(limit: object) -> int:
    """How many a user wants to hear of. Raises ValueError or TypeError."""
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise TypeError(f"limit is a whole number, not {limit!r}")
    if not 0 < limit <= MAX_LIMIT:
        raise ValueError(f"limit is from 1 to {MAX_LIMIT}, not {limit}: filters choose among more")
    return limit


class IdText(NamedTuple):
    """An id as a person writes it: its first digits, or, of what a process has numbered, the first digits of that
    process's id and the number, as `short_id` shows it."""

    begins: str
    number: int | None = None

    @classmethod
    def read(cls, text: object) -> IdText:
        """Raises TypeError or ValueError."""
        if not isinstance(text, str):
            raise TypeError(f"an id is a string of hexadecimal digits, not {type(text).__name__}")
        begins, dash, number = text.lower().partition("-")
        if not begins or (dash and not number) or not {*begins, *number} <= _DIGITS:
            raise ValueError(f"{text!r} is no id: it has hexadecimal digits, or those of a process, - and a number")
        return cls(begins, int(number, 16) if dash else None)

    def matches(self, id: str) -> bool:
        if not id.startswith(self.begins):
            return False
        return self.number is None or int(id[_PROCESS_DIGITS:] or "0", 16) == self.number


def is_id(text: str) -> bool:
    """Whether this can be an id, or a pid."""
    try:
        IdText.read(text)
    except ValueError:
        return False
    return True


def short_id(id: str) -> str:
    """An id as tables show it: `5f0c11d2-2a` is the 2a-th thing of the process whose id begins with 5f0c11d2."""
    number = id[_PROCESS_DIGITS:]
    return f"{id[:_SHORT]}-{int(number, 16):x}" if number else id[:_SHORT]


class Scan(Generic[T]):
    """Looks for things with an id that is written as `id` and that all filters let pass."""

    def __init__(
        self,
        kind: str,
        things: Iterable[T],
        columns: Columns[T],
        *,
        filters: Sequence[Filter] = (),
        id: str = "",
        limit: int = MAX_LIMIT,
        group_by: Sequence[str] = (),
    ) -> None:
        """`group_by`: count by the values of these columns, and tell of none."""
        self._things = iter(things)
        self._columns = columns
        self._filters = [(columns[each.column], each) for each in filters if each.column in columns]
        self._id = columns[id_column(kind)]
        self._wanted = IdText.read(id) if id else None
        self._limit = limit
        self._group = [columns[name] for name in group_by]
        self._groups: Counter[tuple[str, ...]] = Counter()
        self.rows: list[dict[str, Any]] = []
        self.total = 0

    def step(self, count: int) -> bool:
        """Look at `count` more. True: that was all."""
        looked = 0
        for thing in islice(self._things, count):
            looked += 1
            if all(each.matches(column(thing)) for column, each in self._filters) and (
                self._wanted is None or self._wanted.matches(self._id(thing))
            ):
                self._take(thing)
        return looked < count

    def _take(self, thing: T) -> None:
        self.total += 1
        if self._group:
            self._groups[tuple(str(column(thing)) for column in self._group)] += 1
        elif len(self.rows) < self._limit:
            self.rows.append({name: column(thing) for name, column in self._columns.items()})

    @property
    def answer(self) -> dict[str, Any]:
        """What was found, for `joined`."""
        groups = [[*key, count] for key, count in self._groups.items()]
        return {"rows": self.rows, "total": self.total, "groups": groups}
