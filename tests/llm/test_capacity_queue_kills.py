"""A language model in a server of its own behind a capacity queue: something is killed while answers stream."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from actorrt import serve
from actorrt.serve.declaration.spec import DeploymentId
from actorrt.serve.llm import LLMConfig, ServerEngine, build_openai_app
from actorrt.serve.routing.broadcast import ask_all
from actorrt.serve.routing.router import router_of

from ..faults.processes_of_serve import end, pid_of
from ..serve.queues import queue_of, statistics, until_idle

APP, MODEL = "killed", "model:simulated"
SLOTS = 3
TOKENS = 150
# Of answers that nobody reads to their end. This server does not hear that they are left, and goes on with them.
LONG = 1000
ENGINE = {"simulated": {"kind": "simulated", "decode_step_s": 0.005, "slots": SLOTS}}
COMMAND = [sys.executable, "-m", "loadtests.servers.llm_uvicorn", "{port}", json.dumps(ENGINE)]


@pytest.fixture(scope="module")
def url(serve_url: str) -> Iterator[str]:
    engine = ServerEngine(command=COMMAND, slots=SLOTS, context=8192, kv_tokens=50_000, continues_chat=True)
    deployment = {"num_replicas": 2, "request_router": "capacity_queue"}
    model = LLMConfig(model_id="simulated", engine=engine, deployment=deployment, max_resumes=10)
    serve.run(build_openai_app(model), name=APP, route_prefix=f"/{APP}")
    yield f"{serve_url}/{APP}/v1/chat/completions"
    serve.delete(APP)


def asked(tokens: int) -> dict[str, Any]:
    return {
        "model": "simulated", "messages": [{"role": "user", "content": "Tell a story."}],
        "stream": True, "max_tokens": tokens, "ignore_eos": True,
    }  # fmt: skip


async def text_of(client: httpx.AsyncClient, url: str, begun: asyncio.Event | None = None) -> str:
    """All of an answer; `begun` is set when the first of it has come."""
    text = ""
    async with client.stream("POST", url, json=asked(TOKENS)) as answer:
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                text += json.loads(line[6:])["choices"][0]["delta"].get("content") or ""
                if text and begun is not None:
                    begun.set()
    assert line == "data: [DONE]" or not line
    return text


async def pids_of_engines() -> list[int]:
    handle = await asyncio.to_thread(serve.get_deployment_handle, MODEL, APP)
    told = await ask_all(handle, "statistics", timeout_s=20)
    return [int(each["pid"]) for each in told.values()]


async def pid_of_a_replica() -> int:
    target = next(iter(router_of(DeploymentId(APP, MODEL)).targets().values()))
    return int((await target.handle.where.remote())[0])


async def all_is_given_again(url: str) -> None:
    """Each slot once, and none twice."""
    await until_idle(APP, MODEL)
    async with httpx.AsyncClient(timeout=60) as client, AsyncExitStack() as stack:
        for _ in range(2 * SLOTS):
            answer = await stack.enter_async_context(client.stream("POST", url, json=asked(LONG)))
            assert answer.status_code == 200
        waits = asyncio.ensure_future(text_of(client, url))
        while True:
            found = await statistics(APP, MODEL)
            lines = [(line["running"], line["begun"], line["slots"]) for line in found["lines"]]
            if lines == [(SLOTS, SLOTS, SLOTS)] * 2 and found["tenants"].get("default", {}).get("waiting") == 1:
                break
            await asyncio.sleep(0)
        await stack.aclose()
        while (await statistics(APP, MODEL))["tenants"]:  # noqa: ASYNC110
            await asyncio.sleep(0)
        waits.cancel()
    await until_idle(APP, MODEL)


@pytest.mark.parametrize("killed", ["queue", "replica", "engine", "engines", "controller"])
async def test_streams_and_those_that_wait_get_their_whole_answer_whatever_is_killed(url: str, killed: str) -> None:
    async with httpx.AsyncClient(timeout=60) as client:
        undisturbed = await text_of(client, url)
        engines = await pids_of_engines()
        assert len(engines) == 2
        begun = asyncio.Event()
        streams = [asyncio.ensure_future(text_of(client, url, begun)) for _ in range(2 * SLOTS)]
        await begun.wait()
        # These wait for a place.
        streams += [asyncio.ensure_future(text_of(client, url)) for _ in range(SLOTS)]
        match killed:
            case "queue":
                queue = await queue_of(APP, MODEL)
                pids = [await queue.__ray_call__.remote(lambda _: os.getpid())]
            case "replica":
                pids = [await pid_of_a_replica()]
            case "controller":
                pids = [await asyncio.to_thread(pid_of, "controller")]
            case _:
                pids = engines[: 2 if killed == "engines" else 1]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert set(await asyncio.gather(*streams)) == {undisturbed}
    assert (sorted(await pids_of_engines()) == sorted(engines)) == (killed in ("queue", "controller"))
    await all_is_given_again(url)


async def test_a_killed_proxy_gives_back_what_its_clients_had(url: str) -> None:
    async with httpx.AsyncClient(timeout=60) as client, AsyncExitStack() as stack:
        for _ in range(2 * SLOTS):
            answer = await stack.enter_async_context(client.stream("POST", url, json=asked(LONG)))
            assert answer.status_code == 200
        await asyncio.to_thread(end, await asyncio.to_thread(pid_of, "proxy"))
    await all_is_given_again(url)
