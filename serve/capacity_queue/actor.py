"""The capacity queue of one deployment, an actor in a process of its own that the controller starts and ends.

Routers come by `session`, replicas are asked for `leases`; the hub decides. All of it runs on one loop, and what is to
be told leaves at the end of a turn.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import random
import time
from contextlib import suppress
from functools import partial
from secrets import token_bytes
from typing import Any, Final

from actorrt import ActorHandle, Pipe, call_pipe, exceptions, exit_actor

from ..base import connection
from ..base.background import spawn
from ..base.news import NO_SUCH_DEPLOYMENT, SERVE_ENDED, DeploymentNews
from ..capacity.engine_load import EngineLoad
from .config import DEFAULT, CapacityQueueConfig
from .hub import Hub
from .messages import Messages, Offer, Report, Snapshot, Tag, ToRouter, encode, to_queue
from .session import ROOM_STEP

logger = logging.getLogger("actorrt.serve")

TICK_S: Final = 0.1
# Of what a router says, so much may be under way.
WINDOW: Final = 4 * 1024 * 1024
# A replica that does not answer is asked again after so long.
AGAIN_S: Final = 0.1
# Routers have so long to say whether a request is theirs.
FIND_S: Final = 0.2


class SessionError(Exception):
    """A router's stream is ended, since one of the two could not take what the other said."""


class _Session:
    """One router, as long as its call lasts."""

    def __init__(self, queue: QueueActor, router: str) -> None:
        self._queue = queue
        self._router = router
        self._messages = Messages()
        self._taken = 0
        self.pipe: Pipe = call_pipe(self)
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def arrived(self, pipe: Pipe, data: memoryview, last: bool) -> None:
        if self.over.done():
            return
        self._taken += len(data)
        if self._taken >= ROOM_STEP:
            taken, self._taken = self._taken, 0
            pipe.grant(taken)
        try:
            for message in self._messages.feed(data):
                self._queue.came(self, self._router, message)
        except Exception as error:
            self.fail("says", error)

    def tell(self, message: ToRouter) -> None:
        try:
            self.pipe.write(encode(message))
        except Exception as error:
            self.fail("is to be told", error)

    def fail(self, what: str, error: Exception) -> None:
        """End it: the router begins anew, and says all that it waits for and has."""
        logger.error("what router %s %s cannot be taken, and it begins anew", self._router, what, exc_info=error)
        if not self.over.done():
            self.over.set_exception(SessionError(f"what this router {what} cannot be taken: {error}"))

    def has_room(self, pipe: Pipe) -> None: ...


