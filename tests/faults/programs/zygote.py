"""A zygote on the socket whose descriptor is given, with the modules that are named behind it; its workers run the
Python text that they are started with."""

import random  # noqa: F401  the point of one test: imported before the fork
import socket
import sys

from actorrt.runtime.machine.zygote import WorkerStart, run_zygote


def worker_main(start: WorkerStart) -> None:
    exec(compile(start.params, "worker", "exec"), {"__name__": "worker"})


if __name__ == "__main__":
    run_zygote(socket.socket(fileno=int(sys.argv[1])), worker_main, sys.argv[2:])
