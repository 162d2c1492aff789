"""One actor as a process that calls it sees it: what all its handles there share."""

from __future__ import annotations

import contextlib
from typing import Any, Final, Protocol

from actorrt import exceptions
from actorrt.core import call_errors
from actorrt.core.actor_calls import ActorCalls, Event, Traits
from actorrt.core.lifecycle import NEVER_RAN, RUNNING_PHASE
from actorrt.core.options import MethodOptions
from actorrt.types import ActorKey
from actorrt.wire import codec
from actorrt.wire.messages import ActorAt

from ..links.link import Link
from ..links.pipes import PipeReceiver
from . import current
from .actor_records import ActorRecord, OwnedActor, forgotten
from .calls import Call
from .token import Token

_OWNED: Final = Event.OWNED
# What says by itself why an actor never came to be.
_PLAIN_REASONS: Final = (
    exceptions.ActorUnschedulableError,
    exceptions.ActorPlacementGroupRemoved,
    exceptions.RuntimeEnvSetupError,
)


class Caller(current.Session, Protocol):
    """The process that calls an actor, as far as handles ask it."""

    def submit_method(
        self,
        actor: ActorClient,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: MethodOptions,
        receiver: PipeReceiver | None = None,
    ) -> Any: ...


class ActorClient(ActorCalls[Call, Link]):
    """One actor as this process sees it, with the calls that it has made there (core/actor_calls.py)."""

    __slots__ = ("__weakref__", "actor", "dead", "hold", "record", "repeats", "runtime")

    def __init__(self, runtime: Caller, actor: ActorKey, title: str, traits: Traits) -> None:
        super().__init__(title, traits)
        self.runtime = runtime
        self.actor = actor
        # What its owner has said of its end.
        self.dead: ActorAt | None = None
        # In the owner's process: the actor itself. A detached actor's handle has none.
        self.record: ActorRecord | None = None
        # Whether a call was made here that is to be repeated if it fails.
        self.repeats = False
        # Tells the owner when this client is garbage. It goes after the client, which nobody finds any more by then:
        # during a `__del__` of its own another thread could still take the client up again.
        self.hold: Token | OwnedActor | None = None

    def holds(self, token: Token) -> None:
        """An actor of another process lives as long as this client, which has a token of that."""
        self.hold = token

    def owns(self, record: ActorRecord, hold: OwnedActor) -> None:
        """It is the actor of `record`, which this process owns."""
        self.record, self.hold = record, hold
        self.on(_OWNED)

    def disowned(self, at: ActorAt) -> None:
        """It was not to be, for this reason."""
        self.record = None
        self.died(at)

    def died(self, at: ActorAt) -> None:
        """Its owner says that it is dead. The first to say so is believed."""
        if self.dead is None:
            self.dead = at
        self.on(Event.DIED)

    def expect_repeats(self) -> None:
        """A call is made that is to be repeated if it fails."""
        self.repeats = True

    def death(self, may_have_run: bool) -> BaseException:
        """What a call to it ends with, now that it is dead."""
        dead = self.dead or forgotten()
        cause = dead.cause
        if dead.failed:
            with contextlib.suppress(Exception):
                failure = codec.deserialize(dead.failed)
                if isinstance(failure, _PLAIN_REASONS):
                    return failure
                cause = f"{cause}:\n{getattr(failure, 'traceback_text', '') or failure}"
        if dead.incarnation == 0 and dead.phase in NEVER_RAN:
            may_have_run = False
        return exceptions.ActorDiedError(self.title, dead.phase or RUNNING_PHASE, cause, may_have_run)

    def fate(self, cause: str) -> BaseException:
        """What a call to it ends with that may have run as its worker was lost for this `cause`."""
        return call_errors.unavailable(self.title, cause) if self.dead is None else self.death(may_have_run=True)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.runtime is not current.maybe_runtime():
            raise RuntimeError(current.ENDED)
        self.runtime.actors.export(self, codec.note_ref(self))
        return _rebuild, (self.actor, self.title, self.traits)


def _rebuild(actor: ActorKey, title: str, traits: Traits) -> ActorClient:
    return current.session().actors.client(actor, title, traits)
