"""The same as coroutine_actors with 1,000,000 of them."""

from loadtests.workloads.coroutine_actors import measure
from loadtests.workloads.protocol import give, parse_arguments


def main() -> None:
    effort = parse_arguments(__doc__)
    passed, kilobytes = measure(1_000_000, effort.side)
    give(million_actors__seconds=passed, million_actors__kb=kilobytes)


if __name__ == "__main__":
    main()
