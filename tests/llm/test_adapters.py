"""Adapters that are loaded while their model serves, and what the replicas of a front know of each other."""

from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from actorrt.serve.llm import FrontConfig

from .conftest import HELLO, ScriptedApp, run_scripted

ANSWER = [["head", 200, "application/json"], ["say", "{}", 0]]
LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
# So often, that each of two replicas is surely asked: which one is, is drawn by lot.
OFTEN = 20


@pytest.fixture(scope="module")
def fronts(serve_url: str) -> Iterator[ScriptedApp]:
    """Two replicas of the front."""
    app = run_scripted(serve_url, "fronts", FrontConfig(num_replicas=2, live_adapters=True))
    with app.client:
        yield app


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
