# pyright: basic, reportMissingImports=false
"""dask.distributed: a local cluster of two worker processes; actors and tasks through its synchronous client."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from distributed import Client

from loadtests.peers.contract import Calls, Tasks


class SmallValue:
    async def small_value(self) -> bytes:
        return b"ok"


def small_value(_: int) -> bytes:
    return b"ok"


@contextmanager
def client() -> Generator[Any]:
    with Client(
        n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
    ) as connected:
        yield connected


@contextmanager
def calls(name: str) -> Generator[Calls]:
    with client() as connected:
        actor = connected.submit(SmallValue, actor=True).result()

        def one_at_a_time(n: int) -> None:
            for _ in range(n):
                actor.small_value().result()

        def in_flight(n: int) -> None:
            for future in [actor.small_value() for _ in range(n)]:
                future.result()

        yield Calls(one_at_a_time, in_flight)


@contextmanager
def tasks(name: str) -> Generator[Tasks]:
    with client() as connected:

        def one_at_a_time(n: int) -> None:
            for number in range(n):
                connected.submit(small_value, number, pure=False).result()

        yield Tasks(
            one_at_a_time,
            lambda n: connected.gather([connected.submit(small_value, number, pure=False) for number in range(n)]),
        )
