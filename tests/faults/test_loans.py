"""Large responses by replicas that borrow their clients' sockets, and what ends them early."""

import asyncio
import hashlib
import http.client
import json
import os
import resource
import select
import signal
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response

import actorrt
from actorrt import serve

# More than the sockets of both ends hold.
LARGE = 30_000_000
SMALL = 700_000
TLS = Path(__file__).parent.parent / "serve" / "tls"


def made(size: int) -> bytes:
    return hashlib.shake_256(b"%d" % size).digest(size)


@serve.deployment(num_replicas=1, max_ongoing_requests=2, health_check_period_s=1000)
class Bodies:
    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.large = made(LARGE)

    async def __call__(self, request: Request) -> Any:
        query = request.query_params
        match query.get("do"):
            case "inet":
                return json.dumps(inet_sockets())
            case "die":
                # At its first write to a client, of the one that comes first.
                if not list(self.folder.iterdir()):
                    (self.folder / str(os.getpid())).touch()
                    os.writev = die_at_tcp
            case "few":
                soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
                lowest_free = os.dup(0)
                os.close(lowest_free)
                resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
                asyncio.get_running_loop().call_later(1, resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
            case _:
                pass
        size = int(query["size"])
        return Response(self.large if size == LARGE else made(size), headers={"x-pid": str(os.getpid())})


writev = os.writev


def die_at_tcp(fd: int, buffers: Any) -> int:
    with socket.socket(fileno=os.dup(fd)) as there:
        if there.family == socket.AF_INET:
            os.kill(os.getpid(), signal.SIGKILL)
    return writev(fd, buffers)


def inet_sockets() -> int:
    """How many this process has of those that clients have."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if stat.S_ISSOCK(os.stat(int(name)).st_mode):
                with socket.socket(fileno=os.dup(int(name))) as there:
                    found += there.family == socket.AF_INET
    return found


@pytest.fixture(scope="module")
def base(node: None) -> Iterator[str]:
    yield serve.start({"port": 0})
    serve.shutdown()


@pytest.fixture
def url(base: str, tmp_path: Path) -> Iterator[str]:
    serve.run(Bodies.bind(str(tmp_path)), name="bodies", route_prefix="/bodies")
    yield f"{base}/bodies"
    with suppress(Exception):
        serve.delete("bodies")


@pytest.fixture
def two(base: str, tmp_path: Path) -> Iterator[str]:
    serve.run(Bodies.options(num_replicas=2).bind(str(tmp_path)), name="two", route_prefix="/two")
    yield f"{base}/two"
    serve.delete("two")


def proxy() -> Any:
    return actorrt.get_actor("proxy", namespace="actorrt.serve")


def lent_by(instance: Any) -> dict[str, list[int | None]]:
    return {
        prefix: [target.lender and target.lender.lent for target in router._placing.targets.values()]
        for prefix, router in instance._routers.items()
    }


def lent(url: str) -> list[int | None]:
    """How often sockets were lent to each replica; None: it has no channel."""
    return actorrt.get(proxy().__ray_call__.remote(lent_by))["/" + url.rpartition("/")[2]]


def open_channels(url: str) -> None:
    while None in lent(url):
        httpx.get(url, params={"size": SMALL}, timeout=30)


def connect(url: str) -> socket.socket:
    parsed = httpx.URL(url)
    return socket.create_connection((parsed.host, parsed.port or 80), timeout=30)


def asked(url: str, query: str, *fields: str, method: str = "GET", version: str = "1.1") -> bytes:
    path = httpx.URL(url).path
    return "\r\n".join([f"{method} {path}?{query} HTTP/{version}", "host: x", *fields, "", ""]).encode()


def begun(client: socket.socket, method: str = "GET") -> http.client.HTTPResponse:
    response = http.client.HTTPResponse(client, method=method)
    response.begin()
    return response


def until_no_socket_is_borrowed(url: str) -> None:
    while httpx.get(url, params={"do": "inet"}, timeout=30).text != "0":
        pass


def until_gone(pid: int) -> None:
    with suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        select.select([fd], [], [])
        os.close(fd)


def test_a_lent_response_arrives_byte_for_byte_and_its_connection_goes_on(url: str) -> None:
    open_channels(url)
    (before,) = lent(url)
    assert before is not None
    with connect(url) as client:
        for size in (SMALL, 10, LARGE, SMALL):
            client.sendall(asked(url, f"size={size}"))
            assert begun(client).read() == made(size)
    assert lent(url) == [before + 3]
    until_no_socket_is_borrowed(url)


def test_lent_responses_keep_their_order_between_others(url: str) -> None:
    open_channels(url)
    (before,) = lent(url)
    assert before is not None
    sizes = [SMALL, 10, 100_000, SMALL + 1, 0, 2 * SMALL]
    with connect(url) as client:
        for size in sizes:
            client.sendall(asked(url, f"size={size}") + asked(url, f"size={size}", method="HEAD"))
        reader = client.makefile("rb")
        for size in sizes:
            for method in ("GET", "HEAD"):
                fields: dict[bytes, bytes] = {}
                assert reader.readline().startswith(b"HTTP/1.1 200")
                while (line := reader.readline()) != b"\r\n":
                    name, _, value = line.partition(b": ")
                    fields[name] = value.strip()
                assert int(fields[b"content-length"]) == size
                if method == "GET":
                    assert reader.read(size) == made(size)
    # Those that were ready while bytes of one before waited in the proxy went by the pipe.
    (after,) = lent(url)
    assert after is not None
    assert before < after <= before + 3


@pytest.mark.parametrize(("version", "fields"), [("1.0", []), ("1.1", ["connection: close"])])
def test_a_connection_that_is_to_end_ends_after_a_lent_response(url: str, version: str, fields: list[str]) -> None:
    open_channels(url)
    (before,) = lent(url)
    assert before is not None
    with connect(url) as client:
        client.sendall(asked(url, f"size={LARGE}", *fields, version=version))
        assert begun(client).read() == made(LARGE)
        assert client.recv(1) == b""
    assert lent(url) == [before + 1]


def test_a_reader_of_a_lent_response_that_is_slow_keeps_no_place(url: str) -> None:
    open_channels(url)
    (before,) = lent(url)
    assert before is not None
    clients: list[socket.socket] = []
    for _ in range(4):  # twice what may run at once
        client = connect(url)
        clients.append(client)
        client.sendall(asked(url, f"size={LARGE}"))
    responses = [begun(client) for client in clients]
    assert lent(url) == [before + 4]
    for response, client in zip(responses, clients, strict=True):
        assert response.read() == made(LARGE)
        client.close()
    until_no_socket_is_borrowed(url)


def test_a_client_that_leaves_gives_its_place_and_its_socket_back(url: str) -> None:
    open_channels(url)
    for _ in range(4):
        with connect(url) as client:
            client.sendall(asked(url, f"size={LARGE}"))
            client.recv(1000)
    until_no_socket_is_borrowed(url)
    assert httpx.get(url, params={"size": LARGE}, timeout=30).content == made(LARGE)


def test_a_lent_response_whose_time_is_up_is_cut(url: str) -> None:
    open_channels(url)
    (before,) = lent(url)
    assert before is not None
    with connect(url) as client:
        client.sendall(asked(url, f"size={LARGE}", "x-request-timeout-seconds: 1.5"))
        response = begun(client)
        until_no_socket_is_borrowed(url)
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            response.read()
    assert lent(url) == [before + 1]


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("POST", 503)])
def test_a_replica_that_dies_before_it_wrote_a_byte_has_not_answered(
    two: str, tmp_path: Path, method: str, status: int
) -> None:
    open_channels(two)
    with connect(two) as client:
        client.sendall(asked(two, f"do=die&size={SMALL}", "content-length: 0", method=method))
        response = begun(client)
        body = response.read()
        assert response.status == status
        (died,) = [each.name for each in tmp_path.iterdir()]
        if method == "GET":
            assert body == made(SMALL)
            assert response.headers["x-pid"] != died
        # And the connection goes on.
        client.sendall(asked(two, f"size={SMALL}"))
        assert begun(client).read() == made(SMALL)


def test_a_replica_that_dies_while_it_writes_to_its_client_is_a_connection_that_is_cut(two: str) -> None:
    open_channels(two)
    with connect(two) as client:
        client.sendall(asked(two, f"size={LARGE}"))
        response = begun(client)
        assert sum(each or 0 for each in lent(two)) >= 1
        os.kill(int(response.headers["x-pid"]), signal.SIGKILL)
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            response.read()
    assert httpx.get(two, params={"size": LARGE}, timeout=30).content == made(LARGE)


def test_a_proxy_that_dies_while_a_socket_is_lent_leaves_no_client_waiting(url: str) -> None:
    open_channels(url)
    with connect(url) as client:
        client.sendall(asked(url, f"size={LARGE}"))
        response = begun(client)
        pid = actorrt.get(proxy().__ray_call__.remote(lambda _: os.getpid()))  # pyright: ignore[reportUnknownLambdaType]
        os.kill(pid, signal.SIGKILL)
        until_gone(pid)
        # All of it, if the replica was quicker to write than to learn of it.
        with suppress(http.client.IncompleteRead, ConnectionError):
            assert response.read() == made(LARGE)
        with suppress(ConnectionError):
            assert client.recv(1) == b""
    until_no_socket_is_borrowed(url)
    open_channels(url)
    with connect(url) as client:
        client.sendall(asked(url, f"size={LARGE}"))
        assert begun(client).read() == made(LARGE)


@pytest.mark.parametrize("how", ["update", "delete"])
def test_a_replica_that_is_replaced_finishes_what_it_writes(url: str, tmp_path: Path, how: str) -> None:
    open_channels(url)
    deletion = threading.Thread(target=serve.delete, args=("bodies",))
    with connect(url) as client:
        client.sendall(asked(url, f"size={LARGE}"))
        response = begun(client)
        if how == "update":
            other = tmp_path / "other"
            other.mkdir()
            serve.run(Bodies.bind(str(other)), name="bodies", route_prefix="/bodies")
            answer = httpx.get(url, params={"size": 1}, timeout=30)
            assert answer.headers["x-pid"] != response.headers["x-pid"]
        else:
            deletion.start()
            while httpx.get(url, params={"size": 1}, timeout=30).status_code == 200:
                pass
        assert response.read() == made(LARGE)
    if how == "delete":
        deletion.join()
    until_gone(int(response.headers["x-pid"]))


def test_a_replica_that_can_have_no_more_descriptors_answers_by_the_proxy(url: str) -> None:
    open_channels(url)
    assert httpx.get(url, params={"do": "few", "size": LARGE}, timeout=30).content == made(LARGE)
    assert httpx.get(url, params={"size": LARGE}, timeout=30).content == made(LARGE)


def test_an_encrypted_connection_is_never_lent(base: str, tmp_path: Path) -> None:
    serve.shutdown()
    url = serve.start({"port": 0, "ssl_certfile": str(TLS / "certificate.pem"), "ssl_keyfile": str(TLS / "key.pem")})
    serve.run(Bodies.bind(str(tmp_path)), name="bodies", route_prefix="/bodies")
    with httpx.Client(verify=False, timeout=30) as client:
        for _ in range(3):
            assert client.get(f"{url}/bodies", params={"size": LARGE}).content == made(LARGE)
    assert lent("/bodies") == [None]
