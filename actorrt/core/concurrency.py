"""How many calls of an actor run at once: a limit for each concurrency group, and who waits behind it. No I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Generic, TypeVar

T = TypeVar("T")


class Limiter(Generic[T]):
    """So many calls at once; further ones wait in the order in which they came."""

    __slots__ = ("limit", "running", "waiting")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.running = 0
        # Most actors never have a call wait.
        self.waiting: deque[T] | None = None

    @property
    def is_full(self) -> bool:
        return self.running >= self.limit

    @property
    def under_way(self) -> int:
        """How many calls run or wait."""
        return self.running + len(self.waiting or ())

    def begin(self) -> None:
        """A call begins that did not wait."""
        self.running += 1

    def end(self) -> None:
        """A call that had begun has ended."""
        self.running -= 1

    def wait(self, call: T) -> None:
        if self.waiting is None:
            self.waiting = deque()
        self.waiting.append(call)

    def next(self) -> T | None:
        """The call that begins now, if one waits and there is room for it."""
        if not self.waiting or self.running >= self.limit:
            return None
        self.running += 1
        return self.waiting.popleft()

    def withdraw(self, call: T) -> bool:
        """A call that waits is not to begin any more. False: it did not wait."""
        if not self.waiting or call not in self.waiting:
            return False
        self.waiting.remove(call)
        return True

    def refuse(self) -> list[T]:
        """Take out all that wait."""
        refused = list(self.waiting or ())
        self.waiting = None
        return refused


class Groups(Generic[T]):
    """The concurrency groups of an actor, each with a limit of its own, and which of its methods belong to which."""

    __slots__ = ("limiters", "of_methods")

    def __init__(self, limits: Mapping[str, int], of_methods: Mapping[str, str]) -> None:
        self.limiters: dict[str, Limiter[T]] = {name: Limiter(limit) for name, limit in limits.items()}
        self.of_methods = of_methods

    def name_of(self, method: str, wished: str) -> str:
        """The group of a call: the one that it names, else its method's; "" for none."""
        return wished or self.of_methods.get(method, "")
