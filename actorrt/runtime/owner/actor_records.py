"""What the owner of an actor knows of it: what it takes to start it, and how it fares."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from functools import partial
from typing import Final

from msgspec.structs import replace

from actorrt.core.lifecycle import FORGOTTEN, Death, Lifecycle, State
from actorrt.core.ownership import count
from actorrt.types import ANYWHERE, NO_ACTOR_KEY, NO_FUNCTION, ActorKey, Employer, LeaseId, Place, ProcessId, Strategy
from actorrt.wire.messages import ActorAt, StartActor

from ..base.definitions import ActorClassDef
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
        "shape",
        "shared",
        "start",
        "strategy",
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
        detached: bool = False,
        code: ActorClassDef | None = None,
        strategy: Strategy = ANYWHERE,
    ) -> None:
        self.start = start
        self.blob = blob
        # The class, which is known as long as it may be started.
        self.code = code
        self.shape = shape
        self.mode = mode
        self.shared = shared
        self.env = env
        # Whose workers it runs on.
        self.employer = employer
        self.detached = detached
        self.strategy = strategy

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
        "_on_dead",
        "actor",
        "borrowers",
        "lease",
        "life",
        "link",
        "pins",
        "place",
        "spec",
        "title",
        "waiters",
    )

    def __init__(
        self,
        actor: ActorKey,
        title: str,
        spec: ActorSpec,
        max_restarts: int,
        pins: object = None,
        on_dead: Callable[[], None] | None = None,
    ) -> None:
        """`on_dead` is called once it is dead, on the loop of its supervisor."""
        self.actor = actor
        self.title = title
        self.spec: ActorSpec | None = spec
        self.life = Lifecycle(max_restarts)
        # To its place, which it has left only when this is None again, or it is dead.
        self.link: Link | None = None
        # The same for who asks where it runs, and what it costs there.
        self.place: Place | None = None
        self.lease: LeaseId | None = None
        # What its arguments refer to, as long as it may be started (again).
        self.pins: object = pins
        # How often the processes that hold handles do so.
        self.borrowers: dict[ProcessId, int] | None = None
        self.waiters: list[asyncio.Future[None]] | None = None
        self._on_dead = on_dead

    @property
    def state(self) -> State:
        return self.life.state

    def is_starting_at(self, link: Link) -> bool:
        """It was sent there, and has not said yet that its constructor has returned."""
        return self.link is link and self.life.state is State.STARTING

    def death(self) -> ActorAt:
        """What callers are told once it is dead."""
        return at_end(self.life.death or FORGOTTEN, self.life.incarnation)

    # ---- for its supervisor

    def goes_to(self, link: Link, place: Place | None, lease: LeaseId | None) -> None:
        self.link, self.place, self.lease = link, place, lease

    def leave_place(self) -> Link | None:
        """The link to the place that it has no more. Its lease is taken by itself."""
        link, self.link = self.link, None
        self.place = None
        return link

    def take_lease(self) -> LeaseId | None:
        """The lease, which its supervisor gives back."""
        lease, self.lease = self.lease, None
        return lease

    def start(self, next_seq: Callable[[], int]) -> StartActor:
        """What to send to its place."""
        spec, incarnation = self.spec, self.life.incarnation
        assert spec is not None
        start = spec.start
        if incarnation or self.lease is not None:
            seq = next_seq() if incarnation else start.seq
            lease = 0 if self.lease is None else self.lease.number
            start = replace(start, seq=seq, incarnation=incarnation, lease=lease)
        self.life.sent(start.seq)
        return start

    def will_not_start_again(self) -> None:
        """Its arguments can go."""
        if self.spec is not None:
            self.spec = self.spec.remainder()
        self.pins = None

    def is_buried(self) -> None:
        """Nothing is needed of it any more but how it died."""
        self.spec = None
        self.pins = None

    def tell_of_death(self) -> None:
        if self._on_dead is not None:
            self._on_dead()

    def was_not_to_be(self) -> None:
        """Its death is no event."""
        self._on_dead = None

    def borrowed(self, borrower: ProcessId, delta: int) -> bool:
        """A process holds it once more, or once less. Whether that process still does."""
        if self.borrowers is None:
            self.borrowers = {}
        count(self.borrowers, borrower, delta)
        return borrower in self.borrowers

    def borrower_lost(self, borrower: ProcessId) -> None:
        if self.borrowers is not None:
            self.borrowers.pop(borrower, None)

    async def change(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait until something has happened to it."""
        future: asyncio.Future[None] = loop.create_future()
        if self.waiters is None:
            self.waiters = []
        self.waiters.append(future)
        try:
            await future
        except asyncio.CancelledError:
            self._withdraw(future)
            raise

    def _withdraw(self, future: asyncio.Future[None]) -> None:
        if self.waiters is not None and future in self.waiters:
            self.waiters.remove(future)

    def changed(self) -> None:
        waiters, self.waiters = self.waiters, None
        for future in waiters or ():
            if not future.done():
                future.set_result(None)


def at_end(death: Death, incarnation: int) -> ActorAt:
    """What callers are told of an actor that died so, in this life."""
    return ActorAt(None, incarnation, death.cause, death.phase, death.failure)


def forgotten() -> ActorAt:
    """The same of one of which nothing is known any more."""
    return at_end(FORGOTTEN, 0)


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
