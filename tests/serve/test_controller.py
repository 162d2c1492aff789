"""What the controller does when the proxy cannot be started, with a proxy that is made up."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from actorrt.exceptions import ActorAlreadyExistsError, LinkError
from actorrt.serve import controller as module
from actorrt.serve.controller import Controller
from actorrt.serve.http_options import HTTPOptions
from actorrt.serve.statuses import ProxyStatus


class FakeMethod:
    def __init__(self, outcome: Any) -> None:
        self._outcome = outcome

    def remote(self, *args: Any) -> Any:
        return self._outcome


class FakeProxy:
    def __init__(self, url: str) -> None:
        loop = asyncio.get_running_loop()
        self.death: asyncio.Future[None] = loop.create_future()
        started: asyncio.Future[tuple[str, str]] = loop.create_future()
        started.set_result((url, ""))
        self.start = FakeMethod(started)
        self.until_death = FakeMethod(self.death)
        self.keep = FakeMethod(None)


class FakeActor:
    """Each `remote` gives, or raises, the next outcome."""

    def __init__(self, outcomes: Iterator[Any]) -> None:
        self._outcomes = outcomes
        self.ports: list[int] = []

    def options(self, **_: Any) -> "FakeActor":
        return self

    def remote(self, me: Any, options: HTTPOptions) -> Any:
        self.ports.append(options.port)
        outcome = next(self._outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


async def test_a_proxy_whose_name_is_not_to_be_had_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    controller: Any = Controller.__new__(Controller)
    controller._me, controller._apps, controller._deployments, controller._saved = None, {}, [], ()
    controller._has_served = False
    controller._proxy_lock = asyncio.Lock()
    first, second = FakeProxy("http://x:1"), FakeProxy("http://x:1")
    actor = FakeActor(iter([LinkError("the head is gone"), ActorAlreadyExistsError("proxy", "ns"), second]))
    monkeypatch.setattr(module, "_ProxyActor", actor)
    monkeypatch.setattr(module, "PROXY_RESTARTS_S", (0.0, 0.0, 0.0))
    controller._have_proxy(first, HTTPOptions(port=0), "http://x:1")
    first.death.set_exception(LinkError("it was killed"))
    while controller._proxy is not second:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert actor.ports == [1, 1, 1]
    assert controller._proxy_status is ProxyStatus.HEALTHY
    # It is watched in its turn; this one's end is wanted.
    controller._proxy_status = ProxyStatus.DRAINING
    second.death.set_exception(LinkError("it was drained"))
    await asyncio.sleep(0)
