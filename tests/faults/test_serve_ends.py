"""How a replica ends: what it was asked to do is done, and its user's code is told, before its process goes."""

import asyncio
import atexit
from collections.abc import Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import fastapi
import httpx
import pytest
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse

from actorrt import serve
from actorrt.serve.exceptions import DeployFailedError


@pytest.fixture(scope="module")
def url(node: None) -> Iterator[str]:
    yield serve.start({"port": 0})
    serve.shutdown()


@serve.deployment
class Log:
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.events: dict[str, asyncio.Event] = {}

    async def note(self, what: str) -> None:
        self.notes.append(what)
        self.event(what).set()

    async def wait_for(self, what: str) -> None:
        await self.event(what).wait()

    async def all(self) -> list[str]:
        return self.notes

    def event(self, what: str) -> asyncio.Event:
        return self.events.setdefault(what, asyncio.Event())


@pytest.fixture(scope="module")
def log(url: str) -> Any:
    return serve.run(Log.bind(), name="log", route_prefix=None)


def orders(log: Any, version: int) -> Any:
    """A deployment whose work goes on after its response, until the log has "go on"."""
    api = fastapi.FastAPI()

    async def store(name: str) -> None:
        await log.note.remote(f"{name} begun")
        await log.wait_for.remote("go on")
        await log.note.remote(f"{name} stored")

    @serve.deployment(name="Orders")
    @serve.ingress(api)
    class Orders:
        def __init__(self, version: int) -> None: ...

        @api.get("/fastapi")
        async def order(self, tasks: fastapi.BackgroundTasks) -> str:
            tasks.add_task(store, "fastapi")
            return "accepted"

        @api.get("/starlette")
        async def with_background(self) -> fastapi.Response:
            return PlainTextResponse("accepted", background=BackgroundTask(store, "starlette"))

    return Orders.bind(version)


def test_work_that_was_accepted_is_done_although_its_replica_is_updated(url: str, log: Any) -> None:
    serve.run(orders(log, 1), name="orders", route_prefix="/orders")
    for kind in ("fastapi", "starlette"):
        assert "accepted" in httpx.get(f"{url}/orders/{kind}", timeout=20).text
        log.wait_for.remote(f"{kind} begun").result(timeout_s=20)
    serve.run(orders(log, 2), name="orders", route_prefix="/orders")
    log.note.remote("go on").result(timeout_s=20)
    for kind in ("fastapi", "starlette"):
        log.wait_for.remote(f"{kind} stored").result(timeout_s=20)
    # And one that is deleted: the delete waits for it.
    httpx.get(f"{url}/orders/fastapi", timeout=20)
    serve.delete("orders")
    assert log.all.remote().result(timeout_s=20).count("fastapi stored") == 2


def test_all_that_ends_with_a_replica_has_run_when_a_delete_returns(url: str, log: Any, tmp_path: Path) -> None:
    steps = tmp_path / "steps"

    def step(what: str) -> None:
        with steps.open("a") as file:
            file.write(what + "\n")

    @asynccontextmanager
    async def lifespan(app: Any) -> Any:
        yield
        step("lifespan")
        log.note.remote("said by the lifespan")

    api = fastapi.FastAPI(lifespan=lifespan)

    @serve.deployment
    @serve.ingress(api)
    class Ends:
        def __init__(self) -> None:
            atexit.register(self.at_exit)

        @api.get("/")
        async def get(self) -> str:
            return serve.get_replica_context().deployment

        def at_exit(self) -> None:
            # In a thread without a loop, so that it may run one.
            asyncio.run(asyncio.sleep(0))
            step("atexit")
            log.note.remote("said by atexit").result(timeout_s=20)

        def __del__(self) -> None:
            step(f"__del__ of {serve.get_replica_context().deployment}")
            log.note.remote("said by __del__")

    @serve.deployment
    class EndsAsync:
        async def __del__(self) -> None:
            await log.note.remote("said by async __del__")

        async def __call__(self) -> None: ...

    serve.run(Ends.bind(), name="ends", route_prefix="/ends")
    serve.run(EndsAsync.bind(), name="ends-async", route_prefix=None)
    assert httpx.get(url + "/ends/", timeout=20).json() == "Ends"
    serve.delete("ends")
    serve.delete("ends-async")
    assert steps.read_text().splitlines() == ["lifespan", "__del__ of Ends", "atexit"]
    notes = log.all.remote().result(timeout_s=20)
    said = [f"said by {what}" for what in ("the lifespan", "__del__", "atexit", "async __del__")]
    assert [each for each in said if notes.count(each) == 1] == said


def test_what_a_constructor_that_fails_has_called_and_left_to_its_end_is_done(log: Any, tmp_path: Path) -> None:
    @serve.deployment(max_constructor_retry_count=1)
    class Fails:
        def __init__(self) -> None:
            atexit.register((tmp_path / "exit").touch)
            log.note.remote("said by a constructor")
            raise ValueError("told to")

        def __del__(self) -> None:
            (tmp_path / "del").touch()

        async def __call__(self) -> None: ...

    with suppress(DeployFailedError):
        serve.run(Fails.bind(), name="fails", route_prefix=None)
    serve.delete("fails")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["del", "exit"]
    assert "said by a constructor" in log.all.remote().result(timeout_s=20)
