"""What made an object, and what has to run again once the object is lost. No I/O.

An owner keeps the *lineage* of its objects: for each that a call has made, the call and the objects that this took as
arguments; and of these, though nobody holds them any more, the same. What holds:

* A lost object is made again by the call that made it, after the calls that make those of its arguments that are gone.
  Each runs once, however many of its results are lost, and however many others wait for it.
* Nothing runs in vain: if one of those that are needed cannot be made again, nothing runs, and no retry is taken.
* Each run takes one of the call's retries, as a run after a worker's death does.
* What was `put`, and the results of actors that do not allow it, are not made again. Objects of other owners are theirs
  to make: a call that runs again waits for them, as it did before.
* A call is forgotten once nobody holds a result of it, nor may need one for another call; the oldest, once there are
  more than `most`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import auto
from typing import Final

import msgspec

from actorrt.types import ObjectKey, ProcessId

from .labels import Label

# So many calls are remembered: each keeps its arguments.
MOST: Final = 100_000
# In place of a number of retries.
ANY_NUMBER: Final = -1


class Why(Label):
    """Why an object cannot be made again."""

    # No call has made it: it was put, or its call is forgotten.
    NOT_MADE = auto()
    # An actor has made it, which does not allow that.
    NOT_ALLOWED = auto()
    NO_RETRIES = auto()


_TEXTS: Final = {
    Why.NOT_MADE: "no call is known that makes {} again: it was put, or made too long ago",
    Why.NOT_ALLOWED: "{} is the result of an actor, and those are made again only with max_task_retries",
    Why.NO_RETRIES: "{} cannot be made again: the retries of {} are used up",
}


class Hopeless(msgspec.Struct, frozen=True):
    """An object that cannot be made again, since `at`, itself or something that it needs, cannot."""

    at: int
    why: Why
    # The call that made it.
    name: str = ""

    def __str__(self) -> str:
        return _TEXTS[self.why].format(f"object {self.at}", self.name)


class Plan(msgspec.Struct, frozen=True):
    """What to do about lost objects: calls to run, in this order; and the objects that stay lost."""

    runs: tuple[int, ...]
    hopeless: dict[int, Hopeless]


class _Made:
    """A call that has made objects."""

    __slots__ = ("arguments", "held", "is_allowed", "is_under_way", "name", "results", "retries")

    def __init__(
        self, name: str, results: tuple[int, ...], arguments: tuple[int, ...], retries: int, is_allowed: bool
    ) -> None:
        self.name = name
        self.results = results
        # Own objects alone.
        self.arguments = arguments
        self.retries = retries
        self.is_allowed = is_allowed
        self.is_under_way = False
        # Results that somebody holds.
        self.held = set(results)


class Lineage:
    """That of the objects of one owner; calls go by numbers, as objects do."""

    def __init__(self, owner: ProcessId, most: int = MOST) -> None:
        self._owner = owner
        self._most = most
        self._calls: dict[int, _Made] = {}
        # The call that made an object.
        self._maker: dict[int, int] = {}
        # How many calls may need an object again.
        self._needed: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def made(
        self,
        call: int,
        name: str,
        results: Iterable[int],
        arguments: Iterable[ObjectKey],
        retries: int,
        *,
        is_allowed: bool = True,
    ) -> None:
        """A call has made these objects. `retries`: what is left of them; `is_allowed`: it may run again for them."""
        own = tuple(dict.fromkeys(number for owner, number in arguments if owner == self._owner))
        known = self._calls[call] = _Made(name, tuple(results), own, retries, is_allowed)
        for result in known.results:
            self._maker[result] = call
        for argument in own:
            self._needed[argument] = self._needed.get(argument, 0) + 1
        if len(self._calls) > self._most:
            for maker in self._forget(next(iter(self._calls))):
                self._forget_if_unneeded(maker)

    def freed(self, result: int) -> None:
        """Nobody holds an object any more."""
        call = self._maker.get(result)
        if call is not None:
            self._calls[call].held.discard(result)
            self._forget_if_unneeded(call)

    def lost(self, objects: Iterable[int], is_here: Callable[[int], bool]) -> Plan:
        """These are lost; `is_here` says which of the others are not. What runs is under way until `ended`."""
        gone = dict.fromkeys(objects)
        hopeless: dict[int, Hopeless] = {}
        runs: dict[int, None] = {}
        # Of calls that were looked at: why one cannot run; None: it can.
        judged: dict[int, Hopeless | None] = {}

        def missing(number: int) -> bool:
            return number in gone or not is_here(number)

        for number in gone:
            found = self._judge(number, missing, judged)
            if found is not None:
                hopeless[number] = found
            else:
                self._order(number, missing, runs)
        for call in runs:
            known = self._calls[call]
            known.is_under_way = True
            if known.retries != ANY_NUMBER:
                known.retries -= 1
        return Plan(tuple(runs), hopeless)

    def ended(self, call: int) -> None:
        """A call that was to run again has ended: what it makes is there, or is an error."""
        known = self._calls.get(call)
        if known is not None:
            known.is_under_way = False
            self._forget_if_unneeded(call)

    # -- what can be made

    def _judge(
        self, number: int, missing: Callable[[int], bool], judged: dict[int, Hopeless | None]
    ) -> Hopeless | None:
        """Why an object cannot be made again; None if it can."""
        # A chain of calls may be longer than Python's stack.
        left = [number]
        while left:
            one = left[-1]
            call = self._maker.get(one)
            if call is None or call in judged:
                left.pop()
                continue
            if self._runs(call) or self._alone(one) is not None:
                judged[call] = self._alone(one)
                left.pop()
                continue
            pending = [
                argument
                for argument in self._calls[call].arguments
                if missing(argument) and self._maker.get(argument) is not None and self._maker[argument] not in judged
            ]
            if pending:
                left += pending
                continue
            judged[call] = self._worst(call, missing, judged)
            left.pop()
        return self._verdict(number, judged)

    def _verdict(self, number: int, judged: dict[int, Hopeless | None]) -> Hopeless | None:
        call = self._maker.get(number)
        return Hopeless(number, Why.NOT_MADE) if call is None else judged[call]

    def _worst(self, call: int, missing: Callable[[int], bool], judged: dict[int, Hopeless | None]) -> Hopeless | None:
        for argument in self._calls[call].arguments:
            if missing(argument) and (found := self._verdict(argument, judged)) is not None:
                return found
        return None

    def _runs(self, call: int) -> bool:
        return self._calls[call].is_under_way

    def _alone(self, number: int) -> Hopeless | None:
        """Why the call that made an object cannot run, whatever its arguments are."""
        call = self._calls[self._maker[number]]
        if call.is_under_way:
            return None
        if not call.is_allowed:
            return Hopeless(number, Why.NOT_ALLOWED, call.name)
        return None if call.retries else Hopeless(number, Why.NO_RETRIES, call.name)

    def _order(self, number: int, missing: Callable[[int], bool], runs: dict[int, None]) -> None:
        """Add the calls that make an object, what they need first."""
        left = [self._maker[number]]
        while left:
            call = left[-1]
            if call in runs or self._runs(call):
                left.pop()
                continue
            before = [
                maker
                for argument in self._calls[call].arguments
                if missing(argument) and (maker := self._maker[argument]) not in runs and not self._runs(maker)
            ]
            if before:
                left += before
            else:
                runs[call] = None
                left.pop()

    # -- what is remembered

    def _forget_if_unneeded(self, call: int) -> None:
        left = [call]
        while left:
            one = left.pop()
            known = self._calls.get(one)
            if known is None or known.held or known.is_under_way:
                continue
            if not any(result in self._needed for result in known.results):
                left += self._forget(one)

    def _forget(self, call: int) -> list[int]:
        """The calls that made its arguments, which nobody may need any more."""
        known = self._calls.pop(call)
        for result in known.results:
            if self._maker.get(result) == call:
                del self._maker[result]
        unneeded: list[int] = []
        for argument in known.arguments:
            self._needed[argument] -= 1
            if not self._needed[argument]:
                del self._needed[argument]
                if (maker := self._maker.get(argument)) is not None:
                    unneeded.append(maker)
        return unneeded
