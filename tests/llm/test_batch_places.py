"""Batches beside others that wait: for a slow model, for a tenant's limit, to be made again, or for their turn."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actorrt import serve
from actorrt.cli.status_tables import of_batches
from actorrt.serve.declaration.declaration import Deployment
from actorrt.serve.declaration.options import DeploymentOptions
from actorrt.serve.llm import ApiKey, BatchConfig, FrontConfig, LLMConfig, SimulatedEngine
from actorrt.serve.llm.app import build_llm_deployment
from actorrt.serve.llm.batches.counts import Counts
from actorrt.serve.llm.batches.runner import MOST_AT_ONCE
from actorrt.serve.llm.front import Front
from actorrt.serve.llm.responses.store import bind_store

from .batch_app import BatchClient, chat, line
from .scripted import scripted

HEAD = ["head", 200, "application/json"]
ANSWER = [HEAD, ["say", '{"choices": []}', 1]]
FULL = '{"error": {"message": "full", "type": "rate_limit_error", "code": null, "param": null}}'
IN_HAND = 3


def asks(custom_id: str, *script: Any) -> str:
    messages = [{"role": "user", "content": "hello"}]
    return line(custom_id, model="scripted", messages=messages, script=script, user=custom_id)


@pytest.fixture(params=["power_of_two", "capacity_queue"])
def url(serve_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    # Who asks whether a batch has begun is of a higher band, and takes one of four places.
    bands = [{"name": name} for name in ("priority", "default", "flex", "batch")]
    queue = serve.RequestRouterConfig("capacity_queue", {"bands": bands})
    deployment: dict[str, Any] = {"request_router": queue if request.param == "capacity_queue" else request.param}
    slow = LLMConfig(model_id="scripted", engine=SimulatedEngine(), deployment=deployment)
    fast = LLMConfig(model_id="fake", engine=SimulatedEngine(speed=100), deployment=deployment)
    batches = BatchConfig(folder=str(tmp_path), concurrency=IN_HAND, concurrency_unqueued=IN_HAND)
    config = FrontConfig(batches=batches, keys=[ApiKey.of(name, name) for name in ("ka", "kb")])
    options = DeploymentOptions(name="front", max_ongoing_requests=1000)
    models = [(slow, scripted(**deployment)), (fast, build_llm_deployment(fast, name="fast"))]
    serve.run(
        Deployment[Front](Front, options).bind(config, models, bind_store(config)), name="places", route_prefix="/p"
    )
    yield f"{serve_url}/p"
    serve.delete("places")


@pytest.fixture
def client(url: str) -> Iterator[BatchClient]:
    made = BatchClient(url, "ka")
    with made.http:
        yield made


def until(name: str) -> None:
    serve.get_deployment_handle("scripted", "places").until.remote(name).result(timeout_s=20)


def holds_all_places(client: BatchClient) -> str:
    """A batch whose requests are never answered."""
    waiting = client.create([asks(f"{client.key}{n}", ["wait", "never"]) for n in range(2 * IN_HAND)])["id"]
    for n in range(IN_HAND):
        until(f"{client.key}{n} began")
    return waiting


def test_a_model_that_does_not_answer_holds_up_no_batch_at_another(client: BatchClient) -> None:
    holds_all_places(client)
    batch = client.ended(client.create([chat(str(n)) for n in range(2 * IN_HAND)])["id"])
    assert (batch["status"], batch["request_counts"]["completed"]) == ("completed", 2 * IN_HAND)


@pytest.mark.parametrize("url", ["capacity_queue"], indirect=True)
def test_people_are_shown_how_far_batches_are_by_model(client: BatchClient) -> None:
    holds_all_places(client)
    client.ended(client.create([chat(str(n)) for n in range(4)] + [chat("bad", max_tokens=-1)])["id"])
    client.ended(client.create(["no request"])["id"])
    shown = {each.model: each for each in serve.llm.batch_statuses()}
    assert (shown["scripted"].batches, shown["scripted"].requests) == (
        Counts(running=1),
        Counts(queued=IN_HAND, running=IN_HAND),
    )
    assert (shown["fake"].batches, shown["fake"].requests) == (Counts(done=1), Counts(done=4, failed=1))
    assert (shown[""].batches, shown[""].requests) == (Counts(failed=1), Counts())
    assert {each.application for each in shown.values()} == {"places"}
    lines = [each.split() for each in of_batches(serve.llm.batch_statuses()).splitlines()]
    assert ["scripted", "requests", str(IN_HAND), str(IN_HAND), "0", "0"] in lines
    assert ["fake", "batches", "0", "0", "1", "0"] in lines
    metrics = client.http.get("/metrics").text.splitlines()
    assert 'actorrt_llm_batch_lines{gen_ai_request_model="scripted",state="running"} 3.0' in metrics
    assert 'actorrt_llm_batch_lines{gen_ai_request_model="fake",state="done"} 4.0' in metrics


@pytest.mark.parametrize("url", ["capacity_queue"], indirect=True)
def test_before_a_capacity_queue_no_tenant_holds_up_another(client: BatchClient, url: str) -> None:
    holds_all_places(client)
    other = BatchClient(url, "kb")
    with other.http:
        batch = other.ended(other.create([asks(f"b{n}", *ANSWER) for n in range(2 * IN_HAND)])["id"])
    assert (batch["status"], batch["request_counts"]["completed"]) == ("completed", 2 * IN_HAND)


def test_what_was_refused_holds_no_place_until_it_is_made_again(client: BatchClient, tmp_path: Path) -> None:
    # Each says retry-after: 7, for ever.
    refused = [asks(f"r{n}", ["fail", str(tmp_path / f"r{n}"), 1_000_000, 429, FULL]) for n in range(2 * IN_HAND)]
    first = client.create(refused)["id"]
    for n in range(IN_HAND):
        until(f"r{n} ended")
    batch = client.ended(client.create([asks(f"o{n}", *ANSWER) for n in range(2 * IN_HAND)])["id"])
    assert batch["status"] == "completed"
    # No further ones of the first were made meanwhile.
    assert not (tmp_path / f"r{IN_HAND}").exists()
    assert client.get(first)["request_counts"]["completed"] == 0


@pytest.mark.parametrize("url", ["capacity_queue"], indirect=True)
def test_a_batch_that_waits_for_its_turn_can_be_cancelled_and_its_window_ends(client: BatchClient) -> None:
    for number in range(MOST_AT_ONCE):
        client.create([asks(f"w{number}", ["wait", "never"])])
    until("w0 began")
    waiting = client.create([asks("cancelled", *ANSWER)])["id"]
    over = client.create([asks("over", *ANSWER)], completion_window="1s")["id"]
    assert client.http.post(f"/v1/batches/{waiting}/cancel").json()["status"] == "cancelling"
    batch = client.until(waiting, "cancelled")
    assert batch["request_counts"] == {"total": 1, "completed": 0, "failed": 1}
    assert client.answers(batch)[1][0]["error"]["code"] == "batch_cancelled"
    batch = client.until(over, "expired")
    assert client.answers(batch)[1][0]["error"]["code"] == "batch_expired"


@pytest.mark.parametrize("url", ["capacity_queue"], indirect=True)
def test_a_tenant_of_whom_none_is_worked_on_waits_for_no_others_batches(client: BatchClient, url: str) -> None:
    for number in range(MOST_AT_ONCE + 1):
        client.create([asks(f"t{number}", ["wait", "never"])])
    until("t0 began")
    other = BatchClient(url, "kb")
    with other.http:
        assert other.ended(other.create([asks("b", *ANSWER)])["id"])["status"] == "completed"
