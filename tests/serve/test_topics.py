"""How news reach those who listen, with a controller that is made up."""

import asyncio
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from actorrt.exceptions import ActorDiedError, NotSentError
from actorrt.serve.base import connection as module
from actorrt.serve.base.connection import Connection
from actorrt.serve.base.news import NO_SUCH_DEPLOYMENT, DeploymentNews, ReplicaNews
from actorrt.serve.base.topics import ROUTES, Topics
from actorrt.serve.declaration.spec import DeploymentId
from actorrt.serve.policies.policy import ONE_REQUEST, Cost, Grant
from actorrt.serve.routing import router as routers
from actorrt.serve.routing.router import Router
from actorrt.serve.routing.target import Target


async def test_who_asks_with_a_version_of_an_earlier_controller_is_answered_at_once() -> None:
    earlier, later = Topics(), Topics()
    for number in range(10):
        earlier["deployment", "a", "d"].publish(number)
    with_old = earlier["deployment", "a", "d"].version
    topic = later["deployment", "a", "d"]
    assert await topic.next_for("one", with_old) == (topic.version, topic.value)
    # And one whose clock was ahead.
    assert await topic.next_for("one", with_old + 10**18) == (topic.version, topic.value)
    waiting = asyncio.ensure_future(topic.next_for("one", topic.version))
    await asyncio.sleep(0)
    assert not waiting.done()
    version = topic.publish("new")
    assert await waiting == (version, "new")


async def test_topics_of_deleted_deployments_go_with_their_last_listener() -> None:
    topics = Topics()
    for number in range(1000):
        name = ("deployment", "a", str(number))
        topic = topics.hold(name)
        topic.publish("news")
        assert await topics[name].next_for("router", 0) == (topic.version, "news")
        waiting = asyncio.ensure_future(topics[name].next_for("router", topic.version))
        await asyncio.sleep(0)
        topic.publish("it was deleted")
        topics.release(name)
        assert (await waiting)[1] == topics[name].value == "it was deleted"
        topics.leave("router", name)
        # And one that listens to what has never been.
        assert (await topics["deployment", "b", str(number)].next_for("router", 0))[1] == NO_SUCH_DEPLOYMENT
        topics.leave("router", ("deployment", "b", str(number)))
    assert len(topics) == 1
    topics.drop_unused(ROUTES)
    assert len(topics) == 1


class Answer:
    """What a controller answers to `listen`, as the ref of it."""

    def __init__(self, value: Any) -> None:
        self._value = value
        self.callback: Callable[[Any], None] | None = None

    def add_done_callback(self, callback: Callable[[Any], None], here: bool) -> None:
        self.callback = callback

    def peek(self) -> Any:
        if isinstance(self._value, Exception):
            raise self._value
        return self._value


class Answers:
    """A controller whose answers come when the test says so. It notes with which versions it was asked."""

    def __init__(self, *values: Any) -> None:
        self.listen = self
        self._answers = [Answer(value) for value in values]
        self.asked: list[int] = []
        self.left: list[tuple[str, ...]] = []
        self.leave = SimpleNamespace(remote=lambda listener, topic: self.left.append(topic))
        self.asked_again = threading.Event()
        self._open: list[Answer] = []

    def remote(self, name: str, topic: tuple[str, ...], version: int) -> Answer:
        self.asked.append(version)
        self.asked_again.set()
        self._open.append(self._answers.pop(0))
        return self._open[-1]

    def answer(self) -> None:
        answer = self._open.pop()
        assert answer.callback is not None
        self.asked_again.clear()
        answer.callback(answer)


def test_news_go_on_when_a_listener_fails() -> None:
    controller = Answers((1, "a"), (2, "b"), (3, "c"))
    connection = Connection(controller, "")  # type: ignore[arg-type]
    heard: list[str] = []

    def fails(value: str) -> None:
        raise ValueError("told to")

    connection.listen(("t",), fails)
    connection.listen(("t",), heard.append)
    controller.answer()
    controller.answer()
    assert (heard, controller.asked) == (["a", "b"], [0, 1, 2])


