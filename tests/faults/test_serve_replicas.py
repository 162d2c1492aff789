"""What clients see when replicas are killed, updated or asked in vain, with real processes under load."""

import asyncio
import os
import random
import signal
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import StreamingResponse

from actorrt import serve
from actorrt.serve.exceptions import ReplicaUnavailableError
from actorrt.serve.request_router import Cost, DeploymentNews, Grant, PolicyContext
from actorrt.serve.request_router import Request as Routed

from .closed_loop import Load
from .processes_of_serve import pid_of


@pytest.fixture(scope="module")
def url(node: None) -> Iterator[str]:
    yield serve.start({"port": 0})
    serve.shutdown()


@serve.deployment(name="works", num_replicas=2, max_ongoing_requests=4)
class Works:
    def __init__(self, version: str) -> None:
        self.version = version

    async def __call__(self, request: Request) -> Any:
        await asyncio.sleep(0.01)
        return [self.version, os.getpid()]

    async def pid(self) -> int:
        return os.getpid()

    async def hang(self) -> None:
        await asyncio.Event().wait()


class Leases:
    """A policy that gives one lease for each request, later and on a thread of its own, and never more than four."""

    def __init__(self, context: PolicyContext) -> None:
        self._context = context
        self._waiting: deque[Routed] = deque()
        self._free: list[str] = []
        self._given: set[Grant] = set()
        self._due = 0

    def update(self, news: DeploymentNews) -> None:
        self._free = [each.id for each in news.replicas]

    def submit(self, request: Routed) -> None:
        self._waiting.append(request)
        self._ask()

    def again(self, request: Routed) -> None:
        self._waiting.appendleft(request)
        self._ask()

    def withdraw(self, request: Routed) -> None:
        self._waiting.remove(request)

    def _ask(self) -> None:
        timer = threading.Timer(0.002, self._answered)
        timer.daemon = True
        timer.start()

    def _answered(self) -> None:
        self._due += 1
        self._context.ready()

    def next(self) -> tuple[Routed, Grant] | None:
        if not (self._waiting and self._free and self._due) or len(self._given) >= 4:
            return None
        self._due -= 1
        self._free.append(self._free.pop(0))
        lease = Grant(self, self._free[0])
        self._given.add(lease)
        return self._waiting.popleft(), lease

    def release(self, grant: Grant, used: Cost | None) -> None:
        self._given.remove(grant)

    def died(self, replica: str) -> None:
        self._free.remove(replica)

    def filled(self, replica: str) -> None: ...
    def emptied(self, replica: str) -> None: ...
    def close(self) -> None: ...

    def statistics(self) -> dict[str, int]:
        return {"given": len(self._given)}


@pytest.mark.parametrize("router", ["power_of_two", "round_robin", "least_requests", Leases])
async def test_killed_replicas_cost_no_request_that_may_be_repeated(url: str, router: Any) -> None:
    app = Works.options(request_router=router).bind("v1")
    await asyncio.to_thread(serve.run, app, name="killed", route_prefix="/killed")
    killed: set[int] = set()
    async with Load(url + "/killed") as load:
        for _ in range(3):
            await load.until(100)
            victim = load.answers[-1].json()[1] if load.answers[-1].status_code == 200 else None
            if victim is None or victim in killed:
                continue
            killed.add(victim)
            os.kill(victim, signal.SIGKILL)
            at = len(load.answers)
            await load.until(200)
            # It is never asked again, and another one is there.
            late = [answer.json()[1] for answer in load.answers[at + 20 :] if answer.status_code == 200]
            assert victim not in late
    assert load.statuses() == {200: len(load.answers)}
    assert killed
    await asyncio.to_thread(_until_replicas, "killed", "works", 2)


@serve.deployment(name="poisoned", num_replicas=2)
class Poisoned:
    def __init__(self, path: str) -> None:
        self.path = Path(path)

    async def __call__(self, request: Request) -> None:
        with self.path.open("a") as file:
            file.write(f"{request.method} {os.getpid()}\n")
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(("method", "runs"), [("GET", 3), ("POST", 1)])
async def test_a_request_that_kills_replicas_is_repeated_a_few_times_if_it_is_safe_and_then_503(
    url: str, tmp_path: Path, method: str, runs: int
) -> None:
    path = tmp_path / "runs"
    await asyncio.to_thread(serve.run, Poisoned.bind(str(path)), name="poisoned", route_prefix="/poisoned")
    async with httpx.AsyncClient(timeout=30) as client:
        answer = await client.request(method, url + "/poisoned")
    assert (answer.status_code, answer.text) == (503, "the application is not available; the request may have run")
    pids = path.read_text().split()[1::2]
    assert len(set(pids)) == len(pids) == runs
    await asyncio.to_thread(serve.delete, "poisoned")


