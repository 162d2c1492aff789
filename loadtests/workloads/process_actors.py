"""Actors that have a process of their own: created and called once, and what each adds to private memory."""

import time

from loadtests.peers.ray_like import running, sync_actor
from loadtests.workloads.protocol import give, memory, parse_arguments


def main() -> None:
    effort = parse_arguments(__doc__)
    # Ray creates two a second here: fewer of them, or a round would take minutes.
    number = 6 if effort.quick or effort.side == "ray" else 50
    with running(effort.side) as api:
        actor = sync_actor(api)
        first = actor.remote()
        api.get(first.small_value.remote())
        before = memory()["private"]
        begin = time.perf_counter()
        handles = [actor.remote() for _ in range(number)]
        api.get([handle.small_value.remote() for handle in handles])
        passed = time.perf_counter() - begin
        grown = memory()["private"] - before
    give(process_actors__rate=number / passed, process_actors__mb=grown / number / 1e6)


if __name__ == "__main__":
    main()
