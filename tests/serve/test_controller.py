"""What the controller does when the proxy cannot be started, and after a restart, with actors that are made up."""

import asyncio
import itertools
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from actorrt.exceptions import ActorAlreadyExistsError, ActorDiedError, ActorNotFoundError, LinkError
from actorrt.serve.base.topics import Topics
from actorrt.serve.control import controller as module
from actorrt.serve.control import proxy_life, replica_calls
from actorrt.serve.control.applications import Applications
from actorrt.serve.control.controller import Controller
from actorrt.serve.control.deployments import Deployments
from actorrt.serve.control.ending import Ending
from actorrt.serve.control.kept import KeptReplica
from actorrt.serve.control.proxy_life import ProxyLife
from actorrt.serve.control.recovery import Recovery
from actorrt.serve.control.replica_record import ReplicaRecord, UserCode
from actorrt.serve.control.saving import Saved
from actorrt.serve.control.statuses import ProxyStatus
from actorrt.serve.declaration.options import DeploymentOptions
from actorrt.serve.declaration.spec import ApplicationSpec, DeploymentId, make_spec
from actorrt.serve.http.http_options import HTTPOptions
from actorrt.serve.http.listener import bind
from actorrt.serve.proxy.proxy import Kept
from actorrt.serve.replica.lifecycle import ReplicaState as S


class FakeMethod:
    def __init__(self, outcome: Any) -> None:
        self._outcome = outcome
        self.called = False

    def remote(self, *args: Any) -> Any:
        self.called = True
        return self._outcome


class FakeProxy:
    def __init__(self, url: str) -> None:
        loop = asyncio.get_running_loop()
        self.death: asyncio.Future[None] = loop.create_future()
        started: asyncio.Future[tuple[str, str]] = loop.create_future()
        started.set_result((url, ""))
        self.start = FakeMethod(started)
        self.lend_listener = FakeMethod(loop.create_future())
        self.__ray_ready__ = FakeMethod(done(True))
        self.until_death = FakeMethod(self.death)
        self.keep = FakeMethod(None)
        self.drain: FakeMethod = FakeMethod(done("listener"))
        self.unfinished = FakeMethod(done(1))