def _until_replicas(app: str, deployment: str, count: int) -> None:
    while serve.status().applications[app].deployments[deployment].replica_states != {"RUNNING": count}:
        pass


async def test_updates_under_load_drop_nothing(url: str) -> None:
    await asyncio.to_thread(serve.run, Works.bind("v0"), name="updated", route_prefix="/updated")
    async with Load(url + "/updated") as load:
        await load.until(50)
        for number in range(1, 4):
            await asyncio.to_thread(serve.run, Works.bind(f"v{number}"), name="updated", route_prefix="/updated")
            await load.until(50)
        await asyncio.to_thread(
            serve.run, Works.options(num_replicas=1).bind("v3"), name="updated", route_prefix="/updated"
        )
        await load.until(50)
    assert load.statuses() == {200: len(load.answers)}
    versions = [answer.json()[0] for answer in load.answers]
    assert versions[0] == "v0"
    assert versions[-1] == "v3"


@serve.deployment(name="large")
class Large:
    """Answers with far more than fits between it and a client that does not read."""

    async def __call__(self, request: Request) -> Any:
        if request.url.path.endswith("/stream"):
            return self.parts()
        return b"x" * 20_000_000

    async def parts(self) -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 1_000_000


@pytest.mark.parametrize("path", ["", "/stream"])
async def test_a_response_that_is_being_read_arrives_whole_though_its_deployment_goes(url: str, path: str) -> None:
    await asyncio.to_thread(serve.run, Large.bind(), name="large", route_prefix="/large")
    async with httpx.AsyncClient(timeout=20) as client, client.stream("GET", f"{url}/large{path}") as answer:
        parts = answer.aiter_bytes(65536)
        size = len(await anext(parts))
        deleting = asyncio.ensure_future(asyncio.to_thread(serve.delete, "large"))
        async with httpx.AsyncClient(timeout=20) as other:
            while (await other.get(url + "/-/routes")).json().get("/large"):
                pass
        async for part in parts:
            size += len(part)
            # Those who would take the replica away come first.
            await asyncio.sleep(0.001)
    assert size == 20_000_000
    await deleting


async def test_a_call_by_a_handle_says_that_its_replica_died(url: str) -> None:
    handle: Any = await asyncio.to_thread(
        serve.run, Works.options(num_replicas=1).bind("v1"), name="dies", route_prefix=None
    )
    pid = await handle.pid.remote()
    hanging = handle.hang.remote()
    await handle.pid.remote()
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(ReplicaUnavailableError, match="SIGKILL") as died:
        await hanging
    assert died.value.may_have_run
    # What comes now waits for the successor.
    assert await handle.pid.remote() != pid


@serve.deployment(max_ongoing_requests=20)
class Source:
    """The end of a tree of calls: it notes who is cancelled."""

    def __init__(self) -> None:
        self.running = 0
        self.ended = 0

    async def forever(self) -> None:
        self.running += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.running -= 1
            self.ended += 1

    async def numbers(self) -> AsyncIterator[str]:
        self.running += 1
        try:
            number = 0
            while True:
                yield f"{number} "
                number += 1
                await asyncio.sleep(0.001)
        finally:
            self.running -= 1
            self.ended += 1

    async def counts(self) -> tuple[int, int]:
        return self.running, self.ended


@serve.deployment(max_ongoing_requests=20)
class Middle:
    def __init__(self, source: Any) -> None:
        self.source = source

    async def forever(self) -> None:
        await asyncio.gather(*(self.source.forever.remote() for _ in range(3)))

    async def numbers(self) -> AsyncIterator[str]:
        async for number in self.source.options(stream=True).numbers.remote():
            yield number

    async def tasks(self) -> int:
        return len(asyncio.all_tasks())


@serve.deployment(max_ongoing_requests=20)
class Front:
    def __init__(self, middle: Any) -> None:
        self.middle = middle

    async def __call__(self, request: Request) -> Any:
        if request.url.path.endswith("/stream"):
            return StreamingResponse(self.middle.options(stream=True).numbers.remote())
        await self.middle.forever.remote()
        return "never"

    async def tasks(self) -> int:
        return len(asyncio.all_tasks())


