# pyright: basic, reportMissingImports=false
"""From before the import to the first result of a task, in a fresh process."""

import importlib
import sys
import time
from typing import Any

from loadtests.workloads.protocol import give, parse_arguments


def ray_like(name: str) -> float:
    begin = time.perf_counter()
    api: Any = importlib.import_module(name)

    @api.remote
    def small_value() -> bytes:
        return b"ok"

    assert api.get(small_value.remote()) == b"ok"
    passed = time.perf_counter() - begin
    api.shutdown()
    return passed


def dask() -> float:
    begin = time.perf_counter()
    from loadtests.peers.dask_cluster import client, small_value

    with client() as connected:
        assert connected.submit(small_value, 0).result() == b"ok"
        return time.perf_counter() - begin


def main() -> None:
    effort = parse_arguments(__doc__)
    assert effort.side not in sys.modules
    give(startup__first_task=dask() if effort.side == "dask" else ray_like(effort.side))


if __name__ == "__main__":
    main()
