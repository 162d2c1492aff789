"""`get` and `wait` of a program's or worker's thread: it blocks at a gate until refs and generators are done."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple, Protocol

from actorrt import exceptions
from actorrt.core.object_state import PENDING, RAISED, REMOTE, SHARED
from actorrt.types import ProcessId
from actorrt.wire.messages import Ping

from ..links.peers import Peers
from . import current
from .actor_client import ActorClient
from .calls import Call
from .entries import Entry, Gate, unwatch_errors, watch_errors
from .generators import ObjectRefGenerator, Stream
from .objects import Objects
from .program import Program
from .references import ObjectRef
from .segments_client import SegmentsClient

# How often a thread that blocks its own loop looks whether it waits for itself.
SELF_WAIT_CHECK_S: Final = 0.1
# Who hears nothing of an owner for so long gives its CPU back.
HEAR_S: Final = 1.0
# From so many on, `get` of a list waits for the last before it looks at the others.
MANY: Final = 16

Waited = Entry | Stream


class Surroundings(current.Session, Protocol):
    """What is asked of the process."""

    process: ProcessId

    @property
    def program(self) -> Program: ...
    @property
    def peers(self) -> Peers: ...
    @property
    def objects(self) -> Objects: ...
    @property
    def segments(self) -> SegmentsClient: ...


class WaitsStatistics(NamedTuple):
    """Who waits at one moment."""

    # Threads that are blocked in `get` or `wait`.
    threads: int


class Waits:
    """The threads that wait for values of a runtime; from any thread but its own."""

    def __init__(self, surroundings: Surroundings, placed_at: Callable[[ActorClient], Awaitable[bytes | None]]) -> None:
        """`placed_at` says on which process an actor is; on the runtime loop."""
        self._process = surroundings
        self._thread = surroundings.thread
        self._placed_at = placed_at
        self._user_side = surroundings.program.user_side
        # The list that `wait` gave last: what it holds has been looked through already.
        self._last_rest: tuple[int, int] | None = None
        # The threads that are blocked.
        self._blocked: set[int] = set()

    def get(self, refs: Sequence[ObjectRef[Any]], timeout: float | None) -> list[Any]:
        """The values in order. Raises the first error among them as soon as there is one, or GetTimeoutError."""
        entries = [entry_of(ref) for ref in refs]
        if not self._until_done(entries, timeout):
            raise next(entry.error() for entry in entries if entry.state == RAISED)
        segments = [e for e in entries if e.state == SHARED and e.view is None]
        if segments:
            self._thread.call_sync(self._map_all(segments))
        return [entry.load() for entry in entries]

    def get_one(self, ref: ObjectRef[Any], timeout: float | None) -> Any:
        """The same for one."""
        entry = entry_of(ref)
        if entry.state <= PENDING:
            if entry.state == REMOTE:
                self._process.objects.request(entry)
            self._process.check_mine(entry)
            awaited = (entry,)
            self._wait_for_all(awaited, awaited, timeout, "an object")
        if entry.state == SHARED and entry.view is None:
            self._thread.call_sync(self._map_all([entry]))
        return entry.load()

    async def _map_all(self, entries: list[Entry]) -> None:
        for entry in entries:
            await self._process.segments.map(entry)

    def _until_done(self, entries: Sequence[Entry], timeout: float | None) -> bool:
        """Wait until all are done. False: one is an error, and others are not done yet."""
        pending: list[Entry] = []
        for entry in entries:
            if entry.state <= PENDING:
                if entry.state == REMOTE:
                    self._process.objects.request(entry)
                self._process.check_mine(entry)
                pending.append(entry)
        if not pending:
            return True
        if len(entries) == 1:
            self._wait_for_all(pending, pending, timeout, "an object")
            return True
        watch = _FirstError(entries)
        try:
            watch_errors(watch)
            self._wait_for_many(watch, pending, timeout, f"{len(entries)} objects")
        finally:
            unwatch_errors(watch)
        return all(entry.done for entry in pending)

    def _wait_for_many(self, watch: _FirstError, pending: list[Entry], timeout: float | None, what: str) -> None:
        if len(pending) >= MANY:
            # Most often the last one comes last. Then no other has to wake anybody.
            start = time.monotonic()
            self._wait_for_all(pending[-1:], pending, timeout, what, watch)
            pending = [entry for entry in pending if not entry.done]
            if not pending:
                return
            if timeout is not None:
                left = max(0.0, start + timeout - time.monotonic())
                try:
                    self._wait_for_all(pending, pending, left, what, watch)
                except exceptions.GetTimeoutError:
                    raise exceptions.GetTimeoutError(what, timeout) from None
                return
        self._wait_for_all(pending, pending, timeout, what, watch)

    def _wait_for_all(
        self,
        awaited: Sequence[Entry],
        pending: Sequence[Entry],
        timeout: float | None,
        what: str,
        watch: _FirstError | None = None,
    ) -> None:
        """Return when all of `awaited` are done, or an error among those that are watched."""
        gate = Gate(len(awaited))
        if watch is not None and watch.opens(gate):
            return
        for entry in awaited:
            if not entry.add_waiter(gate.arrive):
                gate.arrive(entry)
        try:
            self._process.wait_blocked(gate, timeout, what, pending)
        finally:
            for entry in awaited:
                if not entry.done:
                    entry.remove_waiter(gate.arrive)

    def blocked(self, gate: Gate, timeout: float | None, what: str, entries: Sequence[Entry] = ()) -> None:
        """Block this thread at a gate. A leased worker's CPU is given back meanwhile."""
        if self._thread.on_own_thread():
            raise RuntimeError("the runtime's own thread cannot wait")
        self._process.flush()
        if self._user_side.is_here():
            self._user_side.flush_turn()
        if gate.wait(0.0):
            return
        timeout_s = timeout or 0.0
        tell = self._user_side.blocked
        if tell is not None and entries and all(entry.call is None for entry in entries):
            # What other processes own may be there: no CPU is handed over before they have said that it is not.
            begun = time.monotonic()
            self._hear(entries, timeout)
            if gate.wait(0.0):
                return
            if timeout is not None:
                timeout = max(0.0, timeout - (time.monotonic() - begun))
        if tell is not None:
            tell(True)
        thread = threading.get_ident()
        self._blocked.add(thread)
        try:
            if not self._wait_watching(gate, timeout, entries):
                raise exceptions.GetTimeoutError(what, timeout_s)
        finally:
            self._blocked.discard(thread)
            if tell is not None:
                tell(False)

    def statistics(self) -> WaitsStatistics:
        """How many wait; from any thread."""
        return WaitsStatistics(len(self._blocked))

    def _hear(self, entries: Sequence[Entry], timeout: float | None) -> None:
        """Wait until the owners of these have answered what they were asked for, if they had an answer."""
        limit = HEAR_S if timeout is None else min(HEAR_S, timeout)
        with contextlib.suppress(exceptions.ActorrtError, TimeoutError, RuntimeError):
            self._thread.call_sync(self._ping({entry.owner for entry in entries}), limit)

    async def _ping(self, owners: set[ProcessId]) -> None:
        # The answer comes behind those of earlier questions that could be answered at once.
        for owner in owners - {self._process.process}:
            with contextlib.suppress(exceptions.ActorrtError):
                await self._process.peers.ask(owner, Ping())

    def _wait_watching(self, gate: Gate, timeout: float | None, entries: Sequence[Entry]) -> bool:
        """Wait at a gate; on a worker's own loop look now and then whether it waits for itself."""
        if not self._user_side.is_here():
            return gate.wait(timeout)
        left = timeout
        while True:
            step = SELF_WAIT_CHECK_S if left is None else min(left, SELF_WAIT_CHECK_S)
            if gate.wait(step):
                return True
            if left is not None:
                left -= step
                if left <= 0:
                    return False
            for entry in entries:
                call: Call | None = entry.call
                if call is not None and self._thread.call_sync(self._runs_here(call)):
                    raise RuntimeError(
                        f"get() blocks the event loop on which {call.name} has to run: use `await` instead, or give "
                        "one of the two actors isolated=True"
                    )

    async def _runs_here(self, call: Call) -> bool:
        """True if a call waits for this very process."""
        if call.link is not None:
            return call.link.peer == self._process.process
        return isinstance(call.target, ActorClient) and await self._placed_at(call.target) == self._process.process

    def wait(self, refs: list[Any], num_returns: int, timeout: float | None) -> tuple[list[Any], list[Any]]:
        """Block until `num_returns` of `refs` are done or the time is over: at most that many done ones, and the rest.

        Refs and generators may be mixed. Raises ValueError if one comes twice.
        """
        known = self._last_rest
        if known is None or known[0] != id(refs) or known[1] != len(refs):
            _each_once(refs)
        # In a loop over what is left the first few are often done: no need to look at the others.
        done = _first_done(map(_waited, refs), num_returns)
        if len(done) < num_returns and timeout != 0:
            entries = list(map(_waited, refs))
            self._wait_for(entries, num_returns, timeout)
            done = _first_done(entries, num_returns)
        chosen = [refs[index] for index in done]
        rest = refs.copy()
        for index in reversed(done):
            del rest[index]
        self._last_rest = (id(rest), len(rest))
        return chosen, rest

    def _wait_for(self, entries: list[Waited], num_returns: int, timeout: float | None) -> None:
        pending = [entry for entry in entries if not entry.done]
        for entry in pending:
            self._process.check_mine(entry)
            if isinstance(entry, Entry) and entry.state == REMOTE:
                self._process.objects.request(entry)
        missing = num_returns - (len(entries) - len(pending))
        if missing <= 0:
            return
        gate = Gate(missing)
        waiting: list[Waited] = []
        try:
            for entry in pending:
                if entry.add_waiter(gate.arrive):
                    waiting.append(entry)
                else:
                    gate.arrive(entry)
            with contextlib.suppress(exceptions.GetTimeoutError):
                self._process.wait_blocked(
                    gate, timeout, "wait", [entry for entry in pending if isinstance(entry, Entry)]
                )
        finally:
            for entry in waiting:
                if not entry.done:
                    entry.remove_waiter(gate.arrive)


