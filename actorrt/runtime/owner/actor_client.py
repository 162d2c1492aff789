"""One actor as a process that calls it sees it: what all its handles there share."""

from __future__ import annotations

import contextlib
from collections import deque
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol

from actorrt import exceptions
from actorrt.core.options import MethodOptions
from actorrt.types import ActorKey
from actorrt.wire import codec
from actorrt.wire.messages import ActorAt

from ..links.link import Link
from ..links.pipes import PipeReceiver
from . import current
from .calls import Call
from .token import Token

if TYPE_CHECKING:
    from .actor_records import ActorRecord, OwnedActor

# How many calls beyond its concurrency may lie at an actor; further ones wait at their caller.
WINDOW: Final = 1024
# An actor that died so in its first life has run no call.
NEVER_RAN: Final = ("starting", "being placed", "being created")
# What says by itself why an actor never came to be.
_PLAIN_REASONS: Final = (exceptions.ActorUnschedulableError, exceptions.RuntimeEnvSetupError)


class Traits:
    """What callers have to know of an actor's class. Nothing changes it; all that are alike have one (`traits_of`)."""

    __slots__ = ("max_pending", "max_task_retries", "ordered", "window")

    def __init__(self, ordered: bool, concurrency: int, max_task_retries: int, max_pending: int) -> None:
        # A sync actor with one thread starts calls in the order in which they were made, come what may.
        self.ordered = ordered
        self.window = concurrency + WINDOW
        self.max_task_retries = max_task_retries
        self.max_pending = max_pending

    @property
    def one_at_a_time(self) -> bool:
        return self.window == WINDOW + 1

    def __reduce__(self) -> tuple[Any, ...]:
        return traits_of, (self.ordered, self.window - WINDOW, self.max_task_retries, self.max_pending)


@lru_cache(maxsize=256)
def traits_of(ordered: bool, concurrency: int, max_task_retries: int, max_pending: int) -> Traits:
    """One for all actors of a kind: there may be a million of them."""
    return Traits(ordered, concurrency, max_task_retries, max_pending)


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


class ActorClient:
    """One actor as this process sees it. `link` is set while calls can go straight to it."""

    __slots__ = (
        "__weakref__",
        "actor",
        "backlog",
        "dead",
        "hold",
        "incarnation",
        "inflight",
        "link",
        "locating",
        "record",
        "repeats",
        "runtime",
        "title",
        "traits",
    )

    def __init__(self, runtime: Caller, actor: ActorKey, title: str, traits: Traits) -> None:
        self.runtime = runtime
        self.actor = actor
        self.title = title
        self.traits = traits
        self.link: Link | None = None
        # Which of its lives `link` leads to, or led to.
        self.incarnation = -1
        # Calls that were sent and have no outcome yet.
        self.inflight = 0
        # Calls that cannot leave yet, in order.
        self.backlog: deque[Call] | None = None
        self.locating = False
        self.dead: ActorAt | None = None
        # In the owner's process: the actor itself. A detached actor's handle has none.
        self.record: ActorRecord | None = None
        # Whether a call was made here that is to be repeated if it fails.
        self.repeats = False
        # Tells the owner when this client is garbage. It goes after the client, which nobody finds any more by then:
        # during a `__del__` of its own another thread could still take the client up again.
        self.hold: Token | OwnedActor | None = None

    def death(self, may_have_run: bool) -> BaseException:
        """What a call to it ends with, now that it is dead."""
        dead = self.dead or ActorAt(None, 0, "it has ended", "idle")
        cause = dead.cause
        if dead.failed:
            with contextlib.suppress(Exception):
                failure = codec.deserialize(dead.failed)
                if isinstance(failure, _PLAIN_REASONS):
                    return failure
                cause = f"{cause}:\n{getattr(failure, 'traceback_text', '') or failure}"
        if dead.incarnation == 0 and dead.phase in NEVER_RAN:
            may_have_run = False
        return exceptions.ActorDiedError(self.title, dead.phase or "running", cause, may_have_run)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.runtime is not current.maybe_runtime():
            raise RuntimeError(current.ENDED)
        self.runtime.actors.export(self, codec.note_ref(self))
        return _rebuild, (self.actor, self.title, self.traits)


def _rebuild(actor: ActorKey, title: str, traits: Traits) -> ActorClient:
    return current.session().actors.client(actor, title, traits)
