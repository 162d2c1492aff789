"""The deployments that are wanted and their replicas: decisions of fleet.py, performed.

Each thing that happens to a replica becomes an event for it; after each event it is decided anew. User code is never
loaded here: replicas do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

from actorrt import ActorHandle, exceptions, kill, remote

from ..base.background import spawn
from ..base.connection import NAMESPACE
from ..base.topics import Topic, Topics
from ..capacity_queue.actor import QueueActor
from ..declaration.spec import DeploymentId, DeploymentSpec
from ..replica.lifecycle import ReplicaAction, ReplicaEvent, placed
from ..replica.replica import Replica
from . import replica_calls
from .deployment import Deployment
from .fleet import Begin, FindOut, Fleet, Perform
from .kept import KeptQueue, KeptRecord, KeptReplica
from .replica_record import ReplicaRecord

logger = logging.getLogger("actorrt.serve")

# Far above any limit of a deployment: a replica keeps to its own.
MANY_CALLS: Final = 100_000
ANSWER_TIMEOUT_S: Final = 5.0
# A capacity queue that cannot be started is tried again after so long.
QUEUE_AGAIN_S: Final = 0.5
# After a decision that failed.
DECIDE_AGAIN_S: Final = 1.0

_ReplicaActor = remote(Replica)
_QueueActor = remote(QueueActor)


class Deployments:
    """`settled` is set, and replaced, after each decision; `save` is called when there may be something new to keep."""

    def __init__(self, controller: ActorHandle[Any], topics: Topics, save: Callable[[], None]) -> None:
        self._controller = controller
        self._topics = topics
        self._save = save
        self.fleet = Fleet()
        # The actors of all replicas, by their names, and the capacity queues.
        self._handles: dict[str, ActorHandle[Any]] = {}
        self._queues: dict[DeploymentId, KeptQueue] = {}
        self._changed = asyncio.Event()
        self.settled = asyncio.Event()

    def topic(self, id: DeploymentId) -> Topic:
        return self._topics[_topic_name(id)]

    def queues(self) -> dict[DeploymentId, ActorHandle[Any]]:
        """The capacity queues that there are."""
        return {id: queue.handle for id, queue in self._queues.items()}

    def want(self, app: str, specs: tuple[DeploymentSpec, ...]) -> None:
        """These are the deployments of an application from now on."""
        self.fleet.want(app, specs)
        for deployment in self.fleet.of(app):
            self._topics.hold(_topic_name(deployment.id))
            self.publish(deployment)
        self.decide()

    def _have(self, id: DeploymentId) -> Deployment:
        self._topics.hold(_topic_name(id))
        return self.fleet.have(id)

    async def adopt(self, id: DeploymentId, spec: DeploymentSpec, kept: KeptReplica) -> None:
        """Take over a replica of the controller before this one: it goes on with what it does, or is ended."""
        handle, state, config_version = kept.handle, kept.state, kept.config_version
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                state, config_version = await handle.state.remote()
        except exceptions.ActorDiedError:
            return
        except (TimeoutError, exceptions.ActorrtError) as error:
            # It may only be busy: it is what it was, and health checks find out whether it still is.
            logger.warning("replica %s of %s does not say how it is: %s", kept.id, id, str(error) or "no answer")
        deployment = self._have(id)
        replica, action = ReplicaRecord.adopted(kept.id, spec, state, time.monotonic(), config_version)
        self._handles[_name(id.app, kept.id)] = handle
        deployment.adopt(replica)
        spawn(self._watch(deployment, kept.id, handle))
        self._act(deployment, replica, action, "")

    def restore(
        self, retiring: Iterable[DeploymentSpec], accepted: Iterable[DeploymentSpec], records: Iterable[KeptRecord]
    ) -> None:
        """Go on with the updates of the controller before this one, which had these, besides what is wanted."""
        for spec in retiring:
            self._have(spec.id).restore_retiring(spec)
        for spec in accepted:
            self._have(spec.id).restore_accepted(spec)
        for kept in records:
            deployment = self._have(kept.deployment)
            deployment.restore(kept.history, kept.before)
            if kept.queue is not None:
                self._have_queue(kept.deployment, kept.queue)

    def kept(self) -> tuple[tuple[KeptReplica, ...], tuple[KeptRecord, ...]]:
        """What a later controller needs to adopt each replica, and how each deployment has done."""
        replicas = tuple(
            KeptReplica(deployment.id, each.spec.version, each.id, each.state, each.config_version, handle)
            for deployment in self.fleet
            for each in deployment.replicas.values()
            if (handle := self._handle_of(deployment, each.id)) is not None
        )
        records = (KeptRecord(each.id, *each.progress(), self._queues.get(each.id)) for each in self.fleet)
        return replicas, tuple(records)

    def names(self) -> set[str]:
        """Of the actors of all replicas and queues."""
        return {queue.name for queue in self._queues.values()} | set(self._handles)

    def publish(self, deployment: Deployment) -> None:
        """Tell routers, if there is something new for them."""
        queue = self._queues.get(deployment.id)
        self.topic(deployment.id).offer(deployment.news(partial(self._handle_of, deployment), queue and queue.handle))

    def _handle_of(self, deployment: Deployment, replica: str) -> ActorHandle[Any] | None:
        return self._handles.get(_name(deployment.id.app, replica))

    # Deciding.

    def decide(self) -> None:
        """Something has changed: decide anew, soon."""
        self._changed.set()

    def start(self) -> None:
        """Decide now, and go on doing so."""
        spawn(self._run(self._decide_now()))

    async def _run(self, wake_at: float | None) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if wake_at is None else max(0.0, wake_at - time.monotonic())):
                    await self._changed.wait()
            wake_at = self._decide_now()

    def _decide_now(self) -> float | None:
        """Decide and act. When to do so again though nothing has changed."""
        self._changed.clear()
        try:
            return self._reconcile()
        except Exception:
            # An error of ours must not end the care for all deployments.
            logger.exception("a decision about deployments failed")
            return time.monotonic() + DECIDE_AGAIN_S

    def _reconcile(self) -> float | None:
        decided = self.fleet.decide(time.monotonic(), _new_id)
        for effect in decided.effects:
            # What has an effect has not gone: its replica is there.
            deployment = self.fleet.have(effect.deployment)
            match effect:
                case Begin(_, id):
                    self._begin(deployment, id)
                case Perform(_, id, action):
                    self._act(deployment, deployment.replicas[id], action, "")
                case FindOut(_, id):
                    spawn(self._explain(deployment.replicas[id]))
        if decided.again:
            self.decide()
        self._see_to_queues()
        for id in decided.gone:
            self._topics.release(_topic_name(id))
        for deployment in self.fleet:
            self.publish(deployment)
        self._save()
        settled, self.settled = self.settled, asyncio.Event()
        settled.set()
        return decided.wake_at

    def _happens(self, deployment: Deployment, id: str, event: ReplicaEvent, reason: str = "") -> None:
        """An event for a replica: what the table says is to be done."""
        replica = deployment.replicas.get(id)
        if replica is None:
            return
        for action in deployment.happens(id, event, time.monotonic(), reason):
            self._act(deployment, replica, action, reason)
        self.decide()

    def _act(self, deployment: Deployment, replica: ReplicaRecord, action: ReplicaAction, reason: str) -> None:
        name = _name(deployment.id.app, replica.id)
        handle = self._handles[name]
        match action:
            case ReplicaAction.FORGET:
                del self._handles[name]
            case ReplicaAction.CONSTRUCT:
                spawn(self._construct(deployment, replica, handle))
            case ReplicaAction.ROUTE:
                self.publish(deployment)
                spawn(self._check_health(deployment, replica, handle))
            case ReplicaAction.UNROUTE:
                self.publish(deployment)
            case ReplicaAction.RECONFIGURE:
                spawn(self._reconfigure(deployment, replica, handle))
            case ReplicaAction.DRAIN:
                spawn(self._drain(deployment, replica, handle))
            case ReplicaAction.KILL:
                spawn(replica_calls.stop(replica, handle))
            case ReplicaAction.NOTE_START_FAILURE:
                logger.warning("replica %s of %s failed as it started: %s", replica.id, deployment.id, reason)
            case ReplicaAction.NOTE_DEATH:
                logger.warning("replica %s of %s is lost: %s", replica.id, deployment.id, reason)
            case ReplicaAction.NOTE_UPDATE_FAILURE:
                pass

    # Doing.

    def _see_to_queues(self) -> None:
        """Have a capacity queue where one is wanted, and none elsewhere."""
        unwanted, missing = self.fleet.queues(self._queues.keys())
        for id in unwanted:
            kill(self._queues.pop(id).handle)
        for id in missing:
            self._start_queue(id)

    def _start_queue(self, id: DeploymentId) -> None:
        name = f"{id}#queue-{uuid.uuid4().hex[:8]}"
        try:
            queue: ActorHandle[Any] = _QueueActor.options(
                on_runtime_loop=True,
                max_concurrency=MANY_CALLS,
                max_restarts=-1,
                lifetime="detached",
                namespace=NAMESPACE,
                name=name,
            ).remote(self._controller, *id)
        except exceptions.ActorrtError as error:
            # Its name is not to be had: the head is gone. Routers do without it meanwhile.
            logger.warning("the capacity queue of %s cannot be started yet: %s", id, error)
            asyncio.get_running_loop().call_later(QUEUE_AGAIN_S, self.decide)
            return
        self._have_queue(id, KeptQueue(name, queue))

    def _have_queue(self, id: DeploymentId, queue: KeptQueue) -> None:
        self._queues[id] = queue
        spawn(self._watch_queue(id, queue))

    async def _watch_queue(self, id: DeploymentId, queue: KeptQueue) -> None:
        while self._queues.get(id) is queue:
            try:
                await queue.handle.until_death.remote()
            except exceptions.ActorUnavailableError as error:
                logger.warning("the capacity queue of %s is restarted: %s", id, error)
            except exceptions.ActorrtError as error:
                if self._queues.get(id) is queue:
                    logger.error("the capacity queue of %s is gone, another is started: %s", id, error)
                    del self._queues[id]
                    self.decide()

    def _begin(self, deployment: Deployment, id: str) -> None:
        spec = deployment.replicas[id].spec
        name = _name(spec.id.app, id)
        try:
            handle: ActorHandle[Any] = _ReplicaActor.options(
                **dict(spec.options.actor_options),
                isolated=True,
                max_concurrency=MANY_CALLS,
                lifetime="detached",
                namespace=NAMESPACE,
                name=name,
            ).remote(self._controller)
        except Exception as error:
            deployment.not_started(id, time.monotonic(), f"{type(error).__name__}: {error}")
            return
        self._handles[name] = handle
        spawn(self._watch(deployment, id, handle))
        spawn(self._place(deployment, id, handle))

    async def _watch(self, deployment: Deployment, id: str, handle: ActorHandle[Any]) -> None:
        self._happens(deployment, id, ReplicaEvent.DIED, await replica_calls.death(handle))

    async def _place(self, deployment: Deployment, id: str, handle: ActorHandle[Any]) -> None:
        trouble = await replica_calls.place(handle)
        self._happens(deployment, id, placed(trouble), trouble)

    async def _construct(self, deployment: Deployment, replica: ReplicaRecord, handle: ActorHandle[Any]) -> None:
        trouble = await replica_calls.construct(replica, handle, first_try=not deployment.history.failures)
        self._happens(deployment, replica.id, replica.constructed(trouble), trouble)

    async def _reconfigure(self, deployment: Deployment, replica: ReplicaRecord, handle: ActorHandle[Any]) -> None:
        spec = deployment.aim()
        trouble = "" if spec is None else await replica_calls.reconfigure(handle, spec)
        self._happens(deployment, replica.id, deployment.answered(replica.id, spec, trouble), trouble)

    async def _drain(self, deployment: Deployment, replica: ReplicaRecord, handle: ActorHandle[Any]) -> None:
        await replica_calls.drain(replica, handle, self.topic(deployment.id))
        self._happens(deployment, replica.id, ReplicaEvent.DRAINED)

    async def _check_health(self, deployment: Deployment, replica: ReplicaRecord, handle: ActorHandle[Any]) -> None:
        if illness := await replica_calls.illness(replica, handle):
            self._happens(deployment, replica.id, ReplicaEvent.UNHEALTHY, illness)

    async def _explain(self, replica: ReplicaRecord) -> None:
        asked_at = replica.explained_at
        missing, lacks = await replica_calls.explain(replica)
        if replica.explained(asked_at, missing, lacks):
            self.decide()


def _name(app: str, replica: str) -> str:
    return f"{app}#{replica}"


def _topic_name(id: DeploymentId) -> tuple[str, ...]:
    return ("deployment", *id)


def _new_id(deployment: DeploymentId) -> str:
    return f"{deployment.name}-{uuid.uuid4().hex[:8]}"