class FakeActor:
    """Each `remote` gives, or raises, the next outcome."""

    def __init__(self, outcomes: Iterator[Any]) -> None:
        self._outcomes = outcomes
        self.ports: list[int] = []

    def raises(self, *_: Any) -> Any:
        raise LinkError("the head is gone")

    def options(self, **_: Any) -> "FakeActor":
        return self

    def remote(self, me: Any, options: HTTPOptions) -> Any:
        self.ports.append(options.port)
        outcome = next(self._outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@pytest.mark.parametrize("has_apps", [False, True])
async def test_a_proxy_whose_name_is_not_to_be_had_is_tried_again(
    has_apps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller = fresh()
    controller._listener = bind("127.0.0.1", 0)
    first, second = FakeProxy("http://x:1"), FakeProxy("http://x:1")
    failures = [LinkError("the head is gone")] * 5 if has_apps else [LinkError("the head is gone")]
    actor = FakeActor(iter([*failures, ActorAlreadyExistsError("proxy", "ns"), second]))
    monkeypatch.setattr(module, "_ProxyActor", actor)
    monkeypatch.setattr(proxy_life, "PROXY_RESTARTS_S", (0.0, 0.0, 0.0))
    if has_apps:
        # For these it is tried for ever.
        controller._apps.restore([(ApplicationSpec("a", "/", "d", ()), 0.0)], has_served=True)
    controller._have_proxy(first, HTTPOptions(port=0), "http://x:1")
    first.death.set_exception(LinkError("it was killed"))
    while controller._proxy is not second:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert len(actor.ports) == len(failures) + 2
    assert controller._listener.fileno() != -1
    assert controller._life.status is ProxyStatus.HEALTHY
    # It is watched in its turn; this one's end is wanted.
    controller._life.status = ProxyStatus.DRAINING
    second.death.set_exception(LinkError("it was drained"))
    await asyncio.sleep(0)
    controller._stop_listening()


async def test_once_serve_shuts_down_no_proxy_is_started_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    controller = fresh()
    controller._listener = bind("127.0.0.1", 0)
    proxy, actor = FakeProxy("http://x:1"), FakeActor(itertools.repeat(LinkError("the head is gone")))
    monkeypatch.setattr(module, "_ProxyActor", actor)
    monkeypatch.setattr(proxy_life, "PROXY_RESTARTS_S", (0.0,))
    controller._apps.restore([(ApplicationSpec("a", "/", "d", ()), 0.0)], has_served=True)
    controller._have_proxy(proxy, HTTPOptions(port=0), "http://x:1")
    proxy.death.set_exception(LinkError("it was killed"))
    while len(actor.ports) < 3:  # noqa: ASYNC110
        await asyncio.sleep(0)
    await controller._drain_proxy()
    assert (controller._life.status, controller._listener) == (ProxyStatus.DRAINED, None)
    for _ in range(10):
        await asyncio.sleep(0)
    tried = len(actor.ports)
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(actor.ports) == tried


async def test_a_proxy_whose_start_is_under_way_as_serve_shuts_down_ends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    controller = fresh()
    proxy, killed = FakeProxy("http://x:1"), list[Any]()
    started: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()
    proxy.start = FakeMethod(started)
    monkeypatch.setattr(module, "_ProxyActor", FakeActor(iter([proxy])))
    monkeypatch.setattr(module, "kill", killed.append)
    starting = asyncio.ensure_future(controller.start_proxy(HTTPOptions(port=0), True))
    while not proxy.start.called:  # noqa: ASYNC110
        await asyncio.sleep(0)
    draining = asyncio.ensure_future(controller._drain_proxy())
    for _ in range(10):
        await asyncio.sleep(0)
    started.set_result(("http://x:1", ""))
    await draining
    assert await starting == ("http://x:1", "")
    assert (killed, controller._proxy, controller._listener) == ([proxy], None, None)
    assert controller._life.status is ProxyStatus.DRAINED
    proxy.death.set_exception(LinkError("it was killed"))
    await asyncio.sleep(0)


async def test_who_wants_a_proxy_between_a_shutdown_and_the_controllers_end_is_left_to_the_next_controller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    controller, killed = fresh(), list[Any]()
    first, again = FakeProxy("http://x:1"), FakeProxy("http://x:2")
    actor = FakeActor(iter([again]))
    monkeypatch.setattr(module, "_ProxyActor", actor)
    monkeypatch.setattr(module, "kill", killed.append)
    monkeypatch.setattr(module, "SPARED_S", 1000.0)
    controller._have_proxy(first, HTTPOptions(port=0), "http://x:1")
    await controller.shutdown()
    assert killed == [first]
    # The controller is killed now, at the latest; whatever it had started would be left.
    starting = asyncio.ensure_future(controller.start_proxy(HTTPOptions(port=0), True))
    deploying = asyncio.ensure_future(controller.deploy(ApplicationSpec("a", "/", "d", ())))
    for _ in range(5):
        await asyncio.sleep(0)
    assert (actor.ports, controller._apps.names()) == ([], [])
    # Unless who shut it down has gone before that.
    controller._spared(1)
    assert (await starting, await deploying) == (("http://x:2", ""), "")
    assert controller._proxy is again
    first.death.set_exception(LinkError("it was killed"))
    await end_tasks()
    controller._stop_listening()


async def test_a_shutdown_that_is_left_in_the_middle_leaves_no_proxy_that_drains(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    controller, killed = fresh(), list[Any]()
    proxy = FakeProxy("http://x:1")
    proxy.drain = FakeMethod(asyncio.get_running_loop().create_future())
    monkeypatch.setattr(module, "kill", killed.append)
    monkeypatch.setattr(module, "SPARED_S", 1000.0)
    controller._have_proxy(proxy, HTTPOptions(port=0), "http://x:1")
    shutting = asyncio.ensure_future(controller.shutdown())
    while not proxy.drain.called:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert (await controller.status()).draining is not None
    shutting.cancel()
    await asyncio.wait([shutting])
    assert (killed, controller._ending.takes_more) == ([], False)
    controller._spared(1)
    assert (killed, controller._ending.takes_more, controller._life.status) == ([proxy], True, ProxyStatus.STARTING)
    assert (await controller.status()).draining is None
    await end_tasks()


def fresh() -> Any:
    """A controller of which nothing runs yet."""
    controller: Any = Controller.__new__(Controller)
    controller._me, controller._apps, controller._saved = None, Applications(), Saved()
    controller._topics, controller._recovery, controller._proxy = Topics(), Recovery(), None
    controller._deployments = Deployments(None, controller._topics, lambda: None)  # type: ignore[arg-type]
    controller._fleet = controller._deployments.fleet
    controller._life, controller._ending, controller._listener = ProxyLife(), Ending(), None
    controller._ready, controller._takes_more = asyncio.Event(), asyncio.Event()
    controller._ready.set()
    controller._takes_more.set()
    controller._proxy_lock = asyncio.Lock()
    controller._clearing = None
    controller._handed_over = asyncio.get_running_loop().create_future()
    return controller


def done(value: Any) -> "asyncio.Future[Any]":
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    if isinstance(value, Exception):
        future.set_exception(value)
    else:
        future.set_result(value)
    return future


async def test_what_was_kept_is_asked_for_until_the_answer_is_certain(monkeypatch: pytest.MonkeyPatch) -> None:
    controller = fresh()
    outcomes: list[Exception] = [LinkError("the head is gone"), TimeoutError(), LinkError("the head is gone")]

    def get_actor(name: str, namespace: str) -> Any:
        assert (name, namespace) == ("proxy", "actorrt.serve")
        raise outcomes.pop(0) if outcomes else ActorNotFoundError(name, namespace)

    monkeypatch.setattr(module, "get_actor", get_actor)
    controller._recovery = Recovery((0.0, 0.0))
    assert await controller._what_was_kept() is None
    assert not outcomes


async def test_a_proxy_hands_itself_over_where_no_name_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    controller = fresh()
    proxy = FakeProxy("http://x:1")
    # It listens, and nothing was kept with it yet.
    kept = Kept("http://x:1", HTTPOptions(port=0), {})
    proxy.kept = FakeMethod(done(kept))  # type: ignore[attr-defined]
    monkeypatch.setattr(module, "get_actor", FakeActor(iter([])).raises)
    controller._recovery = Recovery((1000.0,))
    asking = asyncio.ensure_future(controller._what_was_kept())
    while not controller._recovery.why:  # noqa: ASYNC110
        await asyncio.sleep(0)
    handing = asyncio.ensure_future(controller.proxy_is_here(proxy))
    assert await asking == (proxy, kept)
    await controller._take_up(proxy, kept)
    assert (controller._proxy, controller._life.url, controller._apps.names()) == (proxy, "http://x:1", [])
    await end_tasks()
    assert handing.cancelled()


async def end_tasks() -> None:
    """Who watches actors goes on for as long as they do."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class FakeReplica:
    def __init__(self, state: Any) -> None:
        never: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.state = FakeMethod(never if state is None else done(state))
        self.until_death = self.drain = FakeMethod(never)
        self.stopped: list[str] = []
        self.limits_s: list[float] = []
        self.stop = self.leave = SimpleNamespace(remote=self._stop)

    def _stop(self, limit_s: float) -> Any:
        self.stopped.append("asked")
        self.limits_s.append(limit_s)
        return done(None)


@pytest.mark.parametrize(("drained_for_s", "limit_s"), [(None, 30.0), (0.0, 30.0), (20.0, 10.0), (100.0, 5.0)])
async def test_user_code_may_clean_up_for_the_rest_of_its_graceful_shutdown_timeout_s(
    drained_for_s: float | None, limit_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actorrt.serve.control.replica_calls.time", SimpleNamespace(monotonic=lambda: 1000.0))
    killed: list[Any] = []
    monkeypatch.setattr("actorrt.serve.control.replica_calls.kill", killed.append)
    fake: Any = FakeReplica(None)
    options = DeploymentOptions("d", graceful_shutdown_timeout_s=30.0)
    spec = make_spec("a", "d", options, b"code", b"config")
    replica = ReplicaRecord("d-1", spec, S.STOPPING, 0.0, "1", UserCode.CONSTRUCTED)
    if drained_for_s is not None:
        replica.may_drain_from(1000.0 - drained_for_s)
    await replica_calls.stop(replica, fake)
    assert fake.stopped == ["asked", "asked"]
    assert fake.limits_s == [limit_s, limit_s]
    assert killed == [fake]


async def test_a_replica_whose_constructor_has_not_ended_is_killed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[Any] = []
    monkeypatch.setattr("actorrt.serve.control.replica_calls.kill", killed.append)
    fake: Any = FakeReplica(None)
    spec = make_spec("a", "d", DeploymentOptions("d"), b"code", b"config")
    await replica_calls.stop(ReplicaRecord("d-1", spec, S.STOPPING, 0.0, "1"), fake)
    assert (fake.stopped, killed) == ([], [fake])


@pytest.mark.parametrize(
    ("said", "was", "now"),
    [
        ((S.RUNNING, "2"), S.RUNNING, S.RUNNING),
        ((S.RUNNING, "2"), S.UPDATING, S.RUNNING),
        ((S.DRAINING, "2"), S.RUNNING, S.DRAINING),
        ((S.STARTING, ""), S.STARTING, S.STOPPING),
        ((S.STOPPING, ""), S.DRAINING, S.STOPPING),
        # One that is only slow is what it was.
        (None, S.RUNNING, S.RUNNING),
        (None, S.DRAINING, S.DRAINING),
        (None, S.PLACING, S.STOPPING),
        (ActorDiedError("d", "while it ran", "it was killed"), S.RUNNING, None),
    ],
)
async def test_a_replica_goes_on_under_the_next_controller_with_what_it_does(
    said: Any, was: S, now: S | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[Any] = []
    monkeypatch.setattr("actorrt.serve.control.replica_calls.kill", killed.append)
    monkeypatch.setattr("actorrt.serve.control.deployments.ANSWER_TIMEOUT_S", 0.0 if said is None else 60.0)
    deployments = fresh()._deployments
    id = DeploymentId("a", "d")
    spec = make_spec("a", "d", DeploymentOptions("d"), b"code", b"config")
    deployments.want("a", (spec,))
    replica: Any = FakeReplica(said)
    await deployments.adopt(id, spec, KeptReplica(id, spec.version, "d-1", was, "1", replica))
    adopted = deployments.fleet.get(id).replicas.get("d-1")
    if now is None or adopted is None:
        assert adopted is now
        return
    assert adopted.state is now
    if now is S.RUNNING:
        assert adopted.config_version == ("1" if said is None else "2")
    if now is S.STOPPING:
        while not killed:  # noqa: ASYNC110
            await asyncio.sleep(0)
        # User code that is there may clean up.
        assert replica.stopped == (["asked", "asked"] if said == (S.STOPPING, "") else [])
    else:
        assert not killed
    await end_tasks()
