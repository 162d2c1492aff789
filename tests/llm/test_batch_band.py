"""Beside batches, behind a capacity queue: whoever waits for an answer goes before them."""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actorrt import serve
from actorrt.serve.routing.broadcast import ask_all

from .batch_app import CHAT, BatchClient, line, run_scripted_batches

JSON = ["head", 200, "application/json"]
SAID = [JSON, ["say", '{"choices": []}', 1]]
HELLO = [{"role": "user", "content": "hello"}]
LINES = 12


@pytest.fixture(params=[None, ["urgent", "default", "nightly"]], ids=["bands", "other bands"])
def client(serve_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[BatchClient]:
    bands = {} if request.param is None else {"bands": [{"name": name} for name in request.param]}
    router = serve.RequestRouterConfig("capacity_queue", bands)
    deployment = {"max_ongoing_requests": 1, "request_router": router}
    url = run_scripted_batches(serve_url, "band", tmp_path, deployment=deployment, concurrency=8)
    made = BatchClient(url)
    with made.http:
        yield made
    serve.delete("band")


def waiting() -> int:
    return sum(tenant.waiting for queue in serve.queues() for tenant in (queue.tenants or {}).values())


def ask(method: str, *args: Any) -> Any:
    """Ask the model's replica aside of requests: it has room for one."""
    model = serve.get_deployment_handle("scripted", "band")
    (answer,) = asyncio.run(ask_all(model, method, *args, timeout_s=20)).values()
    return answer


def test_a_request_that_somebody_waits_for_goes_before_all_that_batches_have_waiting(client: BatchClient) -> None:
    fields: dict[str, Any] = {"model": "scripted", "messages": HELLO, "service_tier": "priority"}
    waits = [["wait", "go"], *SAID]
    id = client.create(line(str(number), **fields, script=waits, user=str(number)) for number in range(LINES))["id"]
    while not ask("calls"):
        pass  # one has its turn
    while waiting() < 7:
        pass  # as many as the front has in hand
    asked = {"model": "scripted", "messages": HELLO, "script": SAID, "user": "person"}
    person = threading.Thread(target=lambda: client.http.post(CHAT, json=asked).raise_for_status())
    person.start()
    while waiting() < 8:
        pass
    ask("tell", "go")
    person.join()
    assert client.ended(id)["request_counts"]["completed"] == LINES
    users = [json.loads(body)["user"] for _, body, *_ in ask("calls")]
    # One of them ran before the person came.
    assert users.index("person") == 1
    assert sorted(users) == sorted(["person", *map(str, range(LINES))])
