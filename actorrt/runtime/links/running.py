"""The call that the code of this thread and context belongs to."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextvars import ContextVar
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final, Protocol

from actorrt.core.cancellation import ALONE, RUNNING, TABLE, TREE_BY_FORCE, Action, Reach

if TYPE_CHECKING:
    from .link import Link

_COMPACT_AT: Final = 64


class Child(Protocol):
    """A call that the code of a running call has made."""

    @property
    def done(self) -> bool: ...

    def cancel(self, force: bool) -> None:
        """Cancel it, and what it has called in turn; on the runtime loop."""

    async def settled(self) -> None:
        """Return once it has its outcome; on the runtime loop."""


class Asked(Enum):
    """Whether its caller has cancelled a call."""

    NO = auto()
    YES = auto()
    # And a coroutine's code has been told so at its await. What it returns all the same, nobody gets.
    TOLD = auto()


NOT_ASKED: Final = Asked.NO
ASKED: Final = Asked.YES
TOLD: Final = Asked.TOLD


class RunningCall:
    """A call that this process executes for another."""

    __slots__ = (
        "actor",
        "asked",
        "children",
        "ending",
        "gate",
        "lease",
        "link",
        "name",
        "next_large",
        "on_cancel",
        "pipe",
        "seq",
        "task",
        "waits",
    )

    # Not there before somebody asks to be told: no call pays for it.
    on_cancel: Callable[[], object]
    # Of a stream: the number of its next item that is laid into shared memory.
    next_large: int

    def __init__(self, link: Link, seq: int, name: str, actor: Any = None, lease: int = 0, waits: bool = False) -> None:
        self.link = link
        self.seq = seq
        self.name = name
        # The actor's Instance, if it is an actor's call.
        self.actor = actor
        self.lease = lease
        self.task: Any = None
        # Credits of a stream, while it runs.
        self.gate: Any = None
        # The method's end of the call's pipe, if it has asked for it.
        self.pipe: Any = None
        # Whether it is to end, whoever wants that.
        self.ending = RUNNING
        self.asked = NOT_ASKED
        # For a thread of its actor.
        self.waits = waits
        self.children: list[weakref.ref[Child]] | None = None

    @property
    def cancelled(self) -> bool:
        """True once it is to end, whoever wants that."""
        return self.ending is not RUNNING

    @property
    def reaches_children(self) -> bool:
        """Whether its cancellation reaches what it has called."""
        return self.ending is not RUNNING and self.ending is not ALONE

    @property
    def by_force(self) -> bool:
        return self.ending is TREE_BY_FORCE

    def ask(self) -> None:
        """Its caller has cancelled it."""
        if self.asked is NOT_ASKED:
            self.asked = ASKED

    def cancel(self, reach: Reach) -> Action:
        """It is to end; what to do for that. In the thread that runs coroutines, or else on the runtime loop."""
        self.ending, action = TABLE[self.ending, reach]
        return action

    def told(self) -> None:
        """Its code is interrupted at its await."""
        if self.asked is ASKED:
            self.asked = TOLD

    def constructs(self, actor: Any, name: str) -> None:
        """It is the constructor of this actor."""
        self.actor = actor
        self.name = name

    def streams(self, gate: Any, first_item: int) -> None:
        """Its outcome is a stream, by the credits at this gate."""
        self.gate = gate
        self.next_large = first_item

    def tells(self, callback: Callable[[], object]) -> None:
        """Its code is to be told of its cancellation by this."""
        self.on_cancel = callback

    def opens(self, pipe: Any) -> None:
        """Its code has asked for its end of the call's pipe."""
        self.pipe = pipe

    def runs_in(self, task: Any) -> None:
        """From now on it can be interrupted by this task."""
        self.task = task

    def leaves_task(self) -> None:
        """It has ended: its task's context holds the call, and the two would be left to the collector."""
        self.task = None

    def claim(self) -> bool:
        """Take it up, or away, once. False: it does not wait for a thread any more."""
        waits, self.waits = self.waits, False
        return waits

    def add_child(self, call: Child) -> None:
        children = self.children
        if children is None:
            children = self.children = []
        elif (count := len(children)) >= _COMPACT_AT and not count & (count - 1):
            # At each power of two: where all go on, what this costs does not grow with their number.
            children[:] = [ref for ref in children if (child := ref()) is not None and not child.done]
        children.append(weakref.ref(call))

    def living_children(self) -> list[Child]:
        return [child for ref in self.children or () if (child := ref()) is not None and not child.done]


running_call: ContextVar[RunningCall | None] = ContextVar("actorrt_running_call", default=None)
