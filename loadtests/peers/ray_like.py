# pyright: basic, reportMissingImports=false
"""Ray and actorrt: the same source for both, since their names are the same; the `api` is the module."""

import importlib
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Final

from loadtests.peers.contract import Calls, Tasks

NAMES: Final = ("actorrt", "ray")


@contextmanager
def running(name: str) -> Generator[Any]:
    """The module, with a node of its own started; shut down at the end."""
    api = importlib.import_module(name)
    api.init()
    try:
        yield api
    finally:
        api.shutdown()


def small_task(api: Any) -> Any:
    @api.remote
    def small_value() -> bytes:
        return b"ok"

    return small_value


def async_actor(api: Any) -> Any:
    @api.remote
    class AsyncActor:
        async def small_value(self) -> bytes:
            return b"ok"

    return AsyncActor


def sync_actor(api: Any) -> Any:
    @api.remote(num_cpus=0)
    class SyncActor:
        def small_value(self) -> bytes:
            return b"ok"

    return SyncActor


@contextmanager
def calls(name: str) -> Generator[Calls]:
    with running(name) as api:
        get = api.get
        actor, plain = async_actor(api).remote(), sync_actor(api).remote()
        get([actor.small_value.remote(), plain.small_value.remote()])

        def one_at_a_time(n: int) -> None:
            for _ in range(n):
                get(actor.small_value.remote())

        yield Calls(
            one_at_a_time,
            lambda n: get([actor.small_value.remote() for _ in range(n)]),
            lambda n: get([plain.small_value.remote() for _ in range(n)]),
        )


@contextmanager
def inner_calls(name: str) -> Generator[Calls]:
    """Of one actor to another, on behalf of the driver."""
    with running(name) as api:

        @api.remote
        class Caller:
            def __init__(self, callee: Any) -> None:
                self.callee = callee

            async def one_at_a_time(self, n: int) -> None:
                for _ in range(n):
                    await self.callee.small_value.remote()

            async def in_flight(self, n: int) -> None:
                for ref in [self.callee.small_value.remote() for _ in range(n)]:
                    await ref

        callee = async_actor(api).remote()
        caller = Caller.remote(callee)
        yield Calls(
            lambda n: api.get(caller.one_at_a_time.remote(n)),
            lambda n: api.get(caller.in_flight.remote(n)),
        )


@contextmanager
def tasks(name: str) -> Generator[Tasks]:
    with running(name) as api:
        get, small_value = api.get, small_task(api)

        def one_at_a_time(n: int) -> None:
            for _ in range(n):
                get(small_value.remote())

        yield Tasks(one_at_a_time, lambda n: get([small_value.remote() for _ in range(n)]))
