# pyright: basic, reportMissingImports=false
"""The graph for `actorrt serve loadtests.servers.actorrt_app:graph`."""

from actorrt import serve
from loadtests.servers.deployment import Answers

graph = serve.deployment(num_replicas=1, max_ongoing_requests=1000)(Answers).bind()
