"""Work on batches: find those that are nobody's, keep them as one's own, and remove files that have gone.

Each replica of the front has one. They agree by the store alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from time import time
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from ...base.background import spawn
from ..problems import Problem
from .database import StorageError
from .places import Places
from .run import Run, Work
from .states import Status
from .store import LostError, Store, Waiting

if TYPE_CHECKING:
    from ..services import Services
    from .calling import Handle
    from .service import Batches

logger = logging.getLogger("actorrt.serve.llm")

# Batches that are worked on at once; the others are "validating" meanwhile.
MOST_AT_ONCE: Final = 16
# So many more of tenants of whom none is worked on, whatever the others' wait for.
MOST_FIRST: Final = 16
# Those that were cancelled, or are over, need no model: so many more of them.
MOST_ENDING: Final = 4
# How often one looks for what another replica has left or been told.
_BUSY_S: Final = 1.0
_IDLE_S: Final = 5.0
_REMOVE_S: Final = 60.0


class Runner:
    def __init__(self, services: Services, batches: Batches, handle: Handle) -> None:
        self._services, self._batches = services, batches
        self._catalogue, self._ends = services.catalogue, services.meter.totals.batch_requests
        self._database, self._config = batches.database, batches.config
        # Those of runs that are there: by model and, before a capacity queue, by tenant.
        self._places: WeakValueDictionary[tuple[str, str], Places] = WeakValueDictionary()
        self._work = Work(
            f"{services.fronts().me} {uuid.uuid4().hex}",
            self._config,
            self._database,
            handle,
            self._wrong_model,
            self._places_of,
            services.config.max_body_bytes,
            batches.running,
            self._ended,
        )
        self._runs: dict[str, tuple[Run, asyncio.Task[None]]] = {}
        self._wake = asyncio.Event()
        self._remove_at = 0.0
        # Why batches are not worked on now; None: they are.
        self._failure: StorageError | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._batches.wake = self._wake_up
        self._task = spawn(self._go_on())

    async def stop(self) -> None:
        """End what runs, and leave it to others."""
        tasks = [task for _, task in self._runs.values()]
        ids = list(self._runs)
        if self._task is not None:
            tasks.append(self._task)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._database.is_open and ids:
            with contextlib.suppress(StorageError):
                await self._database.do(Store.release, self._work.owner, ids)
        await self._database.close()

    def _wake_up(self) -> None:
        self._remove_at = 0.0
        self._wake.set()

    async def _go_on(self) -> None:
        while True:
            try:
                await self._look()
                self._failure = None
            except StorageError as error:
                if self._failure is None:
                    logger.error("batches are not worked on: %s", error)
                self._failure = error
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause_s()):
                    await self._wake.wait()
            self._wake.clear()

    def _pause_s(self) -> float:
        return min(_BUSY_S if self._runs else _IDLE_S, self._config.lease_s / 3)

    async def _look(self) -> None:
        # Who has no batches does not even load what they need.
        if not await self._database.is_there():
            return
        if self._runs:
            await self._renew()
        await self._claim(MOST_AT_ONCE, Waiting.ANY)
        await self._claim(MOST_AT_ONCE + MOST_FIRST, Waiting.FIRST)
        await self._claim(MOST_AT_ONCE + MOST_FIRST + MOST_ENDING, Waiting.ENDING)
        if time() >= self._remove_at:
            self._remove_at = time() + _REMOVE_S
            await self._remove()

    async def _claim(self, up_to: int, which: Waiting) -> None:
        """So that no more than `up_to` are worked on."""
        now, lease_s, most = time(), self._config.lease_s, up_to - len(self._runs)
        if most > 0 and await self._database.do(Store.has_open, now, which):
            for batch in await self._database.do(Store.claim, self._work.owner, now, lease_s, most, which):
                self._begin(Run(self._work, batch))

    async def _renew(self) -> None:
        ids = list(self._runs)
        held = await self._database.do(Store.renew, self._work.owner, ids, time(), self._config.lease_s)
        for id in ids:
            if (found := self._runs.get(id)) is None:
                continue  # it has ended meanwhile
            run, task = found
            if id not in held:
                task.cancel()
            elif held[id] is Status.CANCELLING:
                run.cancel()

    def _begin(self, run: Run) -> None:
        task = spawn(self._run(run))
        self._runs[run.id] = run, task
        task.add_done_callback(lambda _: self._over(run, task))

    def _over(self, run: Run, task: asyncio.Task[None]) -> None:
        if (found := self._runs.get(run.id)) is not None and found[1] is task:
            del self._runs[run.id]
        self._wake.set()

    async def _run(self, run: Run) -> None:
        try:
            await run.work()
        except LostError:
            logger.warning("batch %s is another replica's by now", run.id)
        except Exception:
            # It is nobody's when its lease has run out, and then tried again.
            logger.exception("batch %s failed, and is tried again", run.id)

    async def _remove(self) -> None:
        """The bytes of files that nobody needs any more."""
        ids = await self._database.do(Store.files_to_remove, time())
        removed: list[str] = []
        for id in ids:
            try:
                await asyncio.to_thread(self._database.file(id).unlink, missing_ok=True)
            except OSError as error:
                logger.warning("file %s could not be removed: %s", id, error)
            else:
                removed.append(id)
        if removed:
            await self._database.do(Store.forget_files, removed)
        await self._database.do(Store.give_room_back)

    def _wrong_model(self, name: str | None) -> Problem | None:
        try:
            self._catalogue.choose(name)
        except Problem as problem:
            return problem
        return None

    def _places_of(self, tenant: str, model: str | None) -> Places:
        """A capacity queue is fair to tenants that all have their requests there, so that none may hold up another's
        here. Nor does a model that is slow, or gone, hold up what is for others."""
        limit, key = self._config.concurrency, (tenant, model or "")
        # One that has gone since the file was validated says so to each request.
        with contextlib.suppress(Problem):
            served = self._catalogue.choose(model).served
            key = tenant, served.model_id
            if not served.is_queued:
                limit, key = self._config.concurrency_unqueued, ("", served.model_id)
        return self._places.setdefault(key, Places(limit))

    def _ended(self, good: bool) -> None:
        self._ends.add(("completed" if good else "failed",))
