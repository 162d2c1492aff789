"""`def` tasks: one at a time, and 1,000 in flight."""

from loadtests.peers.chosen import tasks
from loadtests.workloads.protocol import give, parse_arguments, rate


def main() -> None:
    effort = parse_arguments(__doc__)
    with tasks(effort.side) as peer:
        one = rate(lambda: peer.one_at_a_time(50), 50, effort)
        many = rate(lambda: peer.in_flight(1000), 1000, effort)
    give(tasks__one_at_a_time=one, tasks__in_flight=many)


if __name__ == "__main__":
    main()
