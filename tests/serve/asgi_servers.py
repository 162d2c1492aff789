"""One ASGI application under bare uvicorn and under Serve: what it is told, and what its clients are."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from actorrt import serve

from .conftest import Serving


@contextmanager
def bare_uvicorn(app: Any) -> Iterator[str]:
    """The URL of a server in this process."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, ws="websockets-sansio"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()


def under_serve(serving: Serving, app: Any, name: str) -> str:
    @serve.deployment(max_ongoing_requests=100)
    @serve.ingress(app)
    class Runs: ...

    return serving.run(Runs.bind(), name)


def connected(url: str, data: bytes) -> socket.socket:
    """A client that has sent this, below the path of the URL."""
    host, _, rest = url.removeprefix("http://").partition("/")
    address, port = host.split(":")
    client = socket.create_connection((address, int(port)), timeout=20)
    client.sendall(data.replace(b"PREFIX", b"/" + rest.encode() if rest else b""))
    return client
