"""The deployments that are wanted and their replicas: decisions of reconcile.py, performed.

Each thing that happens to a replica becomes an event for its state machine; after each event it is decided anew. User
code is never loaded here: replicas do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from actorrt import ActorHandle, exceptions, kill, remote

from ..base.background import spawn
from ..base.connection import NAMESPACE
from ..base.topics import Topics
from ..capacity_queue.actor import QueueActor
from ..declaration.spec import DeploymentId, DeploymentSpec
from ..replica.lifecycle import COMING, ROUTED, ReplicaAction, ReplicaEvent, ReplicaState, advance
from ..replica.replica import Replica
from . import replica_calls
from .controller_state import DeploymentRecord, ReplicaRecord, crowd_out, end_of_update
from .history import History
from .kept import KeptQueue, KeptRecord, KeptReplica
from .reconcile import Drain, Explain, Kill, Start, Update, reconcile
from .statuses import DeploymentStatus

logger = logging.getLogger("actorrt.serve")

# Far above any limit of a deployment: a replica keeps to its own.
MANY_CALLS: Final = 100_000
ANSWER_TIMEOUT_S: Final = 5.0
# A capacity queue that cannot be started is tried again after so long.
QUEUE_AGAIN_S: Final = 0.5

_ReplicaActor = remote(Replica)
_QueueActor = remote(QueueActor)


class Deployments:
    """`settled` is set, and replaced, after each decision; `save` is called when there may be something new to keep."""

    def __init__(self, controller: ActorHandle[Any], topics: Topics, save: Callable[[], None]) -> None:
        self._controller = controller
        self._topics = topics
        self._save = save
        self._records: dict[DeploymentId, DeploymentRecord] = {}
        self._changed = asyncio.Event()
        self.settled = asyncio.Event()

    def __iter__(self) -> Iterator[DeploymentRecord]:
        return iter(self._records.values())

    def get(self, id: DeploymentId) -> DeploymentRecord | None:
        return self._records.get(id)

    def of(self, app: str) -> list[DeploymentRecord]:
        return [record for record in self if record.id.app == app]

    def want(self, app: str, specs: tuple[DeploymentSpec, ...]) -> None:
        """These are the deployments of an application from now on."""
        wanted = {each.id for each in specs}
        for record in self.of(app):
            if record.id not in wanted:
                record.drop(with_application=not specs)
        for each in specs:
            self._record(each.id).want(each)
        for record in self.of(app):
            self.publish(record)
        self.decide()

    def _record(self, id: DeploymentId) -> DeploymentRecord:
        record = self._records.get(id)
        if record is None:
            record = self._records[id] = DeploymentRecord(id, None, self._topics.hold(("deployment", *id)))
        return record

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
        constructed = state not in COMING
        if state in ROUTED:
            state = ReplicaState.RUNNING
        elif state is not ReplicaState.DRAINING:
            # The call that constructed it ended with its caller, or it was being ended already.
            state = ReplicaState.STOPPING
        record = self._record(id)
        now = time.monotonic()
        replica = ReplicaRecord(
            kept.id, spec, handle, state, now, config_version, constructed=constructed, may_clean_up=constructed
        )
        record.replicas[kept.id] = replica
        spawn(self._watch(record, kept.id, handle))
        if state is ReplicaState.RUNNING:
            record.note(spec.version, History.after_ready)
            spawn(self._check_health(record, replica))
        elif state is ReplicaState.DRAINING:
            spawn(self._drain(record, replica))
        else:
            spawn(replica_calls.stop(replica))

    def restore(
        self, retiring: Iterable[DeploymentSpec], accepted: Iterable[DeploymentSpec], records: Iterable[KeptRecord]
    ) -> None:
        """Go on with the updates of the controller before this one, which had these, besides what is wanted."""
        for spec in retiring:
            record = self._record(spec.id)
            record.want(spec)
            record.retiring = True
        for spec in accepted:
            self._record(spec.id).accepted = spec
        for kept in records:
            record = self._record(kept.deployment)
            record.restore(kept)
            if record.queue is not None:
                spawn(self._watch_queue(record, record.queue))

    def kept(self) -> tuple[KeptReplica, ...]:
        """What a later controller needs to adopt each replica."""
        return tuple(
            KeptReplica(record.id, each.spec.version, each.id, each.state, each.config_version, each.handle)
            for record in self
            for each in record.replicas.values()
        )

    def names(self) -> set[str]:
        """Of the actors of all replicas."""
        queues = {record.queue.name for record in self if record.queue is not None}
        return queues | {_name(record.id.app, each) for record in self for each in record.replicas}

    def publish(self, record: DeploymentRecord) -> None:
        """Tell routers, if there is something new for them."""
        value = record.routing()
        if value != record.topic.value:
            record.topic.publish(value)

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
            return time.monotonic() + 1.0

    def _reconcile(self) -> float | None:
        for record in self:
            record.note_accepted()
        wanted = {id: target for id, record in self._records.items() if (target := record.target()) is not None}
        observed = {id: record.observed() for id, record in self._records.items()}
        decision = reconcile(wanted, observed, time.monotonic())
        for id, status in decision.statuses.items():
            record = self._records[id]
            record.status = status
            if status.status is DeploymentStatus.HEALTHY and not record.history.settled:
                record.history = record.history.after_settling()
        for action in decision.actions:
            record = self._records[action.deployment]
            match action:
                case Start():
                    self._start_replica(record)
                case Update(_, id):
                    self._happens(record, id, ReplicaEvent.UPDATE)
                case Drain(_, id):
                    self._happens(record, id, ReplicaEvent.DRAIN)
                case Kill(_, id):
                    self._happens(record, id, ReplicaEvent.KILL)
                case Explain(_, id):
                    replica = record.replicas[id]
                    replica.explained_at = time.monotonic()
                    spawn(self._explain(replica))
        retiring = [each for each in self if each.retiring and each.spec is not None]
        for app in {each.id.app for each in retiring}:
            if end_of_update(self.of(app)) or crowd_out(self.of(app)):
                for record in retiring:
                    if record.id.app == app:
                        record.spec = None
                self.decide()
        for record in self._records.values():
            self._see_to_queue(record)
        for record in [each for each in self._records.values() if each.spec is None and not each.replicas]:
            del self._records[record.id]
            self._topics.release(("deployment", *record.id))
        for record in self._records.values():
            self.publish(record)
        self._save()
        settled, self.settled = self.settled, asyncio.Event()
        settled.set()
        return decision.wake_at

    def _happens(self, record: DeploymentRecord, id: str, event: ReplicaEvent, reason: str = "") -> None:
        """An event for a replica: the next state, and what the table says is to be done."""
        replica = record.replicas.get(id)
        if replica is None:
            return
        before, since = replica.state, replica.since
        replica.state, actions = advance(before, event)
        if replica.state is not before:
            replica.since = time.monotonic()
        for action in actions:
            self._act(record, replica, action, reason, replica.since - since)
        self.decide()

    def _act(
        self, record: DeploymentRecord, replica: ReplicaRecord, action: ReplicaAction, reason: str, lived_s: float
    ) -> None:
        now = time.monotonic()
        version = replica.spec.version
        match action:
            case ReplicaAction.CONSTRUCT:
                spawn(self._construct(record, replica))
            case ReplicaAction.ROUTE:
                replica.constructed = True
                record.note(version, History.after_ready)
                self.publish(record)
                spawn(self._check_health(record, replica))
            case ReplicaAction.UNROUTE:
                self.publish(record)
            case ReplicaAction.RECONFIGURE:
                spawn(self._reconfigure(record, replica))
            case ReplicaAction.DRAIN:
                spawn(self._drain(record, replica))
            case ReplicaAction.KILL:
                spawn(replica_calls.stop(replica))
            case ReplicaAction.NOTE_START_FAILURE:
                logger.warning("replica %s of %s failed as it started: %s", replica.id, record.id, reason)
                record.note(version, lambda history: history.after_start_failure(now, reason))
            case ReplicaAction.NOTE_DEATH:
                logger.warning("replica %s of %s is lost: %s", replica.id, record.id, reason)
                record.note(version, lambda history: history.after_death(lived_s, now, reason))
            case ReplicaAction.NOTE_UPDATE_FAILURE:
                refused = replica.refused
                record.note(version, lambda history: history.after_refused_config(refused, reason))
            case ReplicaAction.FORGET:
                record.forget(replica.id, now)

    # Doing.

    def _see_to_queue(self, record: DeploymentRecord) -> None:
        """Have a capacity queue if one is wanted, and none if not."""
        wanted = record.wants_queue()
        if not wanted and record.queue is not None:
            before, record.queue = record.queue, None
            kill(before.handle)
        elif wanted and record.queue is None:
            name = f"{record.id}#queue-{uuid.uuid4().hex[:8]}"
            try:
                queue: ActorHandle[Any] = _QueueActor.options(
                    on_runtime_loop=True,
                    max_concurrency=MANY_CALLS,
                    max_restarts=-1,
                    lifetime="detached",
                    namespace=NAMESPACE,
                    name=name,
                ).remote(self._controller, *record.id)
            except exceptions.ActorrtError as error:
                # Its name is not to be had: the head is gone. Routers do without it meanwhile.
                logger.warning("the capacity queue of %s cannot be started yet: %s", record.id, error)
                asyncio.get_running_loop().call_later(QUEUE_AGAIN_S, self.decide)
                return
            record.queue = KeptQueue(name, queue)
            spawn(self._watch_queue(record, record.queue))

    async def _watch_queue(self, record: DeploymentRecord, queue: KeptQueue) -> None:
        while record.queue is queue:
            try:
                await queue.handle.until_death.remote()
            except exceptions.ActorUnavailableError as error:
                logger.warning("the capacity queue of %s is restarted: %s", record.id, error)
            except exceptions.ActorrtError as error:
                if record.queue is queue:
                    logger.error("the capacity queue of %s is gone, another is started: %s", record.id, error)
                    record.queue = None
                    self.decide()

    def _start_replica(self, record: DeploymentRecord) -> None:
        spec = record.aim()
        assert spec is not None
        id = f"{spec.id.name}-{uuid.uuid4().hex[:8]}"
        now = time.monotonic()
        record.note(spec.version, lambda history: history.after_start(now))
        try:
            handle: ActorHandle[Any] = _ReplicaActor.options(
                **dict(spec.options.actor_options),
                isolated=True,
                max_concurrency=MANY_CALLS,
                lifetime="detached",
                namespace=NAMESPACE,
                name=_name(spec.id.app, id),
            ).remote(self._controller)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            record.note(spec.version, lambda history: history.after_start_failure(now, reason))
            self.decide()
            return
        record.replicas[id] = ReplicaRecord(id, spec, handle, ReplicaState.PLACING, now, spec.config_version)
        spawn(self._watch(record, id, handle))
        spawn(self._place(record, id, handle))
        self.decide()

    async def _watch(self, record: DeploymentRecord, id: str, handle: ActorHandle[Any]) -> None:
        self._happens(record, id, ReplicaEvent.DIED, await replica_calls.death(handle))

    async def _place(self, record: DeploymentRecord, id: str, handle: ActorHandle[Any]) -> None:
        trouble = await replica_calls.place(handle)
        self._happens(record, id, ReplicaEvent.START_FAILED if trouble else ReplicaEvent.PLACED, trouble)

    async def _construct(self, record: DeploymentRecord, replica: ReplicaRecord) -> None:
        trouble = await replica_calls.construct(replica, first_try=not record.history.failures)
        replica.may_clean_up = True
        self._happens(record, replica.id, ReplicaEvent.START_FAILED if trouble else ReplicaEvent.READY, trouble)

    async def _reconfigure(self, record: DeploymentRecord, replica: ReplicaRecord) -> None:
        spec = record.aim()
        if spec is None:
            self._happens(record, replica.id, ReplicaEvent.UPDATED)
            return
        trouble = await replica_calls.reconfigure(replica, spec)
        replica.refused = spec.config_version if trouble else ""
        if not trouble:
            replica.config_version = spec.config_version
        # Another may be wanted by now, of which this says nothing.
        still_wanted = record.spec is not None and record.spec.config_version == spec.config_version
        failed = trouble and still_wanted
        self._happens(record, replica.id, ReplicaEvent.UPDATE_FAILED if failed else ReplicaEvent.UPDATED, trouble)

    async def _drain(self, record: DeploymentRecord, replica: ReplicaRecord) -> None:
        await replica_calls.drain(replica, record.topic)
        self._happens(record, replica.id, ReplicaEvent.DRAINED)

    async def _check_health(self, record: DeploymentRecord, replica: ReplicaRecord) -> None:
        if illness := await replica_calls.illness(replica):
            self._happens(record, replica.id, ReplicaEvent.UNHEALTHY, illness)

    async def _explain(self, replica: ReplicaRecord) -> None:
        asked_at = replica.explained_at
        missing, lacks = await replica_calls.explain(replica)
        # Something may have been given back meanwhile.
        if replica.explained_at == asked_at:
            replica.missing, replica.lacks = missing, lacks
            self.decide()


def _name(app: str, replica: str) -> str:
    return f"{app}#{replica}"
