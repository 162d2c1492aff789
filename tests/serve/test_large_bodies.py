"""Large bodies both ways, through a proxy and replicas in processes of their own: every byte, whatever the size."""

import asyncio
import hashlib
import http.client
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

import actorrt
from actorrt import serve
from actorrt.runtime.links.pipes import FIRST_ROOM
from actorrt.serve.http.responses import LARGEST_WHOLE
from actorrt.serve.replica.incoming_body import WINDOW_BYTES
from actorrt.wire.pipe_end import PIECE

from .conftest import Serving

# Where something changes: what is inline, what one read of a socket takes, pieces, rooms and windows.
EDGES = (
    LARGEST_WHOLE,
    100 * 1024,
    256_000,
    256 * 1024,
    PIECE,
    FIRST_ROOM,
    FIRST_ROOM + PIECE,
    WINDOW_BYTES,
    2 * PIECE + 4096,
)
SIZES = st.one_of(
    st.builds(lambda edge, by: edge + by, st.sampled_from(EDGES), st.integers(-300, 300)), st.integers(0, 1_500_000)
)


def made(size: int) -> bytes:
    return hashlib.shake_256(b"%d" % size).digest(size)


CONSTANT = bytes(1024 * 1024)


@serve.deployment(max_ongoing_requests=100)
class Bodies:
    def __init__(self) -> None:
        self.gone = 0

    async def __call__(self, request: Request) -> Any:
        size = int(request.query_params.get("size", 0))
        match request.url.path.rpartition("/")[2]:
            case "give":
                return Response(made(size), media_type="application/octet-stream")
            case "hash":
                return hashlib.sha256(await request.body()).hexdigest()
            case "hash in parts":
                seen = hashlib.sha256()
                async for part in request.stream():
                    seen.update(part)
                    await asyncio.sleep(0)
                return seen.hexdigest()
            case "echo":
                return StreamingResponse(request.stream())
            case "swap":
                await request.body()
                return Response(made(size))
            case "refuse":
                return Response("no", 413)
            case "wait":
                try:
                    await request.body()
                except ClientDisconnect:
                    self.gone += 1
                    raise
            case "gone":
                return str(self.gone)
            case "constant":
                return Response(CONSTANT)
            case "pid":
                return str(os.getpid())
        return "ok"


@pytest.fixture(scope="module")
def url(serving: Serving) -> str:
    return serving.run(Bodies.bind(), "bodies")


@pytest.fixture(scope="module")
def connection(url: str) -> Iterator[http.client.HTTPConnection]:
    made = http.client.HTTPConnection(httpx.URL(url).netloc.decode(), timeout=20)
    yield made
    made.close()


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: Any = None, **headers: str) -> bytes:
    connection.request(method, f"/bodies/{path}", body, headers, encode_chunked="Transfer-Encoding" in headers)
    answer = connection.getresponse()
    data = answer.read()
    assert answer.status == 200, data[:200]
    return data


EXAMPLES = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@EXAMPLES
@given(size=SIZES)
def test_a_response_of_any_size_arrives_byte_for_byte(connection: http.client.HTTPConnection, size: int) -> None:
    assert ask(connection, "GET", f"give?size={size}") == made(size)


@EXAMPLES
@given(
    size=SIZES, how=st.sampled_from(["hash", "hash%20in%20parts"]), cut=st.integers(500, 400_000), chunked=st.booleans()
)
def test_a_request_of_any_size_arrives_byte_for_byte(
    connection: http.client.HTTPConnection, size: int, how: str, cut: int, chunked: bool
) -> None:
    data = made(size)
    if chunked:
        parts = (data[at : at + cut] for at in range(0, size, cut))
        got = ask(connection, "POST", how, parts, **{"Transfer-Encoding": "chunked"})
    else:
        got = ask(connection, "POST", how, data)
    assert got.decode() == hashlib.sha256(data).hexdigest()


@EXAMPLES
@given(up=SIZES, down=SIZES)
def test_both_ways_in_one_request_of_any_size(connection: http.client.HTTPConnection, up: int, down: int) -> None:
    assert ask(connection, "POST", f"swap?size={down}", made(up)) == made(down)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [LARGEST_WHOLE + 1, 3_000_000])
async def test_a_body_may_come_back_while_it_is_sent(url: str, size: int, chunked: bool) -> None:
    data = made(size)

    async def parts() -> AsyncIterator[bytes]:
        for at in range(0, size, 100_000):
            yield data[at : at + 100_000]

    headers = {} if chunked else {"content-length": str(size)}
    async with httpx.AsyncClient(timeout=20) as client:
        answer = await client.post(f"{url}/echo", content=parts(), headers=headers)
    assert answer.content == data


class Raw:
    """A client that says each byte itself."""

    def __init__(self, url: str) -> None:
        parsed = httpx.URL(url)
        self.socket = socket.create_connection((parsed.host, parsed.port or 80), timeout=20)
        self.reader = self.socket.makefile("rb")

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.close()
        self.socket.close()

    def send(self, *parts: bytes) -> None:
        for part in parts:
            self.socket.sendall(part)

    def answer(self, head_only: bool = False) -> tuple[int, dict[str, str], bytes]:
        status = int(self.reader.readline().split()[1])
        fields: dict[str, str] = {}
        while (line := self.reader.readline()) != b"\r\n":
            name, _, value = line.decode().partition(":")
            fields[name.lower()] = value.strip()
        return status, fields, b"" if head_only else self.reader.read(int(fields.get("content-length", 0)))


