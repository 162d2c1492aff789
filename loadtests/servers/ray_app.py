# pyright: basic, reportMissingImports=false
"""Ray Serve with one replica; its modes (throughput, HAProxy) are chosen by the environment."""

import signal
import sys

import ray
from ray import serve

from loadtests.servers.deployment import Answers

if __name__ == "__main__":
    ray.init(log_to_driver=False)
    # 5 by default, which 64 connections would queue behind.
    deployed = serve.deployment(num_replicas=1, max_ongoing_requests=1000)(Answers)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1]), "access_log": False})
    serve.run(deployed.bind(), route_prefix="/")
    signal.sigwait({signal.SIGINT, signal.SIGTERM})
    serve.shutdown()
    ray.shutdown()
