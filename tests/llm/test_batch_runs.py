"""How batches run, of a model that does what a request says: cancelled, over, refused at first, several at once."""

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actorrt import serve
from actorrt.serve.llm.front import Front
from actorrt.serve.routing.broadcast import ask_all

from .batch_app import CHAT, BatchClient, line, run_scripted_batches

JSON = ["head", 200, "application/json"]
SAID = [JSON, ["say", '{"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": 1}}', 1]]
FULL = '{"error": {"message": "full", "type": "rate_limit_error", "code": null, "param": null}}'


class TellingFront(Front):
    async def loaded(self) -> list[str]:
        return [name for name in ("sqlite3",) if name in sys.modules]


def scripted(custom_id: str, *script: Any, **fields: Any) -> str:
    messages = [{"role": "user", "content": "hello"}]
    return line(custom_id, model="scripted", messages=messages, script=script, user=custom_id, **fields)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def url(serve_url: str, folder: Path) -> Iterator[str]:
    yield run_scripted_batches(serve_url, "runs", folder, concurrency_unqueued=2)
    serve.delete("runs")


@pytest.fixture
def client(url: str) -> Iterator[BatchClient]:
    made = BatchClient(url)
    with made.http:
        yield made


def model() -> Any:
    return serve.get_deployment_handle("scripted", "runs")


def until(name: str) -> None:
    model().until.remote(name).result(timeout_s=20)


def tell(name: str) -> None:
    model().tell.remote(name).result(timeout_s=20)


def test_a_batch_that_is_cancelled_keeps_the_answers_that_it_has(client: BatchClient) -> None:
    never = ["wait", "never"]
    requests = [scripted("c1", *SAID), scripted("c2", never), scripted("c3", never), scripted("c4", *SAID)]
    id = client.create(requests)["id"]
    until("c2 began")
    until("c3 began")
    while client.get(id)["request_counts"]["completed"] != 1:
        pass
    cancelling = client.http.post(f"/v1/batches/{id}/cancel").json()
    assert cancelling["status"] == "cancelling"
    batch = client.until(id, "cancelled")
    # What ran is ended at its engine.
    until("c2 ended")
    until("c3 ended")
    assert batch["request_counts"] == {"total": 4, "completed": 1, "failed": 3}
    assert batch["created_at"] <= batch["cancelling_at"] <= batch["cancelled_at"]
    output, errors = client.answers(batch)
    assert [each["custom_id"] for each in output] == ["c1"]
    assert [(each["custom_id"], each["error"]["code"]) for each in errors] == [
        (name, "batch_cancelled") for name in ("c2", "c3", "c4")
    ]
    assert all(each["response"] is None for each in errors)


def test_when_the_window_is_over_what_has_no_answer_has_expired(client: BatchClient) -> None:
    requests = [scripted("e1", *SAID), scripted("e2", ["wait", "never"]), scripted("e3", *SAID)]
    batch = client.ended(client.create(requests, completion_window="2s")["id"])
    until("e2 ended")
    assert batch["status"] == "expired"
    assert batch["expired_at"] >= batch["expires_at"]
    assert batch["request_counts"] == {"total": 3, "completed": 2, "failed": 1}
    output, errors = client.answers(batch)
    assert [each["custom_id"] for each in output] == ["e1", "e3"]
    assert [(each["custom_id"], each["error"]["code"]) for each in errors] == [("e2", "batch_expired")]


def test_what_found_no_room_is_made_again_when_that_says(client: BatchClient, tmp_path: Path) -> None:
    # It says retry-after: 7.
    fails = ["fail", str(tmp_path / "calls"), 1, 429, FULL]
    batch = client.ended(client.create([scripted("again", fails, *SAID)])["id"])
    assert batch["completed_at"] - batch["created_at"] >= 7
    assert batch["request_counts"] == {"total": 1, "completed": 1, "failed": 0}
    assert (tmp_path / "calls").stat().st_size == 2


@pytest.mark.parametrize(("script", "status"), [([["raise"]], 502), ([["head", 418, "application/json"]], 418)])
def test_what_failed_is_made_once(client: BatchClient, script: Any, status: int) -> None:
    batch = client.ended(client.create([scripted(f"once-{status}", *script)])["id"])
    _, (error,) = client.answers(batch)
    assert error["response"]["status_code"] == status


