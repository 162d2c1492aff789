"""The controller: the actor that users' programs, routers and proxies talk to about what is wanted and what runs.

Applications, routes, the proxy and the news for listeners are here, replicas in deployments.py. When this actor is
restarted it takes up what the one before it had saved with the proxy; requests go on meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from typing import Any, Final

from actorrt import ActorHandle, exceptions, get_actor, get_runtime_context, kill, remote
from actorrt.util import list_named_actors

from ..base.background import spawn
from ..base.connection import CONTROLLER, NAMESPACE
from ..base.topics import ROUTES, Topics
from ..declaration.spec import ApplicationSpec, DeploymentId
from ..exceptions import ServeError
from ..http.http_options import HTTPOptions
from ..http.listener import bind, fetch, lend
from ..http.tls import trouble_with
from ..proxy.proxy import Kept, Proxy
from .applications import Applications
from .deployments import ANSWER_TIMEOUT_S, MANY_CALLS, Deployments
from .ending import SPARED_S, Ending
from .proxy_life import ProxyAction, ProxyEvent, ProxyLife
from .recovery import RECOVERY_RETRIES_S, Belief, Recovery, adoptable, unknown_actors
from .replica_calls import end_replica
from .replica_record import STOP_TIMEOUT_S
from .saving import Code, Saved, code_of
from .statuses import Draining, ServeStatus

logger = logging.getLogger("actorrt.serve")

PROXY: Final = "proxy"
# A proxy that takes longer to say how much it still answers is not waited for.
STATUS_TIMEOUT_S: Final = 1.0
# How long a proxy drains where there is no deployment to say it.
DRAIN_S: Final = 20.0
# A proxy whose start is under way as Serve shuts down is waited for so long.
PROXY_START_S: Final = 10.0
# Who has not acted on news within this time is not waited for any longer.
SLOWEST_LISTENER_S: Final = 2.0
NO_CODE: Final[Code] = ((), {}, (), ())

_ProxyActor = remote(Proxy)


class Controller:
    def __init__(self) -> None:
        context = get_runtime_context()
        self._me: ActorHandle[Any] = context.current_actor
        self._apps = Applications()
        self._topics = Topics()
        self._deployments = Deployments(self._me, self._topics, self._decided)
        self._fleet = self._deployments.fleet
        self._proxy: ActorHandle[Any] | None = None
        self._life = ProxyLife()
        self._proxy_lock = asyncio.Lock()
        # Open from the first proxy to the drain: a client that comes while a proxy is replaced waits for the next.
        self._listener: socket.socket | None = None
        self._ending = Ending()
        # Replaced as Serve is shut down, and set for as long as it is not.
        self._takes_more = asyncio.Event()
        self._takes_more.set()
        # Until then nobody is told anything: routers would take it for the news that nothing runs.
        self._ready = asyncio.Event()
        self._saved = Saved()
        # After a restart: the proxy that hands itself over, and why it is not known yet what runs.
        self._handed_over: asyncio.Future[ActorHandle[Any]] = asyncio.get_running_loop().create_future()
        self._recovery = Recovery()
        self._clearing: asyncio.Task[None] | None = None
        if context.was_current_actor_reconstructed:
            spawn(self._recover())
        else:
            self._begin()

    def _begin(self) -> None:
        # It decides before anybody is answered: a call that comes in this very turn, too.
        self._deployments.start()
        self._ready.set()

    # What users ask for.

    async def deploy(self, spec: ApplicationSpec) -> str:
        """Bring an application up, or up to date. "" if that is under way, else why it is not."""
        await self._until_it_takes_more()
        if conflict := self._apps.conflict(spec):
            return conflict
        self._apps.want(spec, time.time())
        self._deployments.want(spec.name, spec.deployments)
        self._publish_routes()
        return ""

    async def wait_until_up(self, app: str) -> str:
        """ "" once the application runs, else why it never will."""
        while True:
            await self._ready.wait()
            outcome = self._apps.outcome(app, self._fleet.of(app))
            if outcome is not None:
                if not outcome.trouble:
                    # Whoever asks next, by whatever router, gets what was deployed.
                    await self._known_to_all(app)
                return outcome.trouble
            await self._until_decided()

    async def delete(self, app: str) -> bool:
        """Take an application down; returns when its last replica has gone. False if there is none."""
        await self._ready.wait()
        record = self._apps.delete(app)
        if record is None:
            # A controller before this one may have died as it deleted the application.
            await self._until_cleared()
            return False
        self._publish_routes()
        self._deployments.want(app, ())
        await self._known_to_all(app)
        while self._fleet.is_leaving(app):
            await self._until_decided()
        if self._apps.deleted(record):
            self._save()
        return True

    async def _until_decided(self) -> None:
        settled = self._deployments.settled
        await settled.wait()

    async def shutdown(self) -> None:
        """Drain the proxy, then take every application down. Whoever asks for this ends the controller then."""
        self._ending.asked()
        self._takes_more.clear()
        try:
            await self._shut_down()
        finally:
            if end := self._ending.left():
                asyncio.get_running_loop().call_later(SPARED_S, self._spared, end)

    def _spared(self, end: int) -> None:
        """Who was to end this controller has gone itself: Serve goes on."""
        if self._ending.spared(end):
            self._proxy_has(ProxyEvent.SPARED)
            self._takes_more.set()

    async def _until_it_takes_more(self) -> None:
        """It is known what runs, and Serve is not shut down. Else the call ends with this controller."""
        await self._ready.wait()
        await self._takes_more.wait()

    async def _shut_down(self) -> None:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await self._ready.wait()
        except TimeoutError:
            why = self._recovery.why or "replicas do not answer"
            raise ServeError(f"the controller was restarted and cannot learn what runs: {why}") from None
        await self._until_cleared()
        await self._drain_proxy()
        self._ending.drained_by = asyncio.get_running_loop().time() + self._drain_limit_s()
        await asyncio.gather(*(self.delete(name) for name in self._apps.names()))

    async def _until_cleared(self) -> None:
        """What a controller before this one left has gone, or does not go soon."""
        if self._clearing is not None:
            await asyncio.wait([self._clearing], timeout=2 * STOP_TIMEOUT_S)

    async def status(self) -> ServeStatus:
        await self._ready.wait()
        apps = self._apps.overviews(self._fleet.of)
        proxies = self._life.shown()
        return ServeStatus(apps, proxies, draining=await self._draining(), lost=self._apps.lost)

    async def _draining(self) -> Draining | None:
        if self._ending.drained_by is None:
            return None
        requests = None if self._proxy is None else await self._unfinished(self._proxy)
        replicas = sum(len(each.replicas) for each in self._fleet)
        return self._ending.draining(asyncio.get_running_loop().time(), requests, replicas, self._drain_limit_s())

    async def _unfinished(self, proxy: ActorHandle[Any]) -> int:
        try:
            async with asyncio.timeout(STATUS_TIMEOUT_S):
                return await proxy.unfinished.remote()
        except (TimeoutError, exceptions.ActorrtError):
            logger.debug("the proxy does not say what it still answers")
            return 0

    async def queues(self) -> dict[tuple[str, str], ActorHandle[Any]]:
        """The capacity queues that there are, by application and deployment."""
        await self._ready.wait()
        return {(id.app, id.name): handle for id, handle in self._deployments.queues().items()}

    async def ingress_of(self, app: str) -> str:
        """The ingress deployment's name, or "" if there is no such application."""
        await self._ready.wait()
        return self._apps.ingress_of(app)

    async def has_deployment(self, app: str, name: str) -> bool:
        await self._ready.wait()
        return self._fleet.has(DeploymentId(app, name))

    async def _known_to_all(self, app: str) -> None:
        """Every router and proxy has acted on the last news of an application."""
        topics = [self._topics[ROUTES], *(self._deployments.topic(each.id) for each in self._fleet.of(app))]
        await asyncio.gather(*(topic.acted_on(topic.version, SLOWEST_LISTENER_S) for topic in topics))

    # News for routers and proxies.

    async def listen(self, listener: str, topic: tuple[str, ...], version: int) -> tuple[int, Any]:
        """The value of a topic after `version`; see topics.py."""
        await self._ready.wait()
        try:
            return await self._topics[topic].next_for(listener, version)
        finally:
            self._topics.drop_unused(topic)

    async def leave(self, listener: str, topic: tuple[str, ...]) -> None:
        """This listener has acted on what it was told last, and asks no more."""
        self._topics.leave(listener, topic)

    def _publish_routes(self) -> None:
        self._topics[ROUTES].offer(tuple(self._apps.routes(self._fleet.of)))

    def _decided(self) -> None:
        """Something may have changed."""
        if not self._apps.has_served:
            self._publish_routes()
        self._save()

    # Proxies.

    async def start_proxy(self, options: HTTPOptions, only_if_none: bool) -> tuple[str, str]:
        """(its URL, "") or ("", why it cannot listen). There is one; other options than it has are refused."""
        while True:
            await self._until_it_takes_more()
            async with self._proxy_lock:
                answer = self._life.answer(options, only_if_none) or await self._start_proxy(options)
            if self._ending.takes_more:
                return answer

    async def check_tls(self, options: HTTPOptions) -> str:
        """Why TLS cannot be served with these options, or ""."""
        return await asyncio.to_thread(trouble_with, options)

    async def _start_proxy(self, options: HTTPOptions) -> tuple[str, str]:
        if trouble := await self.check_tls(options):
            return "", trouble
        try:
            listener = self._listener or await asyncio.to_thread(bind, options.host, options.port)
        except OSError as error:
            return "", error.strerror or str(error)
        url, trouble = await self._start_proxy_on(listener, options)
        if trouble and listener is not self._listener:
            listener.close()
        elif not trouble:
            self._listener = listener
        return url, trouble

    async def _start_proxy_on(self, listener: socket.socket, options: HTTPOptions) -> tuple[str, str]:
        factory = _ProxyActor.options(
            on_runtime_loop=True, max_concurrency=MANY_CALLS, lifetime="detached", namespace=NAMESPACE, name=PROXY
        )
        try:
            proxy: ActorHandle[Any] = factory.remote(self._me, options)
        except exceptions.ActorrtError as error:
            # Its name is not to be had: the head is gone, or the one before is not dead yet.
            return "", f"the proxy did not start: {error}"
        try:
            await proxy.__ray_ready__.remote()
            url, trouble = await proxy.start.remote(lend(listener))
        except (exceptions.ActorrtError, OSError) as error:
            url, trouble = "", f"the proxy did not start: {error}"
        if trouble:
            kill(proxy)
            return "", trouble
        if ProxyAction.KILL in self._have_proxy(proxy, options, url):
            return "", "Serve is shut down"
        self._saved.lost()
        self._save()
        return url, ""

    def _have_proxy(self, proxy: ActorHandle[Any], options: HTTPOptions, url: str) -> tuple[ProxyAction, ...]:
        self._proxy = proxy
        return self._perform(self._life.started(options, url))

    def _proxy_has(self, event: ProxyEvent) -> tuple[ProxyAction, ...]:
        """An event of its life. What is left to do by whoever brought it is returned."""
        return self._perform(self._life.happens(event))

    def _perform(self, actions: tuple[ProxyAction, ...]) -> tuple[ProxyAction, ...]:
        proxy = self._proxy
        for action in actions:
            match action:
                case ProxyAction.WATCH if proxy is not None:
                    spawn(self._watch_proxy(proxy))
                case ProxyAction.STOP_LISTENING:
                    self._stop_listening()
                case ProxyAction.KILL if proxy is not None:
                    self._proxy = None
                    kill(proxy)
                case _:
                    pass
        return actions

    async def _watch_proxy(self, proxy: ActorHandle[Any]) -> None:
        reason = "it ended"
        try:
            await proxy.until_death.remote()
        except exceptions.ActorrtError as error:
            reason = str(error)
        if self._proxy is not proxy or ProxyAction.RESTART not in self._proxy_has(ProxyEvent.DIED):
            return
        logger.error("the proxy is gone, another is started: %s", reason)
        self._proxy = None
        await self._restart_proxy()

    async def _restart_proxy(self) -> None:
        options = self._life.options_again(self._listener is not None)
        while True:
            async with self._proxy_lock:
                if ProxyAction.START not in self._perform(self._life.attempt(len(self._apps) > 0)):
                    return
                _, trouble = await self._start_proxy(options)
            if not trouble:
                return
            logger.error("%s", trouble)
            await asyncio.sleep(self._life.pause_s)

    def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()

    async def _drain_proxy(self) -> None:
        """Have the proxy take no new connections and finish what it has while there is time; then it ends."""
        # One whose start is under way would be left behind, with its name and its port.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PROXY_START_S), self._proxy_lock:
                pass
        proxy = self._proxy
        # Before the proxy does the same: a client that comes now is refused and does not wait for nothing.
        if ProxyAction.DRAIN not in self._proxy_has(ProxyEvent.DRAIN) or proxy is None:
            return
        limit_s = self._drain_limit_s()
        self._ending.drained_by = asyncio.get_running_loop().time() + limit_s
        try:
            async with asyncio.timeout(limit_s + ANSWER_TIMEOUT_S):
                self._topics.forget(await proxy.drain.remote(limit_s))
        except TimeoutError:
            logger.warning("the proxy did not drain in time and is killed")
        except exceptions.ActorrtError:
            logger.info("the proxy had gone before it was drained")
        self._proxy_has(ProxyEvent.DRAINED)

    def _drain_limit_s(self) -> float:
        return self._fleet.longest_drain_s(DRAIN_S)

    # What outlives this process. The proxy keeps it: it runs none of the users' code, and is there anyway.

    def _save(self) -> None:
        """Have the proxy keep what a successor needs, if it differs from what it keeps."""
        proxy = self._proxy
        if proxy is None or not self._life.keeps:
            return
        state = (*self._deployments.kept(), self._apps.has_served, self._life.options)
        for part, value in self._saved.due(code=code_of(self._apps, self._fleet), replicas=state):
            proxy.keep.remote(part, value)

    async def proxy_is_here(self, proxy: ActorHandle[Any]) -> None:
        """A proxy hands itself over, to each controller anew: it is found without the head. Lasts until the end."""
        if not self._handed_over.done():
            self._handed_over.set_result(proxy)
        await asyncio.get_running_loop().create_future()

    async def _recover(self) -> None:
        """Take up what the controller before this one had."""
        found = await self._what_was_kept()
        if found is None:
            self._apps.lost = True
            logger.error("the controller was restarted and what it had is lost with its proxy: all replicas are ended")
        else:
            await self._take_up(*found)
            logger.warning("the controller was restarted and has %d applications back", len(self._apps))
        self._begin()
        self._clearing = spawn(self._end_unknown())

    async def _what_was_kept(self) -> tuple[ActorHandle[Any], Kept] | None:
        """The proxy and what it keeps. None only if it is certain that there is no such proxy any more."""
        while True:
            try:
                proxy = await self._find_proxy()
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    kept: Kept = await proxy.kept.remote()
            except (ValueError, TimeoutError, exceptions.ActorrtError) as error:
                if self._recovery.failed(error) is Belief.LOST:
                    return None
            else:
                if self._recovery.answered(kept.url) is Belief.KNOWN:
                    return proxy, kept
                kill(proxy)
                return None
            logger.warning("the controller was restarted and cannot learn yet what runs: %s", self._recovery.why)
            if self._handed_over.done():
                await asyncio.sleep(self._recovery.wait_s())
            else:
                await asyncio.wait([self._handed_over], timeout=self._recovery.wait_s())

    async def _find_proxy(self) -> ActorHandle[Any]:
        if self._handed_over.done():
            return self._handed_over.result()
        asked = asyncio.ensure_future(asyncio.to_thread(get_actor, PROXY, NAMESPACE))
        await asyncio.wait([asked, self._handed_over], return_when=asyncio.FIRST_COMPLETED)
        if not self._handed_over.done():
            return asked.result()
        asked.add_done_callback(lambda late: late.cancelled() or late.exception())  # it is not needed
        return self._handed_over.result()

    async def _take_up(self, proxy: ActorHandle[Any], kept: Kept) -> None:
        apps, specs, retiring, accepted = kept.values.get("code", NO_CODE)
        replicas, records, has_served, options = kept.values.get("replicas", ((), (), False, kept.options))
        self._apps.restore(apps, has_served)
        for spec, _ in apps:
            self._deployments.want(spec.name, spec.deployments)
        self._deployments.restore(retiring, accepted, records)
        await asyncio.gather(
            *(self._deployments.adopt(each.deployment, spec, each) for spec, each in adoptable(replicas, specs))
        )
        for deployment in self._fleet:
            self._deployments.publish(deployment)
        self._publish_routes()
        self._have_proxy(proxy, options, kept.url)
        spawn(self._fetch_listener(proxy))

    async def _fetch_listener(self, proxy: ActorHandle[Any]) -> None:
        """Share the socket of a proxy that is there already, so that the next one has it too."""
        try:
            listener = await asyncio.to_thread(fetch, await proxy.lend_listener.remote())
        except (exceptions.ActorrtError, OSError) as error:
            logger.warning(
                "clients will be refused while the proxy is replaced: its socket is not to be had: %s", error
            )
            return
        if self._listener is None and self._proxy is proxy and self._life.keeps:
            self._listener = listener
        else:
            listener.close()

    async def _end_unknown(self) -> None:
        """End replicas that a controller had started and could not tell of any more: nobody else ever would."""
        for wait_s in RECOVERY_RETRIES_S:
            try:
                listed: list[dict[str, str]] = await asyncio.to_thread(list_named_actors, all_namespaces=True)
                unknown = unknown_actors(listed, NAMESPACE, self._deployments.names() | {CONTROLLER, PROXY})
                found = [await asyncio.to_thread(get_actor, name, NAMESPACE) for name in unknown]
                await asyncio.gather(*map(end_replica, found))
                return
            except ValueError:
                continue  # one of them has gone just now
            except exceptions.ActorrtError as error:
                logger.warning("replicas of which nothing is known cannot be looked for yet: %s", error)
                # A shutdown does not wait for what may never be.
                self._clearing = None
                await asyncio.sleep(wait_s)
