"""The call that the code of this thread and context belongs to."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final, Protocol

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


class RunningCall:
    """A call that this process executes for another. `cancelled` is set once it is to end, whoever wants that."""

    __slots__ = (
        "actor",
        "asked",
        "cancelled",
        "children",
        "forcing",
        "gate",
        "interrupted",
        "lease",
        "link",
        "name",
        "next_large",
        "on_cancel",
        "pipe",
        "seq",
        "started",
        "task",
    )

    # Not there before somebody asks to be told: no call pays for it.
    on_cancel: Callable[[], object]
    # Of a stream: the number of its next item that is laid into shared memory.
    next_large: int

    def __init__(self, link: Link, seq: int, name: str, actor: Any = None, lease: int = 0) -> None:
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
        self.cancelled = False
        # Its caller has cancelled it; and, for a coroutine, its code has been told so at its await. What such code
        # returns all the same, nobody gets.
        self.asked = False
        self.interrupted = False
        self.started = False
        self.children: list[weakref.ref[Child]] | None = None
        # Whether its cancellation reaches its children (else None), and with force.
        self.forcing: bool | None = None

    def add_child(self, call: Child) -> None:
        children = self.children
        if children is None:
            children = self.children = []
        elif len(children) >= _COMPACT_AT and len(children) % _COMPACT_AT == 0:
            children[:] = [ref for ref in children if (child := ref()) is not None and not child.done]
        children.append(weakref.ref(call))

    def living_children(self) -> list[Child]:
        return [child for ref in self.children or () if (child := ref()) is not None and not child.done]


running_call: ContextVar[RunningCall | None] = ContextVar("actorrt_running_call", default=None)
