"""The program in whose process a runtime lives: what the runtime asks of it, and what a worker is given and ends with.

A worker's program runs the calls of others; a driver's runs none, and ends when its own code does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from actorrt.core.scheduling_strategies import inherited_from
from actorrt.types import ANYWHERE, Strategy
from actorrt.wire.messages import ActorCall

from ..links.link import Link
from ..links.pipe_turns import PipeTurns
from ..links.running import Child, RunningCall

LogLine = tuple[str, int, bool, str]


# Does what a message asks for that came over a link.
Handler = Callable[[Link, Any], None]


class LoopOfCalls(Protocol):
    """The loop that runs calls, as the code on it calls actors there."""

    def is_here(self) -> bool:
        """Whether this is its thread."""
        ...

    def enqueue_here(self, link: Link, work: list[ActorCall]) -> None:
        """Hand calls over, in its thread."""


class Incoming(msgspec.Struct, frozen=True):
    """What a worker does with the messages of callers, by their type; on the runtime loop."""

    # Those that `enqueue` hands over to the user's side, all that came together at once.
    queued: frozenset[type]
    enqueue: Callable[[Link, list[Any]], None]
    # All others, each behind what came before it.
    handlers: Mapping[type, Handler]
    # Where calls run on a loop: how that takes what code on it sends to actors there.
    here: LoopOfCalls | None = None


class SentValues(Protocol):
    """The values that a worker has sent to those who called it."""

    @property
    def is_awaited(self) -> bool: ...


class RunnerStatistics(Protocol):
    """What a worker has under way for others at one moment."""

    # Actors that are here; calls that have begun, and those that wait for their turn.
    @property
    def actors(self) -> int: ...
    @property
    def running(self) -> int: ...
    @property
    def waiting(self) -> int: ...


class CallRunner(Protocol):
    """Who runs the calls that come to a process. On the runtime loop, but for `leave_actor`."""

    @property
    def outcomes(self) -> SentValues: ...

    @property
    def incoming(self) -> Incoming: ...

    @property
    def running(self) -> RunningCall | None:
        """The call whose code the main thread runs right now, which may have come to no await yet; from any thread."""
        ...

    def link_lost(self, link: Link) -> None: ...
    def leave_actor(self, instance: Any, run: RunningCall | None) -> BaseException: ...
    def forked(self) -> None: ...
    def statistics(self) -> RunnerStatistics: ...


def _no() -> bool:
    return False


def _not_here(_: Link) -> bool:
    return False


def _none() -> None:
    return None


def _ignore(*_: object) -> None: ...


class UserSide(msgspec.Struct, frozen=True):
    """The thread that runs the calls of others, as seen by what waits and writes there. What is not given, a driver
    does not have."""

    # Told as a thread begins to wait for values, and as it goes on: a worker gives its CPU back meanwhile.
    blocked: Callable[[bool], None] | None = None
    # True in a thread whose block stops the actors of this process.
    is_here: Callable[[], bool] = _no
    # Where that is the loop of calls: have a link flushed at the end of its turn. False elsewhere.
    flush_with_turn: Callable[[Link], bool] = _not_here
    # All such links, at once.
    flush_turn: Callable[[], None] = _ignore
    # Of the loop that runs calls, where this is its thread.
    pipe_turns: Callable[[], PipeTurns | None] = _none


class Program(msgspec.Struct, frozen=True):
    """What a runtime asks of the program in its process; from any thread, but for `print_lines` and `paths`."""

    runner: CallRunner | None = None
    user_side: UserSide = msgspec.field(default_factory=UserSide)
    # End this process, whatever others need of it.
    leave: Callable[[], None] = _ignore
    # Its work is done: end it once no other process needs what it owns. True: nor before the calls that it has made
    # have ended.
    retire: Callable[[bool], None] = _ignore
    print_lines: Callable[[list[LogLine]], None] = _ignore
    # In a driver: where it finds its modules by now.
    paths: Callable[[], list[bytes]] = list
    # Variables of the call that a worker was made for: what it calls has them too.
    env: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    gpus: list[str] = msgspec.field(default_factory=list[str])


class Tenancy:
    """What a worker's lease gives it, the actor that has it for itself, and what it ends with."""

    def __init__(self) -> None:
        self._strategy_changed: Callable[[], object] = _none
        self.assigned: dict[str, int] = {}
        # By which the lease was found; and by which tasks and actors are placed that do not say how.
        self.strategy: Strategy = ANYWHERE
        self.inherited: Strategy = ANYWHERE
        # The Instance, if it is the only one here.
        self.actor: Any = None
        # Its lease.
        self.lease = 0
        self.exit_code = 0
        # The calls of the code that ends this process.
        self.last_calls: list[Child] = []
        self.ending: Final = threading.Event()

    def tell(self, strategy_changed: Callable[[], object]) -> None:
        """Call this as soon as what is made here is placed in another way."""
        self._strategy_changed = strategy_changed

    def assign(self, resources: dict[str, int] | None, strategy: Strategy) -> None:
        """What the work that starts now has for itself, and where; None: what the work before it had."""
        if resources is None:
            return
        self.assigned = resources
        if strategy != self.strategy:
            self.strategy = strategy
            self.inherited = inherited_from(strategy)
            self._strategy_changed()

    def begin(self, actor: Any, lease: int, resources: dict[str, int] | None, strategy: Strategy) -> None:
        """An actor has this process for itself from now on."""
        self.actor = actor
        self.lease = lease
        self.assign(resources, strategy)

    def end_actor(self) -> bool:
        """Let go of that actor and of what it holds; False if there is none."""
        actor, self.actor = self.actor, None
        if actor is not None:
            actor.let_go()
        return actor is not None

    def exit_with(self, code: int) -> None:
        """The code of this actor has asked for this end of the process."""
        self.exit_code = code

    def note_last(self, calls: Sequence[Child]) -> None:
        """Calls that this process waits for before it ends."""
        self.last_calls += calls
