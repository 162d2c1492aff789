"""Calls from one actor to another, which actorrt has in the same worker: one at a time, and 1,000 in flight.

The driver asks for many of them by one call, so that its own does not count.
"""

from loadtests.peers.chosen import inner_calls
from loadtests.workloads.protocol import give, parse_arguments, rate

# How many of the calling actor's rounds make a batch.
_ROUNDS = 10


def main() -> None:
    effort = parse_arguments(__doc__)
    with inner_calls(effort.side) as peer:
        figures = {
            "inner_calls__one_at_a_time": rate(lambda: peer.one_at_a_time(1000), 1000, effort),
            "inner_calls__in_flight": rate(lambda: [peer.in_flight(1000) for _ in range(_ROUNDS)], 10_000, effort),
        }
    give(**figures)


if __name__ == "__main__":
    main()