class QueueActor:
    def __init__(self, controller: ActorHandle[Any], app: str, name: str) -> None:
        self._clock = time.monotonic
        self._loop = asyncio.get_running_loop()
        self._config: CapacityQueueConfig = DEFAULT
        self._config_bytes = b""
        self._hub = self._new_hub()
        self._sessions: dict[str, _Session] = {}
        self._handles: dict[str, ActorHandle[Any]] = {}
        self._following: dict[str, asyncio.Task[None]] = {}
        # What is to tell the routers at the end of this turn.
        self._due: asyncio.Handle | None = None
        # None: it is not known yet what the queue is to be.
        self._answering: DeploymentNews | None = None
        # Of deployments whose replicas read prompts for this one's: what is known of each that was ever named.
        self._reading: dict[str, DeploymentNews] = {}
        self._app = app
        self._connection = connection.set_controller(controller)
        self._connection.listen(("deployment", app, name), self._told, SERVE_ENDED)
        spawn(self._tick())

    def _new_hub(self) -> Hub:
        # Times since 1970 in nanoseconds: later than those of all queues before.
        return Hub(time.time_ns(), self._clock(), random.Random().random, self._config, key=token_bytes(32))

    # ---- the controller

    def _told(self, news: DeploymentNews) -> None:
        if news.queue is not None and news.queue.config != self._config_bytes:
            self._config_bytes, before = news.queue.config, self._config.prefill
            self._config = pickle.loads(news.queue.config)
            if self._answering is None or self._config.prefill != before:
                self._begin_anew()
        self._answering = news
        self._hub.update(
            self._config, news.max_ongoing, news.max_queued, [each.id for each in news.replicas], self._clock()
        )
        self._know_readers()
        self._follow_all()

    def _begin_anew(self) -> None:
        """A queue of another kind, as after a restart. Bands are those that it begins with."""
        self._hub = self._new_hub()
        for task in self._following.values():
            task.cancel()
        self._following.clear()
        for name in self._sessions:
            self._hub.join(name, self._clock())
        name = self._config.prefill
        if name is not None and name not in self._reading:
            self._reading[name] = NO_SUCH_DEPLOYMENT
            self._connection.listen(("deployment", self._app, name), partial(self._readers_told, name), SERVE_ENDED)

    def _readers_told(self, name: str, news: DeploymentNews) -> None:
        self._reading[name] = news
        self._know_readers()
        self._follow_all()

    def _know_readers(self) -> None:
        if (name := self._config.prefill) is not None:
            news = self._reading[name]
            self._hub.update_readers(news.max_ongoing, [each.id for each in news.replicas], self._clock())

    def _follow_all(self) -> None:
        name = self._config.prefill
        replicas = (self._answering or NO_SUCH_DEPLOYMENT).replicas + (
            () if name is None else self._reading[name].replicas
        )
        handles = self._handles = {each.id: each.handle for each in replicas}
        for id in [id for id in self._following if id not in handles]:
            self._following.pop(id).cancel()
        for id, handle in handles.items():
            if id not in self._following:
                self._following[id] = spawn(self._follow(id, handle))
        self._soon()

    async def _follow(self, id: str, handle: ActorHandle[Any]) -> None:
        """Hear what a replica runs, until it has gone."""
        leases = handle.leases.options(num_returns="streaming")
        while True:
            try:
                reports = leases.remote(self._hub.epoch)
                while said := await reports.next_values():
                    for each in said:
                        self._replica_said(id, each)
            except exceptions.ActorUnavailableError:
                pass
            except exceptions.ActorDiedError:
                self._hub.drop_replica(id, self._clock())
                self._soon()
                return
            except exceptions.ActorrtError as error:
                logger.warning("replica %s does not say what it runs: %s", id, error)
            except Exception:
                logger.exception("what replica %s runs could not be read: it is asked again", id)
            await asyncio.sleep(AGAIN_S)

    def _replica_said(self, id: str, said: tuple[Any, ...]) -> None:
        now = self._clock()
        if len(said) == len(Snapshot._fields):
            epoch, incarnation, offer, running, credits = said
            if epoch > self._hub.epoch:
                # The clock has gone back since a queue before this one: it is asked again.
                self._hub.begin_epoch(epoch + 1)
                return
            tags = tuple(Tag(*each) for each in running)
            self._hub.replica_said(
                id, Snapshot(epoch, incarnation, None if offer is None else Offer(*offer), tags, credits), now
            )
        elif len(said) == len(EngineLoad._fields):
            self._hub.engine_says(id, EngineLoad(*said), now)
        else:
            begun, ended, unknown, rooms = said
            self._hub.replica_reports(id, Report(begun, ended, tuple(Tag(*each) for each in unknown), rooms), now)
        self._soon()

    def _fence_due(self) -> None:
        for id, numbers in self._hub.to_fence(self._clock()).items():
            spawn(self._fence(id, self._handles[id], numbers))

    async def _fence(self, id: str, handle: ActorHandle[Any], numbers: list[int]) -> None:
        hub = self._hub
        try:
            # Who cannot be asked is asked again.
            with suppress(exceptions.ActorrtError):
                rooms = await handle.fence_leases.remote(hub.epoch, numbers)
                hub.replica_fenced(rooms, self._clock())
                self._soon()
        finally:
            hub.fence_ended(id)

    # ---- routers

    async def session(self, router: str) -> None:
        """A router's stream; it lasts until one of the two ends."""
        session = _Session(self, router)
        before = self._sessions.get(router)
        self._sessions[router] = session
        if before is not None and not before.over.done():
            before.over.set_result(None)
        if self._answering is not None:
            # Else once it is known what the queue is to be.
            self._hub.join(router, self._clock())
            self._soon()
        session.pipe.grant(WINDOW)
        try:
            await session.over
        finally:
            if self._sessions.get(router) is session:
                del self._sessions[router]
                self._hub.leave(router, self._clock())
                self._fence_due()
                self._soon()

    def came(self, session: _Session, router: str, message: bytes) -> None:
        if self._sessions.get(router) is not session:
            return  # it has begun anew
        self._hub.take(router, to_queue.decode(message), self._clock())
        self._soon()

    def _soon(self) -> None:
        if self._due is None:
            self._due = self._loop.call_soon(self._tell)

    def _tell(self) -> None:
        self._due = None
        for router, message in self._hub.told():
            if (session := self._sessions.get(router)) is not None:
                session.tell(message)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            try:
                self._step()
            except Exception:
                # Without it nobody's deadline would be looked at again.
                logger.exception("a step of the capacity queue failed, and the next one is taken")

    def _step(self) -> None:
        for router in self._hub.tick(self._clock()):
            session = self._sessions.pop(router, None)
            if session is not None and not session.over.done():
                session.over.set_result(None)
        self._fence_due()
        self._tell()

    # ---- others

    async def statistics(self) -> dict[str, Any]:
        return self._hub.statistics()

    async def why(self, name: str) -> list[str]:
        """What each request of this name waits for, or where it runs."""
        hub = self._hub
        look = hub.look_for(name)
        try:
            self._tell()
            await asyncio.sleep(FIND_S)
        finally:
            found = hub.found(name, look)
        return found

    async def until_death(self) -> None:
        await self._loop.create_future()

    async def stop(self, limit_s: float) -> None: ...

    async def leave(self, limit_s: float) -> None:
        with suppress(exceptions.ActorrtError):
            exit_actor()