def test_news_that_cannot_be_read_are_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "UNREADABLE_S", 0.0)
    monkeypatch.setattr(module, "is_initialized", lambda: True)
    controller = Answers(AttributeError("no such class here"), (2, "b"), (3, "c"))
    connection = Connection(controller, "")  # type: ignore[arg-type]
    heard: list[str] = []
    connection.listen(("t",), heard.append)
    controller.answer()
    controller.asked_again.wait()
    controller.answer()
    assert (heard, controller.asked) == (["b"], [0, 0, 2])


def test_a_router_of_a_deleted_deployment_leaves_and_the_next_request_brings_it_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deleted = DeploymentNews("it was deleted")
    controller = Answers((1, deleted), (2, DeploymentNews("", 5, -1, (ReplicaNews("0", FakeHandle()),))), (3, None))
    connection = Connection(controller, "")  # type: ignore[arg-type]
    monkeypatch.setattr(routers, "connect", lambda: connection)
    router = Router(connection, DeploymentId("a", "d"))
    waits, later = Request(), Request()
    router.submit(waits)
    controller.answer()
    assert [str(error) for error in waits.failed] == ["deployment 'a#d' is not available: it was deleted"]
    assert controller.left == [("deployment", "a", "d")]
    assert (connection.name, DeploymentId("a", "d")) not in routers._routers
    router.submit(later)
    controller.answer()
    assert (len(later.sent), later.failed, controller.asked) == (1, [], [0, 0, 2])
    assert routers._routers[connection.name, DeploymentId("a", "d")] is router


def test_requests_fail_where_serve_has_ended() -> None:
    controller = Answers(ActorDiedError("controller", "while it ran", "it was killed"))
    connection = Connection(controller, "")  # type: ignore[arg-type]
    router = Router(connection, DeploymentId("a", "d"))
    request = Request()
    router.submit(request)
    controller.answer()
    assert [str(error) for error in request.failed] == ["deployment 'a#d' is not available: Serve has ended"]


class FakeHandle:
    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self


class Request:
    cost: Cost = ONE_REQUEST

    def __init__(self) -> None:
        self.sent: list[tuple[Target, Grant]] = []
        self.failed: list[Exception] = []

    def send(self, target: Target, grant: Grant) -> None:
        self.sent.append((target, grant))

    def fail(self, error: Exception) -> None:
        self.failed.append(error)


def test_what_cannot_be_sent_costs_no_replica() -> None:
    replicas = tuple(ReplicaNews(str(number), FakeHandle()) for number in range(3))
    controller = Answers((1, DeploymentNews("", 5, -1, replicas)), (2, None))
    connection = Connection(controller, "")  # type: ignore[arg-type]
    router = Router(connection, DeploymentId("a", "d"))
    controller.answer()
    request = Request()
    router.submit(request)
    error = NotSentError("the call", "too large")
    assert router.failed(request, *request.sent[0], error) is error
    assert router.statistics() == {"queued": 0, "policy": "power_of_two", "ongoing": {"0": 0, "1": 0, "2": 0}}
    assert (len(request.sent), request.failed) == (1, [])


class Unsendable(Request):
    """Learns within `send` that it cannot be sent, as a request whose argument cannot be pickled does."""

    def __init__(self, router: Router) -> None:
        super().__init__()
        self._router = router

    def send(self, target: Target, grant: Grant) -> None:
        super().send(target, grant)
        self._router.failed(self, target, grant, NotSentError("the call", "too large"))


def test_any_number_of_requests_that_cannot_be_sent_may_wait() -> None:
    controller = Answers((1, DeploymentNews("", 1, -1, (ReplicaNews("0", FakeHandle()),))), (2, None))
    connection = Connection(controller, "")  # type: ignore[arg-type]
    router = Router(connection, DeploymentId("a", "d"))
    controller.answer()
    first, last = Request(), Request()
    router.submit(first)
    unsendable = [Unsendable(router) for _ in range(2 * sys.getrecursionlimit())]
    for request in (*unsendable, last):
        router.submit(request)
    router.released(first.sent[0][1])
    assert {len(each.sent) for each in (*unsendable, last)} == {1}
    assert router.statistics() == {"queued": 0, "policy": "power_of_two", "ongoing": {"0": 1}}
