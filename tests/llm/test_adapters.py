"""Adapters that are loaded while their model serves, and what the replicas of a front know of each other."""

import asyncio
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from actorrt import serve
from actorrt.serve.broadcast import ask_all
from actorrt.serve.declaration import Deployment
from actorrt.serve.llm import FrontConfig, LLMConfig, SimulatedEngine
from actorrt.serve.llm.front import Front
from actorrt.serve.options import DeploymentOptions

from .conftest import HELLO, ScriptedApp, run_scripted
from .scripted import PATHS, Scripted

ANSWER = [["head", 200, "application/json"], ["say", "{}", 0]]
LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
# So often, that each of two replicas is surely asked: which one is, is drawn by lot.
OFTEN = 20


class MortalFront(Front):
    async def pid(self) -> int:
        return os.getpid()


@pytest.fixture(scope="module")
def fronts(serve_url: str) -> Iterator[ScriptedApp]:
    """Two replicas of the front."""
    app = run_scripted(serve_url, "fronts", FrontConfig(num_replicas=2, live_adapters=True), kind=MortalFront)
    with app.client:
        yield app


def pids() -> dict[str, Any]:
    """The processes of the front's replicas that answer."""
    front = serve.get_deployment_handle("front", "fronts")
    answers = asyncio.run(ask_all(front, "pid", timeout_s=20))
    return {id: answer for id, answer in answers.items() if isinstance(answer, int)}


def statuses(app: ScriptedApp, model: str) -> set[int]:
    request = {"model": model, "messages": HELLO, "script": ANSWER}
    return {app.client.post("/v1/chat/completions", json=request).status_code for _ in range(OFTEN)}


def test_an_adapter_is_a_model_for_all_fronts_from_its_loading_to_its_unloading(fronts: ScriptedApp) -> None:
    assert statuses(fronts, "poet") == {404}
    loaded = fronts.client.post(LOAD, json={"lora_name": "poet", "lora_path": "/poet"})
    assert (loaded.status_code, loaded.text) == (200, "Success: LoRA adapter 'poet' added successfully.")
    assert statuses(fronts, "poet") == {200}
    _, body, _, headers = fronts.last_call()
    assert b'"model":"poet"' in body
    # What a replica of the model that has not loaded it needs for that.
    assert ("x-actorrt-adapter", "poet=/poet") in headers
    assert fronts.ask("adapters") == {"poet": "/poet"}
    assert fronts.client.get("/v1/models/poet").json()["parent"] == "scripted"
    again = fronts.client.post(LOAD, json={"lora_name": "poet", "lora_path": "/other"})
    assert (again.status_code, again.json()["error"]["param"]) == (400, "lora_name")
    assert fronts.client.post(UNLOAD, json={"lora_name": "poet"}).status_code == 200
    assert statuses(fronts, "poet") == {404}
    assert fronts.ask("adapters") == {}


def test_an_adapter_that_cannot_be_loaded_is_none(fronts: ScriptedApp) -> None:
    refused = fronts.client.post(LOAD, json={"lora_name": "lost", "lora_path": "missing"})
    assert (refused.status_code, refused.json()["error"]["message"]) == (400, "there is no adapter file 'missing'")
    assert statuses(fronts, "lost") == {404}
    assert fronts.client.post(UNLOAD, json={"lora_name": "lost"}).status_code == 404


def test_what_is_loaded_beside_one_that_fails_stays(fronts: ScriptedApp) -> None:
    lost = {"lora_name": "lost", "lora_path": "missing after good"}
    with ThreadPoolExecutor(1) as pool:
        refused = pool.submit(fronts.client.post, LOAD, json=lost)
        fronts.until("lost is loaded")
        try:
            assert fronts.client.post(LOAD, json={"lora_name": "good", "lora_path": "/good"}).status_code == 200
        finally:
            fronts.tell("good")
        assert refused.result().status_code == 400
    assert statuses(fronts, "good") == {200}
    assert statuses(fronts, "lost") == {404}
    assert fronts.client.post(UNLOAD, json={"lora_name": "good"}).status_code == 200


def test_a_front_that_comes_later_knows_what_was_loaded_at_its_first_requests(fronts: ScriptedApp) -> None:
    assert fronts.client.post(LOAD, json={"lora_name": "early", "lora_path": "/early"}).status_code == 200
    killed, *_ = pids().values()
    os.kill(killed, signal.SIGKILL)
    while killed in (now := pids().values()) or len(now) < 2:
        pass
    request = {"model": "early", "messages": HELLO, "script": ANSWER}
    with ThreadPoolExecutor(OFTEN) as pool:
        asked = [pool.submit(fronts.client.post, "/v1/chat/completions", json=request) for _ in range(OFTEN)]
        assert {each.result().status_code for each in asked} == {200}
    assert fronts.client.post(UNLOAD, json={"lora_name": "early"}).status_code == 200


class Late(Scripted):
    """Its model is loaded when something comes through a named pipe."""

    async def __init__(self, pipe: str) -> None:  # pyright: ignore[reportGeneralTypeIssues]
        await asyncio.to_thread(Path(pipe).read_bytes)
        super().__init__(PATHS, True)


def test_an_adapter_waits_for_its_model_to_be_there(serve_url: str, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    model = LLMConfig(model_id="late", engine=SimulatedEngine())
    late = serve.deployment(name="late")(Late).bind(str(pipe))
    front = Deployment[Front](Front, DeploymentOptions(name="front", max_ongoing_requests=100))
    app = front.bind(FrontConfig(live_adapters=True), [(model, late)])
    with (
        ThreadPoolExecutor(2) as pool,
        httpx.Client(base_url=f"{serve_url}/late", timeout=20, trust_env=False) as client,
    ):
        deployed = pool.submit(serve.run, app, name="late", route_prefix="/late")
        while client.get("/v1/models").status_code != 200:
            pass
        loaded = pool.submit(client.post, LOAD, json={"lora_name": "poet", "lora_path": "/poet"})
        assert client.get("/v1/models/poet").status_code == 404
        pipe.write_bytes(b"x")
        deployed.result()
        assert loaded.result().status_code == 200
        assert client.get("/v1/models/poet").status_code == 200


def test_without_the_setting_nobody_loads_files_of_the_server(scripted_app: ScriptedApp) -> None:
    refused = scripted_app.client.post(LOAD, json={"lora_name": "x", "lora_path": "/x"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "not_allowed")


def test_each_scrape_shows_what_all_fronts_have_counted(fronts: ScriptedApp) -> None:
    def counted() -> dict[str, float]:
        text = fronts.client.get("/metrics").text
        return {
            sample.labels["front"]: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "gen_ai_server_request_duration_seconds_count" and not sample.labels["error_type"]
            if sample.labels["gen_ai_request_model"] == "scripted"
        }

    before = sum(counted().values())
    assert statuses(fronts, "scripted") == {200}
    after = counted()
    assert len(after) == 2
    assert sum(after.values()) == before + OFTEN
    assert counted() == after
