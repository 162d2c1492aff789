"""A node with Serve on it, shared by the tests of a module, and a client for its proxy."""

from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from actorrt import serve


@dataclass
class Serving:
    url: str
    client: httpx.Client

    def run(self, app: serve.Application[object], name: str) -> str:
        """Deploy under a prefix of the same name; the URL of it."""
        serve.run(app, name=name, route_prefix=f"/{name}")
        return f"{self.url}/{name}"


@pytest.fixture(scope="module")
def serving(node: None) -> Iterator[Serving]:
    url = serve.start({"port": 0, "request_read_timeout_s": 2.0})
    with httpx.Client(timeout=20) as client:
        yield Serving(url, client)
    serve.shutdown()
