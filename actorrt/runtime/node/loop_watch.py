"""The node's side of blocked loops: it asks each shared worker whether it is there, and keeps the time.

What a worker says and what it does not is judged in core/blocked_loops.py.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol

from actorrt import exceptions
from actorrt.core.blocked_loops import Action, Arm, BlockedLoops, Disarm, End, Tell
from actorrt.types import ProcessId
from actorrt.wire.messages import Ping

from ..links.link import Link
from ..machine.process import process_state


class SharedWorker(Protocol):
    """A worker, as far as its loop is concerned."""

    @property
    def process(self) -> ProcessId: ...
    @property
    def pid(self) -> int: ...


class LoopWatch:
    """The shared workers of a node. Runs on its loop."""

    def __init__(
        self,
        timeout_s: float,
        workers: Callable[[], Iterable[SharedWorker]],
        link_of: Callable[[ProcessId], Link | None],
        changed: Callable[[ProcessId, bool], object],
        end: Callable[[ProcessId, str], object],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        """`changed(worker, blocked)` is called when a worker blocks and when it goes on; `end(worker, why)` once it has
        held up others for `timeout_s` (0: never)."""
        self._workers = workers
        self._link_of = link_of
        self._changed = changed
        self._end = end
        self._spawn = spawn
        self._loop = asyncio.get_running_loop()
        self._blocked = BlockedLoops(timeout_s)
        self._deadlines: dict[ProcessId, asyncio.TimerHandle] = {}
        spawn(self._ask_all())

    def heard(self, process: ProcessId, by: str, harmful: bool) -> None:
        """It says what blocks its loop, "" for nothing. `harmful`: others wait, and it is no import nor the like."""
        self._perform(self._blocked.heard(process, by, harmful))

    def ended(self, process: ProcessId) -> None:
        self._perform(self._blocked.ended(process))

    def tables(self) -> tuple[object, ...]:
        """Whatever has tables that could grow."""
        return (self, self._blocked)

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Tell():
                    self._changed(action.process, action.blocked)
                case Arm():
                    self._deadlines[action.process] = self._loop.call_later(action.delay_s, self._due, action.process)
                case Disarm():
                    self._deadlines.pop(action.process).cancel()
                case End():
                    self._end(action.process, action.why)

    def _due(self, process: ProcessId) -> None:
        del self._deadlines[process]
        self._perform(self._blocked.due(process))

    async def _ask_all(self) -> None:
        while True:
            await asyncio.sleep(self._blocked.period_s)
            for worker in list(self._workers()):
                if self._blocked.asks(worker.process):
                    self._spawn(self._ask(worker.process))
                else:
                    self._perform(self._blocked.no_answer(worker.process, process_state(worker.pid)))

    async def _ask(self, process: ProcessId) -> None:
        link = self._link_of(process)
        try:
            if link is not None:
                with contextlib.suppress(exceptions.ActorrtError):
                    await link.ask(Ping())
        finally:
            self._perform(self._blocked.answered(process))