class _FirstError:
    """Opens a gate when one of some entries becomes an error, or is one already."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = set(entries)
        self._gate: Gate | None = None

    def opens(self, gate: Gate) -> bool:
        """Open this gate from now on. True: there is an error, nobody has to wait."""
        self._gate = gate
        return any(entry.state == RAISED for entry in self._entries)

    def __call__(self, entry: Entry) -> None:
        if entry in self._entries and self._gate is not None:
            self._gate.open()


def _waited(ref: Any) -> Waited:
    if type(ref) is ObjectRef:
        return ref._entry  # pyright: ignore[reportPrivateUsage]
    if isinstance(ref, ObjectRefGenerator):
        return ref.stream
    raise TypeError(f"wait() takes refs and generators, not {type(ref).__name__}")


def _each_once(refs: list[Any]) -> None:
    entries = set(map(_waited, refs))
    if len(entries) != len(refs):
        raise ValueError("wait() takes each ref once")


def _first_done(entries: Iterable[Waited], count: int) -> list[int]:
    """The places of the first `count` entries that are done."""
    done: list[int] = []
    for index, entry in enumerate(entries):
        if entry.done:
            done.append(index)
            if len(done) == count:
                break
    return done


def entry_of(ref: ObjectRef[Any]) -> Entry:
    return ref._entry
