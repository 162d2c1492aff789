"""What is told of a loop that is blocked: to people, in words, and to the node, so that others go elsewhere. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from .watchdog import sends_others_elsewhere

MOST_NAMED: Final = 20


class Sight(NamedTuple):
    """What the thread of a loop did when it was looked at."""

    # The call that runs, or the actor whose own task does; "" if nobody knows.
    who: str
    # Whether code of a user was there, or within an import that it makes; and its line and stack.
    by_user: bool
    importing: bool
    line: str
    stack: str


class Last(NamedTuple):
    """The last call that ran, where it is over."""

    title: str
    on_purpose: bool


def title_of(call: str, actor: str | None) -> str:
    """A call as its reader knows it. `actor`: the title of the one that it is for."""
    prefix = "" if actor is None else f"{actor}."
    return call if call.startswith(prefix) else f"{prefix}{call}"


def is_on_purpose(has_process: bool, is_being_made: bool, may_block: bool) -> bool:
    """True for what only its own actor waits for: the constructor of one that has a process to itself, or a method that
    says so."""
    return (has_process and is_being_made) or may_block


def report(sight: Sight, last: Last | None, held_up: Sequence[str], *, kept_the_gil: bool) -> str:
    """Who blocks, and at which line of theirs; "" for what is no user's doing. `held_up`: whom the loop has besides."""
    who = sight.who
    if kept_the_gil and not (who and sight.by_user):
        # It is over.
        if last is None or sight.importing or last.on_purpose:
            return ""
        who = f"code that kept the GIL and has returned, last of {last.title}"
    elif not sight.by_user:
        return ""
    who = who or "a callback"
    if sight.importing:
        return f"{who}, with an import at {sight.line}: import modules where they are not waited for\n"
    advice = "use await, or @method(thread=True) for code that blocks"
    return f"{who}; {advice}{_held_up(held_up)}\n{sight.stack}"


def _held_up(titles: Sequence[str]) -> str:
    if not titles:
        return ""
    more = f" and {len(titles) - MOST_NAMED} more" if len(titles) > MOST_NAMED else ""
    return f"; meanwhile it holds up {', '.join(titles[:MOST_NAMED])}{more}"


class Told(NamedTuple):
    """What the node is told of a blocked loop. `harmful`: it is a user's code, and others wait."""

    by: str
    harmful: bool


def others_elsewhere(
    who: str, blocked_s: float, *, users: bool, on_purpose: bool, holds_up: bool, has_process: bool
) -> Told | None:
    """Whether others are to go elsewhere, and what is told of that. `users`: it is code of a user, and no import.

    Of a process that an actor has for itself nothing is told: only its own callers wait for it.
    """
    by_user = users and not on_purpose
    if has_process or not sends_others_elsewhere(blocked_s, by_user):
        return None
    return Told(who or "the runtime", by_user and holds_up)
