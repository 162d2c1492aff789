# pyright: basic
"""Places of a capacity queue, taken and given back by four routers in processes of their own, 16 requests each."""

import statistics
from typing import Final

from loadtests.peers.queue_clients import own_queue, ray_queue
from loadtests.workloads.protocol import give, parse_arguments

CLIENTS: Final = 4
IN_FLIGHT: Final = 16


def main() -> None:
    effort = parse_arguments(__doc__)
    with (ray_queue if effort.side.startswith("ray") else own_queue)(CLIENTS) as run:
        told = run(IN_FLIGHT, effort.seconds * effort.samples)
    times = statistics.quantiles([each for times, _, _ in told for each in times], n=100)
    give(
        queue_decisions__rate=sum(count / seconds for _, count, seconds in told),
        queue_decisions__p50=times[49] / 1e6,
        queue_decisions__p99=times[98] / 1e6,
    )


if __name__ == "__main__":
    main()
