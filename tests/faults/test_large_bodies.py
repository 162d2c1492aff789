"""What clients see of a replica that is killed while a large body is under way."""

import hashlib
import http.client
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response

from actorrt import serve

SIZE = 30_000_000


@serve.deployment(num_replicas=2, max_ongoing_requests=20)
class Bodies:
    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    async def __call__(self, request: Request) -> Any:
        if request.method == "POST":
            async for part in request.stream():
                if part:
                    # Each that has begun to read leaves a mark with its process.
                    (self.folder / str(os.getpid())).touch()
            return "read"
        return Response(bytes(SIZE), headers={"x-pid": str(os.getpid())})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("began")


@pytest.fixture(scope="module")
def url(node: None, folder: Path) -> Iterator[str]:
    url = serve.start({"port": 0})
    serve.run(Bodies.bind(str(folder)), name="bodies", route_prefix="/bodies")
    yield f"{url}/bodies"
    serve.shutdown()


def connect(url: str) -> socket.socket:
    parsed = httpx.URL(url)
    return socket.create_connection((parsed.host, parsed.port or 80), timeout=30)


def status_and_body(client: socket.socket) -> tuple[int, bytes]:
    response = http.client.HTTPResponse(client)
    response.begin()
    return response.status, response.read()


@pytest.mark.parametrize("chunked", [False, True])
def test_a_replica_that_dies_while_it_reads_a_body_is_503_and_the_request_is_not_repeated(
    url: str, folder: Path, chunked: bool
) -> None:
    for mark in folder.iterdir():
        mark.unlink()
    with connect(url) as client:
        framing = b"transfer-encoding: chunked" if chunked else b"content-length: %d" % SIZE
        client.sendall(b"POST /bodies HTTP/1.1\r\nhost: x\r\n" + framing + b"\r\n\r\n")
        data = hashlib.shake_256(b"x").digest(300_000)
        client.sendall(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
        while not (began := list(folder.iterdir())):
            pass
        os.kill(int(began[0].name), signal.SIGKILL)
        assert status_and_body(client)[0] == 503
    assert [mark.name for mark in folder.iterdir()] == [began[0].name]
    assert len(httpx.get(url, timeout=30).content) == SIZE


def test_a_replica_that_dies_in_the_middle_of_its_response_is_a_connection_that_is_cut(url: str) -> None:
    with connect(url) as client:
        client.sendall(b"GET /bodies HTTP/1.1\r\nhost: x\r\n\r\n")
        response = http.client.HTTPResponse(client)
        response.begin()
        assert response.status == 200
        response.read(100_000)
        os.kill(int(response.headers["x-pid"]), signal.SIGKILL)
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            response.read()
    assert len(httpx.get(url, timeout=30).content) == SIZE


def test_a_replica_that_dies_before_it_has_answered_leaves_no_request_waiting(url: str) -> None:
    with connect(url) as client:
        client.sendall(b"POST /bodies HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % SIZE)
        pid = int(httpx.get(url, timeout=30).headers["x-pid"])
        os.kill(pid, signal.SIGKILL)
        client.sendall(bytes(SIZE))
        status, body = status_and_body(client)
    assert (status, body) == (200, b"read") or status == 503