async def test_a_client_that_goes_cancels_the_whole_tree_and_leaves_nothing(url: str) -> None:
    graph = Front.bind(Middle.bind(Source.bind()))
    front: Any = await asyncio.to_thread(serve.run, graph, name="tree", route_prefix="/tree")
    source = await asyncio.to_thread(serve.get_deployment_handle, "Source", "tree")
    middle = await asyncio.to_thread(serve.get_deployment_handle, "Middle", "tree")
    host, port = url.removeprefix("http://").split(":")
    tasks: list[list[int]] = []
    for path, calls in (("/tree/stream", 1), ("/tree", 3), ("/tree/stream", 1), ("/tree", 3)):
        _, ended = await source.counts.remote()
        clients: list[asyncio.StreamWriter] = []
        for _ in range(5):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            if "stream" in path:
                await reader.readuntil(b"9 \r\n")
            clients.append(writer)
        while (await source.counts.remote())[0] < 5 * calls:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for writer in clients:
            writer.close()
        while await source.counts.remote() != (0, ended + 5 * calls):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        tasks.append([await handle.tasks.remote() for handle in (front, middle)])
    # After the first round everybody knows everybody: from then on nothing more is left by any request.
    while tasks[-1] != tasks[1]:
        await asyncio.sleep(0.01)
        tasks.append([await handle.tasks.remote() for handle in (front, middle)])


@serve.deployment(max_ongoing_requests=1000)
class Endless:
    def __init__(self) -> None:
        self.running = 0

    async def __call__(self) -> Any:
        return self.parts()

    async def parts(self) -> AsyncIterator[str]:
        self.running += 1
        try:
            yield "begun"
            await asyncio.Event().wait()
        finally:
            self.running -= 1

    async def count(self) -> int:
        return self.running


async def test_clients_that_go_just_as_their_stream_begins_leave_nothing(url: str) -> None:
    handle: Any = await asyncio.to_thread(serve.run, Endless.bind(), name="endless", route_prefix="/endless")
    host, port = url.removeprefix("http://").split(":")
    draw = random.Random(5)
    for _ in range(30):
        clients = [await asyncio.open_connection(host, int(port)) for _ in range(10)]
        for _, writer in clients:
            writer.write(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n")
        for _, writer in clients:
            # No matter how long: somewhere in it the reply is under way.
            await asyncio.sleep(draw.uniform(0, 0.001))
            writer.close()
    while await handle.count.remote():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await asyncio.to_thread(serve.delete, "endless")


async def test_a_proxy_that_is_killed_comes_back_on_its_port_and_no_connection_is_refused(url: str) -> None:
    await asyncio.to_thread(serve.run, Works.bind("v1"), name="proxied", route_prefix="/proxied")
    port = int(url.rsplit(":", 1)[1])
    controllers = {await asyncio.to_thread(pid_of, "controller")}
    for controller_too in (False, True):
        if controller_too:
            # The next one gets the socket from the proxy, before it takes it up.
            os.kill(max(controllers), signal.SIGKILL)
            while (found := await asyncio.to_thread(pid_of, "controller")) in controllers:
                pass
            controllers.add(found)
            while not _listens(found, port):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        killed = await asyncio.to_thread(pid_of, "proxy")
        os.kill(killed, signal.SIGKILL)
        async with httpx.AsyncClient(timeout=20) as client:
            answers = await asyncio.gather(*(client.get(url + path) for path in ("/proxied", "/-/healthz") * 10))
        assert {answer.status_code for answer in answers} == {200}
        assert answers[0].json()[0] == "v1"
        assert await asyncio.to_thread(pid_of, "proxy") != killed


def _listens(pid: int, port: int) -> bool:
    """Has this process the socket that listens on a port of this machine?"""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {f"socket:[{f[9]}]" for f in lines if f[3] == "0A" and int(f[1].split(":")[1], 16) == port}
    found: set[str] = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with suppress(OSError):
            found.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return bool(inodes & found)


async def test_a_killed_controller_comes_back_and_nobody_notices(url: str) -> None:
    handle: Any = await asyncio.to_thread(serve.run, Works.bind("v1"), name="kept", route_prefix="/kept")
    before = {await handle.pid.remote() for _ in range(20)}
    async with Load(url + "/kept") as load:
        await load.until(20)
        os.kill(await asyncio.to_thread(pid_of, "controller"), signal.SIGKILL)
        await load.until(100)
        # It knows what runs, and cares for it.
        status = await asyncio.to_thread(serve.status)
        assert status.applications["kept"].status == "RUNNING"
        await asyncio.to_thread(_until_replicas, "kept", "works", 2)
        assert {await handle.pid.remote() for _ in range(20)} == before
        await load.until(50)
    assert load.statuses() == {200: len(load.answers)}
    os.kill(before.pop(), signal.SIGKILL)
    (left,) = before
    now = {left}
    while len(now) < 2:
        # One call may have been on its way to the victim.
        with suppress(ReplicaUnavailableError):
            now.add(await handle.pid.remote())
    assert left in now
    # And takes orders.
    async with httpx.AsyncClient(timeout=20) as client:
        assert (await client.get(url + "/-/healthz")).status_code == 200
        await asyncio.to_thread(serve.run, Works.bind("v2"), name="kept", route_prefix="/kept")
        assert (await client.get(url + "/kept")).json()[0] == "v2"
    await asyncio.to_thread(serve.delete, "kept")
