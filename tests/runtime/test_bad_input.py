"""What cannot travel, or means nothing where it arrives, is refused where it is written; the session goes on."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

import actorrt
from actorrt import exceptions
from actorrt.core.options import MethodOptions
from actorrt.runtime.owner import current
from actorrt.runtime.owner.handles import client_of
from actorrt.types import ProcessId
from actorrt.util import list_named_actors
from actorrt.util.actor_pool import ActorPool
from actorrt.util.queue import Queue
from actorrt.wire.messages import Ask, Credit, Exit, ExitOf, FindName, ListNames, NameHolder, Reply

pytestmark = pytest.mark.usefixtures("node")

SURROGATE = "\udc80"


@actorrt.remote
class Echo:
    async def echo(self, value: Any) -> Any:
        return value


@actorrt.remote
def one() -> int:
    return 1


@pytest.fixture(scope="module")
def echo(node: None) -> Any:
    return Echo.remote()


ref: Any = None
BAD: dict[str, Callable[[Any], Any]] = {
    "a name that is None": lambda echo: actorrt.get_actor(None),  # type: ignore[arg-type]
    "a name of bytes": lambda echo: actorrt.get_actor(b"x"),  # type: ignore[arg-type]
    "an empty name": lambda echo: actorrt.get_actor(""),
    "a name with a surrogate": lambda echo: actorrt.get_actor(SURROGATE),
    "a namespace that is a number": lambda echo: actorrt.get_actor("x", namespace=5),  # type: ignore[arg-type]
    "a namespace that is 0": lambda echo: actorrt.get_actor("x", namespace=0),  # type: ignore[arg-type]
    "an actor's name with a surrogate": lambda echo: Echo.options(name=SURROGATE).remote(),
    "an actor's namespace with a surrogate": lambda echo: Echo.options(name="x", namespace=SURROGATE).remote(),
    "a call's name with a surrogate": lambda echo: echo.echo.options(name=SURROGATE).remote(1),
    "a task's name with a surrogate": lambda echo: one.options(name=SURROGATE).remote(),
    "a group with a surrogate": lambda echo: echo.echo.options(concurrency_group=SURROGATE).remote(1),
    "a resource with a surrogate": lambda echo: one.options(resources={SURROGATE: 1}).remote(),
    "a resource without a name": lambda echo: one.options(resources={"": 1}).remote(),
    "a variable with an equals sign": lambda echo: one.options(runtime_env={"env_vars": {"A=B": "c"}}).remote(),
    "a variable with a NUL": lambda echo: one.options(runtime_env={"env_vars": {"A": "b\0c"}}).remote(),
    "a variable with a surrogate": lambda echo: one.options(runtime_env={"env_vars": {SURROGATE: "c"}}).remote(),
    "retries over 64 bits": lambda echo: one.options(max_retries=2**64).remote(),
    "restarts over 64 bits": lambda echo: Echo.options(max_restarts=2**63).remote(),
    "a concurrency over 64 bits": lambda echo: Echo.options(max_concurrency=2**80).remote(),
    "returns without end": lambda echo: one.options(num_returns=2**40).remote(),
    "a window over 64 bits": lambda echo: one.options(generator_backpressure=2**70).remote(),
    "resources that are nan": lambda echo: one.options(num_cpus=float("nan")).remote(),
    "a timeout that is nan": lambda echo: actorrt.get(echo.echo.remote(1), timeout=float("nan")),
    "a timeout that is text": lambda echo: actorrt.get(echo.echo.remote(1), timeout="1"),  # type: ignore[arg-type]
    "a timeout that is True": lambda echo: actorrt.get(echo.echo.remote(1), timeout=True),
    "a timeout that is negative": lambda echo: actorrt.wait([echo.echo.remote(1)], timeout=-0.5),
    "a wait's timeout that is nan": lambda echo: actorrt.wait([echo.echo.remote(1)], timeout=float("nan")),
    "a number to wait for that is no number": lambda echo: actorrt.wait(
        [echo.echo.remote(1)],
        num_returns="1",  # type: ignore[arg-type]
    ),
    "force that is text": lambda echo: actorrt.cancel(echo.echo.remote(1), force="no"),  # type: ignore[arg-type]
    "recursive that is None": lambda echo: actorrt.cancel(
        echo.echo.remote(1),
        recursive=None,  # type: ignore[arg-type]
    ),
    "no_restart that is text": lambda echo: actorrt.kill(echo, no_restart="no"),  # type: ignore[arg-type]
    "a kill of a name": lambda echo: actorrt.kill("echo"),  # type: ignore[arg-type]
    "all_namespaces that is text": lambda echo: list_named_actors("x"),  # type: ignore[arg-type]
    "a queue's timeout that is nan": lambda echo: Queue[int]().get(timeout=float("nan")),
    "a pool's timeout that is text": lambda echo: ActorPool([echo]).get_next(timeout="1"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("write", BAD.values(), ids=BAD.keys())
def test_what_is_no_argument_is_refused_at_once_and_the_session_goes_on(write: Callable[[Any], Any], echo: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        write(echo)
    assert actorrt.get(echo.echo.remote(7)) == 7
    assert actorrt.cluster_resources()["CPU"] == 2


def test_a_timeout_may_be_any_number_and_an_infinity_is_none(echo: Any) -> None:
    for timeout in (float("inf"), 10**400, 30, 30.0, Decimal(30)):
        assert actorrt.get(echo.echo.remote(1), timeout=timeout) == 1  # type: ignore[arg-type]


def test_a_question_that_cannot_be_written_fails_alone(echo: Any) -> None:
    runtime = current.runtime()
    for question in (FindName(SURROGATE, ""), ListNames(2**70)):  # type: ignore[arg-type]
        with pytest.raises(exceptions.NotSentError):
            runtime.thread.call_sync(runtime.node.ask(question))
    assert actorrt.get(echo.echo.remote(7)) == 7


def test_a_question_that_cannot_be_read_is_refused_and_costs_nothing_else(echo: Any) -> None:
    runtime = current.runtime()

    async def ask() -> NameHolder:
        # In one frame with others, before and behind it.
        runtime.node.send(Credit(1, 1))
        bad = runtime.thread.loop.create_task(runtime.node.ask(FindName(None, 5)))  # type: ignore[arg-type]
        good = runtime.thread.loop.create_task(runtime.node.ask(FindName("nobody", "")))
        with pytest.raises(exceptions.ActorrtError, match="Expected `str`"):
            await bad
        return await good

    assert runtime.thread.call_sync(ask()).actor == b""
    assert not runtime.node.closed


def test_a_call_that_cannot_be_written_or_read_fails_alone_and_in_its_turn(echo: Any) -> None:
    runtime, client = current.runtime(), client_of(echo)
    before = echo.echo.remote(1)
    calls: list[Any] = [
        runtime.submit_method(client, method, (), {}, MethodOptions())
        for method in (SURROGATE, None, 5)  # type: ignore[arg-type]
    ]
    after = echo.echo.remote(2)
    assert actorrt.get([before, after]) == [1, 2]
    for call in calls:
        with pytest.raises(exceptions.NotSentError):
            actorrt.get(call)


def test_what_nobody_waits_for_and_cannot_be_read_costs_nothing(echo: Any) -> None:
    runtime = current.runtime()
    actorrt.get(echo.echo.remote(1))
    for link in list(runtime.peers.links.values()):
        for wrong in (Credit("one", None), Reply(None, 3), Ask("x", None)):  # type: ignore[arg-type]
            link.post(wrong)
    assert actorrt.get(echo.echo.remote(2)) == 2
    assert actorrt.get(one.remote()) == 1
    assert not any(link.closed for link in runtime.peers.links.values())


def test_of_a_process_that_the_node_never_had_it_does_not_say_that_it_has_ended(echo: Any) -> None:
    runtime, nobody = current.runtime(), ProcessId(b"nobody..")

    async def ask() -> Exit:
        return await runtime.node.ask(ExitOf(nobody))

    assert runtime.thread.call_sync(ask()) == Exit("its process is not known to the node", known=False)
    with pytest.raises(exceptions.LinkError, match=r"process .* cannot be reached: its process is not known"):
        runtime.thread.call_sync(runtime.peers.link_to(nobody))
    assert nobody not in runtime.peers.dead