def test_so_many_run_at_a_model_at_once_and_two_batches_take_turns(client: BatchClient) -> None:
    first = client.create([scripted(f"x{n}", ["wait", f"x{n}"], *SAID) for n in range(4)])["id"]
    until("x0 began")
    until("x1 began")
    second = client.create([scripted(f"y{n}", ["wait", f"y{n}"], *SAID) for n in range(2)])["id"]
    client.until(second, "in_progress")
    tell("x0")
    until("y0 began")  # before what is for who has as many as may run
    for name in ("x1", "x2", "x3", "y0", "y1"):
        tell(name)
    assert [client.ended(id)["status"] for id in (first, second)] == ["completed"] * 2


def test_a_request_is_the_one_that_a_client_would_make_but_for_its_tenant(client: BatchClient) -> None:
    body = json.loads(scripted("same", *SAID))["body"]
    client.ended(client.create([json.dumps({"custom_id": "same", "method": "POST", "url": CHAT, "body": body})])["id"])
    client.http.post(CHAT, json=body)
    calls = model().calls.remote().result(timeout_s=20)
    of_batch, by_http = calls[-2:]
    assert (of_batch[0], json.loads(of_batch[1]), of_batch[2]) == (by_http[0], json.loads(by_http[1]), by_http[2])
    assert dict(of_batch[3])["x-request-id"] != dict(by_http[3])["x-request-id"]


def test_a_file_that_is_deleted_is_read_to_its_end_by_its_batch(client: BatchClient, folder: Path) -> None:
    made = client.create([scripted("d1", ["wait", "d1"], *SAID), scripted("d2", *SAID)])
    until("d1 began")
    file = made["input_file_id"]
    assert client.http.delete(f"/v1/files/{file}").status_code == 200
    assert client.http.get(f"/v1/files/{file}/content").status_code == 404
    assert (folder / "files" / file).exists()
    tell("d1")
    assert client.ended(made["id"])["request_counts"]["completed"] == 2
    client.upload("x")
    client.http.delete(f"/v1/files/{client.upload('x').json()['id']}")  # whoever deletes has all looked through
    while (folder / "files" / file).exists():
        pass


def test_a_batch_whose_file_somebody_took_from_the_disk_ends_with_the_answers_that_it_has(
    client: BatchClient, folder: Path
) -> None:
    made = client.create([scripted("t1", *SAID), scripted("t2", ["wait", "never"])])
    until("t2 began")
    while client.get(made["id"])["request_counts"]["completed"] != 1:
        pass
    (folder / "files" / made["input_file_id"]).unlink()
    client.http.post(f"/v1/batches/{made['id']}/cancel")
    batch = client.ended(made["id"])
    assert (batch["status"], batch["request_counts"]) == ("cancelled", {"total": 2, "completed": 1, "failed": 1})
    assert [each["custom_id"] for each in client.answers(batch)[0]] == ["t1"]


def test_a_file_that_somebody_took_from_the_disk_fails_its_batch(client: BatchClient, folder: Path) -> None:
    file = client.upload([scripted("gone", *SAID)]).json()["id"]
    (folder / "files" / file).unlink()
    asked = {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}
    batch = client.ended(client.http.post("/v1/batches", json=asked).json()["id"])
    assert batch["errors"]["data"][0]["code"] == "file_not_found"
    assert client.http.get(f"/v1/files/{file}/content").status_code == 500


def test_what_batches_need_is_loaded_by_who_uses_them(serve_url: str, tmp_path: Path) -> None:
    url = run_scripted_batches(serve_url, "loads", tmp_path / "kept", TellingFront, lease_s=0.1)

    def loaded() -> Any:
        handle = serve.get_deployment_handle("front", "loads")
        (answer,) = asyncio.run(ask_all(handle, "loaded", timeout_s=20)).values()
        return answer

    with (client := BatchClient(url)).http:
        body = json.loads(scripted("a", *SAID))["body"]
        assert client.http.post(CHAT, json=body).status_code == 200
        assert loaded() == []
        assert not (tmp_path / "kept").exists()
        assert client.upload("x").status_code == 200
        assert loaded() == ["sqlite3"]
    serve.delete("loads")
