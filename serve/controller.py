"""The controller: the actor that brings about what is wanted, by the decisions of reconcile.py.

Each thing that happens to a replica becomes an event for its state machine; after each event it is decided anew. The
controller never loads user code: replicas do.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
import uuid
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from typing import Any, Final

from actorrt import (
    ActorHandle,
    available_resources,
    cluster_resources,
    exceptions,
    get_runtime_context,
    kill,
    remote,
)

from .connection import NAMESPACE
from .controller_state import ApplicationRecord, DeploymentRecord, ReplicaRecord
from .http_options import HTTPOptions
from .lifecycle import ROUTED, ReplicaAction, ReplicaEvent, ReplicaState, advance
from .proxy import Proxy
from .reconcile import Drain, Explain, Kill, Start, Update, missing_resources, reconcile
from .replica import Replica, ReplicaSettings
from .spec import ApplicationSpec, DeploymentId
from .statuses import ApplicationStatus, DeploymentStatus, ProxyStatus, ServeStatus
from .topics import Topic

logger = logging.getLogger("actorrt.serve")

# Far above any limit of a deployment: a replica keeps to its own.
MANY_CALLS: Final = 100_000
UNHEALTHY_CHECKS: Final = 3
# What ends by itself after a drain, `__del__` and an application's shutdown, may take this long.
STOP_TIMEOUT_S: Final = 5.0
# Who has not acted on news within this time is not waited for any longer.
SLOWEST_LISTENER_S: Final = 2.0
# A proxy that cannot be started again is tried so often, with so many seconds in between.
PROXY_RESTARTS_S: Final = (0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0)
ROUTES: Final = ("routes",)
_NO_SUCH_DEPLOYMENT: Final = ("there is no such deployment", 1, -1, ())

_ReplicaActor = remote(Replica)
_ProxyActor = remote(Proxy)


class Controller:
    def __init__(self) -> None:
        self._apps: dict[str, ApplicationRecord] = {}
        self._deployments: dict[DeploymentId, DeploymentRecord] = {}
        self._topics: dict[tuple[str, ...], Topic] = {ROUTES: Topic({})}
        self._proxy: ActorHandle[Any] | None = None
        self._proxy_url = ""
        self._proxy_status = ProxyStatus.STARTING
        self._proxy_options = HTTPOptions()
        self._proxy_lock = asyncio.Lock()
        self._changed = asyncio.Event()
        self._settled = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._me = get_runtime_context().current_actor
        self._spawn(self._reconcile_for_ever())

    # What users ask for.

    async def deploy(self, spec: ApplicationSpec) -> str:
        """Bring an application up, or up to date. "" if that is under way, else why it is not."""
        for other in self._apps.values():
            taken = other.spec.route_prefix is not None and other.spec.route_prefix == spec.route_prefix
            if taken and other.spec.name != spec.name and not other.deleting:
                return f"route_prefix {spec.route_prefix!r} belongs to application {other.spec.name!r}"
        self._apps[spec.name] = ApplicationRecord(spec, time.time())
        wanted = {each.id for each in spec.deployments}
        for id, record in self._deployments.items():
            if id.app == spec.name and id not in wanted:
                record.spec = None
        for each in spec.deployments:
            self._deployment(each.id).want(each)
        self._decide()
        self._publish_all()
        return ""

    def _deployment(self, id: DeploymentId) -> DeploymentRecord:
        record = self._deployments.get(id)
        if record is None:
            topic = self._topics.setdefault(("deployment", *id), Topic(_NO_SUCH_DEPLOYMENT))
            record = self._deployments[id] = DeploymentRecord(id, None, topic)
        return record

    async def wait_until_up(self, app: str) -> str:
        """ "" once the application runs, else why it never will."""
        while True:
            record = self._apps.get(app)
            if record is None or record.deleting:
                return "it was deleted"
            overview = record.overview(self._deployments)
            if overview.status is ApplicationStatus.RUNNING:
                # Whoever asks next, by whatever router, gets what was deployed.
                await self._known_to_all(app)
                return ""
            if overview.status is ApplicationStatus.DEPLOY_FAILED:
                return overview.message
            await self._settled.wait()

    async def delete(self, app: str) -> bool:
        """Take an application down; returns when its last replica has gone. False if there is none."""
        record = self._apps.get(app)
        if record is None:
            return False
        record.deleting = True
        for id, deployment in self._deployments.items():
            if id.app == app:
                deployment.spec = None
        self._publish_all()
        self._decide()
        await self._known_to_all(app)
        while any(id.app == app and each.spec is None for id, each in self._deployments.items()):
            await self._settled.wait()
        if self._apps.get(app) is record:
            del self._apps[app]
            self._publish_routes()
        return True

    async def shutdown(self) -> None:
        """Drain the proxy, then take every application down."""
        await self.drain_proxy()
        await asyncio.gather(*(self.delete(name) for name in list(self._apps)))

    async def status(self) -> ServeStatus:
        apps = {name: record.overview(self._deployments) for name, record in self._apps.items()}
        return ServeStatus(apps, {self._proxy_url: self._proxy_status} if self._proxy_url else {})

    async def ingress_of(self, app: str) -> str:
        """The ingress deployment's name, or "" if there is no such application."""
        record = self._apps.get(app)
        return "" if record is None or record.deleting else record.spec.ingress

    async def has_deployment(self, app: str, name: str) -> bool:
        record = self._deployments.get(DeploymentId(app, name))
        return record is not None and record.spec is not None

    async def _known_to_all(self, app: str) -> None:
        """Every router and proxy has acted on the last news of an application."""
        topics = [self._topics[ROUTES], *(each.topic for id, each in self._deployments.items() if id.app == app)]
        await asyncio.gather(*(topic.acted_on(topic.version, SLOWEST_LISTENER_S) for topic in topics))

    # Proxies.

    async def start_proxy(self, options: HTTPOptions, only_if_none: bool) -> tuple[str, str]:
        """(its URL, "") or ("", why it cannot listen). There is one; other options than it has are refused."""
        async with self._proxy_lock:
            if self._proxy is None:
                return await self._start_proxy(options, options.port)
        if not only_if_none and options != self._proxy_options:
            return "", f"a proxy with other HTTP options listens on {self._proxy_url} already"
        return self._proxy_url, ""

    async def _start_proxy(self, options: HTTPOptions, port: int) -> tuple[str, str]:
        proxy: ActorHandle[Any] = _ProxyActor.options(
            on_runtime_loop=True, max_concurrency=MANY_CALLS, lifetime="detached", namespace=NAMESPACE, name="proxy"
        ).remote(self._me, replace(options, port=port))
        try:
            url, trouble = await proxy.start.remote()
        except exceptions.ActorrtError as error:
            url, trouble = "", f"the proxy did not start: {error}"
        if trouble:
            kill(proxy)
            return "", trouble
        self._proxy, self._proxy_options = proxy, options
        self._proxy_url, self._proxy_status = url, ProxyStatus.HEALTHY
        self._spawn(self._watch_proxy(proxy))
        return url, ""

    async def _watch_proxy(self, proxy: ActorHandle[Any]) -> None:
        try:
            await proxy.until_death.remote()
        except exceptions.ActorrtError as error:
            if self._proxy is not proxy or self._proxy_status is ProxyStatus.DRAINING:
                return
            logger.error("the proxy is gone, another is started: %s", error)
        self._proxy, self._proxy_status = None, ProxyStatus.UNHEALTHY
        # On the port that clients know, also where any port would have done at first.
        port = int(self._proxy_url.rpartition(":")[2])
        async with self._proxy_lock:
            for wait_s in PROXY_RESTARTS_S:
                _, trouble = await self._start_proxy(self._proxy_options, port)
                if not trouble:
                    return
                logger.error("%s", trouble)
                await asyncio.sleep(wait_s)

    async def drain_proxy(self) -> None:
        """Have the proxy take no new connections and finish what it has; then it ends."""
        proxy = self._proxy
        if proxy is not None:
            self._proxy_status = ProxyStatus.DRAINING
            try:
                listener: str = await proxy.drain.remote()
                for topic in self._topics.values():
                    topic.forget(listener)
            except exceptions.ActorrtError:
                logger.info("the proxy had gone before it was drained")
            self._proxy = None
            self._proxy_status = ProxyStatus.DRAINED
            kill(proxy)

    # News for routers and proxies.

    async def listen(self, listener: str, topic: tuple[str, ...], version: int) -> tuple[int, Any]:
        """The value of a topic after `version`; see topics.py."""
        found = self._topics.get(topic)
        if found is None:
            found = self._topics[topic] = Topic(_NO_SUCH_DEPLOYMENT)
        return await found.next_for(listener, version)

    def _publish(self, record: DeploymentRecord) -> None:
        value = record.routing()
        if value != record.topic.value:
            record.topic.publish(value)

    def _publish_all(self) -> None:
        for record in self._deployments.values():
            self._publish(record)
        self._publish_routes()

    def _publish_routes(self) -> None:
        routes = {
            record.spec.route_prefix: (name, record.spec.ingress)
            for name, record in self._apps.items()
            if record.spec.route_prefix is not None and not record.deleting
        }
        if routes != self._topics[ROUTES].value:
            self._topics[ROUTES].publish(routes)

    # Deciding.

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        # In an empty context: this goes on after the call that began it, and is no part of it.
        task = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a step of the controller failed", exc_info=error)

    def _decide(self) -> None:
        self._changed.set()

    async def _reconcile_for_ever(self) -> None:
        while True:
            self._changed.clear()
            wake_at = self._reconcile()
            try:
                async with asyncio.timeout(None if wake_at is None else max(0.0, wake_at - time.monotonic())):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _reconcile(self) -> float | None:
        wanted = {id: target for id, record in self._deployments.items() if (target := record.target()) is not None}
        observed = {id: record.observed() for id, record in self._deployments.items()}
        decision = reconcile(wanted, observed, time.monotonic())
        for id, status in decision.statuses.items():
            record = self._deployments[id]
            record.status = status
            if status.status is DeploymentStatus.HEALTHY and not record.history.settled:
                record.history = record.history.after_settling()
        for action in decision.actions:
            record = self._deployments[action.deployment]
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
                    self._spawn(self._explain(record.replicas[id]))
        for record in [each for each in self._deployments.values() if each.spec is None and not each.replicas]:
            del self._deployments[record.id]
        for record in self._deployments.values():
            self._publish(record)
        settled, self._settled = self._settled, asyncio.Event()
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
        self._decide()

    def _act(
        self, record: DeploymentRecord, replica: ReplicaRecord, action: ReplicaAction, reason: str, lived_s: float
    ) -> None:
        now = time.monotonic()
        current = record.history.version == replica.spec.version
        match action:
            case ReplicaAction.CONSTRUCT:
                self._spawn(self._construct(record, replica))
            case ReplicaAction.ROUTE:
                replica.constructed = True
                if current:
                    record.history = record.history.after_ready()
                self._publish(record)
                self._spawn(self._check_health(record, replica))
            case ReplicaAction.UNROUTE:
                self._publish(record)
            case ReplicaAction.RECONFIGURE:
                self._spawn(self._reconfigure(record, replica))
            case ReplicaAction.DRAIN:
                self._spawn(self._drain(record, replica))
            case ReplicaAction.KILL:
                self._spawn(self._stop(replica))
            case ReplicaAction.NOTE_START_FAILURE:
                if current:
                    record.history = record.history.after_start_failure(now, reason)
            case ReplicaAction.NOTE_DEATH:
                logger.warning("replica %s of %s is lost: %s", replica.id, record.id, reason)
                if current:
                    record.history = record.history.after_death(lived_s, now, reason)
            case ReplicaAction.NOTE_UPDATE_FAILURE:
                if record.spec is not None and current:
                    record.history = record.history.after_refused_config(record.spec.config_version, reason)
            case ReplicaAction.FORGET:
                del record.replicas[replica.id]

    # Doing.

    def _start_replica(self, record: DeploymentRecord) -> None:
        spec = record.spec
        assert spec is not None
        id = f"{spec.id.name}-{uuid.uuid4().hex[:8]}"
        now = time.monotonic()
        try:
            handle: ActorHandle[Any] = _ReplicaActor.options(
                **dict(spec.options.actor_options),
                isolated=True,
                max_concurrency=MANY_CALLS,
                lifetime="detached",
                namespace=NAMESPACE,
                name=f"{spec.id.app}#{id}",
            ).remote(self._me)
        except Exception as error:
            record.history = record.history.after_start_failure(now, f"{type(error).__name__}: {error}")
            self._decide()
            return
        record.replicas[id] = ReplicaRecord(id, spec, handle, ReplicaState.PLACING, now, spec.config_version)
        self._spawn(self._watch(record, id, handle))
        self._spawn(self._place(record, id, handle))
        self._decide()

    async def _watch(self, record: DeploymentRecord, id: str, handle: ActorHandle[Any]) -> None:
        try:
            await handle.until_death.remote()
        except exceptions.ActorrtError as error:
            self._happens(record, id, ReplicaEvent.DIED, _in_a_line(getattr(error, "cause", error)))

    async def _place(self, record: DeploymentRecord, id: str, handle: ActorHandle[Any]) -> None:
        try:
            await handle.where.remote()
        except exceptions.ActorrtError as error:
            self._happens(record, id, ReplicaEvent.START_FAILED, _in_a_line(getattr(error, "cause", error)))
        else:
            self._happens(record, id, ReplicaEvent.PLACED)

    async def _construct(self, record: DeploymentRecord, replica: ReplicaRecord) -> None:
        spec = replica.spec
        settings = ReplicaSettings(
            spec.id.app,
            spec.id.name,
            replica.id,
            spec.code,
            spec.config,
            spec.options.max_ongoing_requests,
            first_try=not record.history.failures,
        )
        try:
            trouble: str = await replica.handle.start.remote(settings)
        except exceptions.ActorrtError as error:
            trouble = f"its process ended while it was constructed: {_in_a_line(getattr(error, 'cause', error))}"
        event = ReplicaEvent.START_FAILED if trouble else ReplicaEvent.READY
        self._happens(record, replica.id, event, trouble)

    async def _reconfigure(self, record: DeploymentRecord, replica: ReplicaRecord) -> None:
        spec = record.spec
        if spec is None:
            self._happens(record, replica.id, ReplicaEvent.UPDATED)
            return
        try:
            trouble: str = await replica.handle.reconfigure.remote(spec.config, spec.options.max_ongoing_requests)
        except exceptions.ActorrtError as error:
            trouble = str(error)
        if trouble:
            self._happens(record, replica.id, ReplicaEvent.UPDATE_FAILED, trouble)
        else:
            replica.config_version = spec.config_version
            self._happens(record, replica.id, ReplicaEvent.UPDATED)

    async def _drain(self, record: DeploymentRecord, replica: ReplicaRecord) -> None:
        options = replica.spec.options
        # It refuses what still comes; once no router sends to it any more, it has only what it has.
        draining = replica.handle.drain.remote()
        await record.topic.acted_on(record.topic.version, options.graceful_shutdown_wait_loop_s)
        try:
            async with asyncio.timeout(options.graceful_shutdown_timeout_s):
                await draining
        except (TimeoutError, exceptions.ActorrtError) as error:
            logger.debug("replica %s did not drain: %s", replica.id, error)
        self._happens(record, replica.id, ReplicaEvent.DRAINED)

    async def _stop(self, replica: ReplicaRecord) -> None:
        if replica.constructed:
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await replica.handle.stop.remote()
            except (TimeoutError, exceptions.ActorrtError):
                logger.debug("replica %s did not stop by itself", replica.id)
        kill(replica.handle)

    async def _check_health(self, record: DeploymentRecord, replica: ReplicaRecord) -> None:
        options = replica.spec.options
        while True:
            await asyncio.sleep(options.health_check_period_s)
            if replica.state not in ROUTED:
                return
            try:
                async with asyncio.timeout(options.health_check_timeout_s):
                    trouble: str = await replica.handle.check_health.remote()
            except TimeoutError:
                trouble = f"no answer within {options.health_check_timeout_s:g} s"
            except exceptions.ActorrtError:
                return  # it is dead, which is told elsewhere
            replica.unhealthy_checks = replica.unhealthy_checks + 1 if trouble else 0
            if replica.unhealthy_checks >= UNHEALTHY_CHECKS:
                self._happens(record, replica.id, ReplicaEvent.UNHEALTHY, f"health check failed: {trouble}")
                return

    async def _explain(self, replica: ReplicaRecord) -> None:
        asked = _resources(replica.spec.options.actor_options)
        available, total = await asyncio.gather(
            asyncio.to_thread(available_resources), asyncio.to_thread(cluster_resources)
        )
        replica.missing = missing_resources(asked, available, total) or "its process is being started"
        self._decide()


def _in_a_line(error: object) -> str:
    """What an error says, without the traceback that it may hold."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if len(lines) < 2 else f"{lines[0]} {lines[-1].strip()}"


def _resources(options: Mapping[str, Any]) -> dict[str, float]:
    asked: dict[str, float] = dict(options.get("resources") or {})
    for name, plain in (("num_cpus", "CPU"), ("num_gpus", "GPU"), ("memory", "memory")):
        if options.get(name):
            asked[plain] = options[name]
    return asked
