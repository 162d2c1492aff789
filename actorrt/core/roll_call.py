"""Who is asked how it stands when somebody wants to know all, and what is made of the answers. No I/O.

A node asks all processes of its session at once and waits for none of them longer than a moment: one that cannot be
asked, or does not answer, is named with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from enum import Enum
from typing import Any, Final, NamedTuple, cast

from msgspec import Struct

from actorrt.types import ProcessId

NO_LINK: Final = "it has no link to the node"
LINK_DOWN: Final = "its link to the node is down, and is dialled again"
# For how long a process is waited for if the asker does not say how long it waits itself. One whose runtime's thread
# runs answers in a millisecond; one that has 100,000 actors in some 50.
ANSWER_S: Final = 1.0
# Of the time that the asker waits, what is left for a process that does not answer, and for the answer of the others to
# come back; and what one that waits for long has to spare.
_OF_SHORT: Final = 0.7
_OF_LONG: Final = 0.1
# Roles in the order in which they are told.
_ROLES: Final = ("driver", "worker", "head")


class Member(NamedTuple):
    """A process of the session. `pid`: 0 while it is being forked."""

    process: ProcessId
    role: str
    pid: int


class Listed(NamedTuple):
    """One of whom is told; with `trouble` it is not asked."""

    member: Member
    trouble: str = ""


def listed(
    linked: Iterable[Member], expected: Mapping[Member, str], *, down: Set[ProcessId], asker: ProcessId
) -> list[Listed]:
    """All processes but the one that asks. `linked`: those that can be asked; `down`: whose link has no connection;
    `expected`: those that there should be, and how each stands."""
    found: dict[ProcessId, Listed] = {}
    for member, state in expected.items():
        found[member.process] = Listed(member, f"{NO_LINK}: it is {state}" if state else NO_LINK)
    for member in linked:
        # One whose link is down cannot answer before it has another connection.
        found[member.process] = Listed(member, LINK_DOWN if member.process in down else "")
    found.pop(asker, None)
    return sorted(found.values(), key=_order)


def _order(one: Listed) -> tuple[int, int, ProcessId]:
    role = one.member.role
    return _ROLES.index(role) if role in _ROLES else len(_ROLES), one.member.pid, one.member.process


def patience(timeout_s: float) -> float:
    """For how many seconds a process is waited for, if its asker waits for the whole answer for `timeout_s`; 0: it has
    not said."""
    if not timeout_s:
        return ANSWER_S
    return min(timeout_s * _OF_SHORT, max(ANSWER_S, timeout_s * _OF_LONG))


# What a process does that does not answer, by its state as the kernel says it.
_NOT_ANSWERING: Final[Mapping[str | None, str]] = {
    "T": "it is stopped (SIGSTOP)",
    "t": "a debugger holds it",
    "D": "it waits in the kernel",
    None: "it has ended",
    # Of a node, whose state only its own machine knows.
    "": "it is stopped, or cannot be reached",
    "Z": "it has ended",
}
_RUNS: Final = "it runs, and its code keeps the interpreter to itself, or the machine has no CPU for it"


def no_answer(waited_s: float, state: str | None) -> str:
    """What is said of a process that was asked in vain."""
    return f"it has not answered for {waited_s:.2g} s: {_NOT_ANSWERING.get(state, _RUNS)}"


def entry(one: Listed, facts: Mapping[str, Any], trouble: str = "") -> dict[str, Any]:
    """What is told of one process: how it stands, or its trouble."""
    member = one.member
    named = {"process": member.process.hex(), "role": member.role, "pid": member.pid}
    return {**named, "trouble": trouble or one.trouble, **facts}


def plain(value: object) -> Any:
    """Statistics as what every format has: records become dicts by their fields, members of an Enum their names."""
    if isinstance(value, Enum):
        return value.name.lower()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        known = cast("Mapping[Any, object]", value)
        return {str(plain(key)): plain(each) for key, each in known.items()}
    if (names := getattr(value, "_fields", None)) is not None:
        return {name: plain(getattr(value, name)) for name in cast("tuple[str, ...]", names)}
    if isinstance(value, Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(each) for each in cast("Sequence[object]", value)]
    return value
