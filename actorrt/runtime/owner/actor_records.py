"""What the owner of an actor knows of it: what it takes to start it, and how it fares."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from actorrt.core.lifecycle import Lifecycle, State
from actorrt.types import NO_ACTOR_KEY, NO_FUNCTION, ActorKey, Employer, LeaseId, Place, ProcessId
from actorrt.wire.messages import ActorAt, StartActor

from ..links.link import Link
from . import current

_NOTHING: Final = StartActor(0, NO_ACTOR_KEY, NO_FUNCTION, b"")


class ActorSpec:
    """What it takes to start an actor, also again."""

    __slots__ = (
        "__weakref__",
        "blob",
        "code",
        "detached",
        "employer",
        "env",
        "mode",
        "named",
        "shape",
        "shared",
        "start",
    )

    def __init__(
        self,
        start: StartActor,
        blob: bytes,
        shape: dict[str, int],
        mode: str,
        shared: bool,
        env: dict[str, str],
        employer: Employer,
        named: bool = False,
        detached: bool = False,
    ) -> None:
        self.start = start
        self.blob = blob
        # The class, which is known as long as it may be started.
        self.code: Any = None
        self.shape = shape
        self.mode = mode
        self.shared = shared
        self.env = env
        # Whose workers it runs on.
        self.employer = employer
        self.named = named
        self.detached = detached

    def remainder(self) -> ActorSpec:
        """What is left to know once the actor will not be started again; one for all that are alike."""
        key = (self.mode, self.shared, self.employer, tuple(self.env.items()))
        found = _REMAINDERS.get(key)
        if found is None:
            found = _REMAINDERS[key] = ActorSpec(_NOTHING, b"", {}, self.mode, self.shared, self.env, self.employer)
        return found


_REMAINDERS: weakref.WeakValueDictionary[tuple[str, bool, Employer, tuple[tuple[str, str], ...]], ActorSpec] = (
    weakref.WeakValueDictionary()
)


class ActorRecord:
    """One owned actor."""

    __slots__ = (
        "__weakref__",
        "actor",
        "borrowers",
        "cause",
        "life",
        "link",
        "on_dead",
        "phase",
        "released",
        "left",
        "unwanted",
        "spec",
        "title",
        "waiters",
        "lease",
        "place",
        "failure",
        "starting",
        "pins",
    )

    def __init__(self, actor: ActorKey, title: str, spec: ActorSpec, max_restarts: int) -> None:
        self.actor = actor
        self.title = title
        self.spec: ActorSpec | None = spec
        self.life = Lifecycle(max_restarts)
        self.link: Link | None = None
        # The same for who asks where it runs, and what it costs there.
        self.place: Place | None = None
        self.lease: LeaseId | None = None
        self.starting = 0
        self.cause = ""
        self.phase = ""
        # The constructor's error, pickled.
        self.failure: bytes = b""
        # What its arguments refer to, as long as it may be started (again).
        self.pins: Any = None
        # No handle is left in the owner's own process.
        self.released = False
        # No handle is left at all: what it was called for before is finished, then it ends.
        self.unwanted = False
        # It ends by itself: its process is not to be killed.
        self.left = False
        self.borrowers: dict[ProcessId, int] | None = None
        self.waiters: list[asyncio.Future[None]] | None = None
        self.on_dead: Callable[[], None] | None = None

    @property
    def state(self) -> State:
        return self.life.state

    def death(self) -> ActorAt:
        """What callers are told once it is dead."""
        return ActorAt(None, self.life.incarnation, self.cause, self.phase, self.failure)


class OwnedActor:
    """Has an actor of this process end once this is garbage and nobody else has the actor. As `Token`, but there are as
    many as actors, and it is the only object that each costs.
    """

    __slots__ = ("_record", "_session")

    def __init__(self, session: current.Session, record: ActorRecord) -> None:
        self._session = session
        self._record = record

    def __del__(self) -> None:
        session = self._session
        if current.maybe_runtime() is session:
            session.thread.release(partial(session.actors.release_owned, self._record))
