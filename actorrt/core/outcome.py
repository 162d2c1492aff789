"""What an error that comes out of a call's code is to its caller. No I/O.

One rule for coroutines, the main thread, threads of methods and local mode; they differ in what interrupts their code
and in what ends the actor or the process that runs it.
"""

from __future__ import annotations

from enum import auto
from typing import Final, NamedTuple, cast

from .labels import Label

Classes = tuple[type[BaseException], ...]


class ActorExit(BaseException):
    """Raised by exit_actor; no user's `except Exception` should stop it."""


class ActorGone(Exception):
    """The actor ended between the arrival of a call and its start."""


class End(Label):
    # Its caller gets the error.
    FAILED = auto()
    CANCELLED = auto()
    # Its actor ended before it began: it may be sent again.
    UNBEGUN = auto()
    # Its actor ended while it ran.
    GONE = auto()
    # Its own code ends its actor, or its process: see `left_by`.
    LEAVES = auto()
    # The end of its process, which comes now, says what has become of it.
    UNSAID = auto()


Exit = ActorExit | SystemExit
# What ends an actor from within.
EXITS: Final[Classes] = (ActorExit, SystemExit)
LEAVES: Final = End.LEAVES


class Errors(NamedTuple):
    """What errors mean for calls that run in one way."""

    # Raised in code that is to end. Where nobody wants it to, it has them from elsewhere, and they are errors like any.
    interrupts: Classes
    # They end the actor, or the process.
    leaves: Classes = ()

    def end_of(self, error: BaseException, cancelled: bool, over: bool = False) -> End:
        """How a call ends whose code raised. `cancelled`: it is to end; `over`: its actor has ended."""
        # By its class alone: an error may lie about it, or raise as one asks.
        kind = type(error)
        if issubclass(kind, ActorGone):
            return End.UNBEGUN
        if cancelled and issubclass(kind, self.interrupts):
            return End.GONE if over else End.CANCELLED
        return End.FAILED if _exit_in(error, self.leaves) is None else LEAVES


def end_of_unbegun(over: bool) -> End:
    """How a call ends that is cancelled before its first step."""
    return End.UNBEGUN if over else End.CANCELLED


def end_of_leaver(code: int) -> End:
    """How a call ends whose code has ended its actor; `code`: its process ends with this."""
    return End.UNSAID if code else End.GONE


class Unmade(Label):
    """What is done about a constructor that has raised."""

    # Its process waits for what the constructor has called as it ends.
    NOTE_CALLS = auto()
    # Its code ends the actor.
    EXIT = auto()
    # Say to its owner what it raised, who ends the process then.
    FAIL = auto()
    # The same once what it has called has ended: it would be cancelled with the process.
    FAIL_BEHIND_CALLS = auto()


def unmade(end: End, has_calls: bool) -> tuple[Unmade, ...]:
    """A constructor has ended so; `has_calls`: its actor has a process for itself, and calls of it go on."""
    if end is LEAVES:
        return Unmade.NOTE_CALLS, Unmade.EXIT
    return (Unmade.FAIL_BEHIND_CALLS if has_calls else Unmade.FAIL,)


def left_by(error: BaseException) -> Exit:
    """The error by which code LEAVES: this one, or that of one of several tasks that ended together, as
    asyncio.TaskGroup tells of them."""
    found = _exit_in(error, EXITS)
    assert found is not None
    return found


def _exit_in(error: BaseException, leaves: Classes) -> Exit | None:
    kind = type(error)
    if issubclass(kind, leaves):
        return cast("Exit", error)
    if issubclass(kind, BaseExceptionGroup):
        for one in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            if (found := _exit_in(one, leaves)) is not None:
                return found
    return None
