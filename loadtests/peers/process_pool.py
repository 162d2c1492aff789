"""concurrent.futures.ProcessPoolExecutor with two workers: what the standard library does for tasks."""

from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

from loadtests.peers.contract import Tasks


def small_value() -> bytes:
    return b"ok"


@contextmanager
def tasks(name: str) -> Generator[Tasks]:
    with ProcessPoolExecutor(2) as pool:

        def one_at_a_time(n: int) -> None:
            for _ in range(n):
                pool.submit(small_value).result()

        yield Tasks(
            one_at_a_time, lambda n: [future.result() for future in [pool.submit(small_value) for _ in range(n)]]
        )
