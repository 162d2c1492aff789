"""A model's streams of the last band make way for others, and go on when there is room again."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from actorrt import serve
from actorrt.serve.llm import LLMConfig, SimulatedEngine, build_openai_app

from ..serve.queues import until_idle

BATCH = {"service_tier": "batch", "stream": True, "ignore_eos": True, "stream_options": {"include_usage": True}}


@pytest.fixture(scope="module", params=[0, 3])
def app(serve_url: str, request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """Its address, and how often a stream may go on elsewhere."""
    bands = [{"name": "default"}, {"name": "batch"}]
    router = serve.RequestRouterConfig("capacity_queue", {"sheds": True, "bands": bands})
    options = {"max_ongoing_requests": 1, "request_router": router}
    engine = SimulatedEngine(kv_tokens=40_000, slots=1, context=20_000, decode_step_s=0.002)
    model = LLMConfig(model_id="simulated", engine=engine, deployment=options, max_resumes=request.param)
    name = f"shed-{request.param}"
    serve.run(build_openai_app(model), name=name, route_prefix=f"/{name}")
    yield f"{serve_url}/{name}/v1/chat/completions", request.param
    serve.delete(name)


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "simulated", "messages": [{"role": "user", "content": "hello"}], **fields}


async def test_a_stream_that_makes_way_goes_on_later_or_says_that_it_does_not(app: tuple[str, int]) -> None:
    url, resumes = app
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        said: list[dict[str, Any]] = []
        begun = asyncio.Event()

        async def stream() -> None:
            async with client.stream("POST", url, json=chat(**BATCH, max_tokens=400, seed=1)) as answer:
                assert answer.status_code == 200
                async for line in answer.aiter_lines():
                    if line.startswith("data: {"):
                        said.append(json.loads(line[6:]))
                        begun.set()

        streams = asyncio.ensure_future(stream())
        await begun.wait()
        urgent = await client.post(url, json=chat(max_tokens=2))
        assert urgent.status_code == 200
        assert not streams.done() or not resumes
        await streams
    if resumes:
        tokens = sum(bool(each["choices"] and each["choices"][0]["delta"].get("content")) for each in said)
        assert tokens == 400
        assert not any("error" in each for each in said)
    else:
        assert "it was stopped for one of a higher band" in said[-1]["error"]["message"]
        assert said[-1]["error"]["type"] == "rate_limit_error"
    name = f"shed-{resumes}"
    assert await until_idle(name, "model:simulated")


async def test_before_its_first_byte_it_waits_again_or_is_429(app: tuple[str, int]) -> None:
    url, resumes = app
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        batch = asyncio.ensure_future(
            client.post(url, json=chat(service_tier="batch", max_tokens=300, ignore_eos=True, seed=1))
        )
        load = url.replace("/v1/chat/completions", "/load")
        while not (await client.get(load)).json()["running"]:
            pass
        assert (await client.post(url, json=chat(max_tokens=2))).status_code == 200
        answer = await batch
    if resumes:
        assert (answer.status_code, answer.json()["usage"]["completion_tokens"]) == (200, 300)
    else:
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.headers["x-actorrt-ticket"]
    assert await until_idle(f"shed-{resumes}", "model:simulated")
