"""Memory of all processes after init, the driver among them, once they have had time to come up."""

import time

from loadtests.peers.ray_like import running
from loadtests.workloads.protocol import give, memory, parse_arguments

# Ray starts workers ahead of time, which takes it seconds; both sides get the same.
_SETTLE_S = 5.0


def main() -> None:
    effort = parse_arguments(__doc__)
    with running(effort.side):
        time.sleep(1.0 if effort.quick else _SETTLE_S)
        used = memory()
    give(memory__after_init=used["pss"] / 1e6)


if __name__ == "__main__":
    main()
