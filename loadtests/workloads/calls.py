"""Actor calls: one at a time, and 1,000 in flight."""

from loadtests.peers.chosen import calls
from loadtests.workloads.protocol import give, parse_arguments, rate


def main() -> None:
    effort = parse_arguments(__doc__)
    with calls(effort.side) as peer:
        figures = {
            "calls__one_at_a_time": rate(lambda: peer.one_at_a_time(100), 100, effort),
            "calls__in_flight": rate(lambda: peer.in_flight(1000), 1000, effort),
        }
        if (sync_actor := peer.sync_actor_in_flight) is not None:
            figures["calls__sync_actor"] = rate(lambda: sync_actor(1000), 1000, effort)
    give(**figures)


if __name__ == "__main__":
    main()