def request(method: str, path: str, length: int | None = None, *fields: str) -> bytes:
    lines = [f"{method} /bodies/{path} HTTP/1.1", "host: x", *fields]
    if length is not None:
        lines.append(f"content-length: {length}")
    return "\r\n".join([*lines, "", ""]).encode()


def test_large_requests_and_answers_keep_their_order_on_one_connection(url: str) -> None:
    sizes = [200_000, 10, 700_000, LARGEST_WHOLE + 1, 0, 1_000_000]
    with Raw(url) as client:
        sending = threading.Thread(
            target=client.send,
            args=[
                part
                for size in sizes
                for part in (
                    request("GET", f"give?size={size}"),
                    request("POST", "hash", size) + made(size),
                    request("HEAD", f"give?size={size}"),
                )
            ],
        )
        sending.start()
        for size in sizes:
            assert client.answer()[2] == made(size)
            assert client.answer()[2].decode() == hashlib.sha256(made(size)).hexdigest()
            status, fields, _ = client.answer(head_only=True)
            assert (status, fields["content-length"]) == (200, str(size))
        sending.join()


def test_trailers_and_extensions_of_a_large_chunked_body_are_no_part_of_it(url: str) -> None:
    data = made(300_000)
    with Raw(url) as client:
        for _ in range(2):
            client.send(request("POST", "hash", None, "transfer-encoding: chunked"))
            for at in range(0, len(data), 50_000):
                client.send(b"%x;a=b\r\n%b\r\n" % (50_000, data[at : at + 50_000]))
            client.send(b"0\r\nx-trailer: 1\r\n\r\n")
            assert client.answer()[2].decode() == hashlib.sha256(data).hexdigest()


def test_a_client_may_wait_for_leave_to_send_a_large_body(url: str) -> None:
    data = made(400_000)
    with Raw(url) as client:
        client.send(request("POST", "hash", len(data), "expect: 100-continue"))
        assert client.reader.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert client.reader.readline() == b"\r\n"
        client.send(data)
        assert client.answer()[2].decode() == hashlib.sha256(data).hexdigest()


def test_a_client_that_sends_and_reads_in_small_steps_gets_all_of_it(url: str) -> None:
    data = made(300_000)
    with Raw(url) as client:
        client.send(request("POST", "swap?size=900000", len(data)))
        for at in range(0, len(data), 7_001):
            client.send(data[at : at + 7_001])
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.socket.recv(1)
        got = b""
        while len(got) < 900_000 and (part := client.socket.recv(10_007)):
            got += part
        assert got == made(900_000)


def test_an_answer_before_the_end_of_a_large_body_leaves_the_connection_usable(url: str) -> None:
    data = made(2_000_000)
    with Raw(url) as client:
        client.send(request("POST", "refuse", len(data)))
        assert client.answer()[0] == 413
        client.send(data)
        client.send(request("GET", "give?size=100000"))
        assert client.answer()[2] == made(100_000)


@contextmanager
def half_sent(url: str, path: str, length: int) -> Iterator[Raw]:
    with Raw(url) as client:
        client.send(request("POST", path, length), made(length // 2))
        yield client


def test_a_client_that_leaves_midway_is_noticed_and_holds_up_nobody(url: str, serving: Serving) -> None:
    for _ in range(5):
        with half_sent(url, "wait", 1_000_000):
            pass
        with Raw(url) as client:
            client.send(request("GET", "give?size=30000000"))
            client.socket.recv(100_000)
    while serving.client.get(f"{url}/gone").text != "5":
        pass
    assert serving.client.get(f"{url}/give?size=200000").content == made(200_000)


async def test_other_requests_are_answered_while_a_large_response_waits_for_its_client(url: str) -> None:
    with Raw(url) as slow:
        slow.send(request("GET", "give?size=30000000"))
        slow.socket.recv(1)
        async with httpx.AsyncClient(timeout=20) as client:
            answers = await asyncio.gather(*(client.get(f"{url}/give?size={100_000 + at}") for at in range(10)))
        assert [answer.content for answer in answers] == [made(100_000 + at) for at in range(10)]
        got = 0
        while part := slow.socket.recv(1_000_000):
            got += len(part)
            if got > 30_000_000:
                break
        assert got > 30_000_000


def peak_of(pid: int) -> int:
    """The most memory that a process had so far, in bytes."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


async def test_of_what_64_connections_send_and_get_at_once_only_a_part_is_held(url: str, serving: Serving) -> None:
    proxy: Any = actorrt.get_actor("proxy", namespace="actorrt.serve")
    pids = [await proxy.__ray_call__.remote(lambda _: os.getpid()), int(serving.client.get(f"{url}/pid").text)]
    before = [peak_of(pid) for pid in pids]
    data = made(1024 * 1024)
    async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=64)) as client:
        sent = await asyncio.gather(*(client.post(f"{url}/hash", content=data) for _ in range(64)))
        assert {answer.text for answer in sent} == {hashlib.sha256(data).hexdigest()}
        got = await asyncio.gather(*(client.get(f"{url}/constant") for _ in range(64)))
        assert {answer.content for answer in got} == {bytes(1024 * 1024)}
    assert sum(peak_of(pid) - known for pid, known in zip(pids, before, strict=True)) < 64 * 1024 * 1024
