"""Many coroutine actors: create all, call each once, and see by how much all processes together have grown."""

import time
from typing import Any

from loadtests.peers.ray_like import async_actor, running
from loadtests.workloads.protocol import give, memory, parse_arguments

_AT_ONCE = 10_000


def create_and_call(api: Any, actor: Any, number: int) -> list[Any]:
    """The handles, each called once; at most 10,000 calls are in flight."""
    handles = [actor.remote() for _ in range(number)]
    for begin in range(0, number, _AT_ONCE):
        api.get([handle.small_value.remote() for handle in handles[begin : begin + _AT_ONCE]])
    return handles


def measure(number: int, side: str) -> tuple[float, float]:
    """Seconds, and kilobytes each."""
    with running(side) as api:
        actor = async_actor(api)
        # A few first, so that what is started once for all of them is not counted.
        kept = create_and_call(api, actor, 100)
        before = memory()["pss"]
        begin = time.perf_counter()
        kept += create_and_call(api, actor, number)
        passed = time.perf_counter() - begin
        grown = memory()["pss"] - before
        del kept
    return passed, grown / number / 1e3


def main() -> None:
    effort = parse_arguments(__doc__)
    number = 2_000 if effort.quick else 100_000
    passed, kilobytes = measure(number, effort.side)
    # Quick runs create fewer; their time is scaled to the full number.
    give(coroutine_actors__seconds=passed * 100_000 / number, coroutine_actors__kb=kilobytes)


if __name__ == "__main__":
    main()
