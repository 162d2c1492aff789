"""The node's side of blocked loops: who shares a worker is told to go elsewhere, and one that stays blocked is ended.

A worker whose loop is blocked says so itself, from its runtime's thread. One whose code keeps the GIL can't: the node
asks each shared worker whether it is there, and a worker that does not answer counts as blocked, too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, Protocol

from actorrt import exceptions
from actorrt.types import ProcessId
from actorrt.wire.messages import Ping

from ..links.link import Link
from ..machine.process import process_state

# How often each shared worker is asked, at most; and after so many questions without an answer it counts as blocked.
ASK_EVERY_S: Final = 1.0
SILENT_AFTER: Final = 2
# So often, at least, it is asked within the time after which it is ended.
QUESTIONS: Final = 8
RUNS: Final = frozenset("RSD")


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
        changed: Callable[[SharedWorker, bool], object],
        end: Callable[[SharedWorker, str], object],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        """`changed(worker, blocked)` is called when a worker blocks and when it goes on; `end(worker, why)` once it has
        held up others for `timeout_s` (0: never)."""
        self._timeout_s = timeout_s
        self._workers = workers
        self._link_of = link_of
        self._changed = changed
        self._end = end
        self._spawn = spawn
        self._loop = asyncio.get_running_loop()
        # What blocks them, as they say; and how many questions in a row have no answer.
        self._said: dict[ProcessId, str] = {}
        self._silent: dict[ProcessId, int] = {}
        self._asked: set[ProcessId] = set()
        self._deadlines: dict[ProcessId, asyncio.TimerHandle] = {}
        spawn(self._ask_all())

    def is_blocked(self, worker: SharedWorker) -> bool:
        return worker.process in self._said or self._silent.get(worker.process, 0) >= SILENT_AFTER

    def heard(self, worker: SharedWorker, by: str, harmful: bool) -> None:
        """It says what blocks its loop, "" for nothing. `harmful`: others wait, and it is no import nor the like."""
        before = self.is_blocked(worker)
        self._silent.pop(worker.process, None)
        if by:
            self._said[worker.process] = by
        else:
            self._said.pop(worker.process, None)
        if not harmful:
            self._disarm(worker.process)
        elif self._timeout_s > 0 and worker.process not in self._deadlines:
            why = f"its event loop was blocked for {self._timeout_s:g} s by {by}"
            self._deadlines[worker.process] = self._loop.call_later(self._timeout_s, self._end, worker, why)
        self._look(worker, before)

    def ended(self, worker: SharedWorker) -> None:
        self._said.pop(worker.process, None)
        self._silent.pop(worker.process, None)
        self._disarm(worker.process)

    def _disarm(self, process: ProcessId) -> None:
        timer = self._deadlines.pop(process, None)
        if timer is not None:
            timer.cancel()

    def _look(self, worker: SharedWorker, before: bool) -> None:
        now = self.is_blocked(worker)
        if now is not before:
            self._changed(worker, now)

    # ---- those who cannot say anything

    async def _ask_all(self) -> None:
        period = ASK_EVERY_S if self._timeout_s <= 0 else min(ASK_EVERY_S, self._timeout_s / QUESTIONS)
        while True:
            await asyncio.sleep(period)
            for worker in list(self._workers()):
                if worker.process not in self._asked:
                    self._asked.add(worker.process)
                    self._spawn(self._ask(worker))
                elif process_state(worker.pid) in RUNS:
                    # Neither stopped nor held by a debugger. A look that comes late counts once, as any other.
                    self._no_answer(worker, period)

    def _no_answer(self, worker: SharedWorker, period: float) -> None:
        before = self.is_blocked(worker)
        silent = self._silent[worker.process] = self._silent.get(worker.process, 0) + 1
        self._look(worker, before)
        if self._timeout_s > 0 and silent * period >= self._timeout_s:
            self._end(
                worker, f"it did not answer for {self._timeout_s:g} s: code in it keeps the interpreter to itself"
            )

    async def _ask(self, worker: SharedWorker) -> None:
        try:
            link = self._link_of(worker.process)
            if link is not None:
                with contextlib.suppress(exceptions.ActorrtError):
                    await link.ask(Ping())
        finally:
            self._asked.discard(worker.process)
        before = self.is_blocked(worker)
        self._silent.pop(worker.process, None)
        self._look(worker, before)
