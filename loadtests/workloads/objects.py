# pyright: basic, reportMissingImports=false
"""Small objects and waiting: put, get, an object that holds 10,000 refs, waiting on 1,000 refs one by one."""

import statistics
import time
from typing import Any

from loadtests.peers.ray_like import running, small_task
from loadtests.workloads.protocol import Effort, give, parse_arguments, rate


def main() -> None:
    effort = parse_arguments(__doc__)
    with running(effort.side) as api:
        figures = measure(api, effort)
    give(**figures)


def measure(api: Any, effort: Effort) -> dict[str, float]:
    small_value = small_task(api)
    value = api.put(0)

    def put_small() -> None:
        for _ in range(100):
            api.put(0)

    def get_small() -> None:
        for _ in range(100):
            api.get(value)

    @api.remote
    def object_holding_refs() -> list[Any]:
        return [api.put(1) for _ in range(10_000)]

    holder = object_holding_refs.remote()
    # It keeps a worker busy for a while, and what follows is not measured beside that.
    api.wait([holder])

    def wait_one_by_one(waiting: list[Any]) -> None:
        # Fetching is asked for once; asking again at each wait would only add work to Ray's side.
        fetch = True
        for _ in range(len(waiting)):
            _, waiting = api.wait(waiting, fetch_local=fetch)
            fetch = False

    def submit_and_wait() -> tuple[float, float]:
        """Seconds of the whole round, and of its waits: from the last submission to the last wait."""
        begin = time.perf_counter()
        refs = [small_value.remote() for _ in range(1000)]
        submitted = time.perf_counter()
        wait_one_by_one(refs)
        end = time.perf_counter()
        return end - begin, end - submitted

    def waits_on_done() -> float:
        """Seconds of the waits where every task has ended before the first of them."""
        refs = [small_value.remote() for _ in range(1000)]
        api.get(refs)
        begin = time.perf_counter()
        wait_one_by_one(refs)
        return time.perf_counter() - begin

    submit_and_wait()
    rounds = [submit_and_wait() for _ in range(3 if effort.quick else 7)]
    done = [waits_on_done() for _ in range(3 if effort.quick else 7)]
    return {
        "objects__put_small": rate(put_small, 100, effort),
        "objects__get_small": rate(get_small, 100, effort),
        "objects__get_10k_refs": rate(lambda: api.get(holder), 1, effort),
        "objects__submit_and_wait": 1 / statistics.median(whole for whole, _ in rounds),
        "objects__waits": 1 / statistics.median(waits for _, waits in rounds),
        "objects__waits_on_done": 1 / statistics.median(done),
    }


if __name__ == "__main__":
    main()
